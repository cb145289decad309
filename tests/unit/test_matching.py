"""The matching core, order kind by order kind, on prices small enough to check by hand."""

from decimal import Decimal

import pytest

from exchange_adapters.simulator import matching
from exchange_adapters.simulator.account import Terms, basis_points
from exchange_adapters.simulator.matching import MatchingEngine
from exchange_adapters.venue_port import (
    CancelOutcome,
    CancelReason,
    Liquidity,
    OrderAccepted,
    OrderCancelled,
    OrderKind,
    OrderState,
    RejectClass,
    Rejected,
    TimeInForce,
    VenueFill,
    VenueOrder,
)
from tripgate.errors import DataError
from tripgate.reasons import Side
from tripgate.units import LOTS_MAX, InstrumentUnits

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
EQUITY_MONEY = 1_000_000_000


def engine(*, half_spread_bps: str = "100", fee_bps: str = "5") -> MatchingEngine:
    """Two instruments; a lot at a tick is worth 1 money unit; 1 % half spread; 5 bp taker fee."""
    units = InstrumentUnits(Decimal("0.1"), Decimal("0.001"), Decimal(1))
    terms = [
        Terms(
            symbol=symbol,
            units=units,
            half_spread=basis_points(half_spread_bps),
            taker_fee=basis_points(fee_bps),
            maker_fee=basis_points("2"),
        )
        for symbol in (BTC, ETH)
    ]
    return MatchingEngine(EQUITY_MONEY, terms)


def client_id(number: int) -> str:
    return f"T{number:024d}"


def order(number: int = 1, **changes: object) -> VenueOrder:
    fields: dict[str, object] = {
        "client_id": client_id(number),
        "symbol": BTC,
        "side": Side.BUY,
        "lots": 10,
        "kind": OrderKind.MARKET,
    }
    return VenueOrder(**{**fields, **changes})  # type: ignore[arg-type]


def limit(number: int, price_ticks: int, **changes: object) -> VenueOrder:
    return order(number, kind=OrderKind.LIMIT, price_ticks=price_ticks, **changes)


def stop(number: int, stop_ticks: int, **changes: object) -> VenueOrder:
    fields = {"side": Side.SELL, "reduce_only": True, **changes}
    return order(number, kind=OrderKind.STOP_MARKET, stop_ticks=stop_ticks, **fields)


def long_position(venue: MatchingEngine, lots: int = 10) -> None:
    venue.send(order(900, lots=lots), 0)
    venue.apply_ticks([1000, None], 0)
    assert venue.account.open_positions() == {BTC: lots}


def only_fill(events: list[matching.MatchingEvent]) -> VenueFill:
    fills = [event for event in events if isinstance(event, VenueFill)]
    assert len(fills) == 1
    return fills[0]


@pytest.mark.parametrize(("side", "price_ticks"), [(Side.BUY, 1010), (Side.SELL, 990)])
def test_market_order_when_next_tick_comes_then_fills_half_a_spread_away(
    side: Side, price_ticks: int
) -> None:
    venue = engine()
    venue.apply_ticks([500, 500], 1)
    assert venue.send(order(side=side), 2) == OrderAccepted(
        market_ms=2, client_id=client_id(1), symbol=BTC
    )
    events = venue.apply_ticks([1000, 500], 3)
    # 10 lots × price × 1 money × 5 bp, rounded up: 5.05 and 4.95 become 6 and 5.
    assert events == [
        VenueFill(
            market_ms=3,
            trade_id=1,
            client_id=client_id(1),
            symbol=BTC,
            side=side,
            lots=10,
            price_ticks=price_ticks,
            fee_money={Side.BUY: 6, Side.SELL: 5}[side],
            cumulative_lots=10,
            remaining_lots=0,
            liquidity=Liquidity.TAKER,
        )
    ]
    assert venue.apply_ticks([1000, 500], 4) == []


def test_touch_price_when_half_spread_is_below_a_tick_then_rounds_against_the_order() -> None:
    terms = engine(half_spread_bps="1").account.terms[BTC]
    assert terms.touch_ticks(Side.BUY, 1001) == 1002
    assert terms.touch_ticks(Side.SELL, 1001) == 1000
    assert terms.touch_ticks(Side.SELL, 1) == 1


def test_market_order_when_instrument_has_no_tick_then_waits() -> None:
    venue = engine()
    venue.send(order(), 0)
    assert venue.apply_ticks([None, 1000], 1) == []
    assert venue.query(client_id(1)).state is OrderState.OPEN  # type: ignore[union-attr]
    assert only_fill(venue.apply_ticks([1000, None], 2)).price_ticks == 1010


def test_limit_order_when_marketable_on_first_tick_then_takes_the_touch() -> None:
    venue = engine()
    venue.send(limit(1, 1200), 0)
    fill = only_fill(venue.apply_ticks([1000, None], 1))
    assert (fill.price_ticks, fill.liquidity) == (1010, Liquidity.TAKER)


def test_limit_order_when_reached_later_then_fills_at_its_limit_as_maker() -> None:
    venue = engine()
    venue.send(limit(1, 990), 0)
    assert venue.apply_ticks([1000, None], 1) == []
    assert venue.apply_ticks([981, None], 2) == []  # the touch is 991
    fill = only_fill(venue.apply_ticks([700, None], 3))
    assert (fill.price_ticks, fill.liquidity) == (990, Liquidity.MAKER)
    assert fill.fee_money == 2  # ceil(10 × 990 × 2 bp)


def test_sell_limit_when_touch_equals_it_then_fills() -> None:
    venue = engine()
    venue.send(limit(1, 1089, side=Side.SELL), 0)
    assert venue.apply_ticks([1000, None], 1) == []
    assert only_fill(venue.apply_ticks([1100, None], 2)).price_ticks == 1089


@pytest.mark.parametrize(("price_ticks", "fills"), [(1009, False), (1010, True)])
def test_ioc_order_when_first_tick_comes_then_fills_or_is_cancelled(
    price_ticks: int, fills: bool
) -> None:
    venue = engine()
    venue.send(limit(1, price_ticks, time_in_force=TimeInForce.IOC), 0)
    (event,) = venue.apply_ticks([1000, None], 1)
    if fills:
        assert isinstance(event, VenueFill)
    else:
        assert isinstance(event, OrderCancelled)
        assert event.reason is CancelReason.IMMEDIATE_OR_CANCEL
        assert (event.cumulative_lots, event.remaining_lots) == (0, 10)


@pytest.mark.parametrize(
    ("side", "quiet_tick", "reached_tick", "price_ticks"),
    [(Side.SELL, 901, 900, 891), (Side.BUY, 1099, 1100, 1111)],
)
def test_stop_order_when_tick_reaches_stop_then_fills_on_that_tick(
    side: Side, quiet_tick: int, reached_tick: int, price_ticks: int
) -> None:
    venue = engine()
    venue.send(stop(1, reached_tick, side=side, reduce_only=False), 0)
    assert venue.apply_ticks([quiet_tick, None], 1) == []
    fill = only_fill(venue.apply_ticks([reached_tick, None], 2))
    assert (fill.price_ticks, fill.liquidity) == (price_ticks, Liquidity.TAKER)


def test_reduce_only_order_when_larger_than_position_then_is_cut_and_the_rest_cancelled() -> None:
    venue = engine()
    long_position(venue, 10)
    venue.send(order(1, side=Side.SELL, lots=25, reduce_only=True), 1)
    fill, rest = venue.apply_ticks([1000, None], 2)
    assert isinstance(fill, VenueFill)
    assert (fill.lots, fill.cumulative_lots, fill.remaining_lots) == (10, 10, 15)
    assert isinstance(rest, OrderCancelled)
    assert (rest.reason, rest.cumulative_lots, rest.remaining_lots) == (
        CancelReason.REDUCE_ONLY,
        10,
        15,
    )
    assert venue.account.open_positions() == {}


def test_resting_stops_when_position_is_closed_then_are_cancelled_on_that_tick() -> None:
    venue = engine()
    long_position(venue)
    venue.send(order(1, side=Side.SELL, reduce_only=True), 1)
    venue.send(stop(2, 500), 1)
    venue.send(stop(3, 1000), 1)  # would trigger on this very tick
    events = venue.apply_ticks([1000, None], 2)
    assert [type(event) for event in events] == [VenueFill, OrderCancelled, OrderCancelled]
    assert [event.client_id for event in events] == [client_id(n) for n in (1, 2, 3)]
    assert venue.open_records() == []


def test_plain_order_when_larger_than_opposite_position_then_flips_it() -> None:
    venue = engine()
    long_position(venue, 10)
    venue.send(order(1, side=Side.SELL, lots=15), 1)
    venue.apply_ticks([1000, None], 2)
    assert venue.account.open_positions() == {BTC: -5}
    assert venue.account.average_prices() == {BTC: "99.0"}
    # 10 lots bought at 1010 and sold at 990, one money unit per lot and tick.
    assert venue.account.cash() == EQUITY_MONEY - 200 - venue.account.fees_money
    assert venue.account.equity() == venue.account.cash() - 5 * (1000 - 990)


@pytest.mark.parametrize(
    ("changes", "reject_class"),
    [
        pytest.param({"client_id": "short"}, RejectClass.BAD_CLIENT_ID, id="short id"),
        pytest.param({"client_id": "é" * 25}, RejectClass.BAD_CLIENT_ID, id="not ASCII"),
        pytest.param({"client_id": "-" * 25}, RejectClass.BAD_CLIENT_ID, id="not alphanumeric"),
        pytest.param({"symbol": "DOGE/USDT:USDT"}, RejectClass.UNKNOWN_SYMBOL, id="symbol"),
        pytest.param({"lots": 0}, RejectClass.BAD_LOTS, id="no lots"),
        pytest.param({"lots": -1}, RejectClass.BAD_LOTS, id="negative lots"),
        pytest.param({"lots": LOTS_MAX + 1}, RejectClass.BAD_LOTS, id="too many lots"),
        pytest.param({"price_ticks": 5}, RejectClass.BAD_PRICE, id="market with a limit"),
        pytest.param({"stop_ticks": 5}, RejectClass.BAD_PRICE, id="market with a stop"),
        pytest.param({"kind": OrderKind.LIMIT}, RejectClass.BAD_PRICE, id="limit without price"),
        pytest.param(
            {"kind": OrderKind.LIMIT, "price_ticks": 0}, RejectClass.BAD_PRICE, id="zero price"
        ),
        pytest.param(
            {"kind": OrderKind.LIMIT, "price_ticks": 2**40 + 1}, RejectClass.BAD_PRICE, id="price"
        ),
        pytest.param(
            {"kind": OrderKind.STOP_MARKET, "stop_ticks": None}, RejectClass.BAD_PRICE, id="stop"
        ),
        pytest.param(
            {"kind": OrderKind.LIMIT, "price_ticks": 10**8, "lots": 2 * 10**6},
            RejectClass.BAD_LOTS,
            id="worth too much",
        ),
        pytest.param(
            {"reduce_only": True}, RejectClass.REDUCE_ONLY_WITHOUT_POSITION, id="nothing to reduce"
        ),
    ],
)
def test_order_when_it_cannot_be_taken_then_is_rejected_and_leaves_no_trace(
    changes: dict[str, object], reject_class: RejectClass
) -> None:
    venue = engine()
    bad = order(1, **changes)
    result = venue.send(bad, 7)
    assert isinstance(result, Rejected)
    assert (result.reject_class, result.market_ms) == (reject_class, 7)
    assert venue.query(bad.client_id) is None
    assert venue.open_records() == []
    if reject_class is not RejectClass.BAD_CLIENT_ID:
        assert isinstance(venue.send(order(1), 8), OrderAccepted)


def test_reduce_only_order_when_on_the_positions_own_side_then_is_rejected() -> None:
    venue = engine()
    long_position(venue)
    result = venue.send(order(1, reduce_only=True), 1)
    assert isinstance(result, Rejected)
    assert result.reject_class is RejectClass.REDUCE_ONLY_WITHOUT_POSITION


@pytest.mark.parametrize("ending", ["open", "filled", "cancelled"])
def test_client_id_when_used_again_then_is_a_duplicate_for_ever(ending: str) -> None:
    venue = engine()
    venue.send(order(1), 0)
    if ending == "filled":
        venue.apply_ticks([1000, None], 1)
    elif ending == "cancelled":
        venue.cancel(client_id(1), 1)
    before = venue.query(client_id(1))
    result = venue.send(order(1, lots=3), 2)
    assert isinstance(result, Rejected)
    assert result.reject_class is RejectClass.DUPLICATE_CLIENT_ID
    assert result.message == "duplicate client order id"
    assert venue.query(client_id(1)) == before


def test_order_when_position_and_open_orders_would_pass_the_lot_bound_then_is_rejected() -> None:
    venue = engine()
    half = LOTS_MAX // 2 + 1
    assert isinstance(venue.send(limit(1, 1, lots=half), 0), OrderAccepted)
    result = venue.send(limit(2, 1, lots=half), 0)
    assert isinstance(result, Rejected)
    assert result.reject_class is RejectClass.BAD_LOTS
    assert isinstance(venue.send(limit(3, 1, lots=half, symbol=ETH), 0), OrderAccepted)


def test_order_when_too_many_are_open_then_is_rejected_until_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "OPEN_ORDERS_MAX", 2)
    venue = engine()
    venue.send(limit(1, 10), 0)
    venue.send(limit(2, 10, symbol=ETH), 0)
    result = venue.send(limit(3, 10), 0)
    assert isinstance(result, Rejected)
    assert result.reject_class is RejectClass.TOO_MANY_OPEN_ORDERS
    venue.cancel(client_id(2), 0)
    assert isinstance(venue.send(limit(3, 10), 0), OrderAccepted)


def test_order_when_the_accounts_orders_are_used_up_then_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "ORDERS_MAX", 1)
    venue = engine()
    venue.send(order(1), 0)
    venue.apply_ticks([1000, None], 1)
    result = venue.send(order(2), 2)
    assert isinstance(result, Rejected)
    assert result.reject_class is RejectClass.TOO_MANY_ORDERS


def test_cancel_when_open_final_or_unknown_then_says_which() -> None:
    venue = engine()
    venue.send(limit(1, 10), 0)
    outcome, events = venue.cancel(client_id(1), 5)
    assert outcome is CancelOutcome.CANCELLED
    assert events == [
        OrderCancelled(
            market_ms=5,
            client_id=client_id(1),
            symbol=BTC,
            reason=CancelReason.REQUESTED,
            cumulative_lots=0,
            remaining_lots=10,
        )
    ]
    assert venue.cancel(client_id(1), 6) == (CancelOutcome.ALREADY_FINAL, [])
    assert venue.cancel(client_id(2), 6) == (CancelOutcome.UNKNOWN_ORDER, [])
    assert venue.apply_ticks([1, 1], 7) == []


def test_cancel_all_when_a_symbol_is_named_then_leaves_the_others() -> None:
    venue = engine()
    venue.send(limit(1, 10), 0)
    venue.send(limit(2, 10, symbol=ETH), 0)
    venue.send(limit(3, 10), 0)
    assert [event.client_id for event in venue.cancel_all(BTC, 1)] == [client_id(1), client_id(3)]
    assert [event.client_id for event in venue.cancel_all(None, 1)] == [client_id(2)]


def test_fills_after_when_paged_then_are_in_order_and_complete() -> None:
    venue = engine()
    for number in range(1, 6):
        venue.send(order(number), 0)
    venue.apply_ticks([1000, None], 1)
    assert [fill.trade_id for fill in venue.fills_after(0, 3)] == [1, 2, 3]
    assert [fill.trade_id for fill in venue.fills_after(3, 3)] == [4, 5]
    assert venue.fills_after(5, 3) == venue.fills_after(9, 3) == []
    assert len(venue.fills_after(-4, 9)) == 5


@pytest.mark.parametrize("ticks", [[0, 1], [-5, 1], [1], [1, 2, 3]])
def test_ticks_when_malformed_then_raise_before_anything_moves(ticks: list[int | None]) -> None:
    venue = engine()
    venue.send(order(1), 0)
    with pytest.raises(DataError, match="no valid prices"):
        venue.apply_ticks(ticks, 1)
    assert venue.fills == []
    assert venue.account.marks_ticks == {}
