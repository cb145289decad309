"""The router against a real simulated venue: recovery, unknown fates, sending, pace."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from actors import router as module
from actors.router import run
from exchange_adapters.local_venue import LocalVenue
from exchange_adapters.venue_port import (
    OrderAccepted,
    OrderKind,
    OrderState,
    OrderStatus,
    RejectClass,
    Rejected,
    VenueOrder,
)
from tests.contract.local_bench import BTC
from tests.tree_fixtures import MARKET_MS, PATIENCE_S, hold, set_send_window, until
from tests.unit.router_desk import MARK, STOP, Desk, carry_out, open_desk
from tripgate.clock import host_ns
from tripgate.errors import VenueUnknownError
from tripgate.gate.commit import commit, read_entry
from tripgate.gate.exits import issue_stop, wish_exit
from tripgate.gate.settle import Settlement
from tripgate.machines import unknown
from tripgate.messages import EventKind
from tripgate.page.layout import KEY, LEASE, PROTECTION, ROLE, SLOT, WATERMARK, stop_entry
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import Level, Side


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    async with open_desk(isolated_folders) as desk:
        yield desk


def loses(monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> None:
    """Let the answers to sends be lost, with or without the order having arrived."""
    real = LocalVenue.send

    async def send(self: LocalVenue, order: VenueOrder) -> Any:
        if arrives:
            await real(self, order)
        raise VenueUnknownError("the answer was lost")

    monkeypatch.setattr(LocalVenue, "send", send)


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_S", 0.001)
    set_send_window(monkeypatch, 0)
    for name in ("ANSWERS_APART_NS", "SKEW_NS"):
        monkeypatch.setattr(unknown, name, 0)


async def test_recover_when_an_entry_filled_while_nobody_listened_then_it_gets_its_stop(
    desk: Desk,
) -> None:
    order = desk.approved()
    await desk.leave(order)
    await desk.bench.move_market()
    async with desk.router() as router:
        assert [body["token"] for body in desk.events(EventKind.FILL)] == [order.token]
        assert [body["state"] for body in desk.events(EventKind.ORDER_DONE)] == ["FILLED"]
        assert int(desk.page.rows(KEY)["stop_ticks"][0]) == STOP
        assert router.orders.live == {}
    fills = desk.events(EventKind.FILL)
    async with desk.router():
        assert desk.events(EventKind.FILL) == fills, "what the ring holds is not booked again"


async def test_recover_when_an_entry_rests_at_the_venue_then_it_is_known_again(desk: Desk) -> None:
    order = desk.approved(price=MARK - 5_000)
    await desk.leave(order)
    async with desk.router() as router:
        (live,) = router.orders.live.values()
        assert (live.approved, live.order.token) == (order, order.token)
        assert not router._jobs


@pytest.mark.usefixtures("_no_pauses")
async def test_recover_when_the_venue_knows_nothing_of_it_then_its_fate_is_unknown(
    desk: Desk,
) -> None:
    order = desk.approved()
    assert commit(desk.page, order)
    async with desk.router() as router:
        assert [body["token"] for body in desk.events(EventKind.ORDER_UNKNOWN)] == [order.token]
        assert desk.events(EventKind.ORDER_SENT) == [], "whether it was sent is the question"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(router.probe)
            nursery.start_soon(router.resolve)
            await until(lambda: bool(desk.events(EventKind.ORDER_DONE)))
            nursery.cancel_scope.cancel()
    assert [body["state"] for body in desk.events(EventKind.ORDER_DONE)] == ["NEVER_ARRIVED"]


async def test_recover_when_orders_of_a_lost_page_stand_then_stops_stay_and_entries_go(
    desk: Desk,
) -> None:
    async with desk.router() as router:
        stop = VenueOrder(
            router.orders.client_id(1), BTC, Side.SELL, 5, OrderKind.STOP_MARKET, stop_ticks=STOP,
            reduce_only=True,
        )  # fmt: skip
        entry = VenueOrder(router.orders.client_id(2), BTC, Side.BUY, 5, OrderKind.LIMIT, MARK - 9)
        first = VenueOrder(router.orders.client_id(3), BTC, Side.BUY, 5, OrderKind.MARKET)
    await desk.bench.control.send(first)
    await desk.bench.move_market()
    for order in (stop, entry):
        await desk.bench.control.send(order)
    async with desk.router() as router:
        assert int(desk.page.rows(PROTECTION)["stop_token"][0]) == 1
        assert [(kind, live.order.token) for kind, live, _ in router._jobs] == [("cancel", 2)]
        await carry_out(router)
        open_orders = (await desk.bench.control.account()).open_orders
        assert [status.order for status in open_orders] == [stop]


async def test_send_when_all_is_well_then_the_order_stands_and_fills(desk: Desk) -> None:
    async with desk.router() as router:
        order = desk.approved()
        router._put(("send", order, {}))
        await carry_out(router)
        await desk.bench.move_market()
        await desk.told(router)
        await desk.told(router)
    assert [body["token"] for body in desk.events(EventKind.FILL)] == [order.token]
    assert int(desk.page.rows(KEY)["stop_ticks"][0]) == STOP
    assert int(desk.page.rows(ROLE)["events_step"][desk.place.role]) == 1
    assert int(desk.page.rows(ROLE)["last_trade"][desk.place.role]) == 1


async def test_send_when_the_level_rose_meanwhile_then_it_never_leaves(desk: Desk) -> None:
    async with desk.router() as router:
        router._put(("send", desk.approved(), {}))
        set_level(desk.page, 0, LevelWriter.BREAKER, Level.MEDIUM)
        await carry_out(router)
        assert (await desk.bench.control.account()).open_orders == ()
    (done,) = desk.events(EventKind.ORDER_DONE)
    assert (done["state"], done["reason"], done["cumulative"]) == ("UNSENT", "level MEDIUM", 0)
    assert desk.events(EventKind.ORDER_SENT) == []


async def test_send_when_the_reaper_was_first_then_it_never_leaves_and_is_told(desk: Desk) -> None:
    async with desk.router() as router:
        order = desk.approved()
        router._put(("send", order, {}))
        keeper = Settlement(desk.page, desk.page.names.role("position_keeper"))
        assert keeper.reap(host_ns() + 10**12) == [order.token]
        await carry_out(router)
    assert [body["state"] for body in desk.events(EventKind.ORDER_DONE)] == ["EXPIRED"]


async def test_send_when_its_record_never_becomes_durable_then_it_never_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DURABLE_WAIT_NS", 10_000_000)
    async with desk.router() as router:
        router._put(("send", desk.approved(), {}))
        desk.page.rows(WATERMARK)["sequence"][desk.slot] = 0
        await carry_out(router)
    assert [body["state"] for body in desk.events(EventKind.ORDER_DONE)] == ["EXPIRED"]


async def test_send_when_the_venue_rejects_then_the_order_has_ended(desk: Desk) -> None:
    async with desk.router() as router:
        order = desk.approved()
        sent = router.orders.venue_order(order, {})
        live = router.orders.begin(order, sent)
        rejected = Rejected(sent.client_id, RejectClass.BAD_PRICE, "no", MARKET_MS)
        for _ in range(2):
            router._answered(live, rejected)
    assert [body["state"] for body in desk.events(EventKind.ORDER_DONE)] == ["REJECTED"]


async def test_send_when_the_answer_is_lost_but_it_arrived_then_it_is_found_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses(monkeypatch, arrives=True)
    async with desk.router() as router:
        order = desk.approved(price=MARK - 5_000)
        router._put(("send", order, {}))
        await carry_out(router)
        (live,) = router.orders.live.values()
        assert live.unknown
        router.probed_ns = host_ns()
        await router.fates.look()
        (found,) = router.orders.live.values()
        assert (found.unknown, found.approved) == (False, order)
        assert desk.events(EventKind.ORDER_ACKNOWLEDGED)[-1]["found"] is True
        await router.fates.look()
        assert list(router.orders.live.values()) == [found], "nothing more is asked about it"


@pytest.mark.parametrize("by_stream", [True, False])
async def test_send_when_a_stops_answer_is_lost_then_it_still_covers_its_position(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, by_stream: bool
) -> None:
    loses(monkeypatch, arrives=True)
    async with desk.router() as router:
        hold(desk.page, 0, 10, 10 * MARK)
        token = issue_stop(desk.page, desk.place.ring, 0, STOP, MARKET_MS)
        stop = read_entry(desk.page, stop_entry(desk.page.layout.capacities, 0), token)
        assert stop is not None
        desk.page.rows(KEY)["stop_ticks"][0] = STOP
        # A reduce-only stop needs a position at the venue, too.
        monkeypatch.undo()
        buy = VenueOrder(router.orders.client_id(9), BTC, Side.BUY, 10, OrderKind.MARKET)
        await desk.bench.control.send(buy)
        await desk.bench.move_market()
        loses(monkeypatch, arrives=True)
        await router._send(stop, {})
        (live,) = router.orders.live.values()
        assert live.unknown
        if by_stream:
            router.events.append(OrderAccepted(MARKET_MS, live.client_id, BTC))
            router.take_events()
        else:
            router.probed_ns = host_ns()
            await router.fates.look()
        assert int(desk.page.rows(PROTECTION)["stop_token"][0]) == token
        assert router.duties.stops() == ([], [])


async def test_renew_when_fates_pile_up_or_the_probe_is_old_then_the_lease_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines, now_ns = desk.page.rows(LEASE)["deadline_ns"], host_ns()
    # Approved first: the lease that is renewed below is short, and a busy host slower.
    order = desk.approved()
    async with desk.router() as router:
        router.renew(now_ns)
        assert int(deadlines[desk.place.role]) == 0, "never probed"
        router.probed_ns = now_ns
        router.renew(now_ns)
        assert int(deadlines[desk.place.role]) > now_ns
        loses(monkeypatch, arrives=False)
        await router._send(order, {})
        router.renew(now_ns)
        assert int(deadlines[desk.place.role]) > now_ns, "one of unknown fate is within bounds"
        router.renew(now_ns + module.PROBE_AGE_NS + 1)
        assert int(deadlines[desk.place.role]) == 0
        monkeypatch.setattr(module, "UNKNOWN_MAX", 0)
        router.renew(now_ns)
        assert int(deadlines[desk.place.role]) == 0


async def test_work_when_hard_then_the_account_is_read_until_flat(desk: Desk) -> None:
    role = desk.page.rows(ROLE)[desk.place.role]
    desk.page.header["step"] = 0
    desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = 0
    async with desk.router() as router:
        await desk.told(router)
        router.work(host_ns())
        await carry_out(router)
        assert (int(role["account_reads"]), int(role["account_flat"])) == (1, 1)
        router.work(host_ns())
        assert not router._jobs, "once a step, and at first"
        desk.approved()
        set_level(desk.page, 0, LevelWriter.BREAKER, Level.HARD)
        desk.page.header["step"] = 1
        desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = 1
        router.work(host_ns())
        await carry_out(router)
        assert (int(role["account_reads"]), int(role["account_flat"])) == (2, 0), "one is reserved"


async def test_work_when_the_page_calls_for_it_then_duties_are_queued_once(desk: Desk) -> None:
    desk.page.header["step"] = 0
    desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = 0
    async with desk.router() as router:
        router._put(("send", desk.approved(price=MARK - 5_000), {}))
        await carry_out(router)
        await desk.told(router)
        hold(desk.page, 0, 10, 10 * MARK)
        desk.page.rows(KEY)["stop_ticks"][0] = STOP
        wish_exit(desk.page, 0, int(Level.HARD), MARKET_MS)
        set_level(desk.page, 0, LevelWriter.OPERATOR, Level.HARD)
        desk.booked()
        desk.all_acted()
        router.work(host_ns())
        jobs = [(kind, subject) for kind, subject, _ in router._jobs]
        assert [kind for kind, _ in jobs] == ["cancel", "send", "send", "account"]
        assert [order.is_exit for kind, order in jobs if kind == "send"] == [True, False]
        router.work(host_ns())
        assert len(router._jobs) == 4, "what waits to be sent is not queued again"


async def test_work_when_a_flat_position_has_a_stop_then_it_is_cancelled(desk: Desk) -> None:
    desk.page.header["step"] = 0
    desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = 0
    async with desk.router() as router:
        stop = VenueOrder(
            router.orders.client_id(1), BTC, Side.SELL, 5, OrderKind.STOP_MARKET, stop_ticks=STOP,
            reduce_only=True,
        )  # fmt: skip
        await desk.told(router)
        told = OrderStatus(stop, OrderState.OPEN, 0, 5, MARKET_MS, MARKET_MS, None)
        live = router.orders.adopt(told, None)
        router.duties.adopt_stop(live, STOP)
        router.work(host_ns())
        assert ("cancel", live) in [(kind, subject) for kind, subject, _ in router._jobs]


async def test_work_when_a_step_is_finished_by_all_then_it_is_published(desk: Desk) -> None:
    steps, strategy = desk.page.rows(ROLE)["step"], desk.page.rows(SLOT)[desk.slot]
    desk.page.header["step"] = 0
    async with desk.router() as router:
        router.work(host_ns())
        assert not router._jobs, "before the breaker has judged the step there is nothing to do"
        steps[desk.page.names.role("breaker")] = 0
        await desk.told(router)
        router.work(host_ns())
        await carry_out(router)
        router.work(host_ns())
        assert int(steps[desk.place.role]) == -1, "the strategy has not finished it"
        strategy["participating"], strategy["step"] = 1, 0
        router.work(host_ns())
        assert int(steps[desk.place.role]) == 0


async def test_run_when_started_then_it_is_ready_and_its_lease_lives(desk: Desk) -> None:
    deadlines = desk.page.rows(LEASE)["deadline_ns"]
    deadlines[desk.place.role] = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, desk.place)
        await until(lambda: int(deadlines[desk.place.role]) > host_ns())
        with trio.fail_after(PATIENCE_S):
            await (await trio.open_unix_socket(desk.page.names.sockets["sim"])).aclose()
        nursery.cancel_scope.cancel()
