"""The keeper's watch over the counters file: it trips, mends, and hands the level over."""

from collections.abc import Iterator

import pytest

from actors.breaker import Shell
from tests.tree_fixtures import BTC, kinds, records, service
from tests.unit.keeper_desk import PRICE, Desk
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.handle import InstrumentHandle
from tripgate.machines.breaker_types import Resume
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.layout import COUNTERS_HEADER, ENTRY, SUM
from tripgate.page.level import LevelWriter, set_level, writer_level
from tripgate.reasons import Level


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_P9_counters_when_a_word_is_overwritten_then_it_trips_and_is_mended(desk: Desk) -> None:
    desk.fill(0, 10)
    desk.keeper.take_events()
    expected = desk.words()
    keeper_byte = LevelWriter.KEEPER
    look = iter(range(1, 100))

    def tidy() -> None:
        desk.keeper.tidy(host_ns() + next(look) * NS_PER_S)

    tidy()
    desk.page.rows(SUM)["gross"][0] -= 999
    generation = int(desk.page.header["generation"][0])
    tidy()
    assert writer_level(desk.page, 0, keeper_byte) is Level.NORMAL, "it may have been moving"
    tidy()
    assert writer_level(desk.page, 0, keeper_byte) is Level.MEDIUM
    assert int(desk.page.header["generation"][0]) == generation + 1
    assert desk.words() == expected
    told = dict(records(desk.page, desk.place.slot))
    assert told[EventKind.COUNTERS_BROKEN] == {
        "scope": "portfolio", "count": 1,
        "words": [f"sum[0].gross is {10 * PRICE - 999}, must be {10 * PRICE}"],
    }  # fmt: skip
    assert told[EventKind.REPAIRED] == {"cause": "counters", "killed": []}
    for _ in range(5):
        tidy()
    assert writer_level(desk.page, 0, keeper_byte) is Level.MEDIUM, "nobody has taken it over"
    assert kinds(desk.page, desk.place.slot).count(EventKind.COUNTERS_BROKEN) == 1


def test_counters_when_an_entry_was_overwritten_then_it_is_told_once_and_the_level_stays(
    desk: Desk,
) -> None:
    order = desk.entry(10)
    desk.page.rows(ENTRY)["price"][order.row] += 1
    for step in range(8):
        desk.keeper.tidy(host_ns() + step * NS_PER_S)
    assert kinds(desk.page, desk.place.slot).count(EventKind.COUNTERS_BROKEN) == 1
    assert kinds(desk.page, desk.place.slot).count(EventKind.REPAIRED) == 1
    assert writer_level(desk.page, 0, LevelWriter.KEEPER) is Level.MEDIUM


def test_counters_when_a_fill_without_a_place_holds_the_byte_then_it_is_not_withdrawn(
    desk: Desk,
) -> None:
    desk.router.emit(EventKind.FILL, {
        "trade": 9, "token": 0, "strategy": "trend", "venue": "gone", "symbol": BTC, "lots": 1,
        "ticks": PRICE, "fee": 0, "cumulative": 1,
    })  # fmt: skip
    desk.keeper.take_events()
    place = service(desk.page, "breaker")
    shell = Shell(place)
    desk.keeper.mark(0)
    for step in range(1, 4):
        shell.apply(shell.readings(host_ns()))
        desk.keeper.tidy(host_ns() + step * NS_PER_S)
    assert writer_level(desk.page, 0, LevelWriter.KEEPER) is Level.MEDIUM
    place.close()


def test_P5_counters_when_the_breaker_has_taken_the_fault_over_then_only_a_resume_ends_it(
    desk: Desk,
) -> None:
    place = service(desk.page, "breaker")
    shell = Shell(place)
    desk.keeper.mark(0)
    set_level(desk.page, 0, LevelWriter.KEEPER, Level.MEDIUM)
    for step in range(1, 4):
        shell.apply(shell.readings(host_ns()))
        desk.keeper.tidy(host_ns() + step * NS_PER_S)
    assert writer_level(desk.page, 0, LevelWriter.KEEPER) is Level.NORMAL
    desk.page.header["market_ms"] += 24 * 3_600_000
    shell.apply(shell.readings(host_ns()))
    assert writer_level(desk.page, 0, LevelWriter.BREAKER) is Level.MEDIUM, "no time clears it"
    shell.apply(Resume(0, False, "ops", 1))
    assert writer_level(desk.page, 0, LevelWriter.BREAKER) < Level.MEDIUM
    place.close()


def test_counters_when_only_the_unposted_count_is_wrong_then_it_is_mended_without_a_trip(
    desk: Desk,
) -> None:
    address = desk.page.address(COUNTERS_HEADER, 0, "unposted")
    atomics.fetch_add(address, 1)
    for step in range(2):
        desk.keeper.tidy(host_ns() + step * NS_PER_S)
    assert atomics.load(address) == 0
    assert writer_level(desk.page, 0, LevelWriter.KEEPER) is Level.NORMAL


def test_tidy_when_an_exit_was_taken_during_a_freeze_then_it_is_posted(desk: Desk) -> None:
    desk.fill(0, 10)
    desk.keeper.take_events()
    before = int(desk.page.rows(SUM)["short_worst"][0])
    desk.page.header["freeze"] = 1
    assert InstrumentHandle(desk.page, desk.slot, 0).check_raw(-4, PRICE, 0) > 0
    desk.page.header["freeze"] = 0
    assert int(desk.page.rows(SUM)["short_worst"][0]) == before
    desk.keeper.tidy(host_ns())
    assert int(desk.page.rows(SUM)["short_worst"][0]) == before + 4 * PRICE
    assert atomics.load(desk.page.address(COUNTERS_HEADER, 0, "unposted")) == 0
