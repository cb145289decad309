"""The keeper's RISK_SNAPSHOT: what its book and the page hold at one moment, and what it has read.

A snapshot names the last record of each slot that its sums hold, and the last of each router that
its book holds. So ``audit replay`` can add up the same records and must find the same numbers; the
prices it took them at stand beside them. Where the gate was too busy to be read at one moment,
``still`` is 0 and the sums prove nothing; the book does.
"""

from collections.abc import Collection, Mapping
from typing import Any

from actors.service import Service
from tripgate.machines import book
from tripgate.machines.book_types import Book
from tripgate.messages import EventKind
from tripgate.page.layout import ACCOUNT, KEY, LIMIT
from tripgate.page.level import node_level
from tripgate.page.stillness import read_still
from tripgate.reasons import Level

FINALS_MAX = 16
"""Snapshots after the run's end: one whenever something still ended or filled."""


class Snapshots:
    """Records what the keeper holds."""

    def __init__(self, service: Service, applied: Mapping[int, int]) -> None:
        """``applied`` is the keeper's own table: last record applied, by a router's slot."""
        self._service = service
        self._page = service.page
        self._names = service.names
        self._applied = applied
        self._finals = 0
        self._final_records: dict[int, int] = {}

    def record(self, state: Book, level: Level, step: int, ticked: Collection[int]) -> None:
        """Record a snapshot right after a step was marked.

        Parameters
        ----------
        ticked
            Instruments that had a tick in the step: their positions were re-marked.
        """
        body = self._words(level)
        body |= {"step": step, "ticked": sorted(ticked), **self._book(state)}
        self._service.emit(EventKind.RISK_SNAPSHOT, body)

    def is_final_due(self) -> bool:
        """Whether the run has ended and something has been recorded since the last snapshot."""
        if not self._service.header["ended"] or self._finals >= FINALS_MAX:
            return False
        records = read_still(self._page).records
        records.pop(self._service.slot, None)
        due = records != self._final_records or not self._finals
        if due:
            self._final_records = records
            self._finals += 1
        return due

    def _words(self, level: Level) -> dict[str, Any]:
        rows, limits = self._page.rows(ACCOUNT), self._page.rows(LIMIT)
        reading = read_still(self._page)
        accounts = {
            name: {
                "equity": int(rows["equity_mark"][node]),
                "high_water_mark": int(rows["high_water_mark"][node]),
                "drawdown_ppm": int(rows["drawdown_ppm"][node]),
                "known": int(rows["known"][node]),
            }
            for node, name in enumerate(self._names.scopes)
            if rows["starting"][node]
        }
        nodes = {}
        for node, name in enumerate(self._names.scopes):
            gross, long, short, margin = reading.sums[node]
            nodes[name] = {
                "gross": gross, "gross_max": int(limits["gross_max"][node]),
                "net": max(long, short), "net_max": int(limits["net_max"][node]),
                "factor_ppm": int(limits["factor_ppm"][node]),
                "long": long, "short": short, "margin": margin,
                "level": int(node_level(self._page, node)),
            }  # fmt: skip
        return {
            "level": level.name, "accounts": accounts, "nodes": nodes,
            "still": int(reading.is_still), "records": reading.records,
            "applied": dict(self._applied),
        }  # fmt: skip

    def _book(self, state: Book) -> dict[str, Any]:
        keys, positions, charged = self._page.rows(KEY), {}, {}
        for key, position in state.positions.items():
            number = self._names.keys.index((key.strategy, key.instrument))
            positions[number] = [
                position.lots, position.cash_lot_ticks, position.fees_money,
                position.basis_lot_ticks,
            ]  # fmt: skip
            charged[number] = [int(keys["charged"][number]), int(keys["margin_charged"][number])]
        parts = [book.split_money(state, key) for key in state.positions]
        return {
            "positions": positions, "charged": charged,
            "marks": {
                number: [mark, state.last_ticks.get(number, 0)]
                for number, mark in state.mark_ticks.items()
            },
            "realised": sum(done for done, _ in parts),
            "unrealised": sum(open_result or 0 for _, open_result in parts),
            "fees": sum(position.fees_money for position in state.positions.values()),
        }  # fmt: skip
