"""The seam to tractor with a real root and real children: start, end, failure, hostile bytes."""

import gc
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import pytest
import tractor
import trio

from actors import entry, runtime
from actors.service import attach
from tests.tree_fixtures import nobody_waits, paper_page, service, until
from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.messages import EventKind
from tripgate.page.layout import HOLDER, LEASE, ROLE
from tripgate.processes import process_start_time

PATIENCE_S = 90.0

# tractor leaves the packet iterators of closed connections to the garbage collector, which trio
# reports; they are collected inside the test, so that no other one is blamed for them.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
NEXT_FRAME = struct.Struct("<I")


def arguments(folder: object, actor: str) -> dict[str, Any]:
    return {
        "actor": actor, "venue": "", "folder": str(folder), "incarnation": 1, "settings": {},
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


class Watch:
    """What the supervisor hands to ``open_child``: the process and why the call ended."""

    def __init__(self) -> None:
        self.process: trio.Process | None = None
        self.errors: list[BaseException | None] = []

    def spawned(self, process: trio.Process) -> None:
        self.process = process

    def ended(self, error: BaseException | None) -> None:
        self.errors.append(error)


async def hostile(port: int, data: bytes) -> None:
    """Send bytes to the registry and wait until it hangs up or says something of its own."""
    with trio.fail_after(PATIENCE_S):
        stream = await trio.open_tcp_stream(runtime.REGISTRY_HOST, port)
        async with stream:
            try:
                await stream.send_all(data)
                await stream.send_eof()
                while await stream.receive_some(65_536):
                    pass
            except trio.BrokenResourceError:
                return


def framed(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return NEXT_FRAME.pack(len(body)) + body


HOSTILE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"",
    b"\x01",
    NEXT_FRAME.pack(1_000) + b"cut off",
    NEXT_FRAME.pack(0xFFFF_FFFF) + b"x" * 64,
    NEXT_FRAME.pack(3) + b"\xc1\xc1\xc1",
    framed(7),
    framed([1, 2]),
    framed(["only one"]),
    framed({"a": "map"}),
    framed(["a", "b", "c"]),
    framed(["looks", "like a name"]) + NEXT_FRAME.pack(2) + b"\xff\xfe",
]


async def test_open_tree_when_children_fail_and_strangers_knock_then_the_root_lives_on() -> None:
    page = paper_page()
    role = page.names.role("audit_writer")
    page.rows(LEASE)["deadline_ns"][role] = 0
    async with runtime.open_tree("root"):
        port = tractor.current_actor().accept_addr[1]
        unknown = Watch()
        with pytest.raises(tractor.RemoteActorError, match="no actor is called 'nobody'"):
            async with runtime.open_child(
                "nobody#1", arguments(page.folder, "nobody"), unknown.spawned, unknown.ended
            ):
                pytest.fail("an actor that does not exist was ready")
        assert unknown.process is not None
        assert unknown.process.returncode is not None
        assert "no actor is called" in str(unknown.errors[0])

        watch = Watch()
        with trio.fail_after(PATIENCE_S), trio.CancelScope() as scope:
            async with runtime.open_child(
                "audit_writer#1", arguments(page.folder, "audit_writer"), watch.spawned, watch.ended
            ) as child:
                assert child.ready == {"pid": child.pid, "incarnation": 1}
                for data in HOSTILE:
                    await hostile(port, data)
                deadlines = page.rows(LEASE)["deadline_ns"]
                await until(lambda: int(deadlines[role]) > host_ns())
                assert process_start_time(child.pid) > 0
                scope.cancel()
        assert isinstance(watch.errors[0], trio.Cancelled)
        assert child.process.returncode is not None


async def test_open_child_when_it_is_killed_then_the_call_ends_and_the_next_one_starts() -> None:
    page = paper_page()
    async with runtime.open_tree("root"):
        for number in (1, 2):
            watch = Watch()
            with trio.fail_after(PATIENCE_S), trio.CancelScope() as scope:
                async with runtime.open_child(
                    f"audit_writer#{number}", arguments(page.folder, "audit_writer"),
                    watch.spawned, watch.ended,
                ) as child:  # fmt: skip
                    child.process.send_signal(signal.SIGKILL)
                    await child.process.wait()
                    scope.cancel()
            assert child.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("error", "leaves"),
    [
        (ValueError("a"), 1),
        (ExceptionGroup("", [ValueError("a"), ExceptionGroup("", [OSError(), KeyError()])]), 3),
    ],
)
def test_split_errors_when_groups_are_nested_then_every_leaf_is_found(
    error: BaseException, leaves: int
) -> None:
    assert len(runtime.split_errors(error)) == leaves


def test_process_of_when_the_runtime_does_not_know_its_child_then_it_is_said() -> None:
    class Nursery:
        _children: ClassVar[dict[str, object]] = {"a": (None, "process", "portal")}

    assert runtime._process_of(Nursery(), "portal") == "process"  # type: ignore[comparison-overlap]
    with pytest.raises(runtime.ChildStartError, match="does not know its own child"):
        runtime._process_of(Nursery(), "another")


def test_free_port_when_asked_then_somebody_can_listen_there() -> None:
    with socket.socket() as listener:
        listener.bind((runtime.REGISTRY_HOST, runtime.free_port()))


def test_entry_when_listed_then_serve_is_all_that_can_be_called() -> None:
    own = [
        name for name, value in vars(entry).items()
        if callable(value) and getattr(value, "__module__", "") == entry.__name__
    ]  # fmt: skip
    assert own == ["serve"]


async def test_service_when_it_takes_its_place_then_words_leases_and_bells_are_its_own() -> None:
    page = paper_page()
    place = service(page, "breaker")
    other = service(page, "router", "sim")
    assert (place.role, place.slot) == (page.names.role("breaker"), page.names.role("breaker"))
    place.finish_step(4)
    assert other.step_of("breaker") == int(page.rows(ROLE)["step"][place.role]) == 4
    with trio.fail_after(PATIENCE_S):
        await other.turn(PATIENCE_S)
    place.lease.renew(place.now_ns())
    assert 0 < other.lease_left_ns(place.role) <= place.lease.lease_ns
    place.lease.give_up_stale()
    assert other.lease_left_ns(place.role) < 0
    await place.turn(0.0)
    for one in (place, other):
        one.close()
        assert not one.bell.path.exists()


def test_service_when_its_ring_is_full_then_it_stops_rather_than_act_unrecorded() -> None:
    page = paper_page()
    place = service(page, "breaker")
    assert int(page.rows(HOLDER)["mask"][place.slot]) == 1

    def fill_up() -> None:
        while True:
            place.emit(EventKind.FLAT, {"text": "x" * 8_000})

    with pytest.raises(InvariantBroken, match="ring of slot 3 is full"):
        fill_up()
    place.close()


def test_attach_when_the_page_is_there_then_the_guard_is_set_and_the_place_taken() -> None:
    page = paper_page()
    place = attach(str(page.folder), "market_feed", "sim", 3, {}, nobody_waits)
    assert (place.venue, place.incarnation, place.slot) == ("sim", 3, 4)
    place.header["step"] = 9
    assert (place.market_step, int(page.header["step"])) == (9, 9)
    place.close()
