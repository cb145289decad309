"""The keeper's accounts: equity, high-water mark and drawdown per scope, and their history.

One row per scope that has an equity: the portfolio, each strategy (starting equity and its own
result) and each venue. The high-water mark outlives a restart of the keeper in the page and a
restart of the tree in the last RISK_SNAPSHOT of the log; it is lowered only by an operator's
recorded rebase.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from actors.keeper_margins import Margins
from actors.keeper_snapshots import Snapshots
from actors.service import Service
from models import drawdown
from tripgate.machines import book
from tripgate.machines.book_types import Book, Equity
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.board import read_quote
from tripgate.page.layout import ACCOUNT, INSTRUMENT, ROLE
from tripgate.page.level import node_level
from tripgate.reasons import Level

SNAPSHOT_MS = 10_000
"""Market time between two RISK_SNAPSHOT rows (and one at each level change)."""


class Accounts:
    """Writes the ACCOUNT rows."""

    def __init__(
        self, service: Service, strategies: Mapping[int, int],
        applied: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        """``applied`` is the keeper's own table of the last record applied, by router's slot."""
        self._service = service
        self._page = service.page
        self._names = service.names
        self._rows = service.page.rows(ACCOUNT)
        self._role = service.page.rows(ROLE)[service.role]
        self.state_folder = Path(service.names.state_folder)
        self._strategies = {
            self._names.scope(f"strategy:{self._names.strategies[n]}"): n for n in strategies
        }
        self._whole = [0, *(self._names.scope(f"venue:{venue}") for venue in self._names.venues)]
        self._margins = Margins(service)
        self._snapshots = Snapshots(service, {} if applied is None else applied)
        self._snapshot_ms = 0
        self._level = Level.NORMAL

    def update(
        self, state: Book, step: int, market_ms: int, ticked: Collection[int] = (),
        *, tells: bool = False,
    ) -> None:  # fmt: skip
        """Write every scope's equity and drawdown after a step was marked.

        Parameters
        ----------
        ticked
            Instruments that had a tick in this step.
        tells
            Record a snapshot whether or not it is time to.
        """
        stale = self._is_stale(state, market_ms)
        portfolio = book.equity(state)
        for node in self._whole:
            self._write(node, portfolio, stale, step, market_ms)
        for node, strategy in self._strategies.items():
            self._write(node, book.equity(state, strategy), stale, step, market_ms)
        self._split(state)
        self._margins.update(state, market_ms)
        level = max(node_level(self._page, n) for n in range(len(self._names.scopes)))
        is_due = market_ms - self._snapshot_ms >= SNAPSHOT_MS or level is not self._level
        if is_due or tells:
            self._snapshot_ms, self._level = market_ms, level
            self._snapshots.record(state, level, step, ticked)

    def finish(self, state: Book, step: int) -> None:
        """Record how things stand once the run has ended, and again if anything still happens."""
        if step >= 0 and self._snapshots.is_final_due():
            self.update(state, step, self._service.market_ms, tells=True)

    def take_rebases(self, state: Book) -> None:
        """Restart high-water marks at present equity where an operator ordered it."""
        if int(self._service.header["operator_sequence"]) <= int(self._role["operator_read"]):
            return
        for record in read_records(self.state_folder, int(self._role["operator_read"])):
            if record.get("scope") not in self._names.scopes:
                self._role["operator_read"] = record["id"]
                continue
            row = self._rows[self._names.scope(record["scope"])]
            rebases = record["command"] == "resume" and record["rebase"] and row["starting"]
            if rebases and (not row["known"] or row["stale"]):
                # A run that has just begun has no equity yet: the order stands until it has.
                return
            if rebases:
                old, new = int(row["high_water_mark"]), int(row["equity_mark"])
                row["high_water_mark"] = new
                self.update(state, int(row["step"]), self._service.market_ms)
                self._service.emit(
                    EventKind.RESUMED,
                    {"scope": record["scope"], "high_water_mark": new, "before": old,
                     "operator": str(record.get("operator", "")), "record": record["id"]},
                )  # fmt: skip
            row["rebase_sequence"] = record["id"]
            self._role["operator_read"] = record["id"]

    def _write(self, node: int, equity: Equity, stale: bool, step: int, market_ms: int) -> None:
        row = self._rows[node]
        row["stale"] = int(stale)
        if equity.on_mark_money is None or equity.on_last_money is None:
            row["known"] = 0
            return
        mark, last = equity.on_mark_money, equity.on_last_money
        before = drawdown.Drawdown(
            int(row["high_water_mark"]), int(row["drawdown_ppm"]), market_ms, market_ms
        )
        after = drawdown.update(before, mark, 0, market_ms)
        row["equity_mark"], row["equity_last"] = mark, last
        row["high_water_mark"] = after.high_water_mark_money
        row["drawdown_ppm"] = after.drawdown_ppm
        row["drawdown_last_ppm"] = drawdown.drawdown_ppm(after.high_water_mark_money, last)
        row["drawdown_max_ppm"] = max(int(row["drawdown_max_ppm"]), after.drawdown_ppm)
        row["market_ms"], row["step"] = market_ms, step
        row["known"] = 1

    def _is_stale(self, state: Book, market_ms: int) -> bool:
        header, specs = self._service.header, self._page.rows(INSTRUMENT)
        for key, position in state.positions.items():
            quote = read_quote(self._page, key.instrument)
            age_max = max(int(specs["age_max_ms"][key.instrument]), int(header["age_floor_ms"]))
            if position.lots and (quote is None or market_ms - quote.market_ms > age_max):
                return True
        return False

    def _split(self, state: Book) -> None:
        realised, unrealised = 0, 0
        for key in state.positions:
            done, open_result = book.split_money(state, key)
            realised, unrealised = realised + done, unrealised + (open_result or 0)
        fees = sum(position.fees_money for position in state.positions.values())
        for node in self._whole:
            row = self._rows[node]
            row["realised"], row["unrealised"], row["fees"] = realised, unrealised, fees
