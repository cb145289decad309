"""The whole way of a record, in the product's own parts: ring, drain, commit, watermark.

Producers are processes of their own that write decision records into their rings as fast as there
is room, or at a rate. The drain is measured in this process, as a loop of what the audit writer
does; the waiting of one opening is measured against the audit writer itself, as an actor in a
process of its own.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from actors import audit_writer
from actors.audit_rings import row_of
from actors.service import attach
from benchmarks.page import make_page
from tripgate.audit.drain import RingDrain
from tripgate.audit.store import LogWriter
from tripgate.clock import NS_PER_S, host_ns, sleep_s, utc_ns
from tripgate.errors import DeadlineError
from tripgate.gate.record import RECORD_BYTES
from tripgate.messages import EventKind
from tripgate.page.doorbell import Ringer
from tripgate.page.layout import HOLDER, ROLE_SLOTS, WATERMARK
from tripgate.page.mapping import Page, open_page
from tripgate.page.ring import RingWriter
from tripgate.processes import exit_with

AUDIT_HOLDS = 1
FULL_RING_S = 0.000_2
POLL_S = 0.000_02
GAP_S = 0.005
"""Between two openings that wait for their record: longer than one commit on a usual disk."""
WAIT_BOUND_NS = 30 * NS_PER_S
LOAD_PER_S = 1_000
ENDLESS = 2**62


def make_audit_page(folder: Path) -> Page:
    """Make the benchmarks' page with rings that the audit cursor holds back, as in a tree."""
    page = make_page(folder)
    page.rows(HOLDER)["mask"] = AUDIT_HOLDS
    return page


def write_record(ring: RingWriter, token: int) -> int | None:
    """Put one approved decision's record into a ring; return its sequence, None if it is full."""
    payload = token.to_bytes(8, "little") + bytes(RECORD_BYTES - 8)
    return ring.append(int(EventKind.DECISION), payload, host_ns(), token)


def produce(folder: Path, slot: int, count: int, per_s: int) -> None:
    """Write ``count`` records into a slot's ring, at most ``per_s`` (0: as fast as there is room).

    Waits for a line on stdin before it begins.
    """
    ring = RingWriter(open_page(folder), slot)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    began, done = host_ns(), 0
    while done < count:
        if per_s and (host_ns() - began) * per_s < done * NS_PER_S:
            sleep_s(1 / per_s)
        elif write_record(ring, done + 1) is None:
            sleep_s(FULL_RING_S)
        else:
            done += 1


def serve(folder: Path) -> None:
    """Run the audit writer on the page."""

    async def ready(_: Any) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    async def run() -> None:
        await audit_writer.run(attach(str(folder), "audit_writer", "", 1, {}, ready))

    trio.run(run)


@contextlib.contextmanager
def child(*words: object) -> Iterator["subprocess.Popen[str]"]:
    """Run this module as a process for the length of the block, from its being ready."""
    command = [sys.executable, "-m", __name__, *map(str, words)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise DeadlineError(f"the benchmark's process {' '.join(command[2:])} did not start")
        yield process
    finally:
        process.kill()
        process.communicate()


def go(process: "subprocess.Popen[str]") -> None:
    """Let a producer begin."""
    if process.stdin is not None:
        process.stdin.write("go\n")
        process.stdin.flush()


def drain_rings(folder: Path, producers: int, rows_each: int) -> tuple[float, list[int]]:
    """Return rows per second from rings into the log, and ns of each commit."""
    page = make_audit_page(folder)
    drain, took, stored = RingDrain(page, len(page.names.roles)), [], 0
    wanted = producers * rows_each
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(LogWriter(folder / "audit", folder / "heads"))
        processes = [
            stack.enter_context(child("produce", page.folder, ROLE_SLOTS + n, rows_each, 0))
            for n in range(producers)
        ]
        for process in processes:
            go(process)
        began = host_ns()
        while stored < wanted:
            frames = drain.gather()
            if not frames:
                if host_ns() - began > WAIT_BOUND_NS * max(1, wanted // 10_000):
                    raise DeadlineError("the benchmark's producers stand still")
                sleep_s(FULL_RING_S)
                continue
            start = host_ns()
            offset_ns = utc_ns() - start
            log.append([row_of(frame, page.epoch, offset_ns, start) for frame in frames])
            took.append(host_ns() - start)
            drain.release(frames)
            stored += len(frames)
        elapsed = host_ns() - began
    return stored * NS_PER_S / elapsed, took


def wait_durable(folder: Path, samples: int, *, loaded: bool) -> list[int]:
    """Return ns from a record's writing to its being durable, for openings that come alone.

    Parameters
    ----------
    loaded
        Beside another producer that writes ``LOAD_PER_S`` records per second.
    """
    page = make_audit_page(folder)
    ring, ringer = RingWriter(page, ROLE_SLOTS), Ringer(page.folder)
    durable = page.rows(WATERMARK)["sequence"]
    bell, took = f"role{page.names.role('audit_writer')}", []
    with contextlib.ExitStack() as stack:
        stack.enter_context(child("serve", page.folder))
        if loaded:
            words = ("produce", page.folder, ROLE_SLOTS + 1, ENDLESS, LOAD_PER_S)
            go(stack.enter_context(child(*words)))
        for number in range(1, samples + 1):
            began = host_ns()
            sequence = write_record(ring, number)
            # The router does this while it waits for the record.
            ringer.ring(bell)
            while sequence is None or int(durable[ROLE_SLOTS]) < sequence:
                if host_ns() - began > WAIT_BOUND_NS:
                    raise DeadlineError("a record was not stored within the benchmark's bound")
                sleep_s(POLL_S)
            took.append(host_ns() - began)
            sleep_s(GAP_S)
    ringer.close()
    return took


def main(words: list[str]) -> None:
    """Run one of the benchmark's processes."""
    role, folder, *numbers = words
    if role == "serve":
        serve(Path(folder))
        return
    exit_with(os.getppid())
    produce(Path(folder), *map(int, numbers))


if __name__ == "__main__":
    main(sys.argv[1:])
