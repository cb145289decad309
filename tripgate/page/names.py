"""Names of everything that has a number in the page, kept in the page itself.

Numbers are what the check compares; names are what people and configs write. The list is packed
into the control file once, before the page opens, so that a client needs no config file and a
``status`` command works when every actor is dead.
"""

import hashlib
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import msgpack

from tripgate.errors import PageDamagedError, UsageError
from tripgate.units import InstrumentUnits


@dataclass(frozen=True)
class InstrumentName:
    """One instrument at one venue, with its grid as decimal texts."""

    venue: str
    symbol: str
    asset: str
    tick: str
    lot: str
    contract_size: str
    quote: str = ""
    inverse: bool = False

    @property
    def units(self) -> InstrumentUnits:
        """The instrument's grid."""
        return InstrumentUnits(Decimal(self.tick), Decimal(self.lot), Decimal(self.contract_size))

    @property
    def scope(self) -> str:
        """Scope name of the instrument's node."""
        return f"instrument:{self.venue}/{self.symbol}"


@dataclass(frozen=True)
class RoleName:
    """One supervised actor that holds a lease; ``venue`` is empty for tree-wide roles."""

    actor: str
    venue: str
    critical: bool

    @property
    def text(self) -> str:
        """The role as people read it: ``router(sim)`` or ``breaker``."""
        return f"{self.actor}({self.venue})" if self.venue else self.actor


@dataclass(frozen=True)
class PageNames:
    """All names of one page; an index into a tuple is the number used in the page.

    Attributes
    ----------
    scopes
        Scope names by node number; node 0 is ``portfolio``.
    keys
        (strategy number, instrument number) by closable key number.
    sockets
        Path of the router's Unix socket by venue name.
    strategy_order
        Strategies in the order in which they act within a lock-step step.
    sides
        Position side by closable key number: 0 net, 1 long, -1 short; empty if all are net.
    quotes
        Quote currencies by number; empty if the reporting currency is the only one.
    """

    instance: str
    reporting_currency: str
    state_folder: str
    venues: tuple[str, ...]
    strategies: tuple[str, ...]
    scopes: tuple[str, ...]
    instruments: tuple[InstrumentName, ...]
    roles: tuple[RoleName, ...]
    keys: tuple[tuple[int, int], ...]
    sockets: dict[str, str]
    sides: tuple[int, ...] = ()
    quotes: tuple[str, ...] = ()

    @property
    def units_hash(self) -> int:
        """Hash of everything that gives a number in the page its meaning.

        Instruments with their units, scopes, strategies, keys and quote currencies, in order;
        neither limits nor places: those may differ between two runs of one page.
        """
        numbered = (
            self.reporting_currency, self.venues, self.strategies, self.scopes, self.instruments,
            self.keys, self.sides, self.quotes,
        )  # fmt: skip
        return int.from_bytes(hashlib.sha256(repr(numbered).encode()).digest()[:7], "big")

    def pack(self) -> bytes:
        """Return the names as msgpack bytes."""
        packed: bytes = msgpack.packb(asdict(self))
        return packed

    @staticmethod
    def unpack(data: bytes) -> "PageNames":
        """Return names from msgpack bytes. Raises ``PageDamagedError`` if they are not whole."""
        try:
            raw: dict[str, Any] = msgpack.unpackb(data)
            return PageNames(
                instance=raw["instance"],
                reporting_currency=raw["reporting_currency"],
                state_folder=raw["state_folder"],
                venues=tuple(raw["venues"]),
                strategies=tuple(raw["strategies"]),
                scopes=tuple(raw["scopes"]),
                instruments=tuple(InstrumentName(**row) for row in raw["instruments"]),
                roles=tuple(RoleName(**row) for row in raw["roles"]),
                keys=tuple((pair[0], pair[1]) for pair in raw["keys"]),
                sockets=dict(raw["sockets"]),
                sides=tuple(raw["sides"]),
                quotes=tuple(raw["quotes"]),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise PageDamagedError(
                f"the page's names are damaged ({error}): restart the tree"
            ) from None

    def instrument(self, venue: str, symbol: str) -> int:
        """Return the number of an instrument. Raises ``UsageError`` naming those there are."""
        for number, name in enumerate(self.instruments):
            if (name.venue, name.symbol) == (venue, symbol):
                return number
        known = ", ".join(f"{name.venue}/{name.symbol}" for name in self.instruments)
        raise UsageError(f"unknown instrument {venue}/{symbol}; this instance has: {known}")

    def strategy(self, name: str) -> int:
        """Return the number of a strategy. Raises ``UsageError`` naming those there are."""
        if name in self.strategies:
            return self.strategies.index(name)
        known = ", ".join(self.strategies)
        raise UsageError(f"unknown strategy {name!r}; this instance has: {known}")

    def scope(self, name: str) -> int:
        """Return the node number of a scope name. Raises ``UsageError`` naming those there are."""
        if name in self.scopes:
            return self.scopes.index(name)
        raise UsageError(f"unknown scope {name!r}; this instance has: {', '.join(self.scopes)}")

    def role(self, actor: str, venue: str = "") -> int:
        """Return the number of a role."""
        for number, role in enumerate(self.roles):
            if (role.actor, role.venue) == (actor, venue):
                return number
        raise UsageError(f"this instance starts no {actor}{f'({venue})' if venue else ''}")
