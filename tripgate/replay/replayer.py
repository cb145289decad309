"""Replaying a log: one handler for each kind of record, and the report of what they found.

A kind that a later version adds gets a line in ``HANDLERS``; a kind that is not there is counted as
not replayed, never as equal.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from tripgate.audit.heads import Checkpoint
from tripgate.audit.reader import LogReader, StoredRow
from tripgate.audit.record import RecordError, Row
from tripgate.messages import EventKind
from tripgate.page.level import LevelWriter
from tripgate.reasons import Level
from tripgate.replay.causes import Causes
from tripgate.replay.decide import exceeds_level, redecide
from tripgate.replay.decided import BadRecordError, Decided, read_decision
from tripgate.replay.report import Report, kind_name
from tripgate.replay.run import MALFORMED, Event, Run, Snapshot, snapshot_of
from tripgate.replay.terms import STAMP_NS
from tripgate.replay.walk import Chain, Judgements, Progress

UNREADABLE = (BadRecordError, RecordError, *MALFORMED)
TRADED = (EventKind.FILL, EventKind.ORDER_DONE, EventKind.ORDER_RESOLVED)
Body = Mapping[Any, Any]


def _no_progress(rows: int) -> None:
    del rows


class Replayer:
    """Replays one log.

    Parameters
    ----------
    audit_folder, heads_folder
        The log and its heads; neither is written.
    epoch
        Judge this run alone; what stands before it is read for the state.
    from_row
        Judge from this row on; likewise.
    """

    def __init__(
        self, audit_folder: Path, heads_folder: Path, *, epoch: int | None = None, from_row: int = 1
    ) -> None:
        self._audit_folder = audit_folder
        self._epoch = epoch
        self._from_row = from_row
        self._chain = Chain(audit_folder, heads_folder, self._at_head)
        self._judgements = Judgements()
        self._causes = Causes()
        self._run: Run | None = None
        self._before: Run | None = None
        self._active_ns: list[int] = []
        self.report = Report()

    def replay(self, progress: Progress = _no_progress) -> Report:
        """Replay the log and return what was found.

        Raises
        ------
        ChainBrokenError
            A row cannot be believed.
        """
        for stored in self._chain.rows():
            if self._epoch is not None and stored.row.epoch > self._epoch:
                break
            self._take(stored)
            self.report.rows += 1
            if not self.report.rows % 10_000:
                progress(self.report.rows)
        self._finish_run()
        self.report.is_partial = self._chain.begins_late
        self._tell_holdings()
        return self.report

    def _take(self, stored: StoredRow) -> None:
        row, name = stored.row, kind_name(stored.row.kind)
        if self._run is not None and row.epoch != self._run.epoch:
            self._finish_run()
        if row.kind == EventKind.RUN_STARTED:
            self._finish_run()
        handler = HANDLERS.get(row.kind)
        if self._run is not None:
            self._run.see(row.producer, row.producer_sequence)
        if handler is not None:
            try:
                handler(self, stored.sequence, row)
            except UNREADABLE as error:
                self._differ(stored.sequence, name, "its body", f"malformed: {error}")
        if self._is_asked(stored.sequence, row.epoch):
            counts = self.report.not_replayed if handler is None else self.report.replayed
            counts[name] += 1
        if self._run is not None:
            self._compare_ready(self._run)

    def _compare_ready(self, run: Run) -> None:
        for compared in run.compare_ready():
            snapshot = compared.snapshot
            for at, problem in compared.problems:
                self._differ(at, *problem)
            if self._is_asked(snapshot.row, run.epoch):
                self.report.snapshots += 1
                self.report.sums_compared += compared.sums_compared
            self._judgements.add(snapshot.host_ns, partial(self._judge_levels, run, snapshot))

    def _at_head(self, head: Checkpoint) -> None:
        run = self._run
        self.report.heads += 1
        if run is None:
            return
        if head.node_sums is not None:
            flat_ns = run.flat_ns
            self._judgements.add(head.host_ns, lambda: self._judge_head(run, head, flat_ns))
        self._judgements.settle(head.host_ns)
        for row, problem in self._causes.overdue(head.host_ns):
            self._differ(row, *problem)
        oldest = self._judgements.oldest_ns or head.host_ns
        run.levels.forget(min(oldest, head.host_ns))
        horizon = min(oldest, run.flat_ns or head.host_ns) - STAMP_NS
        self._active_ns = [at for at in self._active_ns if at >= horizon]

    def _finish_run(self) -> None:
        run = self._run
        if run is None:
            return
        self._compare_ready(run)
        for row, problem in run.finish():
            self._differ(row, *problem)
        self._judgements.settle_all()
        for row, problem in self._causes.overdue(None):
            self._differ(row, *problem)
        self._active_ns.clear()

    def _judge_decision(self, run: Run, at: int, row: Row, told: Decided) -> None:
        candidates = run.terms.candidates(told.host_ns, told.version)
        found = redecide(told, row.producer, candidates, on_shadow_page=run.is_shadow)
        if found.difference is not None:
            self._differ(at, *found.difference)
            return
        if not found.is_judged:
            self.report.unjudged += 1
            return
        pair = candidates[-1].pair(told.strategy, told.instrument) if candidates else None
        if pair is not None:
            seen = exceeds_level(told, *run.levels.bounds(pair.nodes, told.host_ns))
            if seen:
                self._differ(at, "level that was read", told.level, seen)
                return
        if found.is_partly and told.reason is not None:
            self.report.partly[told.reason.name] += 1
        else:
            self.report.equal += 1

    def _judge_levels(self, run: Run, snapshot: Snapshot) -> None:
        assert run.holdings is not None
        for scope, node in snapshot.body["nodes"].items():
            number = run.terms.names.number[scope]
            least, most = run.levels.bounds((number,), snapshot.host_ns)
            if not least <= node["level"] <= most:
                rebuilt = Level(least).name if least == most else f"{least} to {most}"
                self._differ(snapshot.row, f"level of {scope}", Level(node["level"]).name, rebuilt)

    def _judge_head(self, run: Run, head: Checkpoint, flat_ns: int | None) -> None:
        if not self._is_asked(head.sequence, run.epoch):
            return
        first, last = (flat_ns or 0) - STAMP_NS, head.host_ns + STAMP_NS
        if flat_ns is None or any(first <= at <= last for at in self._active_ns):
            self.report.head_sums_not_comparable += 1
            return
        self.report.head_sums_compared += 1
        for scope, amount in (head.node_sums or {}).items():
            if amount:
                self._differ(head.sequence, f"head's gross sum of {scope}", amount, 0)

    def _differ(self, row: int, what: str, recorded: object, recomputed: object) -> None:
        run = self._run
        if run is not None and self._is_asked(row, run.epoch):
            self.report.differ(row, what, recorded, recomputed)

    def _is_asked(self, row: int, epoch: int) -> bool:
        return row >= self._from_row and self._epoch in (None, epoch)

    def _run_started(self, at: int, row: Row) -> None:
        before, self._run = self._run, Run(row.epoch, _body(row))
        self._before = before
        self._run.see(row.producer, row.producer_sequence)

    def _numbers(self, at: int, row: Row) -> None:
        body = _body(row)
        if self._run is not None:
            self._run.terms.number(str(body["table"]), int(body["first"]), list(body["names"]))

    def _limits(self, at: int, row: Row) -> None:
        body, run = _body(row), self._run
        if run is None:
            return
        if run.terms.take(body, row.host_ns):
            self._begin(run, at)
        elif "nodes" in body and run.holdings is not None:
            run.levels.take_words(body["nodes"], row.host_ns)

    def _begin(self, run: Run, at: int) -> None:
        before = self._before
        old = before.holdings if before is not None else None
        run.begin(before, carries=False)
        assert run.holdings is not None
        if old is not None and run.holdings.is_alike(old):
            run.holdings.carry_book(old)
        elif at > 1 and not self._chain.begins_late:
            # Another config numbers or values them anew: the book is made again from its trades.
            kinds = [int(kind) for kind in TRADED]
            for stored in LogReader(self._audit_folder).rows(kinds=kinds):
                if stored.sequence >= at:
                    break
                body = _body(stored.row)
                if "refused" not in body:
                    run.holdings.apply(stored.row.kind, body, stored.row.market_ms)
        self._before = None

    def _decision(self, at: int, row: Row) -> None:
        told, run = read_decision(row.body), self._run
        self._causes.decided(row.producer, row.producer_sequence, told)
        if self._is_asked(at, row.epoch):
            if told.token:
                self.report.approved += 1
            elif told.reason is not None:
                self.report.denied[told.reason.name] += 1
        if run is None:
            self.report.unjudged += 1
            return
        if told.token:
            self._active_ns.append(told.host_ns)
            if problem := self._causes.approve(told, row.producer):
                self._differ(at, *problem)
            self._wait(at, row, told, {})
        if self._is_asked(at, row.epoch):
            self._judgements.add(told.host_ns, lambda: self._judge_decision(run, at, row, told))

    def _merged(self, at: int, row: Row) -> None:
        body = _body(row)
        if problem := self._causes.merged(row.producer, row.producer_sequence, body):
            self._differ(at, *problem)
        if self._is_asked(at, row.epoch):
            self.report.merged[str(body["reason"])] += int(body["more"])

    def _order_event(self, at: int, row: Row) -> None:
        body = _body(row)
        if "refused" in body:
            return
        if row.kind == EventKind.FILL:
            self._active_ns.append(row.host_ns)
        if problem := self._causes.name(at, row, body):
            self._differ(at, *problem)
        if row.kind in (*TRADED, EventKind.RESERVATION_EXPIRED):
            self._wait(at, row, None, body)

    def _wait(self, at: int, row: Row, told: Decided | None, body: Body) -> None:
        if self._run is not None:
            self._run.wait(
                row.producer,
                Event(at, row.producer_sequence, row.host_ns, row.market_ms, row.kind, told, body),
            )

    def _snapshot(self, at: int, row: Row) -> None:
        body, run = _body(row), self._run
        if run is not None and "records" in body and not self._chain.begins_late:
            place, times = (row.producer, row.producer_sequence), (row.host_ns, row.market_ms)
            run.snapshot(snapshot_of(at, place, times, body))

    def _level(self, at: int, row: Row) -> None:
        if self._run is not None:
            problem = self._run.levels.take_change(_body(row), row.producer, row.host_ns)
            if problem is not None:
                self._differ(at, *problem)

    def _tightened(self, at: int, row: Row) -> None:
        is_keeper = row.kind == EventKind.COUNTERS_BROKEN
        writer = LevelWriter.KEEPER if is_keeper else LevelWriter.SUPERVISOR
        if self._run is not None:
            scope = str(_body(row)["scope"])
            self._run.levels.raise_byte(scope, writer, Level.MEDIUM, row.host_ns)

    def _withdrawn(self, at: int, row: Row) -> None:
        body = _body(row)
        if self._run is not None:
            writer = LevelWriter[str(body["writer"])]
            self._run.levels.withdraw(str(body["scope"]), writer, row.host_ns)

    def _operator(self, at: int, row: Row) -> None:
        body, run = _body(row), self._run
        if run is None or "scope" not in body:
            return
        # The byte is stored when the order is given; its record comes with the writer's next look.
        given_ns = row.host_ns - max(0, row.utc_ns - int(body.get("utc_ns", row.utc_ns)))
        if body["command"] == "halt":
            level = Level[str(body["level"])]
            run.levels.raise_byte(str(body["scope"]), LevelWriter.OPERATOR, level, given_ns)
        elif body["command"] == "resume":
            run.levels.withdraw(str(body["scope"]), LevelWriter.OPERATOR, given_ns)

    def _read_only(self, at: int, row: Row) -> None:
        """Take a record that changes nothing rebuilt here; its body must be whole all the same."""
        _body(row)

    def _tell_holdings(self) -> None:
        run, report = self._run, self.report
        if run is None or run.holdings is None:
            return
        names = run.holdings.names
        for key, position in run.holdings.book.positions.items():
            if position.lots:
                text = f"{names.strategies[key.strategy]} {names.instruments[key.instrument]}"
                report.positions[text] = position.lots
        report.reserved = sum(1 for order in run.holdings.reserved.values() if order.remaining)
        report.levels = run.levels.shown()


def _body(row: Row) -> Body:
    """Return a row's body; its values are looked at by whoever uses them, not one by one here."""
    try:
        fields: object = msgpack.unpackb(row.body, raw=False, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise RecordError(f"the body is no msgpack map: {error}") from None
    if not isinstance(fields, dict):
        raise RecordError(f"the body is no msgpack map but a {type(fields).__name__}")
    return fields


Handler = Callable[[Replayer, int, Row], None]
HANDLERS: Mapping[int, Handler] = {
    EventKind.RUN_STARTED: Replayer._run_started,
    EventKind.NUMBERS_ASSIGNED: Replayer._numbers,
    EventKind.LIMITS_IN_FORCE: Replayer._limits,
    EventKind.DECISION: Replayer._decision,
    EventKind.DENIALS_MERGED: Replayer._merged,
    EventKind.RISK_SNAPSHOT: Replayer._snapshot,
    EventKind.LEVEL_CHANGED: Replayer._level,
    EventKind.LEVEL_WITHDRAWN: Replayer._withdrawn,
    EventKind.ESCALATED: Replayer._tightened,
    EventKind.COUNTERS_BROKEN: Replayer._tightened,
    EventKind.OPERATOR: Replayer._operator,
    **dict.fromkeys((
        EventKind.ORDER_SENT, EventKind.ORDER_ACKNOWLEDGED, EventKind.ORDER_DONE,
        EventKind.ORDER_UNKNOWN, EventKind.ORDER_RESOLVED, EventKind.CANCEL_SENT,
        EventKind.RESERVATION_EXPIRED, EventKind.FILL,
    ), Replayer._order_event),
    **dict.fromkeys((
        EventKind.RUN_ENDED, EventKind.ARMED, EventKind.LIMITS_CHANGED, EventKind.RESUMED,
        EventKind.FLAT,
    ), Replayer._read_only),
}  # fmt: skip
"""Who takes which kind; whatever is not here is counted as not replayed."""
