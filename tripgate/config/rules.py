"""Rules of single configuration values: what is accepted, how it is read, how it is shown.

Every leaf of the configuration structs carries one ``Rule`` in its ``Annotated`` type. The reader,
the JSON schema and the reference table are all made from that one place, so they cannot differ.
A rule never guesses: a value of another type is refused, not converted.

Invariants: R1 an amount is kept exactly as written (``Decimal``, never a float); R2 a secret's text
appears in no message, repr or listing.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tripgate import units

AMOUNT_MAX = units.INT_MAX // units.MONEY_SCALE
"""Largest amount of the reporting currency: what the gate's integers can hold."""

AMOUNT_DECIMALS_MAX = 12
"""Decimal places of an amount. With ``AMOUNT_MAX`` this keeps every conversion exact."""

MARGIN_BUFFER_MAX = (2**48 - 1) // units.MONEY_SCALE
"""Largest margin buffer: the page keeps it in 48 bits beside the haircut."""

RATE_DECIMALS_MAX = 6
"""Decimal places of a rate or par: the page's parts per million hold it exactly."""

RATE_MAX = 1_000_000

AMOUNT_PATTERN = r"^[0-9]+(\.[0-9]+)?$"
SHOWN_LENGTH_MAX = 60
WORDS_MAX = 256
"""Entries of a list in the configuration (arguments of a command, instruments of a strategy)."""

REFERENCE_PATTERN = r"^(env|file|cmd):\S.*$"


class Secret:
    """Where a secret is to be found; neither the place nor the secret is ever printed.

    Parameters
    ----------
    reference
        ``env:NAME``, ``file:PATH`` or ``cmd:COMMAND``.
    """

    __slots__ = ("_reference",)

    def __init__(self, reference: str) -> None:
        if not re.fullmatch(REFERENCE_PATTERN, reference):
            raise ValueError("a secret is given as env:NAME, file:PATH or cmd:COMMAND")
        self._reference = reference

    @property
    def scheme(self) -> str:
        """Return ``env``, ``file`` or ``cmd``."""
        return self._reference.partition(":")[0]

    def reveal_reference(self) -> str:
        """Return the reference itself, for the one actor of the venue that resolves it."""
        return self._reference

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._reference == self._reference

    def __hash__(self) -> int:
        return hash(self._reference)


@dataclass(frozen=True)
class Rule:
    """What one value may be.

    Attributes
    ----------
    expected
        Completes the sentence "expected …".
    read
        Returns the value as the struct keeps it; raises ``ValueError`` (its text, if it has one,
        replaces ``expected``).
    schema
        JSON schema of the value as written.
    is_secret
        The value is never shown, not even in an error.
    """

    expected: str
    read: Callable[[object], Any]
    schema: Mapping[str, object]
    is_secret: bool = False

    def plain(self, value: object) -> object:
        """Return a kept value as JSON can hold it; secrets as ``***``."""
        if self is LIMIT and value is None:
            return "none"
        if isinstance(value, Decimal):
            return format(value, "f")
        if isinstance(value, Secret):
            return repr(value)
        return list(value) if isinstance(value, tuple) else value

    def was(self, value: object) -> str:
        """Return a short text of a refused value as it stood in the file."""
        return "a literal value (not shown)" if self.is_secret else shown(value)


def shown(value: object) -> str:
    """Return a short one-line text of a value read from TOML."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode("ascii") + '"'
    else:
        text = str(value) if not isinstance(value, list) else f"a list of {len(value)}"
    return text if len(text) <= SHOWN_LENGTH_MAX else text[: SHOWN_LENGTH_MAX - 1] + "…"


def _read_amount(value: object) -> Decimal:
    # Strings take the plain notation only: Decimal itself would also read other alphabets' digits.
    if isinstance(value, str) and not re.fullmatch(AMOUNT_PATTERN, value, re.ASCII):
        raise ValueError
    try:
        amount = units.to_decimal(value)
    except ValueError:
        raise ValueError from None
    if amount <= 0:
        raise ValueError
    if amount > AMOUNT_MAX:
        raise ValueError(f"a positive amount of at most {AMOUNT_MAX}")
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > AMOUNT_DECIMALS_MAX:
        raise ValueError(f"a positive amount with at most {AMOUNT_DECIMALS_MAX} decimal places")
    if units.limit_money(amount) == 0:
        raise ValueError(f"a positive amount of at least {Decimal(1) / units.MONEY_SCALE}")
    return amount


def _read_buffer(value: object) -> Decimal:
    try:
        is_zero = not isinstance(value, bool) and units.to_decimal(value) == 0
    except ValueError:
        raise ValueError from None
    if is_zero:
        return Decimal(0)
    amount = _read_amount(value)
    if amount > MARGIN_BUFFER_MAX:
        raise ValueError(f"an amount from 0 to {MARGIN_BUFFER_MAX}")
    return amount


def _read_par(value: object) -> Decimal:
    if isinstance(value, str) and not re.fullmatch(AMOUNT_PATTERN, value, re.ASCII):
        raise ValueError
    try:
        rate = units.to_decimal(value)
    except ValueError:
        raise ValueError from None
    exponent = rate.as_tuple().exponent
    if not 0 < rate <= RATE_MAX or not isinstance(exponent, int) or -exponent > RATE_DECIMALS_MAX:
        raise ValueError
    return rate


def _read_limit(value: object) -> Decimal | None:
    if value == "none":
        return None
    try:
        return _read_amount(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "none"' if str(error) else "") from None


_AMOUNT_SCHEMA: list[dict[str, object]] = [
    {"type": "number", "exclusiveMinimum": 0, "maximum": AMOUNT_MAX},
    {"type": "string", "pattern": AMOUNT_PATTERN},
]

AMOUNT = Rule("a positive amount", _read_amount, {"anyOf": _AMOUNT_SCHEMA})
LIMIT = Rule(
    'a positive amount or "none"', _read_limit, {"anyOf": [*_AMOUNT_SCHEMA, {"const": "none"}]}
)
"""A limit in the reporting currency. ``None`` in the struct is the written-out word ``none``."""


BUFFER = Rule(
    "an amount, zero included",
    _read_buffer,
    {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": MARGIN_BUFFER_MAX},
            {"type": "string", "pattern": AMOUNT_PATTERN},
        ]
    },
)
"""Money kept aside: unlike a limit it may be nothing, but it must be written."""

PAR = Rule(
    f"a rate above 0 and at most {RATE_MAX} with at most {RATE_DECIMALS_MAX} decimal places",
    _read_par,
    {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": RATE_MAX},
            {"type": "string", "pattern": AMOUNT_PATTERN},
        ]
    },
)


def whole(minimum: int, maximum: int) -> Rule:
    """Return the rule of a whole number in ``minimum`` … ``maximum``, both included."""

    def read(value: object) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise ValueError
        return value

    expected = str(minimum) if minimum == maximum else f"a whole number from {minimum} to {maximum}"
    return Rule(expected, read, {"type": "integer", "minimum": minimum, "maximum": maximum})


def ratio(expected: str, above: str, maximum: str) -> Rule:
    """Return the rule of a number greater than ``above`` and at most ``maximum``."""
    low, high = Decimal(above), Decimal(maximum)

    def read(value: object) -> Decimal:
        if isinstance(value, str):
            raise ValueError
        try:
            number = units.to_decimal(value)
        except ValueError:
            raise ValueError from None
        if not low < number <= high:
            raise ValueError
        return number

    schema = {"type": "number", "exclusiveMinimum": float(low), "maximum": float(high)}
    return Rule(expected, read, schema)


def one_of(*words: str) -> Rule:
    """Return the rule of a word from a fixed set."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    expected = " or ".join(f'"{word}"' for word in words)
    return Rule(expected, read, {"enum": list(words)})


def text(expected: str, pattern: str) -> Rule:
    """Return the rule of a text that matches ``pattern`` as a whole."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError
        return value

    return Rule(expected, read, {"type": "string", "pattern": f"^{pattern}$"})


def words(expected: str, *, length_min: int) -> Rule:
    """Return the rule of a list of non-empty texts (a command line, a list of names)."""

    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not length_min <= len(value) <= WORDS_MAX:
            raise ValueError
        if not all(isinstance(word, str) and word and "\0" not in word for word in value):
            raise ValueError
        return tuple(value)

    items = {"type": "string", "minLength": 1}
    schema = {"type": "array", "items": items, "minItems": length_min, "maxItems": WORDS_MAX}
    return Rule(expected, read, schema)


def _read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise ValueError
    try:
        return Secret(value)
    except ValueError:
        raise ValueError from None


FLAG = Rule("true or false", _read_flag, {"type": "boolean"})
SECRET = Rule(
    "a reference env:NAME, file:PATH or cmd:COMMAND, never the secret itself",
    _read_secret,
    {"type": "string", "pattern": REFERENCE_PATTERN},
    is_secret=True,
)
