"""Those who die: a producer and the real audit writer, each with a place where death takes it.

A member that is to die at a place kills itself there with SIGKILL, so that nothing is tidied up;
the others are killed by the driver at any instruction. The places of a producer lie inside what
``RingWriter.append`` does, step by step with its own parts.

The module is also the nursery that forks them: a warm process, because loading compiled code takes
longer than a member lives.
"""

import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from actors.audit_writer import Drain
from actors.service import Service
from chaos.auditkills.ground import MARKET_MS, WRITER, record_of
from tripgate.audit.drain import RingDrain
from tripgate.audit.store import LogWriter
from tripgate.clock import host_ns, sleep_s
from tripgate.gate.slots import take_role_slot
from tripgate.page import atomics
from tripgate.page.layout import CURSOR, HOLDER, RING, SLOT, WATERMARK
from tripgate.page.mapping import Page, open_page
from tripgate.page.ring import (
    FRAME_BYTES,
    Frame,
    RingWriter,
    claim_frame,
    free_bytes,
)
from tripgate.processes import exit_with, kill_if_same, process_start_time

ANYWHERE = "anywhere"
CLAIMED, HALF_WRITTEN, NUMBERED, PUBLISHED = "claimed", "half-written", "numbered", "published"
GATHERED, STORED, WATERMARKED, CHECKPOINTED = "gathered", "stored", "watermarked", "checkpointed"
PRODUCER_PLACES = (ANYWHERE, CLAIMED, HALF_WRITTEN, NUMBERED, PUBLISHED)
WRITER_PLACES = (ANYWHERE, GATHERED, STORED, WATERMARKED, CHECKPOINTED)

NUMBER_NOT_RECOVERED, RELEASED_FIRST = "number-not-recovered", "released-first"
MUTANTS = (NUMBER_NOT_RECOVERED, RELEASED_FIRST)
"""Planted bugs, each of which must be found."""
NONE = "none"

BURST, BURST_REST_S = 20, 0.002
LIFE_APPENDS, LIFE_TURNS = (1, 600), (1, 5)
"""After how many records or turns a member reaches the place where it dies."""
TURNS_PER_CHECKPOINT = 4
IDLE_S = 0.001
ACKNOWLEDGEMENT = struct.Struct("=Q")


def die() -> None:
    """End here and now, as by somebody else's kill."""
    os.kill(os.getpid(), signal.SIGKILL)


class Producer:
    """Appends records to its ring and writes down which of them the watermark has passed."""

    def __init__(self, page: Page, slot: int, place: str, draw: Random, mutant: str) -> None:
        self._page, self._slot, self._place = page, slot, place
        self._life = draw.randint(*LIFE_APPENDS)
        self._number = page.address(SLOT, slot, "record_sequence")
        stale = atomics.load(self._number)
        take_role_slot(page, slot, 1)
        if mutant == NUMBER_NOT_RECOVERED:
            atomics.store(self._number, stale)
        self._ring = RingWriter(page, slot)
        path = Path(page.names.state_folder) / f"acknowledged-{slot}"
        self._notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._noted = 0

    def turn(self) -> None:
        """Append a few records."""
        for _ in range(BURST):
            sequence = self._ring.sequence + 1
            kind, payload = record_of(self._slot, sequence)
            self._life -= 1
            if self._life <= 0 and self._place not in (ANYWHERE, PUBLISHED):
                if not self._has_room(payload):
                    break
                self._die_appending(kind, payload)
            if self._ring.append(kind, payload, host_ns(), MARKET_MS) is None:
                break
            if self._life <= 0 and self._place == PUBLISHED:
                die()
        durable = int(self._page.rows(WATERMARK)["sequence"][self._slot])
        if durable > self._noted:
            self._noted = durable
            os.write(self._notes, ACKNOWLEDGEMENT.pack(durable))
        sleep_s(BURST_REST_S)

    def _has_room(self, payload: bytes) -> bool:
        head = atomics.load(self._page.address(SLOT, self._slot, "ring_head"))
        cursors = self._page.address(CURSOR, self._slot)
        room = free_bytes(head, cursors, int(self._page.rows(HOLDER)["mask"][self._slot]))
        return room >= 2 * (FRAME_BYTES + len(payload) + 8)

    def _die_appending(self, kind: int, payload: bytes) -> None:
        data = self._page.address(RING, self._slot)
        place = claim_frame(self._page.address(SLOT, self._slot), data, kind, len(payload))
        if self._place == CLAIMED:
            die()
        ring, start = self._page.bytes_of(RING, self._slot), place - data
        half = len(payload) // 2
        ring[start : start + half] = payload[:half]
        if self._place == HALF_WRITTEN:
            die()
        ring[start : start + len(payload)] = payload
        # What publishing stores first; the head would follow.
        atomics.store(self._number, atomics.load(self._number) + 1)
        die()


class _Rings(RingDrain):
    """Dies instead of giving ring space back."""

    def release(self, frames: Iterable[Frame]) -> None:
        die()


class Writer:
    """The audit writer's own drain, in a loop like its actor's."""

    def __init__(self, page: Page, incarnation: int, place: str, draw: Random, mutant: str) -> None:
        self._place, self._is_mutant = place, mutant == RELEASED_FIRST
        self._life = draw.randint(*LIFE_TURNS)
        self._service = Service(page, "audit_writer", "", incarnation, {}, _nobody)
        state = Path(page.names.state_folder)
        self._log = LogWriter(state / "audit", state / "heads")
        self._drain = Drain(self._service, self._log)
        self._turns = 0

    def turn(self) -> None:
        """Store what is there, or prove the disk writable."""
        frames = self._drain.gather()
        if not frames:
            self._log.probe()
            sleep_s(IDLE_S)
            return
        self._life -= 1
        self._reach(GATHERED)
        if self._is_mutant:
            self._drain.publish(frames)
            self._reach(STORED)
            self._drain.store(frames)
        else:
            self._drain.store(frames)
            self._reach(STORED)
            self._publish(frames)
        self._service.lease.renew(host_ns())
        self._turns += 1
        if self._turns % TURNS_PER_CHECKPOINT == 0:
            self._drain.checkpoint()
            self._reach(CHECKPOINTED)

    def _publish(self, frames: list[Frame]) -> None:
        if self._place == WATERMARKED and self._life <= 0:
            self._drain.rings = _Rings(self._service.page, 0)
        self._drain.publish(frames)

    def _reach(self, place: str) -> None:
        if self._place == place and self._life <= 0:
            die()

    def close(self) -> None:
        """Close the log and the bell."""
        self._log.close()
        self._service.close()


async def _nobody(value: object) -> None:
    """Nobody waits for this writer to say that it is ready."""


def _live(page: Page, line: str) -> None:
    role, incarnation, place, seed, mutant = line.split()
    draw = Random(int(seed))
    member: Producer | Writer
    if int(role) == WRITER:
        member = Writer(page, int(incarnation), place, draw, mutant)
    else:
        member = Producer(page, int(role), place, draw, mutant)
    turn: Callable[[], None] = member.turn
    while True:
        turn()


def _fork(page: Page, line: str) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        exit_with(parent)
        _live(page, line)
    except Exception:  # whatever ends a member is part of the verdict
        ended = Path(page.names.state_folder) / f"ended-{os.getpid()}"
        ended.write_text(f"{line.strip()}: {traceback.format_exc()[-400:]}")
    os._exit(1)


def main(folder: str) -> None:
    """Fork a member for each line ``ROLE INCARNATION PLACE SEED MUTANT``; answer with its pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    page = open_page(Path(folder), control_writable=True)
    children = {}
    for line in sys.stdin:
        child = _fork(page, line)
        children[child] = process_start_time(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for child, start in children.items():
        kill_if_same(child, start, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
