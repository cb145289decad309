"""Strangers and false members at the ports of a real tree: none gets in, the tree serves on."""

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import tractor
import trio

from actors import handshake, runtime
from actors.hardening import membership
from actors.spawner import Spawner
from actors.transport import LENGTH, STRANGER_FRAME_BYTES_MAX, STRANGERS_MAX
from tests.hostile_peer import PATIENCE_S, Peer, builtins_of, connected, framed

ENTRY = "tests.actor_entries"


@dataclass
class Tree:
    """A root and one child that waits; ports of both."""

    root_port: int
    child_port: int
    child: runtime.Child
    child_name: tuple[str, str]
    secret: bytes

    @property
    def ports(self) -> tuple[int, int]:
        return self.root_port, self.child_port

    def name_for(self, port: int) -> tuple[str, str]:
        """Return a name under which a member may come in there."""
        return self.child_name if port == self.root_port else ("another", "one")


@asynccontextmanager
async def child_of(name: str, task: str) -> AsyncIterator[runtime.Child]:
    async with runtime.open_child(
        name, {"task": task}, lambda _: None, lambda _: None, ENTRY
    ) as child:
        yield child


async def serves(name: str) -> bool:
    """Return whether the tree still starts children and hears them."""
    with trio.fail_after(PATIENCE_S):
        async with child_of(name, "return") as child:
            return bool(await child.context.result() == 7)


@asynccontextmanager
async def open_tree() -> AsyncIterator[Tree]:
    with trio.fail_after(PATIENCE_S):
        async with runtime.open_tree("root", Spawner(preload=[])), child_of("still#1", "") as child:
            root = tractor.current_actor()
            ((name, address),) = [pair for pair in root._registry.items() if pair[0] != root.uid]
            yield Tree(root.accept_addr[1], address[1], child, name, membership().secret)
            assert child.process.returncode is None
            await child.context.cancel()


def greeting(name: tuple[str, str] = ("looks", "like a name")) -> bytes:
    return framed(builtins_of(handshake.greet(name)))


BYTES = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"",
    b"\x01",
    LENGTH.pack(1_000) + b"cut off",
    LENGTH.pack(0xFFFF_FFFF) + b"x" * 64,
    LENGTH.pack(STRANGER_FRAME_BYTES_MAX + 1) + b"x" * STRANGER_FRAME_BYTES_MAX,
    LENGTH.pack(3) + b"\xc1\xc1\xc1",
    framed(1),
    framed(["looks", "like a name"]),
    framed({"cmd": ["self", "cancel", {}, ["a", "b"], "c"]}),
    greeting(),
    greeting() + LENGTH.pack(2) + b"\xff\xfe",
    greeting() + framed({"mac": secrets.token_bytes(32)}),
    greeting() + framed({"cmd": ["self", "cancel", {}, ["a", "b"], "c"]}),
]


async def attack_as_a_stranger(tree: Tree, port: int) -> None:
    """Try everything that can be tried without the secret; nothing but a greeting is heard."""
    for data in BYTES:
        async with connected(port) as peer:
            told = await peer.rest(data)
            assert all(set(message) == {"label", "name", "nonce"} for message in told)
            assert len(told) <= 1
    async with connected(port) as peer:
        assert await peer.join(tree.name_for(port), secrets.token_bytes(32)) is None


async def attack_with_what_was_heard(tree: Tree, port: int) -> None:
    """Say again what a member has said, and send an actor's own words back to it."""
    name = tree.name_for(port)
    async with connected(port) as member:
        talk = await member.talk(name)
        proof = handshake.prove(tree.secret, handshake.CONNECTOR, talk)
        await member.send({"mac": proof})
        assert set(await member.receive()) == {"mac"}
    async with connected(port) as peer:  # an old handshake, word for word
        assert await peer.rest(framed(builtins_of(talk.connector)) + framed({"mac": proof}))
    async with connected(port) as peer:
        await peer.send(builtins_of(talk.connector))
        fresh = await peer.receive()
        assert fresh["nonce"] != talk.acceptor.nonce
        await peer.send({"mac": proof})
        assert await peer.receive() is None
    async with connected(port) as peer:  # its own name
        await peer.send(builtins_of(handshake.greet(talk.acceptor.name)))
        assert await peer.receive() is None
    async with connected(port) as peer:  # a proof that only its other role would make
        talk = await peer.talk(name)
        await peer.send({"mac": handshake.prove(tree.secret, handshake.ACCEPTOR, talk)})
        assert await peer.receive() is None


async def test_tree_when_strangers_and_echoes_knock_then_nobody_is_let_in() -> None:
    async with open_tree() as tree:
        for port in tree.ports:
            await attack_as_a_stranger(tree, port)
            await attack_with_what_was_heard(tree, port)
        assert await serves("next#1")


async def call(peer: Peer, space: str, function: str, **arguments: Any) -> Any:
    await peer.send({"cmd": [space, function, arguments, ["a", "b"], "call-1"]})
    return await peer.receive()


FORBIDDEN = [
    (ENTRY, "not_on_the_list"), (ENTRY, "__doc__"), ("tractor._debug", "breakpoint"),
    ("os", "system"), ("trio", "run_process"), ("self", "cancel_soon"), ("self", "cancel_server"),
    ("self", "cancel_rpc_tasks"), ("self", "_async_main"), ("self", "load_modules"),
    ("self", "get_registry"), ("self", "find_actor"), ("self", "__init__"), ("self", "nothing"),
]  # fmt: skip


async def test_tree_when_a_member_calls_what_is_not_on_the_list_then_it_gets_an_error() -> None:
    async with open_tree() as tree:
        for port, only_there in (
            (tree.root_port, [("self", "cancel"), ("self", "_cancel_task"), (ENTRY, "serve")]),
            (tree.child_port, [("self", "register_actor"), ("self", "unregister_actor")]),
        ):
            async with connected(port) as peer:
                assert set(await peer.join(tree.name_for(port), tree.secret)) == {"mac"}
                for space, function in [*FORBIDDEN, *only_there]:
                    answer = await call(peer, space, function)
                    assert answer["cid"] == "call-1"
                    assert answer["error"]["type_str"] == "ModuleNotExposed", (space, function)
                assert await call(peer, "self", "nothing") is not None
        assert await serves("next#1")


GARBAGE = [
    framed(7), framed(["a", "b"]), framed({"a": "map"}), framed({"cid": ["un", "hashable"]}),
    framed({"error": "text"}), framed({"error": {"tb_str": "x", "type_str": "y"}}),
    framed({"cmd": ["self", "cancel"]}), framed({"cmd": 7}), framed(None),
    LENGTH.pack(100_000) + b"cut off", LENGTH.pack(0xFFFF_FFFF),
    framed({"cmd": ["self", "register_actor", {"wrong": 1}, ["a", "b"], "c"]}),
    framed({"cmd": ["self", "unregister_actor", {"uid": ["no", "body"]}, ["a", "b"], "c"]}),
    framed({"cid": "nobody waits for it", "yield": 1}),
]  # fmt: skip


async def test_tree_when_a_member_sends_garbage_then_only_its_connection_ends() -> None:
    async with open_tree() as tree:
        for data in GARBAGE:
            async with connected(tree.root_port) as peer:
                assert set(await peer.join(tree.child_name, tree.secret)) == {"mac"}
                await peer.rest(data)
            assert tree.child.process.returncode is None
        assert await serves("next#1")


async def test_tree_when_a_member_is_no_child_of_ours_then_it_is_not_let_in() -> None:
    async with open_tree() as tree:
        async with connected(tree.root_port) as peer:
            assert await peer.join(("still#0", "of the past"), tree.secret) is None
        # Another tree's secret opens nothing either, whatever the name.
        async with connected(tree.root_port) as peer:
            assert await peer.join(tree.child_name, Spawner().secret) is None


async def test_tree_when_two_hundred_say_nothing_then_children_still_come_in() -> None:
    async with open_tree() as tree:
        idle = [
            await trio.open_tcp_stream(runtime.REGISTRY_HOST, tree.root_port) for _ in range(200)
        ]
        assert await serves("next#1")
        assert len(membership().door) <= STRANGERS_MAX
        for stream in idle:
            await stream.aclose()


async def test_tree_when_a_child_is_killed_within_its_sends_then_the_root_lives_on() -> None:
    async with open_tree():
        for number in range(1, 6):
            with trio.CancelScope() as scope:
                async with (
                    child_of(f"flood#{number}", "flood") as child,
                    child.context.open_stream() as stream,
                ):
                    for _ in range(number):
                        await stream.receive()
                    child.process.kill()
                    assert await child.process.wait() == -signal.SIGKILL
                    scope.cancel()
        assert await serves("next#1")


async def test_open_child_when_its_task_fails_then_the_reason_reaches_the_caller() -> None:
    async with open_tree():
        reasons: list[BaseException | None] = []
        with pytest.raises((tractor.RemoteActorError, BaseExceptionGroup)) as caught:
            async with runtime.open_child(
                "failing#1", {"task": "fail"}, lambda _: None, reasons.append, ENTRY
            ) as child:
                await child.context.result()
        assert {
            str(part).rstrip().splitlines()[-1] for part in runtime.split_errors(caught.value)
        } == {"ValueError: asked to fail"}
        assert reasons[0] is not None
        assert child.process.returncode is not None
