"""Client order ids: 12 characters of the installation's random id and 13 of the gate's token.

Crockford's base32, 25 alphanumerics: short enough for every venue we know, never reused, and
enough to find an order's token again from the venue's side after everything of ours is lost.
"""

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
INSTALLATION_LENGTH = 12
TOKEN_LENGTH = 13


def encode_client_id(installation: str, token: int) -> str:
    """Return the client order id of a token."""
    digits = []
    for _ in range(TOKEN_LENGTH):
        token, digit = divmod(token, len(CROCKFORD))
        digits.append(CROCKFORD[digit])
    return installation + "".join(reversed(digits))


def decode_client_id(installation: str, client_id: str) -> int | None:
    """Return the token of a client order id, or None if it is not this installation's."""
    digits = client_id[INSTALLATION_LENGTH:]
    if not client_id.startswith(installation) or len(digits) != TOKEN_LENGTH:
        return None
    token = 0
    for digit in digits:
        place = CROCKFORD.find(digit)
        if place < 0:
            return None
        token = token * len(CROCKFORD) + place
    return token
