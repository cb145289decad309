"""The audit writer's hold on the page: rings in, rows for the log, watermarks out.

Nothing here waits: what goes to the disk is called from a thread by the actor (``audit_writer``).

Invariants: K1 a watermark moves only to a sequence that is durable; K2 a ring's space is given back
only after the watermark has passed it.
"""

import contextlib
import struct
from pathlib import Path
from typing import Any

from actors.service import Service
from tripgate.audit.drain import RingDrain, last_of_slot
from tripgate.audit.heads import Checkpoint
from tripgate.audit.record import Row, pack_body
from tripgate.audit.store import LogWriter, ProducerGapError
from tripgate.clock import NS_PER_S, host_ns, utc_ns
from tripgate.gate.denials import merged_body
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.layout import LINK, ROLE, SUM, WATERMARK
from tripgate.page.links import ring_row
from tripgate.page.ring import Frame

TOKEN_BYTES = 8
STAMP_AGE_NS = 24 * 3_600 * NS_PER_S
"""Longest that a record may have waited in a ring; an older stamp is taken for damage."""


class Drain:
    """Rings in, committed rows and watermarks out."""

    def __init__(self, service: Service, log: LogWriter) -> None:
        self.log = log
        self._service = service
        self.rings = RingDrain(service.page, len(service.names.roles))
        self._epoch = service.page.epoch
        self._watermark = service.page.rows(WATERMARK)["sequence"]
        self._role: Any = service.page.rows(ROLE)[service.role]
        self._link: Any = service.page.rows(LINK)[ring_row(service.page, "audit")]
        roles = service.names.roles
        self._routers = [f"role{n}" for n, role in enumerate(roles) if role.actor == "router"]
        for (epoch, producer), sequence in log.last_sequences().items():
            if epoch == self._epoch:
                self._watermark[producer] = sequence

    def gather(self) -> list[Frame]:
        """Return what the rings hold, up to a batch, merged by host time."""
        return self.rings.gather()

    def store(self, frames: list[Frame]) -> None:
        """Commit frames durably (worker thread); those of a ring with a gap leave the list."""
        now_ns = host_ns()
        offset_ns = utc_ns() - now_ns
        while True:
            try:
                self.log.append([row_of(frame, self._epoch, offset_ns, now_ns) for frame in frames])
                return
            except ProducerGapError as error:
                # Nothing was stored. Each turn leaves one ring alone, or ends this process.
                self.rings.leave_alone(error.producer, str(error))
                frames[:] = [frame for frame in frames if frame.slot != error.producer]

    def publish(self, frames: list[Frame]) -> None:
        """Publish the watermarks, then give the ring space back."""
        for slot, frame in last_of_slot(frames).items():
            self._watermark[slot] = frame.sequence
        self.rings.release(frames)
        if not frames:
            return
        now_ns = host_ns()
        self._link["received"] += len(frames)
        self._link["heard_ns"] = now_ns
        oldest_ns = min(frame.host_ns for frame in frames)
        self._link["age_max_ns"] = max(int(self._link["age_max_ns"]), now_ns - oldest_ns)
        self._service.ringer.ring(*self._routers)

    def checkpoint(self) -> Checkpoint:
        """Write a checkpoint with the node sums to the heads file (worker thread)."""
        gross = self._service.page.rows(SUM)["gross"]
        sums = {name: int(gross[n]) for n, name in enumerate(self._service.names.scopes)}
        return self.log.checkpoint(sums, host_ns(), utc_ns())

    def take_operator_records(self) -> None:
        """Put new lines of the operator's file into the own ring, so that they reach the log.

        What a full ring has no room for is taken after the next commit.
        """
        if int(self._service.header["operator_sequence"]) <= int(self._role["operator_read"]):
            return
        folder = Path(self._service.names.state_folder)
        for record in read_records(folder, int(self._role["operator_read"])):
            kind, stamp_ms = int(EventKind.OPERATOR), self._service.market_ms
            if self._service.ring.append(kind, pack_body(record), host_ns(), stamp_ms) is None:
                return
            self._role["operator_read"] = record["id"]

    def oldest_tree_ns(self) -> int | None:
        """Return when the oldest record of a tree process still in a ring was made, or None."""
        return self.rings.oldest_tree_ns()


def is_awaited(frames: list[Frame]) -> bool:
    """Whether an approved order is among the frames: its router waits until it is durable."""
    return any(
        frame.kind == EventKind.DECISION and any(frame.payload[:TOKEN_BYTES]) for frame in frames
    )


def row_of(frame: Frame, epoch: int, offset_ns: int, now_ns: int) -> Row:
    """Return the log's row of a ring's frame.

    A strategy can write anything into its ring, and whatever it is becomes a row: a stamp that
    cannot be true must not choose the month whose file is begun.

    Parameters
    ----------
    offset_ns
        UTC − host time.
    now_ns
        Host time at which the frame was found; none is younger, or older than ``STAMP_AGE_NS``.
    """
    token: int | None = None
    payload = frame.payload
    stamp_ns = min(max(frame.host_ns, now_ns - STAMP_AGE_NS), now_ns)
    if frame.kind == EventKind.DECISION:
        token = int.from_bytes(payload[:TOKEN_BYTES], "little", signed=True) or None
    elif frame.kind == EventKind.DENIALS_MERGED:
        with contextlib.suppress(struct.error, ValueError):
            payload = pack_body(merged_body(payload))
    return Row(
        epoch, frame.slot, frame.sequence, stamp_ns + offset_ns, frame.host_ns,
        frame.market_ms, frame.kind, token, payload,
    )  # fmt: skip
