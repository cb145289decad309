"""The seam to tractor with a real root and real actors: start, end, failure."""

import gc
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import tractor
import trio

from actors import entry, runtime
from actors.hardening import membership
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
        self.process: runtime.Process | None = None
        self.errors: list[BaseException | None] = []

    def spawned(self, process: runtime.Process) -> None:
        self.process = process

    def ended(self, error: BaseException | None) -> None:
        self.errors.append(error)


async def test_open_tree_when_children_fail_then_the_root_lives_on() -> None:
    page = paper_page()
    role = page.names.role("audit_writer")
    page.rows(LEASE)["deadline_ns"][role] = 0
    async with runtime.open_tree("root"):
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
                spawner = membership().spawner
                assert spawner is not None
                assert spawner.zygote is not None
                # Every actor and every kernel is imported there: none may have started a thread.
                assert len(os.listdir(f"/proc/{spawner.zygote.pid}/task")) == 1
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


def test_attach_when_the_page_is_there_then_the_guard_is_set_and_the_place_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An actor's own group ends it with a dead root; this process must stay in its terminal's.
    groups: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "setpgid", lambda pid, group: groups.append((pid, group)))
    page = paper_page()
    place = attach(str(page.folder), "market_feed", "sim", 3, {}, nobody_waits)
    assert groups == [(0, 0)]
    assert (place.venue, place.incarnation, place.slot) == ("sim", 3, 4)
    place.header["step"] = 9
    assert (place.market_step, int(page.header["step"])) == (9, 9)
    place.close()
