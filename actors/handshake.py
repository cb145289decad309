"""How two processes of one tree prove to each other that they belong to it. Pure: no I/O.

The port of an actor is open to every process of the host, whatever its user. So before anything
else is said, both ends prove that they hold the tree's secret, which the root made and which only
its own children inherit:

1. connector -> acceptor: label, own name, nonce
2. acceptor -> connector: label, own name, nonce
3. connector -> acceptor: HMAC-SHA256(secret, "connector", both names, both nonces, address)
4. acceptor -> connector: HMAC-SHA256(secret, "acceptor", the same)

The connector proves itself first and the acceptor answers only what it has verified: an acceptor
that proved itself first could be used to answer the challenge of another one. The role in the MAC
makes a reflected proof worthless, the nonces an old one, the names one that was meant for another,
and the acceptor's address (as the connector dialled it, as the acceptor bound it) one that somebody
passes on from a port of his own. What is *not* protected: the bytes after the handshake, from
whoever may read and write this process' memory or sockets (the same user, root).
"""

import hashlib
import hmac
import secrets
from typing import Annotated

import msgspec

LABEL = "tripgate-tree-1"
"""Names protocol and version: a peer of another version is refused, not misread."""
SECRET_BYTES = 32
NONCE_BYTES = 32
PROOF_BYTES = 32
NAME_CHARACTERS_MAX = 128
CONNECTOR, ACCEPTOR = "connector", "acceptor"
"""The roles; a proof is worth nothing in the other one."""

Name = tuple[
    Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)],
    Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)],
]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Mac = Annotated[bytes, msgspec.Meta(min_length=PROOF_BYTES, max_length=PROOF_BYTES)]


class HandshakeError(Exception):
    """The peer is none of this tree. Gate effect: none, the connection is closed unheard."""


class Greeting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first message of either end: who it is, and what the other one must answer to."""

    label: str
    name: Name
    nonce: Nonce


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The second message of either end."""

    mac: Mac


class Talk(msgspec.Struct, frozen=True):
    """What both proofs are about.

    Attributes
    ----------
    connector, acceptor
        The greetings of the two ends.
    address
        Host and port of the acceptor.
    """

    connector: Greeting
    acceptor: Greeting
    address: tuple[str, int]


def make_secret() -> bytes:
    """Return a new tree's secret."""
    return secrets.token_bytes(SECRET_BYTES)


def greet(name: tuple[str, str]) -> Greeting:
    """Return a greeting with a nonce of its own."""
    return Greeting(LABEL, name, secrets.token_bytes(NONCE_BYTES))


def read_greeting(message: object, own: Greeting) -> Greeting:
    """Return the peer's greeting.

    Raises
    ------
    HandshakeError
        It is no greeting of this version, or an echo of our own.
    """
    try:
        peer = msgspec.convert(message, Greeting)
    except msgspec.ValidationError as error:
        raise HandshakeError(f"no greeting: {error}") from None
    if peer.label != LABEL:
        raise HandshakeError("the peer speaks another version")
    if peer.name == own.name or hmac.compare_digest(peer.nonce, own.nonce):
        raise HandshakeError("the peer claims to be ourselves")
    return peer


def read_proof(message: object) -> bytes:
    """Return the MAC of a proof. Raises ``HandshakeError``."""
    try:
        return msgspec.convert(message, Proof).mac
    except msgspec.ValidationError as error:
        raise HandshakeError(f"no proof: {error}") from None


def prove(secret: bytes, role: str, talk: Talk) -> bytes:
    """Return the MAC with which ``role`` ("connector" or "acceptor") proves itself."""
    # msgpack writes the length of every part, so that no two talks read as the same bytes.
    told = msgspec.msgpack.encode([
        LABEL, role, talk.connector.name, talk.acceptor.name, talk.connector.nonce,
        talk.acceptor.nonce, talk.address,
    ])  # fmt: skip
    return hmac.new(secret, told, hashlib.sha256).digest()


def verify(secret: bytes, role: str, talk: Talk, mac: bytes) -> None:
    """Accept the proof of the peer that has ``role``, in constant time.

    Raises
    ------
    HandshakeError
        It was made without the secret, for another talk or for the other role.
    """
    if not hmac.compare_digest(prove(secret, role, talk), mac):
        raise HandshakeError("the peer does not hold this tree's secret")
