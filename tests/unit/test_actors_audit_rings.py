"""What goes from rings into rows when a strategy's own ring cannot be trusted."""

import pytest

from actors.audit_rings import STAMP_AGE_NS, Drain, row_of
from tests.tree_fixtures import paper_page, service
from tripgate.audit.store import LogWriter, ProducerGapError
from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.instance import state_folder
from tripgate.messages import EventKind
from tripgate.page.layout import SLOT, WATERMARK
from tripgate.page.mapping import Page
from tripgate.page.ring import Frame, RingWriter

HONEST, LIAR = 17, 18
NOW_NS = 10**18


def frame(payload: bytes, *, kind: int = EventKind.DECISION, stamp_ns: int = NOW_NS) -> Frame:
    return Frame(LIAR, kind, 1, stamp_ns, -5, payload, 64)


def write(page: Page, slot: int, count: int) -> None:
    ring = RingWriter(page, slot)
    for _ in range(count):
        assert ring.append(int(EventKind.ATTACHED), b"\x80", host_ns(), 1) is not None


@pytest.mark.parametrize("stamp_ns", [-(2**63), 2**63 - 1, 0, NOW_NS + 1])
def test_row_when_a_stamp_cannot_be_true_then_it_does_not_choose_the_month(stamp_ns: int) -> None:
    row = row_of(frame(b"\xff" * 256, stamp_ns=stamp_ns), 1, 0, NOW_NS)
    assert NOW_NS - STAMP_AGE_NS <= row.utc_ns <= NOW_NS
    assert row.host_ns == stamp_ns
    assert row.token == -1


def test_row_when_a_merged_record_is_garbage_then_its_bytes_are_kept() -> None:
    for payload in (b"", b"\x01" * 7, b"\xff" * 40):
        row = row_of(frame(payload, kind=EventKind.DENIALS_MERGED), 1, 0, NOW_NS)
        assert row.body == payload


def test_store_when_a_strategys_ring_has_a_gap_then_the_others_are_stored_and_it_is_told() -> None:
    page = paper_page()
    place = service(page, "audit_writer")
    state = state_folder(page.names.instance)
    write(page, LIAR, 1)
    page.rows(SLOT)["record_sequence"][LIAR] += 3
    write(page, LIAR, 1)
    write(page, HONEST, 2)
    with LogWriter(state / "audit", state / "heads") as log:
        drain = Drain(place, log)
        frames = drain.gather()
        drain.store(frames)
        drain.publish(frames)
        assert log.last_sequences() == {(page.epoch, HONEST): 2}
        assert list(page.rows(WATERMARK)["sequence"][[HONEST, LIAR]]) == [2, 0]
        ((slot, reason),) = drain.rings.newly_damaged()
        assert (slot, "record 2 is missing" in reason) == (LIAR, True)
        write(page, HONEST, 1)
        assert [found.slot for found in drain.gather()] == [HONEST]
    place.close()


def test_store_when_a_tree_processs_ring_has_a_gap_then_it_is_a_bug() -> None:
    page = paper_page()
    place = service(page, "audit_writer")
    state = state_folder(page.names.instance)
    page.rows(SLOT)["record_sequence"][2] += 1
    write(page, 2, 1)
    with LogWriter(state / "audit", state / "heads") as log:
        drain = Drain(place, log)
        with pytest.raises(InvariantBroken, match="record 1 is missing") as caught:
            drain.store(drain.gather())
    assert isinstance(caught.value.__context__, ProducerGapError)
    place.close()
