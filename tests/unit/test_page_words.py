"""The small words of the page: atomics, board rows, level bytes, leases, doorbells."""

import contextlib
import ctypes
import select
from pathlib import Path

import pytest

from tests.gate_fixtures import (
    BETA_BTC,
    BREAKER,
    BTC,
    DASHBOARD,
    KEEPER,
    MARKS,
    ROLES,
    Bench,
    make_bench,
)
from tripgate.clock import NS_PER_S, host_ns
from tripgate.errors import PageError
from tripgate.page import atomics
from tripgate.page.atomics import CLOCK_MONOTONIC
from tripgate.page.board import READ_TRIES, Quote, read_quote, read_row, write_quote
from tripgate.page.doorbell import DRAIN_MAX, Doorbell, Ringer
from tripgate.page.layout import BOARD, LEASE, LIMIT, ROLE
from tripgate.page.lease import RENEW_FRACTION, LeaseHolder, lease_states, zero_lease
from tripgate.page.level import (
    LevelWriter,
    bump_generation,
    level_of_word,
    node_level,
    set_effective_limits,
    set_level,
    writer_level,
)
from tripgate.reasons import Level
from tripgate.units import INT_MAX, PPM

pytestmark = pytest.mark.kernels
LARGEST, SMALLEST = 2**63 - 1, -(2**63)


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def test_atomics_when_used_on_a_word_then_each_answers_what_stood_there() -> None:
    words = (ctypes.c_int64 * 3)(1, 5, 9)
    middle = ctypes.addressof(words) + 8
    assert atomics.load(middle) == 5
    assert (atomics.exchange(middle, 6), words[1]) == (5, 6)
    assert (atomics.fetch_add(middle, -8), words[1]) == (6, -2)
    assert (atomics.compare_exchange(middle, 0, 7), words[1]) == (-2, -2)
    assert (atomics.compare_exchange(middle, -2, 7), words[1]) == (-2, 7)
    for value in (LARGEST, SMALLEST):
        atomics.store(middle, value)
        assert atomics.load(middle) == value
    atomics.store(middle, LARGEST)
    atomics.fetch_add(middle, 1)
    assert list(words) == [1, SMALLEST, 9]


def test_clock_when_read_by_a_kernel_then_it_is_the_host_clock() -> None:
    scratch = (ctypes.c_int64 * 2)()
    before = host_ns()
    now = atomics.read_clock(CLOCK_MONOTONIC, ctypes.addressof(scratch))
    assert before <= now <= host_ns()


def read(bench: Bench, instrument: int) -> tuple[int, list[int]]:
    """Read a board row the way the check does."""
    out = (ctypes.c_int64 * 6)()
    sequence = read_row(bench.page.address(BOARD, instrument), ctypes.addressof(out))
    return sequence, list(out)


def test_board_when_written_then_both_readers_see_the_whole_row(bench: Bench) -> None:
    write_quote(bench.page, BTC, Quote(11, 12, 13, 14, 15, 16, 0, index_price=10), 17)
    assert read(bench, BTC) == (4, [11, 12, 13, 14, 15, 16])
    assert read_quote(bench.page, BTC) == Quote(11, 12, 13, 14, 15, 16, 4, 10, 17)
    assert int(bench.page.rows(BOARD)["ticks"][BTC]) == 2
    assert read(bench, BETA_BTC)[1][0] == MARKS[BETA_BTC]


def test_board_when_never_written_then_there_is_no_quote(bench: Bench) -> None:
    bench.page.rows(BOARD)["sequence"][BTC] = 0
    assert read(bench, BTC)[0] == -1
    assert read_quote(bench.page, BTC) is None


def test_board_when_its_writer_died_in_the_middle_then_it_is_unreadable_until_written(
    bench: Bench,
) -> None:
    row = bench.page.rows(BOARD)[BTC]
    row["sequence"], row["mark"] = 3, 1
    assert read(bench, BTC)[0] == -1
    assert read_quote(bench.page, BTC) is None
    write_quote(bench.page, BTC, Quote(11, 12, 13, 14, 15, 16, 0), 17)
    assert read(bench, BTC) == (4, [11, 12, 13, 14, 15, 16])


def test_board_when_it_changes_under_the_readers_hand_then_they_give_up_not_guess(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not atomics.INTERPRETED:
        pytest.skip("puts a move between two instructions of a kernel")
    sequence = bench.page.address(BOARD, BTC)
    plain, looks = atomics.load, []

    def moving(address: int) -> int:
        if address == sequence:
            looks.append(address)
            return 2 * len(looks)
        return plain(address)

    monkeypatch.setattr(atomics, "load", moving)
    assert read(bench, BTC)[0] == -1
    assert len(looks) == 2 * READ_TRIES


def test_P5_level_when_writers_differ_then_the_node_has_their_maximum(bench: Bench) -> None:
    for writer, level in zip(LevelWriter, (1, 3, 2, 0), strict=True):
        set_level(bench.page, 0, writer, Level(level))
    assert node_level(bench.page, 0) is Level.HARD
    set_level(bench.page, 0, LevelWriter.SUPERVISOR, Level.NORMAL)
    assert node_level(bench.page, 0) is Level.MEDIUM
    held = [writer_level(bench.page, 0, writer) for writer in LevelWriter]
    assert held == [Level.SOFT, Level.NORMAL, Level.MEDIUM, Level.NORMAL]
    assert node_level(bench.page, 1) is Level.NORMAL


def test_level_when_it_tightens_then_it_trips_and_when_it_loosens_it_does_not(
    bench: Bench,
) -> None:
    generation = bench.page.header["generation"]
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.MEDIUM)
    assert int(generation[0]) == 1
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.MEDIUM)
    set_level(bench.page, 0, LevelWriter.BREAKER, Level.SOFT)
    assert int(generation[0]) == 1
    assert bump_generation(bench.page) == 2


def test_level_when_the_top_byte_is_set_then_the_word_is_still_read_right() -> None:
    assert level_of_word(0x0400_0000_0000_0001) is Level.EMERGENCY
    assert level_of_word(0x0102_0000_0000_0300) is Level.HARD


def test_limits_when_a_factor_tightens_then_both_limits_shrink_and_it_trips(
    bench: Bench,
) -> None:
    bench.limit("portfolio", gross=1_001, net=INT_MAX)
    set_effective_limits(bench.page, 0, 500_000)
    row = bench.page.rows(LIMIT)[0]
    assert [int(row[n]) for n in ("gross_max", "net_max", "factor_ppm")] == [
        500, INT_MAX // 2, 500_000,
    ]  # fmt: skip
    assert int(bench.page.header["generation"][0]) == 1
    set_effective_limits(bench.page, 0, PPM)
    assert [int(row[n]) for n in ("gross_max", "net_max")] == [1_001, INT_MAX]
    assert int(bench.page.header["generation"][0]) == 1
    for factor in (0, -1, PPM + 1):
        with pytest.raises(ValueError, match="a factor is in"):
            set_effective_limits(bench.page, 0, factor)
    assert int(row["gross_max"]) == 1_001


def test_lease_when_renewed_given_up_or_zeroed_then_its_word_and_state_say_so(
    bench: Bench,
) -> None:
    holder, now = LeaseHolder(bench.page, KEEPER), host_ns()
    assert holder.interval_s == pytest.approx(1 / RENEW_FRACTION)
    holder.renew(now)
    deadlines = bench.page.rows(LEASE)["deadline_ns"]
    assert int(deadlines[KEEPER]) == now + NS_PER_S
    assert int(bench.page.rows(ROLE)["renewals"][KEEPER]) == 1

    def state(moment: int) -> tuple[bool, bool, float]:
        lease = lease_states(bench.page, moment)[KEEPER]
        assert (lease.role, lease.critical) == ("position_keeper", True)
        return lease.live, lease.stale, lease.left_ms

    assert state(now) == (True, False, 1_000.0)
    assert state(now + NS_PER_S) == (False, False, 0.0)
    holder.give_up_stale()
    assert state(now) == (False, True, -1.0)
    holder.renew(now)
    assert state(now)[:2] == (True, False)
    zero_lease(bench.page, KEEPER)
    assert state(now) == (False, False, -1.0)
    assert [int(d) > now for d in deadlines] == [r != KEEPER for r in range(len(ROLES))]


def test_lease_when_a_role_is_absent_then_it_is_not_shown(bench: Bench) -> None:
    bench.page.rows(ROLE)["present"][BREAKER] = 0
    shown = lease_states(bench.page, host_ns())
    assert "breaker" not in {lease.role for lease in shown}
    assert [lease.critical for lease in shown if lease.role == "dashboard"] == [False]
    assert len(shown) == DASHBOARD


def test_doorbell_when_rung_then_it_wakes_and_is_quiet_again(isolated_folders: Path) -> None:
    with contextlib.closing(Doorbell(isolated_folders / "page", "me")) as bell:
        ringer = Ringer(isolated_folders / "page")
        ringer.ring("absent", "me")
        assert select.select([bell.socket], [], [], 5)[0]
        bell.wait(5)
        assert not select.select([bell.socket], [], [], 0)[0]
        ringer.ring_all()
        assert select.select([bell.socket], [], [], 5)[0]
        bell.drain()
        bell.wait(0)
        ringer.close()
    assert list((isolated_folders / "page").iterdir()) == []


def test_doorbell_when_rung_beyond_its_queue_then_nobody_blocks(isolated_folders: Path) -> None:
    with contextlib.closing(Doorbell(isolated_folders / "page", "me")) as bell:
        ringer = Ringer(isolated_folders / "page")
        for _ in range(100 * DRAIN_MAX):
            ringer.ring("me")
        assert select.select([bell.socket], [], [], 0)[0]
        for _ in range(100):
            bell.drain()
        assert not select.select([bell.socket], [], [], 0)[0]
        ringer.close()


def test_doorbell_when_a_predecessor_left_its_bell_then_the_name_is_taken_over(
    isolated_folders: Path,
) -> None:
    first = Doorbell(isolated_folders / "page", "me")
    first.socket.close()
    with contextlib.closing(Doorbell(isolated_folders / "page", "me")) as second:
        ringer = Ringer(isolated_folders / "page")
        ringer.ring("me")
        assert select.select([second.socket], [], [], 5)[0]
        ringer.close()


def test_ringer_when_the_folder_is_gone_then_nothing_happens(isolated_folders: Path) -> None:
    ringer = Ringer(isolated_folders / "page" / "gone")
    ringer.ring_all()
    ringer.ring("me")
    ringer.close()


def test_doorbell_when_its_path_is_too_long_then_it_says_so(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with pytest.raises(PageError, match="shorter path"):
        Doorbell(folder, "role0")
