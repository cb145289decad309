"""The simulated venue without its socket: data clock, matching, and an answer to each request.

Everything a client can do to the venue is one call of ``SimulatedVenue.handle``: it changes the
books, and returns the answer and what each channel is to be told. No I/O and no clock, so the same
venue can stand behind a socket, or inside a deterministic simulation.

Invariants: S1 the data clock moves by one step and only when told that the current one is handled;
S2 on the order channel every event of a step precedes the step's own marker.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from exchange_adapters.market.feed import Feed
from exchange_adapters.simulator import requests as ask
from exchange_adapters.simulator.account import Terms, basis_points
from exchange_adapters.simulator.book import Book
from exchange_adapters.simulator.instruments import QUOTE, Instrument
from exchange_adapters.simulator.matching import MatchingEngine, MatchingEvent
from exchange_adapters.simulator.restore import restore_engine
from exchange_adapters.venue_port import (
    AccountSnapshot,
    CancelOutcome,
    MarginTier,
    OrderAccepted,
    TradesPage,
    VenueMarket,
)

TRADES_PAGE_MAX = 500
"""Fills in one answer: about 120 kB, far below a frame's bound."""

ERROR_TEXT_MAX = 300
"""Characters of an error's text. It may quote what a client sent, which can be a frame long."""

Message = dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """What a request led to.

    Attributes
    ----------
    answer
        For the one who asked.
    pushes
        For every subscriber of the channel, in this order.
    repeats
        The same, but only for the one who asked (it has just subscribed).
    subscribed
        Channels the one who asked listens to from now on.
    is_last
        The venue is to end.
    """

    answer: Message
    pushes: list[tuple[ask.Channel, Message]] = field(default_factory=list)
    repeats: list[Message] = field(default_factory=list)
    subscribed: tuple[ask.Channel, ...] = ()
    is_last: bool = False


def terms_of(instrument: Instrument) -> Terms:
    """Return what the matching core needs of an instrument."""
    return Terms(
        symbol=instrument.symbol,
        units=instrument.units,
        half_spread=basis_points(instrument.half_spread_bps),
        taker_fee=basis_points(instrument.taker_fee_bps),
        maker_fee=basis_points(instrument.maker_fee_bps),
    )


def market_of(instrument: Instrument) -> VenueMarket:
    """Return an instrument as the venue tells it."""
    return VenueMarket(
        symbol=instrument.symbol,
        tick=str(instrument.units.tick),
        lot=str(instrument.units.lot),
        contract_size=str(instrument.units.contract_size),
        half_spread_bps=str(instrument.half_spread_bps),
        taker_fee_bps=str(instrument.taker_fee_bps),
        maker_fee_bps=str(instrument.maker_fee_bps),
        quote=QUOTE,
        margin_tiers=tuple(
            MarginTier(str(bracket.notional_quote_max), bracket.initial_leverage_max)
            for bracket in instrument.brackets
        ),
    )


class SimulatedVenue:
    """A feed, an account and their clock.

    Parameters
    ----------
    feed
        At least one step long; its symbols all stand in ``instruments``.
    feed_spec, seed
        How the feed was made, for ``hello``.
    starting_equity_money
        Money units, above 0; of no account when there is a book, which brings its own.
    book
        The account to go on with. Its open orders stand at step 0 and can fill from step 1 on, so
        that every event has somebody to be told to.

    Raises
    ------
    BookError
        The book does not fit these instruments, or contradicts itself.
    """

    def __init__(
        self,
        feed: Feed,
        instruments: Mapping[str, Instrument],
        *,
        feed_spec: str,
        seed: int,
        starting_equity_money: int,
        book: Book | None = None,
    ) -> None:
        self._feed = feed
        self._spec, self._seed = feed_spec, seed
        self._markets = {symbol: market_of(instruments[symbol]) for symbol in feed.symbols}
        terms = [terms_of(instruments[symbol]) for symbol in feed.symbols]
        self.engine = (
            MatchingEngine(starting_equity_money, terms)
            if book is None
            else restore_engine(book, terms)
        )
        self._now = feed.step(0)
        self._is_finished = False
        self.engine.set_marks(self._now.ticks, self._now.market_ms)
        self._handlers: dict[type, Callable[[Any], Outcome]] = {
            ask.HelloRequest: self._hello,
            ask.SubscribeRequest: self._subscribe,
            ask.AdvanceRequest: self._advance,
            ask.SendRequest: self._send,
            ask.CancelRequest: self._cancel,
            ask.CancelAllRequest: self._cancel_all,
            ask.QueryRequest: self._query,
            ask.AccountRequest: self._account,
            ask.TradesRequest: self._trades,
            ask.ShutdownRequest: self._shutdown,
        }

    def handle(self, message: object) -> Outcome:
        """Do what a decoded frame asks. Never raises on anything a client can write."""
        try:
            request = msgspec.convert(message, ask.AnyRequest)
        except msgspec.ValidationError as error:
            request_id = message.get("id") if isinstance(message, dict) else None
            known_id = request_id if isinstance(request_id, int) else None
            return Outcome(self._error(known_id, ask.PortError.BAD_REQUEST, str(error)))
        return self._handlers[type(request)](request)

    def _hello(self, request: ask.HelloRequest) -> Outcome:
        hello = ask.Hello(
            symbols=self.engine.symbols,
            instruments=self._markets,
            step=self._step,
            market_ms=self._now.market_ms,
            step_ms=self._feed.step_ms,
            length=self._feed.length,
            feed=self._spec,
            seed=self._seed,
            starting_equity_money=self.engine.account.starting_equity_money,
            finished=self._is_finished,
        )
        return Outcome(_ok(request, msgspec.to_builtins(hello)))

    def _subscribe(self, request: ask.SubscribeRequest) -> Outcome:
        channels = tuple(dict.fromkeys(request.channels))
        return Outcome(
            _ok(request, {"channels": [str(channel) for channel in channels]}),
            repeats=[self._step_push(channel) for channel in channels],
            subscribed=channels,
        )

    def _advance(self, request: ask.AdvanceRequest) -> Outcome:
        if request.step > self._step or request.step < 0:
            text = f"step {self._step} is the current one: advance names it, or one before it"
            return Outcome(self._error(request.id, ask.PortError.STEP_AHEAD, text))
        outcome = Outcome({})
        if request.step == self._step and not self._is_finished:
            events = self._move()
            outcome.pushes = [(ask.Channel.ORDERS, _order_push(event)) for event in events]
            outcome.pushes += [(channel, self._step_push(channel)) for channel in ask.Channel]
        outcome.answer = _ok(request, {"step": self._step, "finished": self._is_finished})
        return outcome

    def _move(self) -> list[MatchingEvent]:
        if self._now.index + 1 == self._feed.length:
            self._is_finished = True
            return []
        self._now = self._feed.step(self._now.index + 1)
        return self.engine.apply_ticks(self._now.ticks, self._now.market_ms)

    def _send(self, request: ask.SendRequest) -> Outcome:
        result = self.engine.send(request.order(), self._now.market_ms)
        if isinstance(result, OrderAccepted):
            answer = _ok(request, {"client_id": result.client_id, "market_ms": result.market_ms})
            return Outcome(answer, pushes=[(ask.Channel.ORDERS, _order_push(result))])
        # A reject is told to the sender alone. The order never existed, and a push about a repeated
        # id would read as the end of the living order that owns it.
        return Outcome(self._error(request.id, result.reject_class, result.message))

    def _cancel(self, request: ask.CancelRequest) -> Outcome:
        outcome, events = self.engine.cancel(request.client_id, self._now.market_ms)
        assert events or outcome is not CancelOutcome.CANCELLED
        return Outcome(
            _ok(request, {"outcome": str(outcome)}),
            pushes=[(ask.Channel.ORDERS, _order_push(event)) for event in events],
        )

    def _cancel_all(self, request: ask.CancelAllRequest) -> Outcome:
        events = self.engine.cancel_all(request.symbol, self._now.market_ms)
        return Outcome(
            _ok(request, {"client_ids": [event.client_id for event in events]}),
            pushes=[(ask.Channel.ORDERS, _order_push(event)) for event in events],
        )

    def _query(self, request: ask.QueryRequest) -> Outcome:
        # "Known or not" is said outright: an empty answer could be mistaken for a broken one.
        status = self.engine.query(request.client_id)
        return Outcome(
            _ok(request, {"known": status is not None, "order": msgspec.to_builtins(status)})
        )

    def _account(self, request: ask.AccountRequest) -> Outcome:
        account = self.engine.account
        snapshot = AccountSnapshot(
            positions=account.open_positions(),
            average_prices=account.average_prices(),
            open_orders=tuple(record.status() for record in self.engine.open_records()),
            equity_money=account.equity() // 1,
            cash_money=account.cash() // 1,
            fees_money=account.fees_money,
            last_trade_id=len(self.engine.fills),
            step=self._step,
            market_ms=self._now.market_ms,
        )
        return Outcome(_ok(request, msgspec.to_builtins(snapshot)))

    def _trades(self, request: ask.TradesRequest) -> Outcome:
        fills = tuple(self.engine.fills_after(request.after, TRADES_PAGE_MAX))
        more = bool(fills) and fills[-1].trade_id < len(self.engine.fills)
        return Outcome(_ok(request, msgspec.to_builtins(TradesPage(fills=fills, more=more))))

    def _shutdown(self, request: ask.ShutdownRequest) -> Outcome:
        return Outcome(_ok(request, {}), is_last=True)

    @property
    def _step(self) -> int:
        # The end has a number of its own, so that "step length − 1" and "over" cannot be confused.
        return self._now.index + self._is_finished

    def _step_push(self, channel: ask.Channel) -> Message:
        push: Message = {"push": "step", "channel": str(channel), "step": self._step}
        push |= {"market_ms": self._now.market_ms, "finished": self._is_finished}
        if channel is ask.Channel.TICKS:
            ticks = self._now.ticks
            push["ticks"] = [None] * len(ticks) if self._is_finished else list(ticks)
        return push

    def _error(self, request_id: int | None, error: str, message: str) -> Message:
        return {
            "id": request_id,
            "error": str(error),
            "message": message[:ERROR_TEXT_MAX],
            "market_ms": self._now.market_ms,
        }


def _ok(request: ask.Request, answer: Message) -> Message:
    return {"id": request.id, "ok": answer}


def _order_push(event: MatchingEvent) -> Message:
    return {"push": "order", **msgspec.to_builtins(event)}
