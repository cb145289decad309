"""``VenuePort`` over the simulated venue's socket.

One connection, many callers: each request carries an id, one task reads, and answers find their
caller by id. The connection is used once: after any failure it is dead, every later call says so,
and the owner opens a new one and reconciles. Silent reconnection would hide that events may have
been missed.

Invariants: L1 a request whose bytes may have left and that got no clear answer is *unknown*, not
failed; L2 no event is dropped: an iterator that cannot deliver everything ends with ``VenueError``.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import trio

from exchange_adapters.frames import FrameStream
from exchange_adapters.simulator.requests import Channel, Hello, TickStep
from exchange_adapters.venue_port import (
    AccountSnapshot,
    Acknowledged,
    CancelOutcome,
    Capabilities,
    OrderKind,
    OrderStatus,
    OrderStreamEvent,
    RejectClass,
    Rejected,
    StepEnded,
    TradesPage,
    VenueMarket,
    VenueOrder,
)
from tripgate.errors import VenueError, VenueUnknownError
from tripgate.frames import FrameError

REQUEST_DEADLINE_S = 2.0
"""How long an answer may take: a thousand times what the venue needs on a quiet host."""

EVENTS_MAX = 10_000
"""Events that may wait for their reader; ten times what one step can bring."""

REQUESTS_MAX = 1_024
"""Requests that may wait for an answer at once."""

CAPABILITIES = Capabilities(
    enforces_reduce_only=True,
    send_window_ms=1_000,
    exit_kinds=(OrderKind.MARKET, OrderKind.LIMIT),
    requests_per_second=1_000,
    burst_requests=4_000,
)
"""The simulated venue: what it is asked within one step it takes, up to the bounds of a page.

The way to it is a socket's buffer on this host: it reads a request in its next turn or, once the
connection is gone, not at all. Its send window is that of the real venues.
"""

Event = TypeVar("Event")
Value = TypeVar("Value")

# A tuple compares, where a set would have to hash whatever a broken peer sends.
_REJECT_CLASSES = tuple(RejectClass)

# A union is no ``type`` to a type checker, though msgspec takes it as one.
_ORDER_EVENT = cast("type[OrderStreamEvent]", OrderStreamEvent)


class EventStream(AsyncIterator[Event]):
    """Everything a channel tells, in order; ``VenueError`` once something may be missing."""

    def __init__(self) -> None:
        self._inlet, self._outlet = trio.open_memory_channel[Event](EVENTS_MAX)
        self._reason = "the connection to the venue was closed"

    def put(self, event: Event) -> None:
        """Add an event. Raises ``VenueError`` when the reader has fallen too far behind."""
        try:
            self._inlet.send_nowait(event)
        except trio.WouldBlock:
            raise VenueError(f"{EVENTS_MAX} events wait for their reader: read faster") from None

    def end(self, reason: str) -> None:
        """Let the reader have what is queued, then ``VenueError`` with ``reason``."""
        self._reason = reason
        self._inlet.close()

    async def __anext__(self) -> Event:
        """Return the next event. Raises ``VenueError`` when no more can be trusted to come."""
        try:
            return await self._outlet.receive()
        except trio.EndOfChannel:
            raise VenueError(f"{self._reason}: reconnect and reconcile") from None


class _Pending:
    """A caller waiting for its answer, which is ``None`` when the connection died first."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.answer: dict[str, Any] | None = None


class LocalVenue:
    """A venue behind a local socket; made by ``open_local_venue``."""

    def __init__(self, stream: trio.abc.Stream, *, request_deadline_s: float) -> None:
        self._frames = FrameStream(stream)
        self._deadline_s = request_deadline_s
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._orders: EventStream[OrderStreamEvent] | None = None
        self._ticks: EventStream[TickStep] | None = None
        self._end_reason: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        """See ``VenuePort.capabilities``."""
        return CAPABILITIES

    async def hello(self) -> Hello:
        """Return what the venue is and where its data clock stands."""
        return _typed(await self._read_ok("hello"), Hello)

    async def markets(self) -> dict[str, VenueMarket]:
        """See ``VenuePort.markets``."""
        return (await self.hello()).instruments

    async def account(self) -> AccountSnapshot:
        """See ``VenuePort.account``."""
        return _typed(await self._read_ok("account"), AccountSnapshot)

    async def trades(self, after: int) -> TradesPage:
        """See ``VenuePort.trades``."""
        return _typed(await self._read_ok("trades", after=after), TradesPage)

    async def query(self, client_id: str) -> OrderStatus | None:
        """See ``VenuePort.query``."""
        answer = await self._read_ok("query", client_id=client_id)
        is_known = _typed(answer.get("known"), bool)
        return _typed(answer.get("order"), OrderStatus) if is_known else None

    async def send(self, order: VenueOrder) -> Acknowledged | Rejected:
        """See ``VenuePort.send``."""
        answer = await self._request("send", **msgspec.to_builtins(order))
        if answer.get("error") in _REJECT_CLASSES:
            fields = {"client_id": order.client_id, "reject_class": answer["error"]}
            fields |= {name: answer.get(name) for name in ("message", "market_ms")}
            return _typed(fields, Rejected, VenueUnknownError)
        acknowledged = _typed(_ok(answer, VenueUnknownError), Acknowledged, VenueUnknownError)
        if acknowledged.client_id != order.client_id:
            raise VenueUnknownError(f"the venue acknowledged another order than {order.client_id}")
        return acknowledged

    async def cancel(self, client_id: str) -> CancelOutcome:
        """See ``VenuePort.cancel``."""
        answer = _ok(await self._request("cancel", client_id=client_id), VenueUnknownError)
        return _typed(answer.get("outcome"), CancelOutcome, VenueUnknownError)

    async def cancel_all(self, symbol: str | None = None) -> tuple[str, ...]:
        """See ``VenuePort.cancel_all``."""
        answer = _ok(await self._request("cancel_all", symbol=symbol), VenueUnknownError)
        return _typed(answer.get("client_ids"), tuple[str, ...], VenueUnknownError)

    async def events(self) -> EventStream[OrderStreamEvent]:
        """See ``VenuePort.events``; the first event is the marker of the current step."""
        if self._orders is not None:
            raise VenueError("the order events of this connection already have a reader")
        self._orders = EventStream()
        await self._read_ok("subscribe", channels=[str(Channel.ORDERS)])
        return self._orders

    async def subscribe_ticks(self) -> EventStream[TickStep]:
        """Return an iterator over the market's steps, the current one first."""
        if self._ticks is not None:
            raise VenueError("the ticks of this connection already have a reader")
        self._ticks = EventStream()
        await self._read_ok("subscribe", channels=[str(Channel.TICKS)])
        return self._ticks

    async def advance(self, step: int) -> int:
        """Say that ``step`` is handled and return the step the venue stands at; safe to repeat."""
        return _typed((await self._read_ok("advance", step=step)).get("step"), int)

    async def shutdown(self) -> None:
        """End the venue and its books."""
        await self._read_ok("shutdown")

    async def _read_ok(self, op: str, **fields: object) -> dict[str, Any]:
        # For requests that are safe to repeat: an unknown fate is a failure like any other.
        try:
            return _ok(await self._request(op, **fields), VenueError)
        except VenueUnknownError as error:
            raise VenueError(str(error)) from None

    async def _request(self, op: str, **fields: object) -> dict[str, Any]:
        if self._end_reason is not None:
            raise VenueError(f"{op} was not sent: {self._end_reason}: reconnect")
        if len(self._pending) >= REQUESTS_MAX:
            raise VenueError(f"{op} was not sent: {REQUESTS_MAX} requests wait for an answer")
        request_id = next(self._ids)
        pending = self._pending[request_id] = _Pending()
        try:
            with trio.move_on_after(self._deadline_s):
                await self._frames.send({"id": request_id, "op": op, **fields})
                await pending.arrived.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # Part of it may have left before the connection broke.
        except FrameError as error:
            raise VenueError(f"{op} was not sent: {error}") from None
        finally:
            del self._pending[request_id]
        if pending.answer is None:
            why = self._end_reason or f"no answer within {self._deadline_s} s"
            raise VenueUnknownError(f"the fate of {op} is unknown: {why}")
        return pending.answer

    async def receive_all(self) -> None:
        """Read the connection until it ends, and tell everyone who waits. Run once, as a task."""
        reason = "the reader was cancelled"
        try:
            while (message := await self._frames.receive()) is not None:
                self._take(message)
            reason = "the venue closed the connection"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            reason = "the connection to the venue broke"
        except (FrameError, VenueError) as error:
            reason = str(error)
        finally:
            self._end(reason)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._frames)

    def _take(self, message: object) -> None:
        if not isinstance(message, dict):
            raise VenueError("the venue sent a frame that is no map")
        push = message.pop("push", None)
        if push is None:
            if not isinstance(message.get("id"), int):
                raise VenueError(f"the venue said: {message.get('message', message)}")
            if (pending := self._pending.get(message["id"])) is not None:
                pending.answer = message
                pending.arrived.set()
        elif push == "step" and message.pop("channel", None) == Channel.TICKS:
            if self._ticks is not None:
                self._ticks.put(_typed(message, TickStep))
        elif self._orders is not None:
            if push == "step":
                self._orders.put(_typed({"event": "step", **message}, StepEnded))
            else:
                self._orders.put(_typed(message, _ORDER_EVENT))

    def _end(self, reason: str) -> None:
        self._end_reason = reason
        for pending in self._pending.values():
            pending.arrived.set()
        for stream in (self._orders, self._ticks):
            if stream is not None:
                stream.end(reason)


def _ok(answer: dict[str, Any], failure: type[VenueError]) -> dict[str, Any]:
    found = answer.get("ok")
    if not isinstance(found, dict):
        raise failure(f"the venue answered {answer.get('error')}: {answer.get('message')}")
    return found


def _typed(value: object, wanted: type[Value], failure: type[VenueError] = VenueError) -> Value:
    # Strict: a missing field, a float for an integer or an unknown word is an error, not a zero.
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise failure(f"the venue's answer makes no sense: {error}") from None


@asynccontextmanager
async def open_local_venue(
    path: Path, *, request_deadline_s: float = REQUEST_DEADLINE_S
) -> AsyncIterator[LocalVenue]:
    """Connect to the venue at ``path`` for the length of the block.

    The block is entered once the venue has answered ``hello``. It is not cancelled when the
    connection dies: calls and iterators say so, and the caller decides.

    Raises
    ------
    VenueError
        Nobody listens there, or what listens does not answer as a venue.
    """
    try:
        stream = await trio.open_unix_socket(str(path))
    except OSError as error:
        raise VenueError(f"no venue answers on {path} ({error.strerror}): start it") from None
    venue = LocalVenue(stream, request_deadline_s=request_deadline_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(venue.receive_all)
        try:
            await venue.hello()
            yield venue
        finally:
            nursery.cancel_scope.cancel()
