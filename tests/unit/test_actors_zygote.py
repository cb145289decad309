"""The zygote and the children it forks: whose they are, what they inherit, what its death means."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors import runtime
from actors import zygote as zygotes
from actors.child_process import ChildProcess
from actors.hardening import membership
from actors.spawner import PACKET_BYTES_MAX, ChildStartError, Forked, Order, Refused, Spawner
from tests.tree_fixtures import until
from tripgate.processes import process_start_time

ENTRY = "tests.actor_entries"
PATIENCE_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def child_of(name: str, task: str = "") -> AsyncIterator[runtime.Child]:
    async with runtime.open_child(
        name, {"task": task}, lambda _: None, lambda _: None, ENTRY
    ) as child:
        yield child
        if child.process.returncode is None:
            await child.context.cancel()


def zygote() -> ChildProcess:
    """Return the zygote of this process' tree."""
    spawner = membership().spawner
    assert spawner is not None
    assert spawner.zygote is not None
    return spawner.zygote


def sockets_of(pid: int) -> set[str]:
    links = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return {link for link in links if link.startswith("socket:")}


def shown_of(pid: int) -> bytes:
    """Return what every process of this user can read of another one."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def sleeper() -> int:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return os.posix_spawn(command[0], command, os.environ)


def parent_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


async def test_child_when_it_is_forked_then_it_is_the_roots_and_inherits_nothing() -> None:
    # Descriptors that this process hands on to whatever it starts, as a careless one may.
    leaked = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        with trio.fail_after(PATIENCE_S):
            async with runtime.open_tree("root", Spawner(preload=[])):
                async with child_of("first#1"), child_of("position_keeper#2") as child:
                    told = child.ready
                    assert told["pid"] == child.pid
                    assert told["parent"] == parent_of(child.pid) == os.getpid()
                    assert told["comm"] == "position_keeper"
                    assert told["interrupt"]
                    assert told["blocked"] == 0
                    assert told["threads"] == ["MainThread", f"guard-{os.getpid()}"]
                    assert told["links"]["0"] == "/dev/null"
                    own = [to for n, to in told["links"].items() if int(n) > 2]
                    # Its guard, its event loop with two wake-up pairs, its parent, its listener.
                    others = sorted(to for to in own if not to.startswith("socket:"))
                    assert others == ["anon_inode:[eventpoll]", "anon_inode:[pidfd]"]
                    assert len(own) - len(others) <= 6
                    assert not sockets_of(zygote().pid) & set(own)
    finally:
        os.close(leaked)


async def test_tree_when_it_runs_then_its_secret_is_in_no_command_and_no_environment() -> None:
    with trio.fail_after(PATIENCE_S):
        async with runtime.open_tree("root", Spawner(preload=[])), child_of("first#1") as child:
            secret = membership().secret
            for pid in (os.getpid(), zygote().pid, child.pid):
                shown = shown_of(pid)
                assert secret not in shown
                assert secret.hex().encode() not in shown.lower()


async def test_zygote_when_it_is_killed_then_children_live_and_the_next_one_is_born() -> None:
    with trio.fail_after(PATIENCE_S):
        async with runtime.open_tree("root", Spawner(preload=[])), child_of("first#1") as first:
            old = zygote()
            old.kill()
            await old.wait()
            async with child_of("second#1", "return") as second:
                assert await second.context.result() == 7
            assert zygote() is not old
            assert first.process.returncode is None


async def test_spawn_when_no_zygote_ever_comes_up_then_it_is_said() -> None:
    spawner = Spawner(preload=["there.is.no.such.module"])
    with trio.fail_after(PATIENCE_S), pytest.raises(ChildStartError, match="died twice"):
        await spawner.spawn(Order(("a", "b"), ("127.0.0.1", 1), ENTRY))
    assert spawner.zygote is None
    await spawner.close()


async def test_spawn_when_the_child_reaches_nobody_then_its_end_is_seen_and_reaped() -> None:
    spawner = Spawner(preload=[])
    with trio.fail_after(PATIENCE_S):
        child = await spawner.spawn(Order(("a", "b"), ("127.0.0.1", 1), ENTRY))
        assert await child.wait() == 1
        assert child.returncode == child.poll() == 1
        assert str(child) == f"<child process {child.pid}: 1>"
        child.kill()  # Nobody is there any more: that is no error.
        assert process_start_time(child.pid) == 0
        await spawner.close()


async def test_open_child_when_it_ends_before_it_connects_then_the_start_fails() -> None:
    with trio.fail_after(PATIENCE_S):
        async with runtime.open_tree("root", Spawner(preload=[])):
            seen: list[runtime.Process] = []
            ends: list[BaseException | None] = []

            def kill_at_once(process: runtime.Process) -> None:
                seen.append(process)
                process.kill()

            with pytest.raises(ChildStartError, match="ended with exit code -9"):
                async with runtime.open_child("early#1", {}, kill_at_once, ends.append, ENTRY):
                    pytest.fail("a dead child was ready")
            assert [process.returncode for process in seen] == [-signal.SIGKILL]
            assert isinstance(ends[0], ChildStartError)


async def test_child_process_when_many_wait_for_it_then_each_learns_its_end() -> None:
    child, codes = ChildProcess(sleeper()), []

    async def wait() -> None:
        codes.append(await child.wait())

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert child.returncode is None
            child.terminate()
    assert codes == [-signal.SIGTERM] * 3


PROGRAM = f"""
import trio
from tractor import current_actor
from actors import runtime
from actors import zygote as zygotes
from actors.hardening import membership
from actors.spawner import Spawner

async def main():
    async with runtime.open_tree("root", Spawner(preload=[])):
        async with runtime.open_child("a#1", {{"task": ""}}, lambda _: None, lambda _: None,
                                      {ENTRY!r}) as child:
            zygote, port = membership().spawner.zygote, current_actor().accept_addr[1]
            print(zygote.pid, child.pid, port, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


def run_tree() -> tuple["subprocess.Popen[bytes]", list[int]]:
    """Start a tree of its own; return its root, and pids of zygote and child and its port."""
    root = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, cwd=ROOT)
    assert root.stdout is not None
    return root, [int(word) for word in root.stdout.readline().split()]


async def test_root_when_it_is_killed_then_its_zygote_and_its_children_end() -> None:
    root, (*pids, _) = run_tree()
    members = {pid: process_start_time(pid) for pid in pids}
    assert len(members) == 2
    assert all(members.values())
    root.kill()
    root.communicate()
    await until(lambda: all(process_start_time(pid) != start for pid, start in members.items()))


async def test_two_trees_when_a_child_of_one_knocks_at_the_other_then_it_is_not_let_in() -> None:
    other, (*pids, port) = run_tree()
    spawner = Spawner(preload=[])
    try:
        with trio.fail_after(PATIENCE_S):
            order = Order(("a#1", "stray"), (runtime.REGISTRY_HOST, port), ENTRY)
            stray = await spawner.spawn(order)
            assert await stray.wait() == 1
        assert all(process_start_time(pid) for pid in pids)
        assert other.poll() is None
    finally:
        await spawner.close()
        other.kill()
        other.communicate()


async def test_zygote_when_it_has_another_thread_then_it_refuses_to_fork() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    order = Order(("a", "b"), ("127.0.0.1", 1), ENTRY)
    ours.send(msgspec.msgpack.encode(order))
    with ours, trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                # It serves in a thread here, so there are two.
                assert (
                    await trio.to_thread.run_sync(zygotes.serve_orders, theirs, os.getpid()) is None
                )

            nursery.start_soon(serve)
            await trio.lowlevel.wait_readable(ours.fileno())
            answer = msgspec.msgpack.decode(ours.recv(PACKET_BYTES_MAX), type=Forked | Refused)
            assert isinstance(answer, Refused)
            assert "threads: a copy of it might hang" in answer.reason
            ours.shutdown(socket.SHUT_WR)


def test_zygote_when_its_root_is_gone_then_it_serves_nobody() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        assert zygotes.serve_orders(theirs, ended.pid) is None
        assert ours.recv(1) == b""
