"""Money is conserved: whatever is traded, the venue's books equal a plain sum over its fills."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from exchange_adapters.simulator.account import Terms, basis_points
from exchange_adapters.simulator.matching import MatchingEngine, MatchingEvent
from exchange_adapters.venue_port import (
    OrderCancelled,
    OrderKind,
    OrderState,
    TimeInForce,
    VenueFill,
    VenueOrder,
)
from tripgate.reasons import Side
from tripgate.units import InstrumentUnits

SYMBOLS = ("BTC/USDT:USDT", "XLM/USDT:USDT")
EQUITY_MONEY = 10**9
# The second instrument's lot is worth a fraction of a money unit per tick, so nothing is whole.
TERMS = (
    Terms(
        SYMBOLS[0],
        InstrumentUnits(Decimal("0.1"), Decimal("0.001"), Decimal(1)),
        *map(basis_points, ("1.5", "5", "2")),
    ),
    Terms(
        SYMBOLS[1],
        InstrumentUnits(Decimal("0.00001"), Decimal("1"), Decimal("3.3")),
        *map(basis_points, ("7", "4.5", "0")),
    ),
)


@dataclass(frozen=True)
class Tick:
    ticks: tuple[int | None, ...]


@dataclass(frozen=True)
class Cancel:
    number: int


PRICES = st.integers(1, 60)
ORDERS = st.builds(
    lambda symbol, side, lots, kind, price, time_in_force, reduce_only: {
        "symbol": symbol,
        "side": side,
        "lots": lots,
        "kind": kind,
        "price_ticks": price if kind is OrderKind.LIMIT else None,
        "stop_ticks": price if kind is OrderKind.STOP_MARKET else None,
        "time_in_force": time_in_force,
        "reduce_only": reduce_only,
    },
    st.sampled_from(SYMBOLS),
    st.sampled_from(Side),
    st.integers(1, 50),
    st.sampled_from(OrderKind),
    PRICES,
    st.sampled_from(TimeInForce),
    st.sampled_from([False, False, True]),
)
TICKS = st.builds(Tick, st.tuples(*[PRICES | PRICES | st.none() for _ in SYMBOLS]))
# Long lists only: a short one has no position to close, and would say nothing about conservation.
ACTIONS = st.lists(
    ORDERS | ORDERS | TICKS | TICKS | st.builds(Cancel, st.integers(0, 20)),
    min_size=25,
    max_size=60,
)


def act(engine: MatchingEngine, action: object, now: int) -> list[MatchingEvent]:
    """Run one action; an order is named after ``now``. Its own acceptance is not returned."""
    if isinstance(action, Tick):
        return engine.apply_ticks(action.ticks, now)
    if isinstance(action, Cancel):
        return engine.cancel(f"{action.number:025d}", now)[1]
    if isinstance(action, dict):
        engine.send(VenueOrder(client_id=f"{now:025d}", **action), now)
    return []


def play(
    actions: list[object],
) -> tuple[MatchingEngine, list[MatchingEvent], list[tuple[VenueFill, int]]]:
    """Run the actions; with each fill goes the position of its symbol before it."""
    engine = MatchingEngine(EQUITY_MONEY, TERMS)
    events: list[MatchingEvent] = []
    fills: list[tuple[VenueFill, int]] = []
    lots = dict.fromkeys(SYMBOLS, 0)
    for now, action in enumerate(actions):
        new = act(engine, action, now)
        for event in new:
            if isinstance(event, VenueFill):
                fills.append((event, lots[event.symbol]))
                lots[event.symbol] += event.side * event.lots
        events += new
    return engine, events, fills


@given(ACTIONS)
def test_equity_when_anything_was_traded_then_equals_start_plus_fills_exactly(
    actions: list[object],
) -> None:
    engine, _, fills = play(actions)
    values = {one.symbol: one.units.value_fraction() for one in TERMS}
    equity = Fraction(EQUITY_MONEY)
    lots = dict.fromkeys(SYMBOLS, 0)
    for fill, _ in fills:
        # Buying pays and selling earns the full price; what is held counts at the mark.
        equity -= fill.side * fill.lots * fill.price_ticks * values[fill.symbol] + fill.fee_money
        lots[fill.symbol] += fill.side * fill.lots
    for symbol, held in lots.items():
        if held:
            equity += held * engine.account.marks_ticks[symbol] * values[symbol]
    assert engine.account.equity() == equity
    assert engine.account.open_positions() == {name: held for name, held in lots.items() if held}
    assert engine.account.fees_money == sum(fill.fee_money for fill, _ in fills)
    for symbol, position in engine.account.positions.items():
        assert position.lots * position.entry_tick_lots >= 0
        assert position.lots or not position.entry_tick_lots, symbol


@given(ACTIONS)
def test_fee_when_an_order_fills_then_is_its_notional_times_the_rate_rounded_up(
    actions: list[object],
) -> None:
    engine, _, fills = play(actions)
    for fill, _ in fills:
        terms = engine.account.terms[fill.symbol]
        rate = terms.taker_fee if fill.liquidity.value == "taker" else terms.maker_fee
        exact = fill.lots * fill.price_ticks * terms.units.value_fraction() * rate
        assert exact <= fill.fee_money < exact + 1


@given(ACTIONS)
def test_reduce_only_when_anything_was_traded_then_never_grows_or_flips_a_position(
    actions: list[object],
) -> None:
    engine, _, fills = play(actions)
    for fill, lots_before in fills:
        status = engine.query(fill.client_id)
        assert status is not None
        if status.order.reduce_only:
            assert lots_before * fill.side < 0
            assert fill.lots <= abs(lots_before)


@given(ACTIONS)
def test_orders_when_followed_by_events_then_states_lots_and_trade_ids_agree(
    actions: list[object],
) -> None:
    engine, events, fills = play(actions)
    assert [fill.trade_id for fill, _ in fills] == list(range(1, len(fills) + 1))
    filled: dict[str, int] = {}
    ended: set[str] = set()
    for event in events:
        assert event.client_id not in ended
        status = engine.query(event.client_id)
        assert status is not None
        if isinstance(event, VenueFill):
            filled[event.client_id] = filled.get(event.client_id, 0) + event.lots
            assert event.cumulative_lots == filled[event.client_id]
            assert event.cumulative_lots + event.remaining_lots == status.order.lots
            if not event.remaining_lots:
                ended.add(event.client_id)
        elif isinstance(event, OrderCancelled):
            ended.add(event.client_id)
        within = {Side.BUY: 1, Side.SELL: -1}[status.order.side]
        if isinstance(event, VenueFill) and status.order.price_ticks is not None:
            assert within * (event.price_ticks - status.order.price_ticks) <= 0
    still_open = {record.order.client_id for record in engine.open_records()}
    assert not still_open & ended
    for client_id in ended:
        status = engine.query(client_id)
        assert status is not None
        assert status.state is not OrderState.OPEN


@given(ACTIONS)
def test_matching_when_played_twice_then_gives_the_same_events(actions: list[object]) -> None:
    assert play(actions)[1] == play(actions)[1]
