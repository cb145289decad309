"""The audit writer over failing disks: openings stop, nothing is lost, it comes back by itself."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.audit_actor import Bench, build_shim, wait_for
from tripgate.audit.heads import read_checkpoints
from tripgate.audit.record import unpack_body
from tripgate.messages import EventKind
from tripgate.reasons import DenyReason

STOPPED = (-int(DenyReason.INPUT_STALE), -int(DenyReason.LEASE_LAPSED))
"""A lease that its holder has given up itself is told as a stale input, with the holder named."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets the disk fail to order."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.stop()


def outages(bench: Bench) -> list[tuple[int, dict[str, object]]]:
    """Return kind and body of the records of outages, oldest first."""
    kinds = (EventKind.AUDIT_FAILED, EventKind.AUDIT_RECOVERED)
    return [
        (stored.row.kind, {str(key): value for key, value in unpack_body(stored.row.body).items()})
        for stored in bench.folders.rows()
        if stored.row.kind in kinds
    ]


def require_whole(bench: Bench, *slots: int) -> None:
    """Check that the log verifies and holds every record of these slots once."""
    bench.stop()
    assert bench.folders.verify().problems == []
    for slot in slots:
        found = [
            stored.row.producer_sequence
            for stored in bench.folders.rows()
            if stored.row.producer == slot
        ]
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= bench.durable(slot)
        assert bench.backlog(slot) == 0


def flood_of_a_strategy(bench: Bench) -> None:
    """A strategy's flood alone keeps the lease: it may not stop the others."""
    for _ in range(20):
        bench.write(bench.slot, 100)
        wait_for(lambda: bench.backlog(bench.slot) < 100_000, "room in the ring")
        assert bench.is_live


def failing_syncs(bench: Bench) -> None:
    """What is written meanwhile stays in the rings, and no further name is taken."""
    bench.order.write_text("f")
    last = bench.write(bench.keeper, 20)
    wait_for(lambda: bench.is_stale, "the lease given up")
    assert bench.ask() in STOPPED
    assert bench.durable(bench.keeper) < last
    diary = bench.folders.state / "logs" / "audit_writer.jsonl"
    wait_for(lambda: diary.read_text().count("cannot be written") >= 3, "further attempts")
    assert len(bench.files()) <= 2
    bench.order.unlink()
    wait_for(lambda: bench.durable(bench.keeper) == last, "the records stored")
    wait_for(lambda: bench.is_live, "the lease again")
    assert bench.ask() > 0
    assert len(bench.files()) == 2


def hanging_sync(bench: Bench) -> None:
    """The lease lapses by itself; a disk that was slow has not failed."""
    names = bench.files()
    bench.order.write_text("h")
    bench.write(bench.keeper, 5)
    wait_for(lambda: bench.ask() in STOPPED, "openings stopped")
    wait_for(lambda: bench.is_stale, "the lease given up, so that nobody takes it for hung")
    bench.order.unlink()
    wait_for(lambda: bench.is_live, "the lease once the disk answers")
    assert bench.files() == names


def file_size_limit(bench: Bench) -> None:
    """A file that cannot grow, as on a full disk."""
    names = bench.files()
    bench.limit_files(1_000)
    last = bench.write(bench.keeper, 200)
    wait_for(lambda: bench.is_stale, "the lease given up at the limit")
    bench.limit_files()
    wait_for(lambda: bench.is_live, "the lease without the limit")
    wait_for(lambda: bench.durable(bench.keeper) == last, "all records")
    assert len(bench.files()) <= len(names) + 1


def turn_of_the_month(bench: Bench) -> None:
    """A month that ends while the writer runs begins the next file; a clock set back does not."""
    names = bench.files()
    bench.order.write_text("m")
    last = bench.write(bench.keeper, 3)
    wait_for(lambda: bench.durable(bench.keeper) == last, "the records of the next month")
    assert len(bench.files()) == len(names) + 1
    bench.order.unlink()
    last = bench.write(bench.keeper, 3)
    wait_for(lambda: bench.durable(bench.keeper) == last, "the records after them")
    assert len(bench.files()) == len(names) + 1
    assert bench.is_live


def test_P6_audit_writer_when_the_disk_fails_then_openings_stop_and_it_comes_back(
    bench: Bench, shim: Path
) -> None:
    bench.start(shim=shim)
    wait_for(lambda: bench.is_live, "a lease")
    assert bench.ask() > 0
    wait_for(lambda: bench.durable(bench.slot) == 1, "the decision stored")
    child = bench.child
    chapters = (
        flood_of_a_strategy, failing_syncs, hanging_sync, file_size_limit, turn_of_the_month,
    )  # fmt: skip
    for chapter in chapters:
        chapter(bench)
    wait_for(lambda: len(outages(bench)) == 4, "two outages on record")
    assert bench.child is child, "nobody had to start it again"
    assert child is not None
    assert child.poll() is None
    kinds = [kind for kind, _ in outages(bench)]
    assert kinds == [EventKind.AUDIT_FAILED, EventKind.AUDIT_RECOVERED] * 2
    assert "did not confirm a write" in str(outages(bench)[0][1]["reason"])
    wait_for(lambda: not bench.backlog(bench.slot) and not bench.backlog(bench.role), "all drained")
    require_whole(bench, bench.keeper, bench.slot, bench.role)


def failing_copy(bench: Bench, copy: Path) -> None:
    """A copy's folder that is not there stops nothing, and the copy goes on once it is."""
    wait_for(lambda: EventKind.AUDIT_FAILED in bench.kinds(), "the copy's failure on record")
    assert bench.is_live
    copy.parent.mkdir()
    bench.write(bench.keeper)
    wait_for(lambda: EventKind.AUDIT_RECOVERED in bench.kinds(), "the copy works")
    wait_for(lambda: copy.exists() and any(read_checkpoints(copy)), "a head in the copy")


def moved_file_and_full_heads(bench: Bench) -> Callable[[], None]:
    """Move the file away, with no room for the heads of the next one; return what undoes it."""
    (first,) = bench.files()
    heads, kept = bench.folders.heads_file, bench.folders.state / "kept"
    aside = bench.folders.state / "aside.db"
    heads.rename(kept)
    heads.symlink_to("/dev/full")
    for suffix in ("", "-wal", "-shm"):
        (bench.folders.audit / (first + suffix)).rename(f"{aside}{suffix}")
    last = bench.write(bench.keeper, 10)
    wait_for(lambda: bench.is_stale, "the lease given up")
    assert bench.ask() in STOPPED
    heads.unlink()
    kept.rename(heads)
    wait_for(lambda: bench.durable(bench.keeper) == last, "the records in a new file")
    wait_for(lambda: bench.is_live, "the lease")

    def undo() -> None:
        for suffix in ("", "-wal", "-shm"):
            if (moved := Path(f"{aside}{suffix}")).exists():
                moved.rename(bench.folders.audit / (first + suffix))

    return undo


def test_P6_audit_writer_when_its_files_are_moved_then_it_goes_on_in_a_new_one(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "other" / "heads.jsonl"
    bench = Bench(tmp_path, f'\n[audit]\nheads_copies = ["{copy}"]\n')
    try:
        bench.start()
        last = bench.write(bench.keeper, 10)
        wait_for(lambda: bench.durable(bench.keeper) == last, "the records")
        failing_copy(bench, copy)
        undo = moved_file_and_full_heads(bench)
        wait_for(lambda: not bench.backlog(bench.role), "all drained")
        assert bench.child is not None
        os.kill(bench.child.pid, signal.SIGINT)
        bench.child.wait()
        undo()
        assert len(bench.files()) == 2
        require_whole(bench, bench.keeper, bench.role)
        *_, (_, head) = read_checkpoints(copy)
        assert head is not None
        assert head.sequence == len(bench.folders.rows()), "the last head reached the copy"
        assert head.clock_offset_ns == head.utc_ns - head.host_ns
    finally:
        bench.stop()
