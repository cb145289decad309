"""What the router does unasked: cancel entries that may no longer rest, and keep stops.

Looked at every turn, from the page alone: levels, leases and positions (exits: router_exits.py).
Each function says what is to be sent; the sender sends it.
"""

from collections.abc import Iterator
from pathlib import Path

from actors.router_orders import RECALLED_MAX, Live, Orders
from actors.service import Service
from tripgate.audit.numbers import Numbers
from tripgate.audit.reader import LogReader
from tripgate.clock import NS_PER_S
from tripgate.gate.commit import Approved, read_entry
from tripgate.gate.exits import issue_stop
from tripgate.gate.judge import TICKS_MAX
from tripgate.gate.record import FLAG_MARKET, FLAG_SHADOW, unpack_record
from tripgate.gate.words import token_slot
from tripgate.messages import EventKind
from tripgate.page.board import read_quote
from tripgate.page.layout import KEY, LEASE, PROTECTION, ROLE, SLOT, stop_entry
from tripgate.page.level import node_level
from tripgate.processes import is_alive
from tripgate.reasons import Level

ENTRY_GRACE_NS = NS_PER_S
"""How long a critical lease may be lapsed before resting entries are cancelled."""
STEP_GRACE_NS = 10 * NS_PER_S
"""How long a replay's step waits for an actor that lives: as long as for a strategy."""
TREE_SLOTS = 254
_OF_AN_OPENING = FLAG_MARKET | FLAG_SHADOW


class Duties:
    """Decides from the page what the router must send."""

    def __init__(self, service: Service, orders: Orders) -> None:
        self._service = service
        self._page = service.page
        self._orders = orders
        names = service.names
        self.keys = [
            key for key, (_, instrument) in enumerate(names.keys)
            if names.instruments[instrument].venue == service.venue
        ]  # fmt: skip
        self._keys = self._page.rows(KEY)
        self._protection = self._page.rows(PROTECTION)
        self._stops: dict[int, Live] = {}

    def position(self, key: int) -> int:
        """Return a key's position in signed lots."""
        return int(self._keys["closable"][key]) >> 32

    def cancels(self, now_ns: int) -> list[Live]:
        """Return the resting entries that must go: level, lapsed lease or dead owner.

        On a shadow page only a dead owner's: nobody would be left to cancel them.
        """
        shadow = bool(self._service.header["shadow"])
        lapsed = self.is_lapsed(now_ns)
        found = []
        for live in self._orders.live.values():
            if not live.opens or live.key < 0:
                continue
            nodes = self._keys["node"][live.key]
            level = max(node_level(self._page, int(node)) for node in nodes)
            tightened = not shadow and (level >= Level.MEDIUM or lapsed)
            must_go = tightened or self._is_orphan(live)
            if must_go and self._orders.ask_cancel(live):
                found.append(live)
        return found

    def stops(self) -> tuple[list[Approved], list[Live]]:
        """Return stops to place and stops to cancel, so that every position is covered."""
        place, cancel = [], []
        for key in self.keys:
            lots, wanted = self.position(key), int(self._keys["stop_ticks"][key])
            live = self._live_stop(key)
            if lots == 0:
                self._keys["stop_ticks"][key] = 0
                if live is not None and self._orders.ask_cancel(live):
                    cancel.append(live)
                self._note(key, covered=True)
                continue
            covered = live is not None and self._covers(live, lots, wanted)
            self._note(key, covered=covered)
            if not covered and wanted and not self._is_placing(key):
                token = issue_stop(
                    self._page, self._service.ring, key, wanted, self._service.market_ms
                )
                # The keeper may have booked the closing fill this very moment: no stop then.
                if token:
                    row = stop_entry(self._page.layout.capacities, key)
                    place.append(self._issued(row, token))
        return place, cancel

    def stop_placed(self, live: Live) -> Live | None:
        """Take a stop that now stands as the key's cover; return the one that must go, if any.

        It is told once by the answer and once by the stream, and either may be late or lost.
        """
        before = self._stops.get(live.key)
        stands = before is not None and before is not live and not before.ended
        if stands and before is not None and before.order.token > live.order.token:
            return live
        self._stops[live.key] = live
        row = self._protection[live.key]
        row["stop_token"], row["stop_lots"] = live.order.token, live.order.lots
        if live.approved is not None:
            row["stop_ticks"] = live.approved.stop_ticks
        self._note(live.key, covered=self._covers(live, self.position(live.key), 0))
        return before if stands else None

    def adopt_stop(self, live: Live, stop_ticks: int) -> Live | None:
        """Take over a stop that a predecessor placed; return the one that must go, if any.

        It may have died between a nearer stop and the cancel of the one before, or before the
        nearer one was even sent: the nearest that was wished counts.
        """
        before = self._live_stop(live.key)
        if before is not None and before.order.token > live.order.token:
            return live
        self._stops[live.key] = live
        row = self._protection[live.key]
        row["stop_token"], row["stop_lots"], row["stop_ticks"] = (
            live.order.token, live.order.lots, stop_ticks,
        )  # fmt: skip
        self._wish_stop(live.key, stop_ticks, is_long=live.signed < 0)
        return before

    def recall_stops(self, audit_folder: Path) -> None:
        """Wish the stops of the last approved openings where no stop is wished or known.

        A tree that was lost between an entry's fill and its stop leaves a position whose stop
        stands only in the log. A key that is flat forgets the wish at its first turn.
        """
        # A page that was taken over knows its wishes, moved ones included, better than the log.
        unwished = {key for key in self.keys if not self._keys["stop_ticks"][key]}
        numbers = Numbers(audit_folder, self._service.names)
        decisions = LogReader(audit_folder).newest(RECALLED_MAX, kinds=(int(EventKind.DECISION),))
        for stored in decisions:
            record = unpack_record(stored.row.body)
            pair = numbers.pair(record.epoch, record.strategy, record.instrument)
            if not record.approved or record.flags & ~_OF_AN_OPENING or pair is None:
                continue
            key = self._service.names.keys.index(pair)
            if key in unwished and self._live_stop(key) is None and record.values["stop"]:
                self._keys["stop_ticks"][key] = record.values["stop"]

    def entry_filled(self, live: Live) -> None:
        """Remember the stop of an entry that filled: the nearest of a key's entries counts."""
        if live.approved is not None and live.opens:
            self.opened(live.approved)

    def opened(self, order: Approved) -> None:
        """Remember the stop of an opening that filled, even if it had been given up already."""
        # On a shadow page an opening may have no stop: that of an earlier one still stands then.
        if order.opens and order.stop_ticks:
            self._wish_stop(order.key, order.stop_ticks, is_long=order.lots > 0)

    def move_stop(self, key: int, stop_ticks: int) -> str | None:
        """Bring a position's stop nearer; return why not, or None if it is wished now.

        The next turn places the new stop and cancels the old one once the new one stands.
        """
        lots, present = self.position(key), int(self._keys["stop_ticks"][key])
        if not lots or not present:
            return "there is no position" if not lots else "the position has no stop yet"
        strategy, instrument = self._service.names.keys[key]
        quote = read_quote(self._page, instrument)
        if quote is None:
            return "the instrument has no price yet"
        side = 1 if lots > 0 else -1
        if not 0 < stop_ticks <= TICKS_MAX or (quote.mark - stop_ticks) * side <= 0:
            return f"a stop at {stop_ticks} ticks is on the wrong side of the mark, {quote.mark}"
        if (stop_ticks - present) * side <= 0:
            return f"a stop only moves nearer; it stands at {present} ticks, asked was {stop_ticks}"
        self._keys["stop_ticks"][key] = stop_ticks
        self._service.emit(EventKind.STOP_MOVED, {
            "strategy": self._service.names.strategies[strategy],
            "instrument": self._service.names.instruments[instrument].scope,
            "before": present, "stop": stop_ticks,
        })  # fmt: skip
        return None

    def _wish_stop(self, key: int, stop_ticks: int, *, is_long: bool) -> None:
        present = int(self._keys["stop_ticks"][key])
        nearer = max if is_long else min
        self._keys["stop_ticks"][key] = nearer(stop_ticks, present) if present else stop_ticks

    def _live_stop(self, key: int) -> Live | None:
        live = self._stops.get(key)
        return live if live is not None and not live.ended else None

    def _is_placing(self, key: int) -> bool:
        placed = self._stops.get(key)
        orders = (o for o in self._orders.live.values() if o.key == key and o.is_stop)
        return any(order is not placed and order.cancel_asked_ms < 0 for order in orders)

    def _covers(self, live: Live, lots: int, wanted: int) -> bool:
        right_side = live.signed * lots < 0
        enough = live.order.lots - live.order.filled_lots >= abs(lots)
        at = int(self._protection["stop_ticks"][live.key])
        return right_side and enough and wanted in (0, at)

    def _note(self, key: int, *, covered: bool) -> None:
        row, now_ms = self._protection[key], self._service.market_ms
        since = int(row["open_since_ms"])
        if not covered:
            row["open_since_ms"] = since or now_ms
            return
        if since:
            row["unprotected_ms_max"] = max(int(row["unprotected_ms_max"]), now_ms - since)
            row["open_since_ms"] = 0
            self._service.emit(EventKind.PROTECTED, {"key": key, "unprotected_ms": now_ms - since})

    def _issued(self, row: int, token: int) -> Approved:
        order = read_entry(self._page, row, token)
        if order is None:
            raise AssertionError(f"the entry just issued for token {token} is not there")
        return order

    def is_lapsed(self, now_ns: int) -> bool:
        """Whether a critical lease that this venue depends on is lapsed beyond its grace."""
        return any(lapse_ns > ENTRY_GRACE_NS for _, lapse_ns in self._lapses(now_ns))

    def is_overdue(self, now_ns: int) -> bool:
        """Whether an actor whose word is waited for must be waited for no longer.

        In a replay the market stands meanwhile, and a host that is merely busy must not change
        the run: there the grace is that of a strategy, unless the actor is dead.
        """
        if not self._service.header["replay"]:
            return self.is_lapsed(now_ns)
        roles = self._page.rows(ROLE)
        return any(
            lapse_ns > STEP_GRACE_NS
            or (
                lapse_ns > ENTRY_GRACE_NS
                and not is_alive(int(roles["pid"][role]), int(roles["start_time"][role]))
            )
            for role, lapse_ns in self._lapses(now_ns)
        )

    def _lapses(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (role, for how long, ns) of lapsed critical leases other than the own one."""
        deadlines, roles = self._page.rows(LEASE)["deadline_ns"], self._page.rows(ROLE)
        for number, name in enumerate(self._service.names.roles):
            if not name.critical or number == self._service.role:
                continue
            if name.venue not in ("", self._service.venue):
                continue
            # A zeroed lease (death, stale input) counts from when the supervisor saw it lapse.
            lapse = max(int(deadlines[number]), int(roles["lapsed_since_ns"][number]))
            if int(deadlines[number]) < now_ns and lapse:
                yield number, now_ns - lapse

    def _is_orphan(self, live: Live) -> bool:
        slot = token_slot(live.order.token)
        if slot >= TREE_SLOTS:
            return False
        row = self._page.rows(SLOT)[slot]
        return not is_alive(int(row["pid"]), int(row["start_time"]))
