"""The control link: beats, partitions and an ordered end, in process and on a real small tree."""

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from actors import control, runtime, secret
from actors.control import Control
from actors.service import Service
from tests.tree_fixtures import PATIENCE_S, kinds, paper_page, paper_text, service, until
from tests.unit.test_actors_link import Wire
from tripgate.errors import InvariantBroken
from tripgate.messages import EventKind, LinkFault
from tripgate.page.layout import LINK
from tripgate.page.links import from_root, set_fault, to_root
from tripgate.page.mapping import Page

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
ACTOR = "breaker"


@pytest.fixture(autouse=True)
def _own_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_held", [])
    secret.hold(bytes(range(32)))


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def page() -> Page:
    return paper_page()


def ignore(_told: object) -> None:
    """Take what the runtime tells of a child."""


class Call:
    """Both sides of a call with a stream, as the runtime gives them."""

    def __init__(self) -> None:
        out, into = zip(*(trio.open_memory_channel[bytes](100) for _ in range(2)), strict=True)
        self.root, self.child = Wire(out[0], into[1]), Wire(out[1], into[0])
        self.over = trio.Event()

    @asynccontextmanager
    async def side(self, wire: Wire) -> AsyncIterator[Wire]:
        try:
            yield wire
        finally:
            wire.out.close()

    async def result(self) -> str:
        await self.over.wait()
        return "done"


class Context:
    """One side's context."""

    def __init__(self, call: Call, wire: Wire) -> None:
        self.open_stream = lambda: call.side(wire)
        self.result = call.result


async def run_pair(page: Page, run: Any, root: Control) -> str:
    """Run an actor and the root's end of its link until both are over."""
    call, place = Call(), service(page, ACTOR)
    results: list[str] = []

    async def attend() -> None:
        results.append(await root.attend(Context(call, call.root)))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attend)
            await control.run_actor(Context(call, call.child), place, run)
            call.over.set()
    place.close()
    return results[0]


def root_end(page: Page) -> tuple[Control, list[EventKind]]:
    notes: list[EventKind] = []
    role = page.names.role(ACTOR)
    return Control(page, role, 1, lambda kind, _body: notes.append(kind)), notes


async def test_stop_when_the_actor_looks_at_it_then_it_ends_in_order(page: Page) -> None:
    root, _ = root_end(page)
    ended = []

    async def run(place: Service) -> None:
        await place.ready()
        root.stop(PATIENCE_S)
        while not place.stopping.is_set():
            await place.turn()
        await trio.sleep(0.01)
        ended.append("in order")

    assert await run_pair(page, run, root) == "done"
    assert ended == ["in order"]
    assert root.over.is_set()


async def test_stop_when_the_actor_does_not_end_then_it_is_cancelled_after_the_grace(
    page: Page,
) -> None:
    root, _ = root_end(page)

    async def run(place: Service) -> None:
        await place.ready()
        root.stop(0.05)
        await trio.sleep_forever()

    assert await run_pair(page, run, root) == "done"


async def test_attend_when_stop_was_asked_before_the_link_then_it_is_told_all_the_same(
    page: Page,
) -> None:
    root, _ = root_end(page)
    root.stop(PATIENCE_S)

    async def run(place: Service) -> None:
        await place.ready()
        await place.stopping.wait()

    assert await run_pair(page, run, root) == "done"


async def test_attend_when_no_secret_is_known_then_there_is_no_link_and_the_call_goes_on(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret, "_held", [])
    root, _ = root_end(page)

    async def run(place: Service) -> None:
        await place.ready()
        await place.turn()

    assert await run_pair(page, run, root) == "done"
    assert not page.rows(LINK)["sent"].any()


def test_key_when_held_then_it_is_derived_and_gone_with_the_tree() -> None:
    assert secret.get_key() != bytes(range(32))
    assert len(secret.get_key()) == 32
    secret.forget()
    assert not secret.is_known()
    with pytest.raises(InvariantBroken, match="outside a tree"):
        secret.get_key()
    with pytest.raises(InvariantBroken, match="at least 16 bytes"):
        secret.hold(b"short")


async def test_control_link_when_a_real_child_is_cut_off_heals_and_stops_then_all_is_seen(
    page: Page,
) -> None:
    role = page.names.role(ACTOR)
    arguments: dict[str, Any] = {
        "actor": ACTOR, "venue": "", "folder": str(page.folder), "incarnation": 1,
        "settings": {
            "config_text": paper_text(), "config_name": "paper",
        },
    }  # fmt: skip
    root, notes = root_end(page)
    up, down = page.rows(LINK)[to_root(role)], page.rows(LINK)[from_root(role)]
    with trio.fail_after(PATIENCE_S):
        async with (
            runtime.open_tree("root"),
            runtime.open_child(f"{ACTOR}#1", arguments, ignore, ignore) as child,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(root.attend, child.context)
            await until(lambda: up["received"] > 2 and down["received"] > 2)
            assert (up["rss_kib"] > 10_000, up["turns"] > 0) == (True, True)
            set_fault(page, f"{ACTOR}>supervisor", LinkFault.PARTITION)
            set_fault(page, f"supervisor>{ACTOR}", LinkFault.HOLD)
            await until(lambda: bool(up["silent"] and down["silent"]))
            for link in (f"{ACTOR}>supervisor", f"supervisor>{ACTOR}"):
                set_fault(page, link, LinkFault.NONE)
            await until(lambda: not (up["silent"] or down["silent"]))
            assert (int(up["stale"]), int(down["stale"] > 0)) == (0, 1)
            set_fault(page, f"supervisor>{ACTOR}", LinkFault.CORRUPT)
            await until(lambda: bool(down["forged"] > 2))
            set_fault(page, f"supervisor>{ACTOR}", LinkFault.NONE)
            root.stop(PATIENCE_S)
            await root.over.wait()
            assert child.process.returncode is None, "it ended its call, not its process"
    assert notes.count(EventKind.LINK_SILENT) == notes.count(EventKind.LINK_HEARD) == 1
    told = [kind for kind in kinds(page, role) if kind in (EventKind.LINK_SILENT,)]
    assert told == [EventKind.LINK_SILENT]
