"""Rings: gap-free, whole, never overwritten, whenever the producer is killed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gate_fixtures import TREND, Bench, entries_in, make_bench, unlinked_bench
from tripgate.errors import InvariantBroken
from tripgate.gate.exits import issue_exit
from tripgate.gate.record import unpack_record
from tripgate.gate.words import COMMITTED
from tripgate.page.layout import (
    ENTRY,
    HOLDER,
    INSTRUMENT,
    RING,
    RING_BYTES,
    RING_EXIT_RESERVE,
    SLOT,
    WATERMARK,
)
from tripgate.page.ring import (
    FRAME_BYTES,
    PAD_KIND,
    PAYLOAD_MAX,
    RingReader,
    RingWriter,
    recover_sequence,
)
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels
RING_SLOT = 17
BUY = ("0.01", "60000", "59000")


@pytest.fixture
def bench(isolated_folders: Path) -> Bench:
    return make_bench(isolated_folders / "page")


@pytest.fixture
def writer(bench: Bench) -> RingWriter:
    return RingWriter(bench.page, RING_SLOT)


def word(bench: Bench, name: str) -> int:
    """Return a word of the ring's slot."""
    return int(bench.page.rows(SLOT)[name][RING_SLOT])


def test_ring_when_a_record_is_appended_then_it_is_read_back_whole(
    bench: Bench, writer: RingWriter
) -> None:
    assert writer.append(10, b"abc", 111, 222) == 1
    assert writer.append(11, b"", 333, 444) == writer.sequence == 2
    first, second = RingReader(bench.page, "audit").read(RING_SLOT)
    assert (first.slot, first.kind, first.sequence) == (RING_SLOT, 10, 1)
    assert (first.payload, first.host_ns, first.market_ms) == (b"abc", 111, 222)
    assert (first.end, second.end) == (FRAME_BYTES + 8, 2 * FRAME_BYTES + 8)
    assert (second.kind, second.sequence, second.payload) == (11, 2, b"")


@settings(max_examples=25)
@given(
    rounds=st.lists(
        st.lists(st.integers(0, PAYLOAD_MAX), min_size=1, max_size=30), min_size=1, max_size=20
    )
)
def test_ring_when_written_across_wraps_then_sequences_have_no_gap_and_bytes_are_right(
    rounds: list[list[int]],
) -> None:
    bench = unlinked_bench()
    writer, reader = RingWriter(bench.page, RING_SLOT), RingReader(bench.page, "audit")
    sent: list[tuple[int, bytes]] = []
    got: list[tuple[int, bytes]] = []
    for sizes in rounds:
        for size in sizes:
            payload = bytes([len(sent) % 251]) * size
            sequence = writer.append(1, payload, 0, 0)
            if sequence is not None:
                sent.append((sequence, payload))
        frames = list(reader.read(RING_SLOT))
        got.extend((frame.sequence, frame.payload) for frame in frames)
        if frames:
            reader.release(RING_SLOT, frames[-1].end)
    assert got == sent
    assert [sequence for sequence, _ in got] == list(range(1, len(got) + 1))
    assert reader.backlog(RING_SLOT) == 0


def test_ring_when_a_frame_does_not_fit_at_the_end_then_a_pad_fills_it(
    bench: Bench, writer: RingWriter
) -> None:
    reader = RingReader(bench.page, "audit")
    frame = FRAME_BYTES + PAYLOAD_MAX
    while word(bench, "ring_head") + frame <= RING_BYTES:
        assert writer.append(1, b"a" * PAYLOAD_MAX, 0, 0)
        reader.skip_to_head(RING_SLOT)
    place = word(bench, "ring_head")
    assert 0 < RING_BYTES - place < frame
    assert writer.append(2, b"b" * PAYLOAD_MAX, 0, 0)
    assert word(bench, "ring_head") == RING_BYTES + frame
    (only,) = reader.read(RING_SLOT)
    assert (only.kind, only.payload) == (2, b"b" * PAYLOAD_MAX)


def test_ring_when_full_then_append_says_so_and_overwrites_nothing(
    bench: Bench, writer: RingWriter
) -> None:
    while writer.append(1, b"x" * 1_000, 0, 0):
        pass
    frames = list(RingReader(bench.page, "audit").read(RING_SLOT))
    assert writer.append(1, b"x" * 1_000, 0, 0) is None
    assert list(RingReader(bench.page, "audit").read(RING_SLOT)) == frames
    assert [frame.sequence for frame in frames] == list(range(1, writer.sequence + 1))


def test_ring_when_a_pad_would_take_the_room_then_the_unread_is_not_overwritten(
    bench: Bench, writer: RingWriter
) -> None:
    payload = b"x" * 1_000
    size = FRAME_BYTES + len(payload)
    # One frame would fit into what is free, but it must begin anew at byte 0, and 16 is unread.
    head, free = RING_BYTES - size + 8, size + 8
    bench.page.rows(SLOT)["ring_head"][RING_SLOT] = head
    RingReader(bench.page, "audit").release(RING_SLOT, head - (RING_BYTES - free))
    before = bytes(bench.page.bytes_of(RING, RING_SLOT))
    assert writer.append(1, payload, 0, 0) is None
    assert bytes(bench.page.bytes_of(RING, RING_SLOT)) == before
    RingReader(bench.page, "audit").release(RING_SLOT, head)
    assert writer.append(1, payload, 0, 0) == 1


def test_ring_when_a_record_is_too_long_then_it_is_a_bug(writer: RingWriter) -> None:
    with pytest.raises(InvariantBroken, match="at most"):
        writer.append(1, b"x" * (PAYLOAD_MAX + 1), 0, 0)


def test_ring_when_another_consumer_is_no_holder_then_it_holds_nothing_back(
    bench: Bench, writer: RingWriter
) -> None:
    audit, keeper = RingReader(bench.page, "audit"), RingReader(bench.page, "keeper")
    for _ in range(2 * RING_BYTES // 1_032):
        assert writer.append(1, b"x" * 1_000, 0, 0)
        audit.skip_to_head(RING_SLOT)
    with pytest.raises(InvariantBroken, match="ran over its keeper cursor"):
        list(keeper.read(RING_SLOT))
    keeper.skip_to_head(RING_SLOT)
    assert keeper.cursor(RING_SLOT) == word(bench, "ring_head")
    assert list(keeper.read(RING_SLOT)) == []


def test_ring_when_the_mask_names_a_consumer_then_the_slowest_holds_the_ring_back(
    bench: Bench, writer: RingWriter
) -> None:
    bench.page.rows(HOLDER)["mask"][RING_SLOT] = 0b11
    audit, keeper = RingReader(bench.page, "audit"), RingReader(bench.page, "keeper")
    while writer.append(1, b"x" * 1_000, 0, 0):
        audit.skip_to_head(RING_SLOT)
    kept = list(keeper.read(RING_SLOT))
    assert [frame.sequence for frame in kept] == list(range(1, writer.sequence + 1))
    keeper.release(RING_SLOT, kept[len(kept) // 2].end)
    assert writer.append(1, b"x" * 1_000, 0, 0)


def test_ring_when_read_with_a_bound_then_the_rest_comes_next_time(
    bench: Bench, writer: RingWriter
) -> None:
    reader = RingReader(bench.page, "audit")
    for _ in range(5):
        writer.append(1, b"", 0, 0)
    first = list(reader.read(RING_SLOT, limit=2))
    assert [frame.sequence for frame in first] == [1, 2]
    reader.release(RING_SLOT, first[-1].end)
    assert [frame.sequence for frame in reader.read(RING_SLOT)] == [3, 4, 5]


def test_ring_when_its_words_are_garbage_then_the_reader_crashes_and_does_not_guess(
    bench: Bench, writer: RingWriter
) -> None:
    writer.append(1, b"abc", 0, 0)
    for size in (0, RING_BYTES + 8):
        bench.page.bytes_of(RING, RING_SLOT).cast("q")[0] = (size << 16) | 1
        with pytest.raises(InvariantBroken, match="holds a frame of"):
            list(RingReader(bench.page, "audit").read(RING_SLOT))


def stores_of_an_append(bench: Bench, stop_after: int) -> None:
    """Do the stores of one append in order, and die after ``stop_after`` of them."""
    rows, words = bench.page.rows(SLOT)[RING_SLOT], bench.page.bytes_of(RING, RING_SLOT).cast("q")
    place = int(rows["ring_head"]) // 8
    sequence = int(rows["record_sequence"]) + 1
    stores: list[Callable[[], None]] = [
        lambda: words.__setitem__(place, (3 << 40) | ((FRAME_BYTES + 8) << 16) | 9),
        lambda: words.__setitem__(place + 1, sequence),
        lambda: words.__setitem__(place + 4, 0x636261),
        lambda: words.__setitem__(place + 2, 111),
        lambda: words.__setitem__(place + 3, 222),
        lambda: rows.__setitem__("record_sequence", sequence),
        lambda: rows.__setitem__("ring_head", int(rows["ring_head"]) + FRAME_BYTES + 8),
    ]
    for store in stores[:stop_after]:
        store()


STORES = 7


@pytest.mark.parametrize("stop_after", range(STORES + 1))
@pytest.mark.parametrize("drained", [False, True])
def test_ring_when_its_owner_dies_between_two_stores_then_the_next_leaves_no_gap(
    bench: Bench, writer: RingWriter, stop_after: int, drained: bool
) -> None:
    reader = RingReader(bench.page, "audit")
    writer.append(1, b"first", 0, 0)
    if drained:
        bench.page.rows(WATERMARK)["sequence"][RING_SLOT] = 1
        reader.skip_to_head(RING_SLOT)
    stores_of_an_append(bench, stop_after)
    recover_sequence(bench.page, RING_SLOT)
    RingWriter(bench.page, RING_SLOT).append(2, b"next", 0, 0)
    frames = list(reader.read(RING_SLOT))
    expected = ([] if drained else [b"first"]) + ([b"abc"] if stop_after == STORES else [])
    assert [frame.payload for frame in frames] == [*expected, b"next"]
    begin = 2 if drained else 1
    assert [frame.sequence for frame in frames] == list(range(begin, begin + len(frames)))


def test_ring_when_its_owner_dies_after_a_pad_then_the_next_leaves_no_gap(
    bench: Bench, writer: RingWriter
) -> None:
    for _ in range(RING_BYTES // (FRAME_BYTES + PAYLOAD_MAX)):
        writer.append(1, b"x" * PAYLOAD_MAX, 0, 0)
    bench.page.rows(WATERMARK)["sequence"][RING_SLOT] = writer.sequence
    RingReader(bench.page, "audit").skip_to_head(RING_SLOT)
    first = writer.append(1, b"first", 0, 0)
    assert first
    place = word(bench, "ring_head")
    pad = (RING_BYTES - place) << 16 | PAD_KIND
    bench.page.bytes_of(RING, RING_SLOT).cast("q")[place // 8] = pad
    bench.page.rows(SLOT)["ring_head"][RING_SLOT] = RING_BYTES
    recover_sequence(bench.page, RING_SLOT)
    assert RingWriter(bench.page, RING_SLOT).append(2, b"next", 0, 0) == first + 1
    frames = list(RingReader(bench.page, "audit").read(RING_SLOT))
    assert [(frame.sequence, frame.payload) for frame in frames] == [
        (first, b"first"),
        (first + 1, b"next"),
    ]


def test_P4_close_when_the_ring_is_full_beyond_the_reserve_then_it_is_granted_and_recorded(
    bench: Bench,
) -> None:
    bench.hold(40)
    bench.page.rows(INSTRUMENT)["resting_max"] = 40
    handle = bench.handle()
    writer = RingWriter(bench.page, bench.slots[TREND])
    while RING_BYTES - int(bench.page.rows(SLOT)["ring_head"][bench.slots[TREND]]) > (
        RING_EXIT_RESERVE
    ):
        assert writer.append(99, b"x" * 1_000, 0, 0)
    assert handle.check(*BUY).reason is DenyReason.RING_FULL
    tokens = [handle.check("-0.001", "60000").token for _ in range(40)]
    assert all(tokens)
    recorded = [record.token for record in bench.records(bench.slots[TREND])]
    assert recorded == tokens


def test_P4_exit_when_the_routers_ring_is_full_then_its_entry_carries_the_record(
    bench: Bench, writer: RingWriter
) -> None:
    bench.hold(10)
    while writer.append(99, b"x" * 64, 0, 0):
        pass
    head = word(bench, "ring_head")
    token = issue_exit(bench.page, writer, bench.key(), 1)
    assert word(bench, "ring_head") == head
    (row,) = entries_in(bench, COMMITTED)
    entry = bench.page.rows(ENTRY)[row]
    record = unpack_record(entry["record"].tobytes())
    assert (record.token, int(entry["token"]), int(entry["record_sequence"])) == (token, token, 0)
    assert record.values["lots"] == -10
