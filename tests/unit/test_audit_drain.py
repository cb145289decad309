"""The drain of many rings: nobody starves, every ring keeps its order, batches are bounded."""

import pytest

from tests.tree_fixtures import paper_page
from tripgate.audit.drain import BATCH_ROWS_MAX, RingDrain, last_of_slot
from tripgate.errors import InvariantBroken
from tripgate.messages import EventKind
from tripgate.page.layout import RING, SLOT
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter

TREE_SLOTS = 6


@pytest.fixture
def page() -> Page:
    return paper_page()


def write(page: Page, slot: int, stamps: list[int]) -> None:
    """Put a small record per host time (ns) into a slot's ring."""
    ring = RingWriter(page, slot)
    for stamp in stamps:
        assert ring.append(int(EventKind.FLAT), b"\x80", stamp, 1) is not None


def test_gather_when_rings_overlap_in_time_then_they_are_merged_and_keep_their_order(
    page: Page,
) -> None:
    write(page, 1, [10, 30, 20, 60])
    write(page, 17, [15, 25, 70])
    drain = RingDrain(page, TREE_SLOTS)
    found = [(frame.slot, frame.host_ns) for frame in drain.gather()]
    assert [stamp for slot, stamp in found if slot == 1] == [10, 30, 20, 60]
    assert [stamp for _, stamp in found] == [10, 15, 25, 30, 20, 60, 70]
    assert [frame.sequence for frame in drain.gather()] == [1, 1, 2, 2, 3, 4, 3]


def test_gather_when_one_ring_floods_then_the_others_are_served_in_every_batch(page: Page) -> None:
    flood, quiet = 1, (0, 2, 31)
    drain = RingDrain(page, TREE_SLOTS)
    served = dict.fromkeys(quiet, 0)
    flooded = 0
    for turn in range(6):
        write(page, flood, list(range(1_000 * turn, 1_000 * turn + 1_500)))
        for slot in quiet:
            write(page, slot, [turn])
        frames = drain.gather()
        assert len(frames) <= BATCH_ROWS_MAX
        flooded += sum(frame.slot == flood for frame in frames)
        for slot in quiet:
            served[slot] += sum(frame.slot == slot for frame in frames)
        drain.release(frames)
    assert served == dict.fromkeys(quiet, 6)
    assert flooded > 4 * BATCH_ROWS_MAX, "what the others leave is the flooding ring's"


def test_gather_when_all_rings_flood_then_each_gets_its_share(page: Page) -> None:
    slots = range(page.layout.capacities.slots)
    for slot in slots:
        write(page, slot, list(range(200)))
    drain = RingDrain(page, TREE_SLOTS)
    for _ in range(2):
        frames = drain.gather()
        assert len(frames) == BATCH_ROWS_MAX
        drain.release(frames)
    taken = {slot: frame.sequence for slot, frame in last_of_slot(frames).items()}
    assert set(taken) != set(slots)
    rest = []
    while frames := drain.gather():
        rest += frames
        drain.release(frames)
    assert len(rest) == 200 * len(slots) - 2 * BATCH_ROWS_MAX
    assert {slot: frame.sequence for slot, frame in last_of_slot(rest).items()} == dict.fromkeys(
        slots, 200
    )


def test_gather_when_nothing_is_released_then_the_same_frames_come_again(page: Page) -> None:
    write(page, 3, [1, 2])
    drain = RingDrain(page, TREE_SLOTS)
    assert drain.gather() == drain.gather()
    assert drain.gather()


def test_oldest_when_only_a_strategy_waits_then_it_does_not_count(page: Page) -> None:
    drain = RingDrain(page, TREE_SLOTS)
    assert drain.oldest_tree_ns() is None
    write(page, 20, [5])
    assert drain.oldest_tree_ns() is None
    write(page, 4, [40, 41])
    write(page, 2, [30])
    assert drain.oldest_tree_ns() == 30
    drain.release([frame for frame in drain.gather() if frame.slot == 2])
    assert drain.oldest_tree_ns() == 40


def test_gather_when_a_strategys_ring_is_scribbled_over_then_it_alone_is_left(page: Page) -> None:
    write(page, 17, [1, 2])
    good = int(page.rows(SLOT)["ring_head"][17])
    write(page, 17, [3])
    write(page, 18, [4])
    page.bytes_of(RING, 17).cast("q")[good // 8] = 7
    drain = RingDrain(page, TREE_SLOTS)
    frames = drain.gather()
    assert [(frame.slot, frame.host_ns) for frame in frames] == [(17, 1), (17, 2), (18, 4)]
    ((slot, reason),) = drain.newly_damaged()
    assert (slot, "ring 17 holds a frame" in reason) == (17, True)
    drain.release(frames)
    write(page, 18, [5])
    assert [frame.slot for frame in drain.gather()] == [18]
    assert drain.newly_damaged() == []


def test_gather_when_a_tree_processs_ring_is_damaged_then_it_is_a_bug(page: Page) -> None:
    write(page, 1, [1])
    page.bytes_of(RING, 1).cast("q")[0] = 7
    with pytest.raises(InvariantBroken, match="ring 1 holds a frame"):
        RingDrain(page, TREE_SLOTS).gather()
