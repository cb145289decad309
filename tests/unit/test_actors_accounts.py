"""The keeper's accounts on a real page: equity, marks, drawdown, staleness, snapshots, rebases."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from actors.keeper_accounts import SNAPSHOT_MS, Accounts
from tests.tree_fixtures import EQUITY, MARKET_MS, mark, paper_page, records, service
from tripgate.instance import state_folder
from tripgate.machines import book
from tripgate.machines.book_types import Book, BookInstrument, Fill, Marks
from tripgate.messages import EventKind
from tripgate.operator_file import append_record
from tripgate.page.layout import ACCOUNT, INSTRUMENT, LIMIT, SUM
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import Level
from tripgate.units import PPM

PRICE = 500_000
TREND, PULSE = 0, 1


class Desk:
    """Accounts of two strategies, and the book they are told of."""

    def __init__(self) -> None:
        self.page = paper_page(strategies=("trend", "pulse"))
        self.place = service(self.page, "position_keeper")
        shares = {TREND: EQUITY, PULSE: EQUITY}
        self.accounts = Accounts(self.place, shares)
        values = {number: BookInstrument(Fraction(1)) for number in (0, 1)}
        self.book = book.new_book(values, EQUITY, shares)
        self.rows = self.page.rows(ACCOUNT)
        self.step = -1

    def trade(self, lots: int, *, strategy: int = TREND, fee: int = 0, trade: int = 1) -> None:
        fill = Fill(trade, 0, strategy, strategy, lots, PRICE, fee, MARKET_MS)
        self.book, _ = book.step(self.book, fill, MARKET_MS)

    def at(self, price: int, *, last: int | None = None, market_ms: int = MARKET_MS) -> None:
        """Mark both instruments and update the accounts."""
        self.step += 1
        self.page.header["market_ms"] = market_ms
        for number in (0, 1):
            mark(self.page, number, price, step=self.step, market_ms=market_ms)
        prices, lasts = dict.fromkeys((0, 1), price), dict.fromkeys((0, 1), last or price)
        marks = Marks(self.step, market_ms, prices, lasts)
        self.book, _ = book.step(self.book, marks, market_ms)
        self.accounts.update(self.book, self.step, market_ms)

    def row(self, scope: str) -> Any:
        return self.rows[self.page.names.scope(scope)]

    def snapshots(self) -> list[Any]:
        kind = EventKind.RISK_SNAPSHOT
        return [body for found, body in records(self.page, self.place.slot) if found is kind]

    def order(self, **record: Any) -> int:
        """Let an operator order something."""
        number = append_record(state_folder(self.page.names.instance), {
            "command": "resume", "scope": "portfolio", "rebase": True, "operator": "ann", **record,
        })  # fmt: skip
        self.page.header["operator_sequence"] = number
        return number


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.place.close()


def test_update_when_prices_move_then_every_scope_has_its_own_equity(desk: Desk) -> None:
    desk.trade(1_000, fee=7)
    desk.trade(-500, strategy=PULSE, trade=2)
    desk.at(PRICE + 100)
    for scope in ("portfolio", "venue:sim"):
        row = desk.row(scope)
        assert int(row["equity_mark"]) == int(row["equity_last"]) == EQUITY + 100_000 - 50_000 - 7
        assert (int(row["unrealised"]), int(row["realised"]), int(row["fees"])) == (50_000, -7, 7)
        assert (int(row["known"]), int(row["step"]), int(row["market_ms"])) == (1, 0, MARKET_MS)
    assert int(desk.row("strategy:trend")["equity_mark"]) == EQUITY + 100_000 - 7
    assert int(desk.row("strategy:pulse")["equity_mark"]) == EQUITY - 50_000
    assert not int(desk.row("asset:BTC")["known"])


def test_update_when_equity_falls_then_drawdown_counts_from_the_highest(desk: Desk) -> None:
    desk.trade(1_000)
    desk.at(PRICE + 100_000)
    top = EQUITY + 1_000 * 100_000
    desk.at(PRICE, last=PRICE - 50_000)
    row = desk.row("portfolio")
    assert int(row["high_water_mark"]) == top
    assert int(row["drawdown_ppm"]) == pytest.approx((top - EQUITY) * PPM / top, abs=1)
    expected_last = (top - EQUITY + 1_000 * 50_000) * PPM / top
    assert int(row["drawdown_last_ppm"]) == pytest.approx(expected_last, abs=1)
    worst = int(row["drawdown_ppm"])
    desk.at(PRICE + 50_000)
    assert int(row["drawdown_ppm"]) < worst == int(row["drawdown_max_ppm"])
    assert int(desk.row("strategy:pulse")["drawdown_ppm"]) == 0


def test_update_when_a_position_has_no_price_then_equity_is_unknown_and_not_made_up(
    desk: Desk,
) -> None:
    desk.trade(10)
    desk.accounts.update(desk.book, 0, MARKET_MS)
    assert not int(desk.row("portfolio")["known"])
    assert int(desk.row("portfolio")["stale"]) == 1
    assert not int(desk.row("strategy:trend")["known"])
    assert int(desk.row("strategy:pulse")["known"]) == 1
    assert int(desk.row("portfolio")["unrealised"]) == 0


def test_update_when_a_held_price_is_too_old_then_every_account_is_stale(desk: Desk) -> None:
    floor = int(desk.page.header["age_floor_ms"])
    desk.at(PRICE)
    desk.accounts.update(desk.book, 1, MARKET_MS + 100 * floor)
    assert int(desk.row("portfolio")["stale"]) == 0, "what is not held cannot be stale"
    desk.trade(10)
    desk.accounts.update(desk.book, 1, MARKET_MS + floor)
    assert int(desk.row("portfolio")["stale"]) == 0
    desk.accounts.update(desk.book, 1, MARKET_MS + floor + 1)
    assert {int(desk.row(s)["stale"]) for s in ("portfolio", "venue:sim", "strategy:pulse")} == {1}
    desk.page.rows(INSTRUMENT)["age_max_ms"][0] = floor + 1
    desk.accounts.update(desk.book, 1, MARKET_MS + floor + 1)
    assert int(desk.row("portfolio")["stale"]) == 0


def test_update_when_time_or_level_moves_then_a_snapshot_is_recorded(desk: Desk) -> None:
    desk.at(PRICE)
    assert len(desk.snapshots()) == 1
    desk.at(PRICE, market_ms=MARKET_MS + SNAPSHOT_MS - 1)
    assert len(desk.snapshots()) == 1
    desk.at(PRICE, market_ms=MARKET_MS + SNAPSHOT_MS)
    assert len(desk.snapshots()) == 2
    set_level(desk.page, desk.page.names.scope("asset:BTC"), LevelWriter.BREAKER, Level.SOFT)
    desk.at(PRICE, market_ms=MARKET_MS + SNAPSHOT_MS + 1)
    assert [body["level"] for body in desk.snapshots()] == ["NORMAL", "NORMAL", "SOFT"]


def test_snapshot_when_recorded_then_it_holds_every_account_and_node(desk: Desk) -> None:
    node = desk.page.names.scope("asset:BTC")
    sums = desk.page.rows(SUM)
    sums["gross"][node], sums["long_worst"][node], sums["short_worst"][node] = 9, 4, 6
    desk.trade(1_000)
    desk.at(PRICE - 1_000)
    (body,) = desk.snapshots()
    assert set(body["accounts"]) == {"portfolio", "venue:sim", "strategy:trend", "strategy:pulse"}
    assert body["accounts"]["portfolio"] == {
        "equity": EQUITY - 1_000_000, "high_water_mark": EQUITY, "drawdown_ppm": 1_000, "known": 1,
    }  # fmt: skip
    assert set(body["nodes"]) == set(desk.page.names.scopes)
    limit = int(desk.page.rows(LIMIT)["gross_max"][node])
    assert body["nodes"]["asset:BTC"] == {
        "gross": 9, "gross_max": limit, "net": 6, "net_max": limit, "factor_ppm": PPM,
        "long": 4, "short": 6, "margin": 0, "level": 0,
    }  # fmt: skip


def test_rebase_when_an_operator_orders_it_then_the_mark_is_present_equity(desk: Desk) -> None:
    desk.trade(1_000)
    desk.at(PRICE)
    desk.at(PRICE - 100_000)
    number = desk.order()
    desk.accounts.take_rebases(desk.book)
    row, now = desk.row("portfolio"), EQUITY - 100_000_000
    assert (int(row["high_water_mark"]), int(row["drawdown_ppm"])) == (now, 0)
    assert int(row["rebase_sequence"]) == number
    assert int(desk.row("venue:sim")["high_water_mark"]) == EQUITY, "only the scope that was named"
    assert int(row["drawdown_max_ppm"]) > 0, "what was once lost is not forgotten"
    told = [body for kind, body in records(desk.page, desk.place.slot) if kind is EventKind.RESUMED]
    assert told == [
        {
            "scope": "portfolio",
            "high_water_mark": now,
            "before": EQUITY,
            "operator": "ann",
            "record": number,
        }
    ]
    desk.at(PRICE)
    desk.accounts.take_rebases(desk.book)
    assert int(row["high_water_mark"]) == EQUITY, "done once"


@pytest.mark.parametrize(
    "record",
    [
        {"rebase": False},
        {"command": "halt", "rebase": True},
        {"scope": "asset:GONE"},
        {"command": "orders resolve", "scope": None},
        {"scope": "asset:BTC"},
    ],
)
def test_rebase_when_it_is_no_rebase_of_ours_then_marks_stay(
    desk: Desk, record: dict[str, Any]
) -> None:
    desk.trade(1_000)
    desk.at(PRICE)
    desk.at(PRICE - 100_000)
    number = desk.order(**record)
    desk.accounts.take_rebases(desk.book)
    assert int(desk.row("portfolio")["high_water_mark"]) == EQUITY
    second = desk.order(scope="venue:sim")
    assert second == number + 1
    desk.accounts.take_rebases(desk.book)
    assert int(desk.row("venue:sim")["high_water_mark"]) == EQUITY - 100_000_000


def test_rebase_when_equity_is_unknown_then_it_waits_until_it_is_known(desk: Desk) -> None:
    number = desk.order()
    desk.trade(1_000)
    desk.accounts.take_rebases(desk.book)
    row = desk.row("portfolio")
    assert int(row["high_water_mark"]) == EQUITY
    assert int(row["rebase_sequence"]) == 0, "the breaker must not release a drawdown on it"
    assert not [k for k, _ in records(desk.page, desk.place.slot) if k is EventKind.RESUMED]
    desk.at(PRICE - 1_000)
    row["stale"] = 1
    desk.accounts.take_rebases(desk.book)
    assert int(row["high_water_mark"]) == EQUITY
    desk.at(PRICE - 1_000)
    desk.accounts.take_rebases(desk.book)
    assert int(row["high_water_mark"]) == EQUITY - 1_000_000
    assert int(row["rebase_sequence"]) == number


def test_accounts_when_the_keeper_is_restarted_then_the_mark_stays(desk: Desk) -> None:
    desk.trade(1_000)
    desk.at(PRICE + 100)
    again = Accounts(desk.place, {TREND: EQUITY})
    fallen: Book = replace(
        desk.book, mark_ticks={0: PRICE, 1: PRICE}, last_ticks={0: PRICE, 1: PRICE}
    )
    again.update(fallen, 1, MARKET_MS + 1)
    assert int(desk.row("portfolio")["high_water_mark"]) == EQUITY + 100_000
    assert int(desk.row("portfolio")["drawdown_ppm"]) > 0
