"""``LocalVenue`` against the contract kit, and what the local port adds to it."""

import stat
from pathlib import Path

import msgspec
import pytest

from exchange_adapters.contract import kit
from exchange_adapters.simulator.instruments import load_instruments
from exchange_adapters.simulator.requests import TickStep
from exchange_adapters.venue_port import OrderAccepted, StepEnded, VenueFill
from tests.contract.local_bench import BTC, ETH, STEP_MS, LocalBench, TinyFeed, run
from tripgate.errors import VenueError


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_local_venue_when_held_to_the_contract_then_keeps_it(
    check: kit.Check, tmp_path: Path
) -> None:
    run(tmp_path, check)


def test_hello_when_asked_then_tells_instruments_clock_and_money(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        hello = await bench.control.hello()
        assert (hello.symbols, hello.feed, hello.seed) == ((BTC, ETH), "tiny", 3)
        assert (hello.step, hello.step_ms, hello.length, hello.finished) == (0, STEP_MS, 5, False)
        assert hello.starting_equity_money == 10**9
        expected = load_instruments([BTC])[BTC]
        assert hello.instruments[BTC].units() == expected.units
        assert hello.instruments[BTC].taker_fee_bps == str(expected.taker_fee_bps)

    run(tmp_path, check, TinyFeed(length=5))


def test_clock_when_a_step_is_handled_then_moves_once_and_ends_with_a_marker(
    tmp_path: Path,
) -> None:
    async def check(bench: LocalBench) -> None:
        feed = TinyFeed(length=3)
        ticks = await bench.control.subscribe_ticks()
        for index in range(3):
            step = feed.step(index)
            assert await anext(ticks) == TickStep(index, step.market_ms, step.ticks, False)
            with pytest.raises(VenueError, match="is the current one"):
                await bench.control.advance(index + 1)
            assert await bench.control.advance(index) == index + 1
            for passed in range(index + 1):
                assert await bench.control.advance(passed) == index + 1
        assert await anext(ticks) == TickStep(3, feed.step(2).market_ms, (None, None), True)
        assert await bench.control.advance(3) == 3
        assert (await bench.control.hello()).finished

    run(tmp_path, check, TinyFeed(length=3))


def test_order_events_when_a_step_ends_then_all_come_before_its_marker(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        async with bench.open() as venue:
            events = await venue.events()
            assert await anext(events) == StepEnded(TinyFeed.start_ms, 0, False)
            for number in range(20):
                await kit.send_well(venue, kit.market_order(bench, number))
            await bench.move_market()
            told = [await anext(events) for _ in range(41)]
            assert [type(event) for event in told] == (
                [OrderAccepted] * 20 + [VenueFill] * 20 + [StepEnded]
            )
            assert told[-1] == StepEnded(TinyFeed.start_ms + STEP_MS, 1, False)

    run(tmp_path, check)


def test_subscriber_when_it_comes_late_then_is_told_the_current_step(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        await bench.move_market()
        async with bench.open() as late:
            step = await anext(await late.subscribe_ticks())
            assert (step.step, step.ticks) == (1, TinyFeed().step(1).ticks)

    run(tmp_path, check)


def test_instrument_when_it_has_no_tick_then_its_order_waits(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        order = msgspec.structs.replace(kit.market_order(bench, 1), symbol=ETH)
        await kit.send_well(bench.control, order)
        await bench.move_market()
        assert (await bench.control.account()).positions == {}
        await bench.move_market()
        assert (await bench.control.account()).positions == {ETH: kit.FILLED_LOTS}

    run(tmp_path, check)


def test_socket_when_opened_then_only_its_user_may_connect(tmp_path: Path) -> None:
    async def check(bench: LocalBench) -> None:
        assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600

    run(tmp_path, check)
