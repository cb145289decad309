"""The contract of ``VenuePort`` as checks that run against any implementation.

An adapter's tests give a ``Bench`` (how to reach the venue, how to let its market move, how to
lose an answer on the way) and run every entry of ``CHECKS`` against a fresh account. A check says
which rule is broken by raising ``ContractBroken``; it needs no test framework, so that the same
checks can run by hand against an exchange's test network.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from exchange_adapters.venue_port import (
    CLIENT_ID_LENGTH,
    Acknowledged,
    CancelOutcome,
    OrderAccepted,
    OrderCancelled,
    OrderKind,
    OrderState,
    OrderStatus,
    OrderStreamEvent,
    RejectClass,
    Rejected,
    VenueFill,
    VenueOrder,
    VenuePort,
)
from tripgate.errors import VenueError, VenueUnknownError
from tripgate.reasons import Side

EVENTS_MAX = 1_000
"""Events read while waiting for one; a stream that holds more has lost it."""

PAGES_MAX = 1_000
"""Pages read before a paged answer counts as endless."""

FILLED_LOTS = 3
"""Lots of the orders that the checks fill."""


class ContractBroken(AssertionError):
    """An implementation does not do what ``VenuePort`` promises."""


class Bench(Protocol):
    """An account that a check may trade on."""

    @property
    def symbol(self) -> str:
        """An instrument that has a price."""
        ...

    @property
    def fills_beyond_a_page(self) -> int:
        """How many fills need more than one page of ``trades``."""
        ...

    def open(self) -> AbstractAsyncContextManager[VenuePort]:
        """Connect to the venue, as often as wanted, always to the same account."""
        ...

    def open_losing_answers(self) -> AbstractAsyncContextManager[VenuePort]:
        """Connect so that a send reaches the venue and its answer is lost on the way back."""
        ...

    async def move_market(self) -> None:
        """Let the instrument trade once, at any price, so that market orders fill."""
        ...


Check = Callable[[Bench], Awaitable[None]]
"""One rule of the contract."""


def require(condition: bool, rule: str) -> None:
    """Raise ``ContractBroken`` with the rule unless it holds."""
    if not condition:
        raise ContractBroken(rule)


def client_id(number: int) -> str:
    """Return a well-formed client order id."""
    return f"C{number:0{CLIENT_ID_LENGTH - 1}d}"


def market_order(bench: Bench, number: int, *, side: Side = Side.BUY) -> VenueOrder:
    """Return a market order of ``FILLED_LOTS`` lots."""
    return VenueOrder(
        client_id=client_id(number),
        symbol=bench.symbol,
        side=side,
        lots=FILLED_LOTS,
        kind=OrderKind.MARKET,
    )


def resting_order(bench: Bench, number: int) -> VenueOrder:
    """Return a limit order that no sane market reaches."""
    return VenueOrder(
        client_id=client_id(number),
        symbol=bench.symbol,
        side=Side.BUY,
        lots=FILLED_LOTS,
        kind=OrderKind.LIMIT,
        price_ticks=1,
    )


async def read_all_fills(venue: VenuePort) -> list[VenueFill]:
    """Return every fill of the account, page by page."""
    fills: list[VenueFill] = []
    for _ in range(PAGES_MAX):
        page = await venue.trades(fills[-1].trade_id if fills else 0)
        fills += page.fills
        if not page.more:
            return fills
        require(bool(page.fills), "a page that says there is more is not empty")
    raise ContractBroken("trades come to an end")


async def wait_for(
    events: AsyncIterator[OrderStreamEvent], wanted: type[OrderStreamEvent], order_id: str
) -> list[OrderStreamEvent]:
    """Read events up to the first of ``wanted`` type for ``order_id``; return all of that order."""
    found: list[OrderStreamEvent] = []
    for _ in range(EVENTS_MAX):
        event = await anext(events)
        if getattr(event, "client_id", None) == order_id:
            found.append(event)
            if isinstance(event, wanted):
                return found
    raise ContractBroken(f"the event stream tells {wanted.__name__} of {order_id}")


async def known(venue: VenuePort, order_id: str) -> OrderStatus:
    """Return the status of an order that must exist."""
    status = await venue.query(order_id)
    if status is None:
        raise ContractBroken(f"query knows the order {order_id}")
    return status


async def send_well(venue: VenuePort, order: VenueOrder) -> Acknowledged:
    """Send an order that must be taken."""
    answer = await venue.send(order)
    if isinstance(answer, Rejected):
        raise ContractBroken(f"a good order is acknowledged, was: {answer.message}")
    require(answer.client_id == order.client_id, "the acknowledgement names the order")
    return answer


async def check_market_order_is_acknowledged_then_fills_once(bench: Bench) -> None:
    """Send, acknowledgement, one complete set of fills in stream and history alike."""
    async with bench.open() as venue:
        events = await venue.events()
        await send_well(venue, market_order(bench, 1))
        require((await read_all_fills(venue)) == [], "nothing fills before the market moves")
        await bench.move_market()
        told = await wait_for(events, VenueFill, client_id(1))
        require(isinstance(told[0], OrderAccepted), "an order is told accepted before it fills")
        (fill,) = [event for event in told if isinstance(event, VenueFill)]
        require(fill.lots == fill.cumulative_lots == FILLED_LOTS, "the order fills whole")
        require(fill.remaining_lots == 0, "a filled order has nothing left")
        await bench.move_market()
        require((await read_all_fills(venue)) == [fill], "history and stream tell the same, once")
        require((await known(venue, client_id(1))).state is OrderState.FILLED, "it is filled")


async def check_bad_orders_are_rejected_by_class(bench: Bench) -> None:
    """Each definite reject has its class and leaves nothing behind."""
    good = market_order(bench, 1)
    cases: dict[RejectClass, dict[str, object]] = {
        RejectClass.UNKNOWN_SYMBOL: {"symbol": "NOTLISTED/USDT:USDT"},
        RejectClass.BAD_LOTS: {"lots": 0},
        RejectClass.BAD_PRICE: {"kind": OrderKind.LIMIT, "price_ticks": -1},
        RejectClass.REDUCE_ONLY_WITHOUT_POSITION: {"reduce_only": True},
    }
    async with bench.open() as venue:
        for wanted, changes in cases.items():
            answer = await venue.send(msgspec.structs.replace(good, **changes))
            if not isinstance(answer, Rejected):
                raise ContractBroken(f"the order is rejected as {wanted}")
            require(answer.reject_class is wanted, f"{wanted}, was {answer.reject_class}")
            require(await venue.query(good.client_id) is None, "a rejected order does not exist")
        require((await venue.account()).open_orders == (), "a reject leaves no order")


async def check_repeated_client_id_is_a_duplicate(bench: Bench) -> None:
    """A repeated id is rejected, open or final, and the first order is untouched."""
    async with bench.open() as venue:
        for number, order in ((1, resting_order(bench, 1)), (2, market_order(bench, 2))):
            await send_well(venue, order)
            if number == 2:
                await bench.move_market()
            before = await known(venue, order.client_id)
            answer = await venue.send(order)
            if not isinstance(answer, Rejected):
                raise ContractBroken("a repeated client order id is rejected")
            require(
                answer.reject_class is RejectClass.DUPLICATE_CLIENT_ID, "its class is duplicate"
            )
            require(await known(venue, order.client_id) == before, "the first order is untouched")


async def check_cancel_ends_an_order_once(bench: Bench) -> None:
    """Cancel says what it found, is told once, and is safe to repeat."""
    async with bench.open() as venue:
        events = await venue.events()
        await send_well(venue, resting_order(bench, 1))
        require(
            (await venue.cancel(client_id(1))) is CancelOutcome.CANCELLED, "an open order is ended"
        )
        told = await wait_for(events, OrderCancelled, client_id(1))
        require(
            [type(event) for event in told] == [OrderAccepted, OrderCancelled],
            "the stream tells accepted, then cancelled",
        )
        require(
            (await venue.cancel(client_id(1))) is CancelOutcome.ALREADY_FINAL,
            "a second cancel finds it final",
        )
        require(
            (await venue.cancel(client_id(2))) is CancelOutcome.UNKNOWN_ORDER,
            "a cancel of an order that never was says unknown",
        )
        require((await known(venue, client_id(1))).state is OrderState.CANCELLED, "it is final")


async def check_cancel_all_leaves_no_open_order(bench: Bench) -> None:
    """Cancel-all names what it ended; the account agrees."""
    async with bench.open() as venue:
        for number in (1, 2, 3):
            await send_well(venue, resting_order(bench, number))
        ended = await venue.cancel_all(bench.symbol)
        require(set(ended) == set(map(client_id, (1, 2, 3))), "it names every order it ended")
        require((await venue.account()).open_orders == (), "no open order is left")
        require((await venue.cancel_all()) == (), "a second one finds nothing")


async def check_query_of_an_unknown_id_is_none(bench: Bench) -> None:
    """An order that never existed is ``None``, an open one is told whole."""
    async with bench.open() as venue:
        require(await venue.query(client_id(1)) is None, "an unknown order is None")
        order = resting_order(bench, 1)
        await send_well(venue, order)
        status = await known(venue, order.client_id)
        require(status.order == order, "the order comes back as it was sent")
        require(status.state is OrderState.OPEN, "a resting order is open")
        require((await venue.account()).open_orders == (status,), "the account holds the same")


async def check_trades_page_without_gap_or_double(bench: Bench) -> None:
    """Pages of fills join without gap or double, from any trade id on."""
    async with bench.open() as venue:
        for number in range(bench.fills_beyond_a_page):
            side = Side.BUY if number % 2 else Side.SELL
            await send_well(venue, market_order(bench, number, side=side))
        await bench.move_market()
        first = await venue.trades(0)
        require(first.more, "a page that is not the last says so")
        fills = await read_all_fills(venue)
        ids = [fill.trade_id for fill in fills]
        require(ids == sorted(set(ids)), "trade ids rise and never repeat")
        filled = {fill.client_id for fill in fills}
        require(filled == set(map(client_id, range(bench.fills_beyond_a_page))), "none is missing")
        rest = await venue.trades(ids[-3])
        require(list(rest.fills) == fills[-2:], "it continues after the id it is given")
        require(not rest.more, "the last page says so")
        require((await venue.trades(ids[-1])).fills == (), "after the last there is none")


async def check_account_agrees_with_the_fills(bench: Bench) -> None:
    """Positions, fees and the last trade id are those of the fills."""
    async with bench.open() as venue:
        start = await venue.account()
        require(start.positions == {}, "a fresh account is flat")
        for number, side in enumerate((Side.BUY, Side.BUY, Side.SELL)):
            await send_well(venue, market_order(bench, number, side=side))
            await bench.move_market()
        fills = await read_all_fills(venue)
        account = await venue.account()
        lots = sum(fill.side * fill.lots for fill in fills)
        require(account.positions == {bench.symbol: lots}, "the position is the sum of the fills")
        require(
            account.fees_money == sum(fill.fee_money for fill in fills), "fees are the fills' fees"
        )
        require(account.last_trade_id == fills[-1].trade_id, "it says up to which fill it counts")
        require(set(account.average_prices) == {bench.symbol}, "an open position has its average")


async def check_claimed_capabilities_are_true(bench: Bench) -> None:
    """Reduce-only orders beside each other never turn a position, where that is claimed."""
    async with bench.open() as venue:
        claimed = venue.capabilities
        require(OrderKind.MARKET in claimed.exit_kinds, "an exit can be a market order")
        require(len(set(claimed.exit_kinds)) == len(claimed.exit_kinds), "each kind is named once")
        if not claimed.enforces_reduce_only:
            return
        await send_well(venue, market_order(bench, 1))
        await bench.move_market()
        for number in (2, 3):
            order = market_order(bench, number, side=Side.SELL)
            await send_well(venue, msgspec.structs.replace(order, reduce_only=True))
        await bench.move_market()
        await bench.move_market()
        account = await venue.account()
        require(account.positions.get(bench.symbol, 0) == 0, "the second one closed nothing more")
        require(account.open_orders == (), "what has nothing to reduce does not wait for it")


async def check_lost_answer_is_unknown_then_found_by_client_id(bench: Bench) -> None:
    """A send whose answer is lost is unknown, never rejected, and its order is found again."""
    order = resting_order(bench, 1)
    async with bench.open_losing_answers() as venue:
        try:
            answer = await venue.send(order)
        except VenueUnknownError:
            pass
        else:
            raise ContractBroken(f"a lost answer is unknown, was {answer}")
    async with bench.open() as venue:
        status = await known(venue, order.client_id)
        require(status.order == order, "the order is found by its client id")
        answer = await venue.send(order)
        require(isinstance(answer, Rejected), "sending it again cannot make a second order")
        require(len((await venue.account()).open_orders) == 1, "one order stands")


async def check_dead_connection_is_an_error_never_an_empty_answer(bench: Bench) -> None:
    """After the connection is lost, reads, sends and the event stream all say so."""
    async with bench.open_losing_answers() as venue:
        events = await venue.events()
        try:
            await venue.send(resting_order(bench, 1))
        except VenueUnknownError:
            pass
        for read in (venue.account, venue.markets, lambda: venue.query(client_id(1))):
            try:
                answer: object = await read()
            except VenueError:
                continue
            raise ContractBroken(f"a dead connection raises, was {answer}")
        try:
            for _ in range(EVENTS_MAX):
                await anext(events)
        except VenueError:
            return
        raise ContractBroken("the event stream of a dead connection ends with an error")


CHECKS: tuple[Check, ...] = (
    check_market_order_is_acknowledged_then_fills_once,
    check_bad_orders_are_rejected_by_class,
    check_repeated_client_id_is_a_duplicate,
    check_cancel_ends_an_order_once,
    check_cancel_all_leaves_no_open_order,
    check_query_of_an_unknown_id_is_none,
    check_trades_page_without_gap_or_double,
    check_account_agrees_with_the_fills,
    check_claimed_capabilities_are_true,
    check_lost_answer_is_unknown_then_found_by_client_id,
    check_dead_connection_is_an_error_never_an_empty_answer,
)
"""Every rule of the contract; each wants a fresh account."""
