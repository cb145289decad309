"""Fills that this run has no place for: of a symbol, venue or strategy that its config lacks.

They are true, and the book cannot hold them: neither their grid nor their owner is known. So the
gate is closed for openings where they happened, on record, until a run whose config names them
again books them from the log. Nothing here lowers a level.
"""

from actors.service import Service
from tripgate.audit.history import Event
from tripgate.config.structs import RESERVED_STRATEGY
from tripgate.messages import EventKind
from tripgate.page.level import LevelWriter, set_level, writer_level
from tripgate.reasons import Level

PLACES_MAX = 1_000
"""Places counted apart; what is beyond is counted together."""
ADVICE = "name it in the config again and restart: the fills are booked from the log then"

Place = tuple[str, str, str]


class Unplaced:
    """Counts fills without a place and holds the level that they call for."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._names = service.names
        self._lots: dict[Place, int] = {}
        self._fills: dict[Place, int] = {}
        self._last_trade: dict[str, int] = {}

    def place_of(self, event: Event) -> tuple[int, int] | None:
        """Return (strategy, instrument) of an event's body if they are a key of this run.

        Lots that nobody's order explains are placed with the instrument's first holder.
        """
        names, body = self._names, event.body
        venue, symbol, strategy = (str(body[name]) for name in ("venue", "symbol", "strategy"))
        for key in names.keys:
            name = names.instruments[key[1]]
            holder = strategy in (names.strategies[key[0]], RESERVED_STRATEGY)
            if holder and (name.venue, name.symbol) == (venue, symbol):
                return key
        return None

    def replay(self, event: Event) -> None:
        """Count a fill of the log; ``report`` tells of all of them at once."""
        self._count(event)

    def report(self) -> None:
        """Tell of everything that was counted, once per place, and close the gate over it."""
        for place, lots in self._lots.items():
            self._tell(place, lots, self._fills[place], 0)

    def take(self, event: Event) -> None:
        """Tell of a fill that has just happened and close the gate over it."""
        place = self._count(event)
        if place is not None:
            lots, trade = int(str(event.body["lots"])), int(str(event.body["trade"]))
            self._tell(place, lots, 1, trade)

    def holds(self, node: int) -> bool:
        """Whether a fill without a place holds the keeper's byte at a node."""
        return any(self._node_of(venue) == node for venue, _, _ in self._lots)

    def _node_of(self, venue: str) -> int:
        known = venue in self._names.venues
        return self._names.scope(f"venue:{venue}" if known else "portfolio")

    def _count(self, event: Event) -> Place | None:
        """Count a fill; None if it is a repetition."""
        body = event.body
        venue, trade = str(body["venue"]), int(str(body["trade"]))
        if trade <= self._last_trade.get(venue, 0):
            return None
        self._last_trade[venue] = trade
        place = (venue, str(body["symbol"]), str(body["strategy"]))
        if place not in self._lots and len(self._lots) >= PLACES_MAX:
            place = ("", "", "")
        self._lots[place] = self._lots.get(place, 0) + int(str(body["lots"]))
        self._fills[place] = self._fills.get(place, 0) + 1
        return place

    def _tell(self, place: Place, lots: int, fills: int, trade: int) -> None:
        venue, symbol, strategy = place
        self._service.emit(EventKind.FILL_UNPLACED, {
            "venue": venue, "symbol": symbol, "strategy": strategy, "lots": lots, "fills": fills,
            "trade": trade, "advice": ADVICE,
        })  # fmt: skip
        node = self._node_of(venue)
        scope = self._names.scopes[node]
        if writer_level(self._service.page, node, LevelWriter.KEEPER) >= Level.MEDIUM:
            return
        set_level(self._service.page, node, LevelWriter.KEEPER, Level.MEDIUM)
        self._service.emit(EventKind.LEVEL_CHANGED, {
            "scope": scope, "level": Level.MEDIUM.name, "before": Level.NORMAL.name,
            "cause": "fill_unplaced",
        })  # fmt: skip
