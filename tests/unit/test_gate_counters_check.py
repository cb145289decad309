"""The keeper's look at the counters file: a wrong word is seen, a moving one is not."""

from pathlib import Path

import pytest

from tests.gate_fixtures import BTC, HEDGE, KEEPER, TREND, Bench, make_bench
from tripgate.gate import counters_check
from tripgate.gate.counters_check import BLIND_LOOKS_MAX, CountersCheck
from tripgate.gate.recount import Difference, Tables
from tripgate.gate.repair import still_tables
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, COUNTERS_HEADER, ENTRY, KEY, SLOT, SUM, Table
from tripgate.page.mapping import Page

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
HELD = {0: 20}


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    """A page with a position, a resting close and an opening of each strategy."""
    bench = make_bench(isolated_folders / "page")
    bench.hold(20)
    assert bench.handle().check("-0.005", "60000")
    assert bench.handle().check(*BUY)
    assert bench.handle(BTC, HEDGE).check(*BUY)
    return bench


@pytest.fixture
def check(bench: Bench) -> CountersCheck:
    return CountersCheck(bench.page, KEEPER)


def test_look_when_all_is_well_then_nothing_is_found(bench: Bench, check: CountersCheck) -> None:
    before = bench.shared_words()
    for _ in range(3):
        assert check.look(HELD) == ()
        assert check.is_clean
        assert bench.handle().check(*BUY)
        before = bench.shared_words()
    assert check.look(HELD) == ()
    assert bench.shared_words() == before


@pytest.mark.parametrize(
    ("table", "row", "field"),
    [
        (SUM, 0, "gross"), (SUM, 1, "long_worst"), (SUM, 3, "short_worst"), (SUM, 2, "margin"),
        (CLAIM, 1, "lots"), (KEY, 0, "closable"), (KEY, 2, "resting"), (KEY, 1, "margin_charged"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("change", [-1, 1])
def test_look_when_a_sum_is_off_by_one_then_it_is_found_in_the_second_look(
    bench: Bench, check: CountersCheck, table: Table, row: int, field: str, change: int
) -> None:
    found = int(bench.page.rows(table)[field][row])
    bench.page.rows(table)[field][row] += change
    assert check.look(HELD) == ()
    assert not check.is_clean
    assert check.look(HELD) == (Difference(table.name, row, field, found + change, found),)
    bench.page.rows(table)[field][row] -= change
    assert check.look(HELD) == ()
    assert check.is_clean


@pytest.mark.parametrize("field", ["lots", "price", "stop", "reserved", "key", "token", "checksum"])
def test_look_when_an_entry_was_overwritten_then_its_checksum_tells(
    bench: Bench, check: CountersCheck, field: str
) -> None:
    row = bench.page.slot_entries(bench.slots[HEDGE])
    bench.page.rows(ENTRY)[field][row] += 1
    check.look(HELD)
    assert ("entry", row, "checksum") in [one[:3] for one in check.look(HELD)]


def test_look_when_the_book_knows_another_position_then_the_closable_word_is_wrong(
    check: CountersCheck,
) -> None:
    check.look({0: 19})
    assert {(one.table, one.field) for one in check.look({0: 19})} == {
        ("claim", "lots"), ("key", "closable"),
    }  # fmt: skip


def test_look_when_traffic_moves_a_wrong_sum_then_it_is_still_the_same_difference(
    bench: Bench, check: CountersCheck
) -> None:
    bench.page.rows(SUM)["gross"][0] += 7
    check.look(HELD)
    assert bench.handle().check(*BUY)
    (one,) = check.look(HELD)
    assert one.found - one.expected == 7
    assert one.text == f"sum[0].gross is {one.found}, must be {one.expected}"


def test_look_when_it_was_repaired_meanwhile_then_two_looks_are_needed_anew(
    bench: Bench, check: CountersCheck
) -> None:
    bench.page.rows(SUM)["gross"][0] += 7
    check.look(HELD)
    check.forget()
    assert check.look(HELD) == ()
    assert check.look(HELD) != ()


@pytest.mark.parametrize("counter", ["section", "exit_section"])
def test_look_when_somebody_is_inside_then_not_now(
    bench: Bench, check: CountersCheck, counter: str
) -> None:
    bench.page.rows(SLOT)[counter][bench.slots[TREND]] += 1
    bench.page.rows(SUM)["gross"][0] += 7
    for _ in range(3):
        assert check.look(HELD) == ()
    bench.page.rows(SLOT)[counter][bench.slots[TREND]] += 1
    check.look(HELD)
    assert check.look(HELD) != ()


def test_look_when_clients_never_rest_then_the_page_is_frozen_for_one_copy(
    bench: Bench, check: CountersCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, frozen = bench.page.rows(SLOT)["section"], list[int]()
    original = still_tables

    def restless(_page: Page, *_names: object) -> Tables | None:
        if not int(bench.page.header["freeze"]):
            return None
        frozen.append(int(section[bench.slots[TREND]]))
        return original(bench.page)

    monkeypatch.setattr(counters_check, "still_tables", restless)
    bench.page.rows(SUM)["gross"][0] += 7
    for look in range(2 * BLIND_LOOKS_MAX):
        assert bool(check.look(HELD)) == (look == 2 * BLIND_LOOKS_MAX - 1)
    assert len(frozen) == 2
    assert not int(bench.page.header["freeze"])


def test_look_when_an_exit_is_not_posted_yet_then_no_sum_lacks_it(
    bench: Bench, check: CountersCheck
) -> None:
    bench.page.header["freeze"] = 1
    assert bench.handle().check("-0.002", "60000")
    bench.page.header["freeze"] = 0
    for _ in range(2):
        assert check.look(HELD) == ()
    assert check.is_clean
    atomics.fetch_add(bench.page.address(COUNTERS_HEADER, 0, "unposted"), 1)
    check.look(HELD)
    assert [one.field for one in check.look(HELD)] == ["unposted"]
