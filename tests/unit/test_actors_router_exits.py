"""The router's way out at a real simulated venue: flattening, who is waited for, moved stops."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from actors.router import Router
from actors.router_duties import ENTRY_GRACE_NS, STEP_GRACE_NS
from actors.router_queue import JobQueue
from exchange_adapters.venue_port import OrderKind, VenueOrder
from tests.contract.local_bench import BTC
from tests.tree_fixtures import MARKET_MS, PATIENCE_S, hold, until
from tests.unit.router_desk import MARK, STOP, Desk, carry_out, open_desk
from tripgate.clock import host_ns
from tripgate.errors import UsageError
from tripgate.gate.exits import wish_exit
from tripgate.gate.session import RouterSession
from tripgate.gate.settle import Settlement
from tripgate.machines.pacing import Budget
from tripgate.messages import EventKind
from tripgate.page.layout import KEY, LEASE, ROLE, SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.processes import process_start_time
from tripgate.reasons import Level, Side


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    async with open_desk(isolated_folders) as desk:
        yield desk


async def long(desk: Desk, router: Router, lots: int = 10) -> None:
    """Hold a position at the venue and in the page alike."""
    buy = VenueOrder(router.orders.client_id(9), BTC, Side.BUY, lots, OrderKind.MARKET)
    await desk.bench.control.send(buy)
    await desk.bench.move_market()
    await desk.told(router)
    await desk.told(router)
    hold(desk.page, 0, lots, lots * MARK)
    desk.page.rows(KEY)["stop_ticks"][0] = STOP
    desk.page.header["step"] = 1


def judged(desk: Desk) -> None:
    """Let the breaker have judged everything that was told, and the keeper have booked it."""
    desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = 1_000
    desk.booked()


async def work(desk: Desk, router: Router) -> None:
    desk.booked()
    router.work(host_ns())
    await carry_out(router)


@asynccontextmanager
async def serving(router: Router) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(router.server.serve, router.reception)
        yield
        nursery.cancel_scope.cancel()


async def open_orders(desk: Desk) -> list[VenueOrder]:
    return [status.order for status in (await desk.bench.control.account()).open_orders]


async def test_P4_flatten_when_closes_rest_then_the_venue_ends_flat_and_the_claim_is_cleared(
    desk: Desk,
) -> None:
    async with desk.router() as router:
        await long(desk, router)
        judged(desk)
        desk.all_acted()
        closes = [desk.approved(-4, MARK + 5_000), desk.approved(-5, MARK + 6_000)]
        for close in closes:
            router._put(("send", close, {}))
        await carry_out(router)
        await work(desk, router)
        assert len(await open_orders(desk)) == 3, "two closes and the stop"
        wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
        await work(desk, router)
        (sent,) = [b for b in desk.events(EventKind.ORDER_SENT) if b["kind"] == "market"]
        assert (sent["lots"], sent["reduce_only"]) == (-10, True)
        await desk.bench.move_market()
        await desk.told(router)
        assert (await desk.bench.control.account()).positions.get(BTC, 0) == 0
        keeper = Settlement(desk.page, desk.page.names.role("position_keeper"))
        for body in desk.events(EventKind.FILL)[1:]:
            keeper.fill(0, keeper.find(int(body["token"])), int(body["lots"]), 0)
        for body in desk.events(EventKind.ORDER_DONE):
            keeper.release(int(body["token"]))
        await work(desk, router)
        row = desk.page.rows(KEY)[0]
        assert (int(row["closable"]), int(row["exit_claim"]), int(row["exit_lots"])) == (0, 0, 0)
        assert [body["why"] for body in desk.events(EventKind.EXIT_ENDED)] == ["flat"]
        assert await open_orders(desk) == []


async def test_P4_send_when_an_exit_has_taken_its_lots_then_a_close_never_leaves(
    desk: Desk,
) -> None:
    async with desk.router() as router:
        await long(desk, router)
        judged(desk)
        desk.all_acted()
        close = desk.approved(-4, MARK + 5_000)
        router._put(("send", close, {}))
        wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
        await work(desk, router)
        (done,) = [b for b in desk.events(EventKind.ORDER_DONE) if b["token"] == close.token]
        assert (done["state"], done["reason"]) == ("UNSENT", "merged into the exit of its position")
        kinds = [str(order.kind) for order in await open_orders(desk)]
        assert kinds == ["market", "stop_market"], "the exit went first"


@pytest.mark.parametrize(("replay", "dies"), [(1, True), (1, False), (0, False)])
async def test_P3_duties_when_the_breaker_is_silent_then_they_wait_for_its_grace_in_a_replay_alone(
    desk: Desk, replay: int, dies: bool
) -> None:
    desk.page.header["replay"] = replay
    breaker = desk.page.names.role("breaker")
    async with desk.router() as router:
        router._put(("send", desk.approved(price=MARK - 5_000), {}))
        await carry_out(router)
        await long(desk, router)
        set_level(desk.page, 0, LevelWriter.OPERATOR, Level.HARD)
        wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
        desk.booked()
        now_ns = host_ns()
        router.work(now_ns)
        assert bool(router._jobs) is (not replay)
        if not replay:
            return
        desk.page.rows(LEASE)["deadline_ns"][breaker] = now_ns - ENTRY_GRACE_NS - 1
        row = desk.page.rows(ROLE)[breaker]
        row["pid"], row["start_time"] = os.getpid(), process_start_time(os.getpid())
        router.work(now_ns)
        assert not router._jobs, "it lives: a busy host must not change the run"
        if dies:
            row["start_time"] += 1
        else:
            now_ns += STEP_GRACE_NS
        router.work(now_ns)
        kinds = [kind for kind, _, _ in router._jobs]
        assert kinds == ["cancel", "send", "send", "account"]
        assert next(subject.is_exit for kind, subject, _ in router._jobs if kind == "send")


async def test_work_when_a_strategy_still_acts_then_its_replay_waits_with_exits(
    desk: Desk,
) -> None:
    async with desk.router() as router:
        await long(desk, router)
        judged(desk)
        wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
        await work(desk, router)
        kinds = [body["kind"] for body in desk.events(EventKind.ORDER_SENT)]
        assert kinds == ["stop_market"], "what protects waits for nobody"
        desk.all_acted()
        await work(desk, router)
        kinds = [body["kind"] for body in desk.events(EventKind.ORDER_SENT)]
        assert kinds == ["stop_market", "market"]


async def test_work_when_the_keeper_has_not_booked_what_was_told_then_the_step_waits(
    desk: Desk,
) -> None:
    steps, strategy = desk.page.rows(ROLE)["step"], desk.page.rows(SLOT)[desk.slot]
    async with desk.router() as router:
        await long(desk, router)
        judged(desk)
        strategy["participating"], strategy["step"] = 1, 1
        router.orders.events_step = 1
        await work(desk, router)
        await work(desk, router)
        assert int(steps[desk.place.role]) == 1, "nothing is wished"
        desk.page.header["step"], router.orders.events_step, strategy["step"] = 2, 2, 2
        wish_exit(desk.page, 0, 0, MARKET_MS)
        desk.place.emit(EventKind.CANCEL_SENT, {"token": 1})
        router.work(host_ns())
        assert not [order for _, order, _ in router._jobs if getattr(order, "is_exit", False)]
        assert int(steps[desk.place.role]) == 1
        await work(desk, router)
        await work(desk, router)
        assert int(steps[desk.place.role]) == 2


async def test_work_when_the_budget_is_used_up_then_entries_wait_and_the_step_does_not(
    desk: Desk,
) -> None:
    steps, strategy = desk.page.rows(ROLE)["step"], desk.page.rows(SLOT)[desk.slot]
    desk.page.header["step"] = 0
    async with desk.router() as router:
        await desk.told(router)
        judged(desk)
        router._jobs = JobQueue(Budget(1, 4), desk.place.market_ms)
        router._account_step = 0
        orders = [desk.approved(1, MARK - 5_000 - n) for n in range(5)]
        for order in orders:
            router._put(("send", order, {}))
        strategy["participating"], strategy["step"] = 1, 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(router.send_jobs)
            await until(lambda: len(router._jobs) == 2 and not router._busy)
            router.work(host_ns())
            assert int(steps[desk.place.role]) == 0
            desk.page.header["market_ms"] += 1_000
            desk.booked()
            router.work(host_ns())
            await until(lambda: len(router._jobs) == 1 and not router._busy)
            nursery.cancel_scope.cancel()
        late = [b["reason"] for b in desk.events(EventKind.ORDER_DONE)]
        assert late == ["expired before the send"], "a held entry is not sent beyond its window"
        assert len(await open_orders(desk)) == 3


async def test_P9_take_when_a_fill_crossed_its_cancel_then_the_position_gets_its_stop(
    desk: Desk,
) -> None:
    async with desk.router() as router:
        order = desk.approved()
        router._put(("send", order, {}))
        await carry_out(router)
        router.orders.live.clear()
        await desk.bench.move_market()
        for _ in range(2):
            await desk.told(router)
        assert [body["token"] for body in desk.events(EventKind.FILL)] == [order.token]
        assert int(desk.page.rows(KEY)["stop_ticks"][0]) == STOP


async def test_submit_when_a_token_is_on_its_way_then_it_is_not_sent_twice(desk: Desk) -> None:
    async with desk.router() as router:
        order = desk.approved(price=MARK - 5_000)
        request = {"op": "submit", "token": order.token}
        assert router._request(desk.slot, request) is None
        assert "is being sent already" in (router._request(desk.slot, request) or "")
        await carry_out(router)
        assert "not a reservation" in (router._request(desk.slot, request) or "")
        assert len(await open_orders(desk)) == 1
        assert desk.events(EventKind.ORDER_DONE) == []


async def test_move_stop_when_asked_over_the_line_then_the_new_one_stands_before_the_old_goes(
    desk: Desk,
) -> None:
    path = desk.page.names.sockets["sim"]
    async with desk.router() as router, serving(router):
        await long(desk, router)
        judged(desk)
        await work(desk, router)
        (first,) = await open_orders(desk)
        assert (first.kind, first.stop_ticks) == (OrderKind.STOP_MARKET, STOP)

        def ask() -> None:
            line = RouterSession(path, strategy="trend", slot=desk.slot)
            line.move_stop(0, STOP + 7)
            with pytest.raises(UsageError, match="only moves nearer"):
                line.move_stop(0, STOP + 6)
            with pytest.raises(UsageError, match="not this strategy's at this venue"):
                line.move_stop(99, STOP + 8)
            line.close()

        with trio.fail_after(PATIENCE_S):
            await trio.to_thread.run_sync(ask)
        router.work(host_ns())
        await work(desk, router)
        kinds = [
            body.get("stop", body["token"])
            for kind in (EventKind.ORDER_SENT, EventKind.CANCEL_SENT)
            for body in desk.events(kind)
        ]
        assert kinds[:2] == [STOP, STOP + 7]
        assert [order.stop_ticks for order in await open_orders(desk)] == [STOP + 7]


async def test_hello_when_the_slot_is_not_the_callers_then_the_router_refuses_it(
    desk: Desk,
) -> None:
    path = desk.page.names.sockets["sim"]
    async with desk.router() as router, serving(router):
        connect = partial(RouterSession, path, strategy="trend")

        def ask() -> None:
            connect(slot=desk.slot).close()
            with pytest.raises(UsageError, match="belongs to another process"):
                connect(slot=desk.slot + 1)
            desk.page.rows(SLOT)["pid"][desk.slot] = 1
            with pytest.raises(UsageError, match="belongs to another process"):
                connect(slot=desk.slot)

        with trio.fail_after(PATIENCE_S):
            await trio.to_thread.run_sync(ask)


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"key": 0}, "names a key and a stop"),
        ({"stop": 5}, "names a key and a stop"),
        ({"key": "0", "stop": 5}, "names a key and a stop"),
        ({"key": 0, "stop": 5.5}, "names a key and a stop"),
        ({"key": -1, "stop": 5}, "key -1 is not this strategy's"),
        ({"key": 2**60, "stop": 5}, "is not this strategy's"),
        ({"key": 2**80, "stop": 5}, "names a key and a stop"),
        ({"key": True, "stop": 5}, "names a key and a stop"),
        ({"key": 0, "stop": 5}, "there is no position"),
    ],
)
async def test_move_stop_when_it_makes_no_sense_then_it_is_refused_in_words(
    desk: Desk, request_: dict[str, object], problem: str
) -> None:
    async with desk.router() as router:
        assert problem in (router._request(desk.slot, {"op": "move_stop", **request_}) or "")
        for stranger in (-1, 0, 255):
            assert router._request(stranger, {"op": "move_stop", **request_}) is not None
        assert int(desk.page.rows(KEY)["stop_ticks"][0]) == 0
