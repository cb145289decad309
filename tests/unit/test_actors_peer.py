"""What one connection of the router's socket can cost: nothing but itself, whatever it does."""

import struct
import tempfile
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import router_peer
from tests.conftest import SHORT_ROOT
from tests.tree_fixtures import PATIENCE_S, until
from tests.unit.test_actors_server import HELLO, Desk, ask, serving
from tripgate.frames import encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=8,
)  # fmt: skip
REQUESTS = st.dictionaries(st.sampled_from(["id", "op", "slot", "token", "x"]), VALUES, max_size=5)
FRAMES = st.one_of(
    REQUESTS.map(lambda request: encode({"id": 1, "op": "hello", **request})),
    VALUES.map(encode),
    st.binary(max_size=40).map(lambda body: struct.pack(">I", len(body)) + body),
    st.binary(min_size=1, max_size=40),
)


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    async with serving(Desk(isolated_folders)) as desk:
        yield desk


@settings(max_examples=60)
@given(st.lists(FRAMES, min_size=1, max_size=6))
def test_server_when_a_peer_sends_anything_then_it_lives_and_others_are_served(
    frames: list[bytes],
) -> None:
    async def attack() -> None:
        with tempfile.TemporaryDirectory(dir=SHORT_ROOT) as folder:
            async with serving(Desk(Path(folder))) as desk, desk.peer(HELLO) as honest:
                stream = await trio.open_unix_socket(str(desk.path))
                async with stream:
                    try:
                        for frame in frames:
                            await stream.send_all(frame)
                        await stream.send_eof()
                        with trio.fail_after(PATIENCE_S):
                            while await stream.receive_some(65_536):
                                pass
                    except trio.BrokenResourceError:
                        pass
                assert await ask(honest, {"id": 2, "op": "submit"}) == {"id": 2, "ok": True}
                await until(lambda: desk.server._count == 1)

    trio.run(attack)


@pytest.mark.parametrize("bound", ["OUTBOX_BYTES_MAX", "OUTBOX_FRAMES_MAX"])
async def test_peer_when_it_does_not_read_then_it_is_cut_off_and_others_hear(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    other = {"OUTBOX_BYTES_MAX": "OUTBOX_FRAMES_MAX"}.get(bound, "OUTBOX_BYTES_MAX")
    monkeypatch.setattr(router_peer, other, 1 << 40)
    async with desk.peer(HELLO), desk.peer({**HELLO, "slot": 17}) as reader:
        size = 100_000 if bound == "OUTBOX_BYTES_MAX" else 1
        for _ in range(router_peer.OUTBOX_FRAMES_MAX + 1 if size == 1 else 12):
            desk.server.tell(16, {"event": "x" * size})
        await until(lambda: desk.ended == [(16, "it does not read what it is told")])
        desk.server.tell(16, {"event": "nobody hears this"})
        desk.server.tell(17, {"event": "fill"})
        with trio.fail_after(PATIENCE_S):
            assert await reader.receive() == {"event": "fill"}


async def test_peer_when_its_buffer_stays_full_then_it_is_cut_off_in_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_peer, "SEND_WAIT_S", 0.02)
    monkeypatch.setattr(router_peer, "OUTBOX_BYTES_MAX", 1 << 40)
    async with desk.peer(HELLO):
        # More than any socket buffer holds.
        for _ in range(30):
            desk.server.tell(16, {"event": "x" * 500_000})
        await until(lambda: desk.ended == [(16, "it takes nothing")])


async def test_peer_when_it_does_not_finish_its_frame_then_it_is_told_and_cut(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_peer, "FRAME_WAIT_S", 0.05)
    async with desk.peer(HELLO) as peer:
        with trio.fail_after(PATIENCE_S):
            await peer.send_bytes(struct.pack(">I", 50) + b"half")
            said: Any = await peer.receive()
    assert said == {"event": "cut", "reason": "a frame was not finished within 0 s"}
    assert [slot for slot, _ in desk.ended] == [16]


async def test_peer_when_it_waits_between_frames_then_nothing_presses_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_peer, "FRAME_WAIT_S", 0.01)
    async with desk.peer(HELLO) as peer:
        await trio.sleep(0.05)
        assert await ask(peer, {"id": 2, "op": "submit"}) == {"id": 2, "ok": True}


async def test_peer_when_it_floods_then_it_gets_its_share_and_others_are_answered_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A share so small that no machine is slow enough to refill it before the other has its answer.
    monkeypatch.setattr(router_peer, "REQUESTS_PER_SECOND_MAX", 2)
    monkeypatch.setattr(router_peer, "BURST_REQUESTS", 40)
    router_peer._budget_of.cache_clear()
    flood = b"".join(encode({"id": 2 + n, "op": "submit"}) for n in range(3_000))
    async with desk.peer({**HELLO, "slot": 17}) as honest, desk.peer(HELLO) as greedy:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greedy.send_bytes, flood)
            await until(lambda: len(desk.asked) >= 39)
            answer = await ask(honest, {"id": 2, "op": "submit"})
            nursery.cancel_scope.cancel()
        assert answer == {"id": 2, "ok": True}
    by_greedy = [slot for slot, _ in desk.asked if slot == 16]
    assert 39 <= len(by_greedy) < 3_000
    router_peer._budget_of.cache_clear()


async def test_peer_when_many_frames_come_at_once_then_each_yields_to_the_others(
    desk: Desk,
) -> None:
    turns: list[int] = []

    async def count_turns() -> None:
        while True:
            turns.append(len(desk.asked))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, desk.peer(HELLO) as peer:
        nursery.start_soon(count_turns)
        await peer.send_bytes(b"".join(encode({"id": 2 + n, "op": "submit"}) for n in range(300)))
        await until(lambda: len(desk.asked) == 300)
        nursery.cancel_scope.cancel()
    steps = [after - before for before, after in pairwise(turns)]
    assert max(steps) <= 2, "trio runs tasks in any order: two turns may have two requests between"
