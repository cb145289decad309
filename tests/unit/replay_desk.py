"""A log made by a real keeper on a real page, and copies of it that somebody has changed.

The root's, router's and writer's parts are played by the test with the product's own hands. A
changed copy is chained anew, so that nothing but a replay can find the change.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.audit_writer import Drain
from tests.tree_fixtures import BTC
from tests.unit.audit_logs import Folders
from tests.unit.keeper_desk import PRICE, Desk
from tripgate.audit.numbers import number_rows
from tripgate.audit.reader import LogReader
from tripgate.audit.record import Row, pack_body, unpack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import NS_PER_S, host_ns, sleep_s, utc_ns
from tripgate.gate.commit import Approved
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.record import FIELDS, RECORD_BYTES
from tripgate.messages import SCHEMA_VERSION, EventKind
from tripgate.page.ring import RingWriter
from tripgate.page.terms import sheet
from tripgate.replay.replayer import Replayer
from tripgate.replay.report import Report

STEP_MS = 20_000
"""Longer than the time between two snapshots: every step records one."""
SPREAD = 100
HOST_NS = slice(8 * FIELDS.index("host_ns"), 8 * FIELDS.index("host_ns") + 8)
Change = Callable[[Row], Iterable[Row]]


class ReplayDesk(Desk):
    """A keeper's desk whose log begins as a run's does."""

    def __init__(self) -> None:
        super().__init__()
        self.root = RingWriter(self.page, 0)
        self.drain = Drain(self.writer, self.log)
        self.step_number = 0
        self.tell(EventKind.RUN_STARTED, {
            "schema": SCHEMA_VERSION, "epoch": self.page.epoch, "orderly": True,
            "page_kept": False, "shadow": False,
        })  # fmt: skip
        for body in number_rows(self.page.names):
            self.tell(EventKind.NUMBERS_ASSIGNED, body)
        for body in sheet(self.page):
            self.tell(EventKind.LIMITS_IN_FORCE, body)

    def tell(self, kind: EventKind, body: dict[str, Any]) -> None:
        """Record something as the root."""
        assert self.root.append(int(kind), pack_body(body), host_ns(), self.place.market_ms)

    def say(self, kind: EventKind, token: int, **more: Any) -> None:
        """Record something as the router."""
        self.router.emit(kind, {"token": token, **more})

    def step(self, price: int = PRICE) -> None:
        """Let the keeper take what was told and mark the next step."""
        self.step_number += 1
        self.market(self.step_number * STEP_MS, price)
        self.keeper.take_events()
        self.keeper.mark(self.step_number * STEP_MS)
        self.keeper.tidy(self.place.now_ns())

    def sent(self, lots: int = 10) -> Approved:
        """Approve an order and send it."""
        order = self.entry(lots)
        self.say(EventKind.ORDER_SENT, order.token, lots=lots, venue="sim", symbol=BTC)
        self.say(EventKind.ORDER_ACKNOWLEDGED, order.token)
        return order

    def filled(self, token: int, lots: int, cumulative: int, price: int = PRICE) -> None:
        """Tell a fill."""
        self.trade += 1
        self.say(
            EventKind.FILL, token, trade=self.trade, strategy="trend", venue="sim", symbol=BTC,
            lots=lots, ticks=price, fee=7, cumulative=cumulative,
        )  # fmt: skip

    def commit_log(self, *, checkpoint: bool = True) -> None:
        """Put everything into the log, and a checkpoint after it."""
        while frames := self.drain.gather():
            self.drain.store(frames)
            self.drain.publish(frames)
        if checkpoint:
            self.drain.checkpoint()

    def trade_a_day(self) -> None:
        """Open in two fills, be denied twice, cancel the rest, close, end flat."""
        self.step()
        handle = InstrumentHandle(self.page, self.slot, 0)
        order = self.sent(10)
        self.filled(order.token, 4, 4)
        self.step(PRICE + 100)
        for _ in range(3):
            assert handle.check_raw(5, PRICE, 0) < 0
        self.say(EventKind.ORDER_DONE, order.token, state="CANCELLED", cumulative=4)
        self.step(PRICE - 200)
        token = handle.check_raw(-4, 0, 0)
        assert token > 0
        self.filled(token, -4, 4, PRICE - 200)
        self.say(EventKind.ORDER_DONE, token, state="FILLED", cumulative=4)
        self.step(PRICE)
        self.commit_log()
        # Beyond the margin of the last decision's stamp: the next sums are those of a flat book.
        sleep_s(0.05)
        self.step(PRICE + 1)
        self.commit_log()
        self.commit_log()

    @property
    def folders(self) -> Folders:
        """The log's folders."""
        return Folders(Path(self.page.names.state_folder))


def replayed(folders: Folders, **options: Any) -> Report:
    """Replay a log."""
    return Replayer(folders.audit, folders.heads, **options).replay()


def forged(source: Folders, state: Path, change: Change) -> Folders:
    """Return a copy of a log of which some rows were changed, chained and numbered anew."""
    numbers: dict[tuple[int, int], int] = {}
    rows = []
    for stored in LogReader(source.audit).rows():
        for row in change(stored.row):
            pair = row.epoch, row.producer
            numbers[pair] = numbers.get(pair, 0) + 1
            rows.append(replace(row, producer_sequence=numbers[pair]))
    folders = Folders(state)
    with LogWriter(folders.audit, folders.heads) as writer:
        writer.append(rows)
        writer.checkpoint(None, host_ns(), utc_ns())
    return folders


def body_changed(kind: EventKind, edit: Callable[[Any], None], *, place: int = 0) -> Change:
    """Return the change of one row's body: that at ``place`` among its kind."""
    seen = [0]

    def change(row: Row) -> Iterable[Row]:
        if row.kind != kind:
            return [row]
        seen[0] += 1
        if seen[0] != place + 1:
            return [row]
        if len(row.body) == RECORD_BYTES and kind is EventKind.DECISION:
            words = bytearray(row.body)
            edit(words)
            return [replace(row, body=bytes(words))]
        body: Any = unpack_body(row.body)
        edit(body)
        return [replace(row, body=pack_body(body))]

    return change


def repeated(kind: EventKind, times: int, *, place: int = 0, **other: Any) -> Change:
    """Return the change that leaves one row out (0) or writes it twice (2)."""
    seen = [0]

    def change(row: Row) -> Iterable[Row]:
        if row.kind != kind:
            return [row]
        seen[0] += 1
        if seen[0] != place + 1:
            return [row]
        rows = [row] * times
        if other and times > 1:
            body: Any = unpack_body(row.body)
            rows[1] = replace(row, body=pack_body({**body, **other}))
        return rows

    return change


def spread() -> Change:
    """Return the change that puts seconds of host time between what lay a moment apart.

    What happens around the change of a level may have seen the old or the new one; a test that is
    over in a moment could prove nothing.
    """
    first: list[int] = []

    def later(moment_ns: int) -> int:
        return first[0] + (moment_ns - first[0]) * SPREAD

    def change(row: Row) -> Iterable[Row]:
        if not first:
            first.append(row.host_ns - NS_PER_S)
        body = row.body
        if row.kind == EventKind.DECISION:
            stamp = int.from_bytes(body[HOST_NS], "little")
            body = body[: HOST_NS.start] + later(stamp).to_bytes(8, "little") + body[HOST_NS.stop :]
        return [replace(row, host_ns=later(row.host_ns), body=body)]

    return change
