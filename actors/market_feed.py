"""market_feed: one venue's ticks onto the board, and the pace of the lock-step.

Reads: the venue's tick channel, everybody's published step.
Sends: rings every bell at each step; records STRATEGY_DROPPED.
Sole writer of: BOARD and BAR rows of its venue, market time and step, the dropped mark of
strategies. It owns its role's slot, which no other process can take while it lives.
Lease: 250 ms; while it is lapsed or its input is stale, openings at the venue are denied.
State after restart: bars go on from the page; the venue tells the current step again.

Bars begin with the run: the venue's port offers no history yet with which to fill them back.
"""

from decimal import Decimal
from pathlib import Path

import trio

from actors.feed_bars import BarHistory
from actors.service import Service
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.simulator.requests import TickStep
from tripgate.clock import NS_PER_MS, NS_PER_S
from tripgate.config.reader import parse_config
from tripgate.gate.steps import participants, strategies_done
from tripgate.messages import EventKind
from tripgate.page.board import BoardWriter, Quote, read_quote
from tripgate.page.layout import SLOT, STRATEGY

PPM_PER_BPS = 100
MS_PER_S = 1_000
HEARTBEAT_S = 0.05
HEARTBEAT_AGE_NS = NS_PER_S // 2
"""A venue that has not answered for this long gives no heartbeat: the lease is left to lapse."""
STRATEGY_WAIT_NS = 10 * NS_PER_S
STRATEGY_START_NS = 60 * NS_PER_S
"""How long a step waits for a configured strategy that is not attached: it may be starting."""


class Feed:
    """One venue's steps onto the page."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = service.page
        self._header = service.header
        self._board = BoardWriter(service.page, service.role, service.venue)
        self._mine = self._board.instruments
        config = parse_config(service.settings["config_text"], service.settings["config_name"])
        bar_ms = config.risk.bar_s * MS_PER_S
        self._bars = {n: BarHistory(service.page, n, bar_ms) for n in self._mine}
        self._last_tick_ms: int | None = None
        self._turn_since_ns = 0
        self._attached: set[int] = set()
        self._came: set[int] = set()
        self.heartbeat_ns = 0

    def publish(
        self, tick_step: TickStep, symbols: tuple[str, ...], halves: dict[str, int]
    ) -> None:
        """Write a step's ticks to the board, then move market time and step."""
        now_ns = self._service.now_ns()
        ticks = dict(zip(symbols, tick_step.ticks, strict=True))
        for number in self._mine:
            symbol = self._service.names.instruments[number].symbol
            price = ticks.get(symbol)
            if price is not None and price < 1:
                price = None  # No market: what is not published grows stale and denies.
            before = read_quote(self._page, number)
            # Told again after a restart, or out of order: what is on the board stays.
            if before is not None and before.step >= tick_step.step:
                continue
            # The bar first: a tick on the board is in its bar, so only a bar's tick is told twice.
            self._bars[number].take(tick_step.market_ms, price)
            if price is None:
                continue
            half = max(1, price * halves[symbol] // 1_000_000)
            quote = Quote(price, price, price - half, price + half,
                          tick_step.market_ms, tick_step.step, 0)  # fmt: skip
            self._board.write(number, quote, now_ns)
        quotes = [read_quote(self._page, number) for number in self._mine]
        stamps = [quote.market_ms for quote in quotes if quote is not None]
        self._last_tick_ms = max(stamps, default=None)
        self._header["market_ms"] = tick_step.market_ms
        self._header["step"] = tick_step.step
        self._turn_since_ns = 0
        self._came.clear()
        self._service.finish_step(tick_step.step)

    def is_fresh(self) -> bool:
        """Whether the venue's newest tick is within the age bound, in market time."""
        if self._last_tick_ms is None:
            return False
        bound = max(2_000, int(self._header["age_floor_ms"]))
        return int(self._header["market_ms"]) - self._last_tick_ms <= bound

    def renew(self) -> None:
        """Renew on a living venue and fresh ticks; give the lease up at once if they are stale."""
        now_ns = self._service.now_ns()
        if self._last_tick_ms is not None and not self.is_fresh():
            self._service.lease.give_up_stale()
        elif self.is_fresh() and now_ns - self.heartbeat_ns <= HEARTBEAT_AGE_NS:
            self._service.lease.renew(now_ns)

    def is_handled(self, step: int) -> bool:
        """Whether every role, router and strategy has published that it handled a step."""
        names = self._service.names
        if self._service.step_of("position_keeper") < step:
            return False
        if self._service.step_of("breaker") < step or not self._header["armed"]:
            return False
        # Before the routers: they wait for the strategies too, so a strategy that hangs would
        # otherwise never be found out.
        if not self._strategies_done(step):
            return False
        return all(self._service.step_of("router", venue) >= step for venue in names.venues)

    def _strategies_done(self, step: int) -> bool:
        if strategies_done(self._page, step):
            return True
        slots, dropped = self._page.rows(SLOT), self._page.rows(STRATEGY)["dropped"]
        present = {
            int(slots["strategy"][s]): int(slots["step"][s]) for s in participants(self._page)
        }
        # The strategies' turn begins once the breaker has judged the step, however long that took;
        # and again when one attaches, once in a step: it was not silent while it was away.
        came = present.keys() - self._attached - self._came
        if came or not self._turn_since_ns:
            self._turn_since_ns = self._service.now_ns()
        self._came |= came
        self._attached = set(present)
        waited_ns = self._service.now_ns() - self._turn_since_ns
        is_turn_taken = False
        for number in range(len(self._service.names.strategies)):
            if dropped[number] or present.get(number, -1) >= step:
                continue
            if number not in present:
                bound_ns = STRATEGY_START_NS
            elif is_turn_taken:
                continue  # It waits for the one before it: that one is to blame.
            else:
                bound_ns, is_turn_taken = STRATEGY_WAIT_NS, True
            if waited_ns > bound_ns:
                self._drop(number, step)
        return False

    def _drop(self, strategy: int, step: int) -> None:
        self._turn_since_ns = 0
        self._page.rows(STRATEGY)["dropped"][strategy] = 1
        self._service.emit(
            EventKind.STRATEGY_DROPPED,
            {"strategy": self._service.names.strategies[strategy], "step": step},
        )
        self._service.ringer.ring_all()


async def _heartbeats(venue: LocalVenue, feed: Feed, service: Service) -> None:
    while True:
        asked_ns = service.now_ns()
        await venue.hello()
        feed.heartbeat_ns = asked_ns
        await trio.sleep(HEARTBEAT_S)


async def run(service: Service) -> None:
    """Publish each step and release the next one when everybody has handled it."""
    feed = Feed(service)
    path = Path(service.settings["venue_sockets"][service.venue])
    async with open_local_venue(path) as venue, trio.open_nursery() as nursery:
        hello = await venue.hello()
        markets = await venue.markets()
        halves = {symbol: _half_spread_ppm(markets[symbol].half_spread_bps) for symbol in markets}
        nursery.start_soon(_heartbeats, venue, feed, service)
        await service.ready()
        async for tick_step in await venue.subscribe_ticks():
            feed.publish(tick_step, hello.symbols, halves)
            started_ns = service.now_ns()
            while not feed.is_handled(tick_step.step) and not service.stopping.is_set():
                feed.renew()
                await service.turn()
            feed.renew()
            if tick_step.finished:
                service.header["feed_finished"] = 1
                service.ringer.ring_all()
                await _stay(feed, service)
            await _pace(feed, service, started_ns)
            if service.stopping.is_set():
                break
            await venue.advance(tick_step.step)
        nursery.cancel_scope.cancel()


def _half_spread_ppm(bps: str) -> int:
    return int(Decimal(bps) * PPM_PER_BPS)


async def _pace(feed: Feed, service: Service, started_ns: int) -> None:
    speed = float(service.settings["speed"])
    if not speed:
        return
    step_ns = int(service.header["step_ms"]) * NS_PER_MS / speed
    while service.now_ns() - started_ns < step_ns and not service.stopping.is_set():
        feed.renew()
        left_s = (started_ns + step_ns - service.now_ns()) / NS_PER_S
        await service.turn(max(0.0, min(HEARTBEAT_S, left_s)))


async def _stay(feed: Feed, service: Service) -> None:
    while not service.stopping.is_set():
        feed.renew()
        await service.turn()
