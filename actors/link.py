"""Links between processes of a tree: the tasks around the pure rules of ``machines.link``.

A *latest* link tells how things stand; what is older than the newest is worth nothing. Its work
loop posts a message and goes on: the newest of each kind waits to be sent, and a transport that
stalls delays the link's own writer alone. Its reader always drains and never waits for anybody: a
slow consumer loses the oldest messages of a bounded inbox. Both directions beat, so that silence
means something; silence is told once, and so is its end.

Safety never depends on a link. What closes the gate is a lease that nobody renewed; a link makes a
partition visible and brings orders to stop in order.

Sequence, stamp and MAC are put on when a frame leaves, the fault switch of chaos acts after that:
what it does, it does to the bytes on the wire.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import trio

from tripgate.audit.history import logged_after
from tripgate.audit.record import Row
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns
from tripgate.machines.link import SCHEMA, Envelope, Receiver, Terms, judge, open_frame, seal
from tripgate.machines.link_faults import Switch, next_due_ns, pass_frame, release
from tripgate.messages import EventKind, LinkFault, LinkMessage, LinkVerdict
from tripgate.page.links import COUNTERS, fault_of
from tripgate.page.lossless import LosslessReader

INBOX_MAX = 64
BEAT_S = 0.1
AGE_NS_MAX = 500 * NS_PER_MS
"""Oldest message that still tells how things stand."""
SILENT_NS = NS_PER_S
"""Time without a fresh message after which the other end counts as silent."""
WATCH_S = 0.05
STREAM_ENDED = (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError)

Note = Callable[[EventKind, dict[str, Any]], object]


class MessageStream(Protocol):
    """What a link runs over: whole byte messages, in order, of at most 64 kB."""

    async def send(self, data: bytes) -> None:
        """Send one message; waits while the transport is full."""

    async def receive(self) -> Any:
        """Return the next message; raises one of ``STREAM_ENDED`` at the end."""


@dataclass(frozen=True)
class End:
    """One end of a link: who speaks here, whom it hears, and where it counts.

    Attributes
    ----------
    own, incarnation
        Role at this end and its how manieth life.
    peer, peer_incarnation
        Role at the other end; lower incarnations of it are not heard.
    out_row, in_row
        Live rows of the LINK table: of the direction sent and of the one received.
    """

    epoch: int
    own: str
    incarnation: int
    peer: str
    peer_incarnation: int
    secret: bytes
    out_row: Any
    in_row: Any


class LatestLink:
    """One end of a latest link over a message stream.

    Parameters
    ----------
    beat
        Gives the heartbeat to send now.
    note
        Called with LINK_SILENT, LINK_HEARD and LINK_FAULT and their bodies.
    market_ms
        Gives market time.
    speaks_first
        False: nothing is sent, and silence does not count, before the other end was heard. So an
        end whose other end never listens cannot fill the transport.
    """

    def __init__(
        self, stream: MessageStream, end: End, *, beat: Callable[[], LinkMessage], note: Note,
        market_ms: Callable[[], int] = lambda: 0, speaks_first: bool = True,
    ) -> None:  # fmt: skip
        self._stream = stream
        self._end = end
        self._beat = beat
        self._note = note
        self._market_ms = market_ms
        self._terms = Terms(end.epoch, end.peer, end.own, AGE_NS_MAX)
        self._receiver = Receiver(end.peer_incarnation)
        self._sequence = 0
        self._outbox: dict[type, LinkMessage] = {}
        self._standing: dict[type, LinkMessage] = {}
        self._inbox: deque[LinkMessage] = deque()
        self._switch = Switch()
        self._fault = (LinkFault.NONE, 0)
        self._posted = trio.Event()
        self._arrived = trio.Event()
        self._spoken_to = trio.Event()
        if speaks_first:
            self._spoken_to.set()
        self.heard_ns = 0
        self.is_silent = False

    def post(self, message: LinkMessage) -> None:
        """Put a message in line, in the place of one of its kind that still waits. Never blocks."""
        if type(message) in self._outbox:
            self._end.out_row["overflowed"] += 1
        self._outbox[type(message)] = message
        self._posted.set()

    def stand(self, message: LinkMessage) -> None:
        """Post a message now and again with each beat: one that is lost on the way comes again."""
        self._standing[type(message)] = message
        self.post(message)

    def take(self) -> LinkMessage | None:
        """Return the oldest message of the inbox, or None."""
        return self._inbox.popleft() if self._inbox else None

    async def next(self) -> LinkMessage:
        """Wait for a message of the inbox."""
        while not self._inbox:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._inbox.popleft()

    async def run(self) -> None:
        """Keep the link going until its stream ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch)
            await self._read()
            nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        while True:
            try:
                frame = await self._stream.receive()
            except STREAM_ENDED:
                return
            self._take_frame(frame, host_ns())

    def _take_frame(self, frame: object, now_ns: int) -> None:
        row, opened = self._end.in_row, open_frame(frame, self._end.secret)
        if isinstance(opened, LinkVerdict):
            row[COUNTERS[opened]] += 1
            return
        self._receiver, verdict = judge(self._terms, self._receiver, opened, now_ns)
        row[COUNTERS[verdict]] += 1
        if verdict is not LinkVerdict.FRESH:
            return
        age_ns = now_ns - opened.host_ns
        row["age_ns"], row["age_max_ns"] = age_ns, max(int(row["age_max_ns"]), age_ns)
        row["heard_ns"] = self.heard_ns = now_ns
        self._spoken_to.set()
        if self.is_silent:
            self._set_silent(False)
        if len(self._inbox) >= INBOX_MAX:
            self._inbox.popleft()
            row["dropped"] += 1
        self._inbox.append(opened.body)
        self._arrived.set()

    async def _watch(self) -> None:
        """Tell silence once, when the deadline has passed without a fresh message."""
        await self._spoken_to.wait()
        began_ns = host_ns()
        while True:
            since_ns = max(self.heard_ns, began_ns)
            if not self.is_silent and host_ns() - since_ns > SILENT_NS:
                self._set_silent(True)
            await trio.sleep(WATCH_S)

    def _set_silent(self, silent: bool) -> None:
        row, self.is_silent = self._end.in_row, silent
        row["silent"] = int(silent)
        row["silences"] += int(silent)
        kind = EventKind.LINK_SILENT if silent else EventKind.LINK_HEARD
        self._note(kind, {"link": f"{self._end.peer}>{self._end.own}"})

    async def _write(self) -> None:
        await self._spoken_to.wait()
        beat_ns = host_ns()
        while True:
            now_ns = host_ns()
            if now_ns >= beat_ns:
                beat_ns = now_ns + int(BEAT_S * NS_PER_S)
                self._outbox |= self._standing
                beat = self._beat()
                self._outbox[type(beat)] = beat
            try:
                await self._send_due(now_ns)
            except STREAM_ENDED:
                return
            await self._wait(beat_ns)

    async def _send_due(self, now_ns: int) -> None:
        """Send what is in line, and what the fault switch no longer holds."""
        self._look_at_fault()
        fault, argument = self._fault
        self._switch, frames = release(self._switch, fault, now_ns)
        waiting, self._outbox, self._posted = [*self._outbox.values()], {}, trio.Event()
        for message in waiting:
            frame = self._seal(message)
            self._switch, out = pass_frame(self._switch, fault, argument, frame, now_ns)
            frames += out
        for frame in frames:
            await self._stream.send(frame)

    def _seal(self, message: LinkMessage) -> bytes:
        end, self._sequence = self._end, self._sequence + 1
        now_ns = host_ns()
        end.out_row["sent"] += 1
        end.out_row["sent_ns"], end.out_row["incarnation"] = now_ns, end.incarnation
        envelope = Envelope(
            SCHEMA, end.epoch, end.own, end.incarnation, end.peer, self._sequence, now_ns,
            self._market_ms(), message,
        )  # fmt: skip
        return seal(envelope, end.secret)

    def _look_at_fault(self) -> None:
        fault = fault_of(self._end.out_row)
        if fault != self._fault:
            self._fault = fault
            link = f"{self._end.own}>{self._end.peer}"
            body = {"link": link, "fault": fault[0].name, "argument": fault[1]}
            self._note(EventKind.LINK_FAULT, body)

    async def _wait(self, beat_ns: int) -> None:
        due_ns = next_due_ns(self._switch, self._fault[0])
        until_ns = beat_ns if due_ns is None else min(beat_ns, due_ns)
        with trio.move_on_after(max(0, until_ns - host_ns()) / NS_PER_S):
            await self._posted.wait()


def catch_up(reader: LosslessReader, folder: Path, epoch: int, slot: int, after: int) -> list[Row]:
    """Return the log's rows of a producer after a sequence, and let its reader go on behind them.

    For a reader that does not hold the ring back and was run over.

    Parameters
    ----------
    folder
        The instance's audit folder.
    after
        Sequence of the last record that was applied.
    """
    # The cursor first: the log holds all that lies before it, and more by the time it is read.
    cursor = reader.durable_cursor(slot)
    rows = logged_after(folder, epoch, slot, after)
    reader.resume(slot, cursor, rows[-1].producer_sequence if rows else after)
    return rows
