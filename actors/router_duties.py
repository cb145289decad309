"""What the router does unasked: cancel entries that may no longer rest, flatten, keep stops.

Looked at every turn, from the page alone: levels, leases, exit claims and positions. Each function
says what is to be sent; the sender sends it.
"""

from pathlib import Path

from actors.router_orders import Live, Orders
from actors.service import Service
from tripgate.audit.reader import LogReader
from tripgate.clock import NS_PER_S
from tripgate.gate.commit import Approved, read_entry
from tripgate.gate.exits import drop_exit, issue_exit, issue_stop
from tripgate.gate.record import FLAG_MARKET, unpack_record
from tripgate.gate.words import token_slot
from tripgate.messages import EventKind
from tripgate.page.layout import KEY, LEASE, PROTECTION, ROLE, SLOT, exit_entry, stop_entry
from tripgate.page.level import node_level
from tripgate.processes import is_alive
from tripgate.reasons import Level

ENTRY_GRACE_NS = NS_PER_S
"""How long a critical lease may be lapsed before resting entries are cancelled."""
CANCEL_AGAIN_MS = 1_000
TREE_SLOTS = 254
RECALLED_MAX = 10_000
"""How many of the newest decisions are searched for the stop of a position that has none."""


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
        self._named = frozenset(names.keys)

    def position(self, key: int) -> int:
        """Return a key's position in signed lots."""
        return int(self._keys["closable"][key]) >> 32

    def cancels(self, now_ns: int) -> list[Live]:
        """Return the resting entries that must go: level, lapsed lease or dead owner."""
        lapsed = self._is_lapsed(now_ns)
        found = []
        for live in self._orders.live.values():
            if not live.opens or live.ended or self._was_asked(live):
                continue
            nodes = self._keys["node"][live.key]
            level = max(node_level(self._page, int(node)) for node in nodes)
            if level >= Level.MEDIUM or lapsed or self._is_orphan(live):
                live.cancel_asked_ms = self._service.market_ms
                found.append(live)
        return found

    def exits(self) -> list[Approved]:
        """Return new merged exits to send; claims whose position is flat are dropped."""
        found = []
        for key in self.keys:
            if not self._keys["exit_claim"][key]:
                continue
            live = [o for o in self._orders.live.values() if o.key == key and o.is_exit]
            if live:
                continue
            if self.position(key) == 0:
                drop_exit(self._page, key)
                continue
            token = issue_exit(self._page, self._service.ring, key, self._service.market_ms)
            if token:
                found.append(self._issued(exit_entry(self._page.layout.capacities, key), token))
        return found

    def stops(self) -> tuple[list[Approved], list[Live]]:
        """Return stops to place and stops to cancel, so that every position is covered."""
        place, cancel = [], []
        for key in self.keys:
            lots, wanted = self.position(key), int(self._keys["stop_ticks"][key])
            live = self._live_stop(key)
            if lots == 0:
                self._keys["stop_ticks"][key] = 0
                if live is not None and not self._was_asked(live):
                    live.cancel_asked_ms = self._service.market_ms
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

    def adopt_stop(self, live: Live, stop_ticks: int) -> None:
        """Take over a stop that a predecessor placed."""
        self._stops[live.key] = live
        row = self._protection[live.key]
        row["stop_token"], row["stop_lots"], row["stop_ticks"] = (
            live.order.token, live.order.lots, stop_ticks,
        )  # fmt: skip
        self._keys["stop_ticks"][live.key] = stop_ticks

    def recall_stops(self, audit_folder: Path) -> None:
        """Wish the stops of the last approved openings where no stop is wished or known.

        A tree that was lost between an entry's fill and its stop leaves a position whose stop
        stands only in the log. A key that is flat forgets the wish at its first turn.
        """
        decisions = LogReader(audit_folder).newest(RECALLED_MAX, kinds=(int(EventKind.DECISION),))
        for stored in decisions:
            record = unpack_record(stored.row.body)
            pair = (record.strategy, record.instrument)
            if not record.approved or record.flags & ~FLAG_MARKET or pair not in self._named:
                continue
            key = self._service.names.keys.index(pair)
            if key in self.keys and self._live_stop(key) is None:
                self._keys["stop_ticks"][key] = record.values["stop"]

    def entry_filled(self, live: Live) -> None:
        """Remember the stop of an entry that filled: the nearest of a key's entries counts."""
        if live.approved is None or not live.opens:
            return
        stop, present = live.approved.stop_ticks, int(self._keys["stop_ticks"][live.key])
        nearer = max if live.signed > 0 else min
        self._keys["stop_ticks"][live.key] = nearer(stop, present) if present else stop

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

    def _was_asked(self, live: Live) -> bool:
        if live.cancel_asked_ms < 0:
            return False
        return self._service.market_ms - live.cancel_asked_ms < CANCEL_AGAIN_MS

    def _is_lapsed(self, now_ns: int) -> bool:
        deadlines, roles = self._page.rows(LEASE)["deadline_ns"], self._page.rows(ROLE)
        for number, name in enumerate(self._service.names.roles):
            if not name.critical or number == self._service.role:
                continue
            if name.venue not in ("", self._service.venue):
                continue
            # A zeroed lease (death, stale input) counts from when the supervisor saw it lapse.
            lapse = max(int(deadlines[number]), int(roles["lapsed_since_ns"][number]))
            if int(deadlines[number]) < now_ns and lapse and now_ns - lapse > ENTRY_GRACE_NS:
                return True
        return False

    def _is_orphan(self, live: Live) -> bool:
        slot = token_slot(live.order.token)
        if slot >= TREE_SLOTS:
            return False
        row = self._page.rows(SLOT)[slot]
        return not is_alive(int(row["pid"]), int(row["start_time"]))
