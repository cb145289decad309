"""Lossless links: no hole, no double, and what a reader that was run over can still do."""

from pathlib import Path

import pytest

from actors.link import catch_up
from tests.gate_fixtures import Bench, make_bench
from tripgate.audit.record import Row
from tripgate.audit.store import LogWriter
from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.page.layout import LINK, RING, RING_BYTES, SLOT
from tripgate.page.links import ring_row
from tripgate.page.lossless import RUN_OVER_BYTES, GapFound, LosslessReader
from tripgate.page.ring import RingReader, RingWriter

pytestmark = pytest.mark.kernels
PRODUCER, KIND = 17, 20
BIG = b"x" * 4_000


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


def fill(bench: Bench, count: int, payload: bytes = b"fill") -> None:
    writer = RingWriter(bench.page, PRODUCER)
    for _ in range(count):
        assert writer.append(KIND, payload, host_ns(), 0) is not None


def reader_of(bench: Bench, **options: bool) -> LosslessReader:
    return LosslessReader(bench.page, "keeper", [PRODUCER], **options)


def word(bench: Bench, name: str) -> int:
    return int(bench.page.rows(LINK)[name][ring_row(bench.page, "keeper")])


def sequences(reader: LosslessReader) -> list[int]:
    taken = []
    for frame in reader.read(PRODUCER):
        taken.append(frame.sequence)
        reader.release(frame)
    return taken


def test_read_when_nothing_was_released_then_all_comes_again(bench: Bench) -> None:
    fill(bench, 5)
    reader = reader_of(bench)
    assert [frame.sequence for frame in reader.read(PRODUCER)] == [1, 2, 3, 4, 5]
    assert [frame.sequence for frame in reader.read(PRODUCER, limit=2)] == [1, 2]
    assert sequences(reader) == [1, 2, 3, 4, 5]
    assert sequences(reader) == []
    assert not reader.backlog(PRODUCER)
    assert word(bench, "received") == 5
    assert word(bench, "age_max_ns") > 0


def test_release_when_it_is_for_a_whole_batch_then_its_frames_all_count(bench: Bench) -> None:
    fill(bench, 5)
    reader = reader_of(bench)
    *_, last = reader.read(PRODUCER)
    reader.release(last)
    assert (word(bench, "received"), reader.backlog(PRODUCER)) == (1, 0)
    fill(bench, 3)
    *_, last = reader.read(PRODUCER)
    reader.release(last)
    assert word(bench, "received") == 4
    with pytest.raises(InvariantBroken, match="released twice"):
        reader.release(last)


def test_read_when_a_consumer_has_applied_what_it_did_not_release_then_it_is_passed_over(
    bench: Bench,
) -> None:
    fill(bench, 5)
    reader = reader_of(bench)
    reader.applied_to(PRODUCER, 3)
    assert sequences(reader) == [4, 5]
    assert word(bench, "replayed") == 3


def test_read_when_a_frame_is_missing_then_it_is_a_gap_until_the_reader_resumes(
    bench: Bench,
) -> None:
    fill(bench, 3)
    reader = reader_of(bench)
    assert sequences(reader) == [1, 2, 3]
    bench.page.rows(SLOT)["record_sequence"][PRODUCER] += 2
    fill(bench, 2)
    for _ in range(2):
        with pytest.raises(GapFound, match="ring 17 goes on with 6 where 4 was to come") as found:
            sequences(reader)
        assert (found.value.slot, found.value.expected, found.value.found) == (PRODUCER, 4, 6)
    assert word(bench, "gap") == 2
    reader.resume(PRODUCER, RingReader(bench.page, "keeper").cursor(PRODUCER), 5)
    assert sequences(reader) == [6, 7]


def test_catch_up_when_a_reader_was_run_over_then_the_log_and_the_ring_give_all_once(
    bench: Bench, isolated_folders: Path
) -> None:
    page, folder = bench.page, isolated_folders / "audit"
    drain, log = RingReader(page, "audit"), LogWriter(folder, isolated_folders / "heads")

    def store() -> None:
        frames = list(drain.read(PRODUCER))
        log.append([
            Row(page.epoch, PRODUCER, f.sequence, 0, f.host_ns, 0, f.kind, None, f.payload)
            for f in frames
        ])  # fmt: skip
        drain.release(PRODUCER, frames[-1].end)

    reader = reader_of(bench, holds=False)
    fill(bench, 2, BIG)
    assert sequences(reader) == [1, 2]
    while page.rows(SLOT)["ring_head"][PRODUCER] < RING_BYTES + RUN_OVER_BYTES:
        fill(bench, 20, BIG)
        store()
    fill(bench, 3, BIG)
    with pytest.raises(GapFound, match="goes on with 0 where 3 was to come"):
        sequences(reader)
    rows = catch_up(reader, folder, page.epoch, PRODUCER, after=2)
    taken = [row.producer_sequence for row in rows] + sequences(reader)
    assert taken == list(range(3, int(page.rows(SLOT)["record_sequence"][PRODUCER]) + 1))
    assert catch_up(reader, folder, page.epoch, PRODUCER, after=taken[-1]) == []
    assert sequences(reader) == []
    log.close()


def test_read_when_it_is_run_over_in_the_middle_then_the_torn_frame_is_not_given_out(
    bench: Bench,
) -> None:
    reader, drain = reader_of(bench, holds=False), RingReader(bench.page, "audit")
    fill(bench, 2, BIG)
    frames = reader.read(PRODUCER)
    assert next(frames).payload == BIG
    while reader.backlog(PRODUCER) <= RUN_OVER_BYTES:
        fill(bench, 1, BIG)
        drain.skip_to_head(PRODUCER)
    with pytest.raises(GapFound):
        next(frames)


def test_read_when_a_frame_makes_no_sense_then_it_is_a_bug_and_no_gap(bench: Bench) -> None:
    fill(bench, 1)
    bench.page.bytes_of(RING, PRODUCER)[:8] = bytes(8)
    with pytest.raises(InvariantBroken, match="holds a frame of 0 bytes"):
        sequences(reader_of(bench))
