"""The demo strategies against a real page and gate: what they ask for, and when.

No router runs here: what would be submitted is noted instead, and the page is moved by hand.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from tests.tree_fixtures import BTC, EQUITY, ETH, INSTANCE, MARKET_MS, hold, mark, paper_page
from tripgate import Decision, Gate
from tripgate.demo import hold as hold_demo
from tripgate.demo import pulse, trend
from tripgate.demo.common import send, starting_equity, strategy_name
from tripgate.gate.commit import Approved, find_reserved
from tripgate.page.board import Quote
from tripgate.page.layout import KEY, ROLE
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason

PRICE = 500_000
NAME = ("sim", BTC)


class Desk:
    """A page whose market is moved by hand, and what the strategy submitted."""

    def __init__(self, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page: Page = paper_page(strategies=(strategy,))
        self.submitted: list[Approved] = []
        self.then: Callable[[], None] = lambda: None
        self.step = -1
        monkeypatch.setenv("TRIPGATE_INSTANCE", INSTANCE)
        monkeypatch.delenv("TRIPGATE_TREE_PID", raising=False)
        monkeypatch.setattr("sys.argv", ["demo", "--gross", "0.5"])

        def submit(gate: Gate, decision: Decision) -> None:
            order = find_reserved(self.page, decision.token, gate._slot)
            assert order is not None
            self.submitted.append(order)
            self.then()

        monkeypatch.setattr(Gate, "submit", submit)

    def move(self, btc: int = PRICE, eth: int | None = PRICE, *, last: bool = False) -> None:
        """Publish the next step, judged by the breaker; ``last`` ends the feed with it."""
        self.step += 1
        market_ms = MARKET_MS + 1_000 * self.step
        for instrument, price in enumerate((btc, eth)):
            if price is not None:
                mark(self.page, instrument, price, step=self.step, market_ms=market_ms)
        self.page.header["market_ms"] = market_ms
        self.page.rows(ROLE)["step"][self.page.names.role("breaker")] = self.step
        self.page.header["step"] = self.step
        self.page.header["feed_finished"] = int(last)


@pytest.fixture
def gate_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Desk, Gate]]:
    def attach(strategy: str) -> tuple[Desk, Gate]:
        desk = Desk(strategy, monkeypatch)
        desk.move()
        return desk, Gate.attach(strategy=strategy)

    return attach


def quote(price: int) -> Quote:
    return Quote(price, price, price, price, MARKET_MS, 0, 2)


def test_average_when_it_is_as_old_as_long_then_it_speaks() -> None:
    average = trend.Average(3)
    assert [average.add(value) for value in (100, 100, 100, 200)] == [None, None, 100.0, 150.0]


def follow(follower: trend.Follower, price: int, times: int) -> None:
    for _ in range(times):
        follower.follow(quote(price))


def test_trend_when_the_fast_average_rises_above_then_it_opens_once_with_a_stop(
    gate_of: Callable[[str], tuple[Desk, Gate]],
) -> None:
    desk, gate = gate_of("trend")
    with gate:
        follower = trend.Follower(gate, gate.instrument(*NAME), Decimal(20_000))
        follow(follower, PRICE, trend.SLOW_TICKS - 1)
        assert desk.submitted == []
        follow(follower, PRICE + 1_000, 2)
        (order, *_) = desk.submitted
        budget_lots = 20_000 * 10_000 // (PRICE + 1_000)
        assert order.lots == budget_lots
        assert order.stop_ticks == int((PRICE + 1_000) * Decimal("0.95"))
        assert order.is_market


def test_trend_when_the_fast_average_falls_below_then_it_closes_what_it_holds(
    gate_of: Callable[[str], tuple[Desk, Gate]],
) -> None:
    desk, gate = gate_of("trend")
    hold(desk.page, 0, 7, 7 * PRICE)
    with gate:
        follower = trend.Follower(gate, gate.instrument(*NAME), Decimal(20_000))
        follow(follower, PRICE, trend.SLOW_TICKS)
        follow(follower, PRICE + 1_000, 5)
        assert desk.submitted == [], "it holds already"
        follow(follower, PRICE - 5_000, 20)
        (order, *_) = desk.submitted
        assert (order.lots, order.opens, order.stop_ticks) == (-7, False, 0)


def test_trend_when_it_is_denied_then_nothing_is_submitted(
    gate_of: Callable[[str], tuple[Desk, Gate]],
) -> None:
    desk, gate = gate_of("trend")
    desk.page.header["closed"] = 1
    with gate:
        follower = trend.Follower(gate, gate.instrument(*NAME), Decimal(20_000))
        follow(follower, PRICE, trend.SLOW_TICKS)
        follow(follower, PRICE + 1_000, 5)
    assert desk.submitted == []


def test_pulse_when_it_beats_then_it_closes_what_it_holds_and_opens_a_little(
    gate_of: Callable[[str], tuple[Desk, Gate]],
) -> None:
    desk, gate = gate_of("pulse")
    with gate:
        handle = gate.instrument(*NAME)
        pulse.beat(gate, handle, Decimal(100_000))
        (opening,) = desk.submitted
        assert opening.lots == -(-100_000 * 10_000 // 1_000 // PRICE)
        assert opening.stop_ticks == int(PRICE * Decimal("0.95"))
        hold(desk.page, 0, 9, 9 * PRICE)
        pulse.beat(gate, handle, Decimal(100_000))
        assert [(o.lots, o.opens) for o in desk.submitted[1:]] == [
            (-9, False), (opening.lots, True),
        ]  # fmt: skip


def test_pulse_when_there_is_no_price_then_it_still_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk("pulse", monkeypatch)
    hold(desk.page, 0, 9, 9 * PRICE)
    with Gate.attach(strategy="pulse") as gate:
        pulse.beat(gate, gate.instrument(*NAME), Decimal(100_000))
    assert [(order.lots, order.opens) for order in desk.submitted] == [(-9, False)]


def test_hold_when_it_runs_then_each_instrument_is_bought_once_at_its_first_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk("hold", monkeypatch)
    desk.move(PRICE, None)
    steps: Iterator[Callable[[], None]] = iter([
        lambda: desk.move(PRICE + 9, PRICE),
        lambda: desk.move(PRICE, PRICE, last=True),
    ])  # fmt: skip
    desk.then = lambda: next(steps)()
    hold_demo.main()
    expected = EQUITY // 2 // 2 // PRICE
    assert [(o.instrument, o.lots, o.stop_ticks) for o in desk.submitted] == [
        (0, expected, PRICE // 2), (1, expected, PRICE // 2),
    ]  # fmt: skip


def test_hold_when_it_is_denied_then_it_says_why_and_never_asks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk("hold", monkeypatch)
    desk.page.rows(KEY)["exit_claim"][0] = 1
    desk.move(last=True)
    hold_demo.main()
    assert [order.instrument for order in desk.submitted] == [1]
    assert f"{BTC}: " in capsys.readouterr().out
    gate = Gate.attach(strategy="hold")
    assert gate.status().denied == {DenyReason.EXIT_IN_PROGRESS.name: 1}
    gate.close()


@pytest.mark.parametrize("main", [trend.main, pulse.main])
def test_main_when_the_feed_has_ended_then_it_returns(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk("trend" if main is trend.main else "pulse", monkeypatch)
    desk.move(last=True)
    main()
    assert len(desk.submitted) == (0 if main is trend.main else 2)


def test_send_when_no_router_answers_then_the_strategy_lives_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = paper_page()
    mark(page, 0, PRICE, step=0, market_ms=MARKET_MS)
    with Gate.attach(strategy="trend", instance=INSTANCE) as gate:
        handle = gate.instrument(*NAME)
        decision = handle.check(handle.units.lot, stop=handle.units.tick * (PRICE - 1_000))
        assert decision.approved
        send(gate, decision)
    assert "not submitted: no router answers at " in capsys.readouterr().out


def test_starting_equity_when_read_then_it_is_the_accounts(
    gate_of: Callable[[str], tuple[Desk, Gate]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, gate = gate_of("trend")
    with gate:
        assert starting_equity(gate) == Decimal(100_000)
        assert gate.instruments == (("sim", BTC), ("sim", ETH))
    monkeypatch.setenv("TRIPGATE_STRATEGY", "mine")
    assert strategy_name("trend") == "mine"
    monkeypatch.delenv("TRIPGATE_STRATEGY")
    assert strategy_name("trend") == "trend"
