"""A latest link between two tasks: drained, never blocking, silent once, deaf to the burst."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import trio

from actors.link import AGE_NS_MAX, INBOX_MAX, SILENT_NS, End, LatestLink
from tests.tree_fixtures import PATIENCE_S, until
from tripgate.clock import host_ns
from tripgate.machines.link import SCHEMA, Envelope, open_frame, seal
from tripgate.messages import EventKind, Heartbeat, LinkFault, LinkMessage, Stop
from tripgate.page.layout import LINK

SECRET = b"0" * 32


class Wire:
    """One end of a pair of in-memory streams, with a record of the frames that came over it."""

    def __init__(self, out: Any, into: Any) -> None:
        self.out, self.into = out, into
        self.frames: list[bytes] = []

    async def send(self, data: bytes) -> None:
        await self.out.send(data)

    async def receive(self) -> bytes:
        frame: bytes = await self.into.receive()
        self.frames.append(frame)
        return frame


class Pair:
    """Both ends of a link, the rows they count in, and what they noted."""

    def __init__(self, buffer: int = 1_000) -> None:
        to_right, from_left = trio.open_memory_channel[bytes](buffer)
        to_left, from_right = trio.open_memory_channel[bytes](buffer)
        self.rows = np.zeros(2, LINK.dtype)
        self.notes: list[tuple[EventKind, str]] = []
        left = End(1, "root", 1, "child", 4, SECRET, self.rows[0], self.rows[1])
        right = End(1, "child", 4, "root", 1, SECRET, self.rows[1], self.rows[0])
        self.wires = Wire(to_right, from_right), Wire(to_left, from_left)
        self.left = self.link(self.wires[0], left)
        self.right = self.link(self.wires[1], right, speaks_first=False)
        self.left_end = left

    def link(self, wire: Wire, end: End, *, speaks_first: bool = True) -> LatestLink:
        return LatestLink(
            wire, end, beat=lambda: Heartbeat(1, 2, 3), speaks_first=speaks_first,
            note=lambda kind, body: self.notes.append((kind, str(body["link"]))),
        )  # fmt: skip

    def fault(self, direction: int, fault: LinkFault, argument: int = 0) -> None:
        self.rows["argument"][direction], self.rows["fault"][direction] = argument, fault

    def count(self, direction: int, word: str) -> int:
        return int(self.rows[word][direction])


@asynccontextmanager
async def running(pair: Pair, *links: LatestLink) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for link in links or (pair.left, pair.right):
            nursery.start_soon(link.run)
        yield
        nursery.cancel_scope.cancel()


async def next_of(link: LatestLink, kind: type) -> LinkMessage:
    with trio.fail_after(PATIENCE_S):
        while not isinstance(message := await link.next(), kind):
            pass
    return message


async def test_link_when_both_ends_run_then_they_beat_and_a_message_arrives() -> None:
    pair = Pair()
    async with running(pair):
        pair.left.post(Stop(1.5))
        assert await next_of(pair.right, Stop) == Stop(1.5)
        assert await next_of(pair.left, Heartbeat) == Heartbeat(1, 2, 3)
    assert pair.count(0, "sent") >= pair.count(0, "received") >= 2
    assert pair.count(1, "incarnation") == 4
    assert 0 < pair.count(0, "age_max_ns") < PATIENCE_S * 1e9
    assert pair.count(0, "heard_ns") == pair.right.heard_ns > 0
    assert pair.right.take() is None or pair.count(0, "received")


async def test_link_when_it_is_not_to_speak_first_then_it_waits_until_it_was_heard() -> None:
    pair = Pair()
    async with running(pair, pair.right):
        pair.right.post(Stop(0.0))
        await trio.sleep(0.2)
        assert pair.count(1, "sent") == 0
        async with running(pair, pair.left):
            assert await next_of(pair.left, Stop) == Stop(0.0)


async def test_link_when_the_transport_stalls_then_posting_goes_on_and_the_newest_waits() -> None:
    pair = Pair(buffer=0)
    async with running(pair, pair.left):
        await until(lambda: pair.count(0, "sent") == 1)
        for second in range(500):
            pair.left.post(Stop(float(second)))
        assert pair.count(0, "sent") == 1
        assert pair.count(0, "overflowed") >= 499
        async with running(pair, pair.right):
            assert await next_of(pair.right, Stop) == Stop(499.0)


async def test_link_when_nobody_looks_at_the_inbox_then_it_is_drained_and_the_oldest_goes() -> None:
    pair = Pair()
    async with running(pair, pair.right):
        for sequence in range(1, 3 * INBOX_MAX + 1):
            end, stop = pair.left_end, Stop(float(sequence))
            envelope = Envelope(SCHEMA, 1, "root", 1, "child", sequence, host_ns(), 0, stop)
            await pair.wires[0].send(seal(envelope, end.secret))
        await until(lambda: pair.count(0, "received") == 3 * INBOX_MAX)
        assert pair.count(0, "dropped") == 2 * INBOX_MAX
        assert pair.right.take() == Stop(2.0 * INBOX_MAX + 1)


async def test_link_when_one_way_is_cut_then_that_end_alone_is_told_once_each_time() -> None:
    pair = Pair()
    async with running(pair):
        await next_of(pair.left, Heartbeat)
        pair.fault(0, LinkFault.PARTITION)
        await until(lambda: pair.right.is_silent)
        assert pair.count(0, "silent") == 1
        assert not pair.left.is_silent
        pair.fault(0, LinkFault.NONE)
        await until(lambda: not pair.right.is_silent)
    told = [(kind.name, link) for kind, link in pair.notes if kind is not EventKind.LINK_FAULT]
    assert told == [("LINK_SILENT", "root>child"), ("LINK_HEARD", "root>child")]
    assert [link for kind, link in pair.notes if kind is EventKind.LINK_FAULT] == 2 * ["root>child"]
    assert (pair.count(0, "silent"), pair.count(0, "silences")) == (0, 1)


async def test_link_when_a_partition_heals_in_a_burst_then_what_is_old_is_refused() -> None:
    pair = Pair()
    async with running(pair):
        await next_of(pair.right, Heartbeat)
        pair.fault(0, LinkFault.HOLD)
        pair.left.post(Stop(7.0))
        held = pair.count(0, "sent")
        await until(lambda: host_ns() - pair.right.heard_ns > AGE_NS_MAX + SILENT_NS)
        assert pair.count(0, "sent") > held + 3
        while pair.right.take():
            pass
        pair.fault(0, LinkFault.NONE)
        await until(lambda: pair.count(0, "stale") > 0 and not pair.right.is_silent)
        while message := pair.right.take():
            assert message != Stop(7.0)
    assert pair.count(0, "age_max_ns") <= AGE_NS_MAX


async def test_stand_when_messages_are_lost_then_what_stands_comes_through_in_the_end() -> None:
    pair = Pair()
    async with running(pair):
        await next_of(pair.right, Heartbeat)
        pair.fault(0, LinkFault.PARTITION)
        await until(lambda: len(pair.notes) == 1)
        pair.left.stand(Stop(3.0))
        await until(lambda: pair.right.is_silent)
        pair.fault(0, LinkFault.NONE)
        assert await next_of(pair.right, Stop) == Stop(3.0)


async def test_link_when_the_way_corrupts_doubles_turns_and_drops_then_each_is_counted() -> None:
    pair, kinds = Pair(), {
        LinkFault.CORRUPT: "forged", LinkFault.DUPLICATE: "replayed", LinkFault.REORDER: "reordered"
    }  # fmt: skip
    async with running(pair):
        await next_of(pair.left, Heartbeat)
        for fault, word in kinds.items():
            pair.fault(1, fault)
            await until(lambda word=word: pair.count(1, word) > 0)  # type: ignore[misc]
        pair.fault(1, LinkFault.DROP, 2)
        sent = pair.count(1, "sent")
        await until(lambda: pair.count(1, "sent") > sent + 3)
        pair.fault(1, LinkFault.NONE)
        received = pair.count(1, "received")
        await until(lambda: pair.count(1, "received") > received)


async def test_link_when_a_recorded_frame_is_played_again_then_it_is_refused() -> None:
    pair = Pair()
    async with running(pair):
        await next_of(pair.right, Heartbeat)
        recorded = pair.wires[1].frames[0]
        assert not isinstance(open_frame(recorded, SECRET), int)
        await pair.wires[0].send(recorded)
        await until(lambda: pair.count(0, "replayed") == 1)
        old = replace(pair.left_end, own="somebody")
        envelope = Envelope(SCHEMA, 1, old.own, 1, "child", 99, host_ns(), 0, Stop(0.0))
        await pair.wires[0].send(seal(envelope, SECRET))
        await until(lambda: pair.count(0, "foreign") == 1)
        await pair.wires[0].send(seal(envelope, b"1" * 32))
        await until(lambda: pair.count(0, "forged") == 1)


async def test_run_when_the_stream_ends_then_the_link_ends_and_raises_nothing() -> None:
    pair = Pair()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.left.run)
            nursery.start_soon(pair.right.run)
            await next_of(pair.left, Heartbeat)
            for wire in pair.wires:
                await wire.out.aclose()
    assert not pair.left.is_silent
