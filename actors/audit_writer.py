"""audit_writer: drains every ring into the hash-chained log and publishes what is durable.

Reads: all rings, the operator's file.
Sends: rings the routers' bells after each commit.
Sole writer of: the audit cursors and watermarks; the log and its heads.
Lease: 1 s; while it is lapsed, openings are denied everywhere.
State after restart: from the log itself; what was drained twice is stored once.
"""

from pathlib import Path
from typing import Any

import trio

from actors.service import Service
from tripgate.audit.record import Row, pack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import NS_PER_S, host_ns, utc_ns
from tripgate.gate.denials import merged_body
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.layout import ROLE, SUM, WATERMARK
from tripgate.page.ring import Frame, RingReader

BATCH_ROWS_MAX = 1_000
PROBE_NS = NS_PER_S // 5
"""An idle writer proves the disk writable this often: a lease is not renewed on hope."""
CHECKPOINT_NS = NS_PER_S
TOKEN_BYTES = 8


class Drain:
    """Rings in, committed rows and watermarks out."""

    def __init__(self, service: Service, log: LogWriter) -> None:
        self._service = service
        self._log = log
        self._reader = RingReader(service.page, "audit")
        self._epoch = service.page.epoch
        self._watermark = service.page.rows(WATERMARK)["sequence"]
        self._role = service.page.rows(ROLE)[service.role]
        for (epoch, producer), sequence in log.last_sequences().items():
            if epoch == self._epoch:
                self._watermark[producer] = sequence

    def gather(self) -> list[Frame]:
        """Return up to ``BATCH_ROWS_MAX`` frames, round-robin over the slots."""
        frames: list[Frame] = []
        for slot in range(self._service.page.layout.capacities.slots):
            if self._reader.backlog(slot):
                frames.extend(self._reader.read(slot))
            if len(frames) >= BATCH_ROWS_MAX:
                break
        return frames

    def store(self, frames: list[Frame]) -> None:
        """Commit frames durably (worker thread)."""
        offset_ns = utc_ns() - host_ns()
        self._log.append([row_of(frame, self._epoch, offset_ns) for frame in frames])

    def publish(self, frames: list[Frame]) -> None:
        """Publish the watermarks, then give the ring space back."""
        ends: dict[int, Frame] = {frame.slot: frame for frame in frames}
        for slot, frame in ends.items():
            self._watermark[slot] = frame.sequence
        for slot, frame in ends.items():
            self._reader.release(slot, frame.end)
        self._service.ringer.ring(*self._routers())

    def checkpoint(self) -> None:
        """Write a checkpoint with the node sums to the heads file (worker thread)."""
        gross = self._service.page.rows(SUM)["gross"]
        sums = {name: int(gross[n]) for n, name in enumerate(self._service.names.scopes)}
        self._log.checkpoint(sums, host_ns(), utc_ns())

    def take_operator_records(self) -> None:
        """Put new lines of the operator's file into the own ring, so that they reach the log."""
        if int(self._service.header["operator_sequence"]) <= int(self._role["operator_read"]):
            return
        folder = Path(self._service.names.state_folder)
        for record in read_records(folder, int(self._role["operator_read"])):
            self._service.emit(EventKind.OPERATOR, record)
            self._role["operator_read"] = record["id"]

    def _routers(self) -> list[str]:
        roles = self._service.names.roles
        return [f"role{n}" for n, role in enumerate(roles) if role.actor == "router"]


def row_of(frame: Frame, epoch: int, offset_ns: int) -> Row:
    """Return the log's row of a ring's frame; ``offset_ns`` is UTC − host time."""
    token: int | None = None
    payload = frame.payload
    if frame.kind == EventKind.DECISION:
        token = int.from_bytes(payload[:TOKEN_BYTES], "little") or None
    elif frame.kind == EventKind.DENIALS_MERGED:
        payload = pack_body(merged_body(payload))
    return Row(
        epoch, frame.slot, frame.sequence, frame.host_ns + offset_ns, frame.host_ns,
        frame.market_ms, frame.kind, token, payload,
    )  # fmt: skip


async def run(service: Service) -> None:
    """Commit what is there; when idle, prove the disk writable."""
    state = Path(service.names.state_folder)
    log: Any = await trio.to_thread.run_sync(LogWriter, state / "audit", state / "heads")
    drain = Drain(service, log)
    await service.ready()
    written_ns = checkpoint_ns = 0
    try:
        while True:
            now_ns = service.now_ns()
            drain.take_operator_records()
            frames = drain.gather()
            if frames:
                await trio.to_thread.run_sync(drain.store, frames)
                drain.publish(frames)
            elif now_ns - written_ns >= PROBE_NS:
                await trio.to_thread.run_sync(log.probe)
            if frames or now_ns - written_ns >= PROBE_NS:
                written_ns = now_ns
                service.lease.renew(now_ns)
            if now_ns - checkpoint_ns >= CHECKPOINT_NS:
                checkpoint_ns = now_ns
                await trio.to_thread.run_sync(drain.checkpoint)
            if not frames:
                await service.turn()
    finally:
        log.close()
