"""Orders of unknown fate against a real simulated venue: what settles them, and what does not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors import router_fates
from actors.router import Router
from actors.router_fates import read_missed_trades
from exchange_adapters.local_venue import LocalVenue
from exchange_adapters.venue_port import OrderKind, VenueOrder
from tests.contract.local_bench import BTC
from tests.tree_fixtures import set_send_window
from tests.unit.router_desk import MARK, Desk, carry_out, open_desk
from tripgate.clock import host_ns
from tripgate.errors import VenueUnknownError
from tripgate.gate.commit import commit, take_back
from tripgate.gate.settle import Settlement
from tripgate.machines import unknown
from tripgate.messages import EventKind
from tripgate.page.layout import CONTROL_HEADER, COUNTERS_HEADER, ROLE
from tripgate.reasons import Side

ENOUGH_LOOKS = 12


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    async with open_desk(isolated_folders) as desk:
        yield desk


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    set_send_window(monkeypatch, 0)
    for name in ("ANSWERS_APART_NS", "SKEW_NS"):
        monkeypatch.setattr(unknown, name, 0)


def loses_answers(monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> None:
    real = LocalVenue.send

    async def send(self: LocalVenue, order: VenueOrder) -> Any:
        if arrives:
            await real(self, order)
        raise VenueUnknownError("the answer was lost")

    monkeypatch.setattr(LocalVenue, "send", send)


def forgets_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    async def query(self: LocalVenue, client_id: str) -> None:
        return None

    monkeypatch.setattr(LocalVenue, "query", query)


async def send_unheard(desk: Desk, router: Router) -> int:
    """Send an order whose answer is lost; return its token."""
    order = desk.approved(price=MARK - 5_000)
    router._put(("send", order, {}))
    await carry_out(router)
    assert [live.order.token for live in router.fates.unknown()] == [order.token]
    return order.token


async def look(router: Router, times: int, *, well: bool = True) -> None:
    for _ in range(times):
        router.probed_ns = host_ns() if well else 0
        await router.fates.look()


def ends(desk: Desk) -> list[str]:
    return [body["state"] for body in desk.events(EventKind.ORDER_DONE)]


async def test_look_when_the_whole_proof_is_there_then_it_never_arrived(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses_answers(monkeypatch, arrives=False)
    async with desk.router() as router:
        await send_unheard(desk, router)
        await look(router, 3)
        assert ends(desk) == [], "the first look only begins the wait"
        await look(router, 1)
        assert ends(desk) == ["NEVER_ARRIVED"]
        assert router.fates.unknown() == []
        await look(router, 1)
        assert router.fates._fates == {}


async def test_look_when_the_order_stands_after_all_then_it_is_not_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses_answers(monkeypatch, arrives=True)
    async with desk.router() as router:
        await send_unheard(desk, router)
        forgets_orders(monkeypatch)
        await look(router, ENOUGH_LOOKS)
        assert (ends(desk), len(router.fates.unknown())) == ([], 1)


async def test_look_when_the_order_filled_unseen_then_its_trade_is_its_fate(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses_answers(monkeypatch, arrives=True)
    async with desk.router() as router:
        order = desk.approved()
        router._put(("send", order, {}))
        await carry_out(router)
        await desk.bench.move_market()
        forgets_orders(monkeypatch)
        await look(router, ENOUGH_LOOKS)
        assert [body["token"] for body in desk.events(EventKind.FILL)] == [order.token]
        assert ends(desk) == ["FILLED"]


async def test_look_when_account_and_history_end_apart_then_nothing_is_proved(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses_answers(monkeypatch, arrives=False)
    async with desk.router() as router:
        await send_unheard(desk, router)
        monkeypatch.setattr(router_fates, "HISTORY_PAGES_MAX", 0)
        await look(router, ENOUGH_LOOKS)
        assert ends(desk) == []
        assert not await read_missed_trades(router._venue, router.orders, router._take)
        monkeypatch.undo()
        # The account is a trade ahead of what the stream has told and the history shows.
        router.orders.last_trade = 99
        await look(router, ENOUGH_LOOKS)
        assert ends(desk) == []


@pytest.mark.parametrize("window_ms", [None, 0])
async def test_look_when_the_venue_enforces_no_window_or_is_faulted_then_nothing_ends(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, window_ms: int | None
) -> None:
    loses_answers(monkeypatch, arrives=False)
    set_send_window(monkeypatch, window_ms)
    async with desk.router() as router:
        await send_unheard(desk, router)
        await look(router, ENOUGH_LOOKS, well=window_ms is None)
        assert (ends(desk), len(router.fates.unknown())) == ([], 1)


async def test_look_when_an_operator_has_ended_it_then_it_is_asked_about_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses_answers(monkeypatch, arrives=False)
    told: list[dict[str, Any]] = []
    async with desk.router() as router:
        monkeypatch.setattr(router.orders, "_tell", lambda slot, event: told.append(event))
        token = await send_unheard(desk, router)
        await look(router, 1)
        assert Settlement(desk.page, desk.page.names.role("position_keeper")).release(token)
        await look(router, 1)
        assert (ends(desk), router.orders.live) == ([], {})
        assert told[-1]["event"] == "order_resolved"


async def test_account_when_an_order_is_of_unknown_fate_then_it_is_not_flat(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = desk.page.rows(ROLE)[desk.place.role]
    loses_answers(monkeypatch, arrives=False)
    async with desk.router() as router:
        await router._read_account()
        assert int(role["account_flat"]) == 1
        await send_unheard(desk, router)
        await router._read_account()
        assert int(role["account_flat"]) == 0
        await look(router, ENOUGH_LOOKS)
        await router._read_account()
        assert int(role["account_flat"]) == 1, "it has been proved that it never arrived"


async def test_recover_when_an_order_was_taken_back_then_it_ends_unsent(desk: Desk) -> None:
    order = desk.approved()
    assert commit(desk.page, order)
    take_back(desk.page, order)
    async with desk.router() as router:
        assert (ends(desk), router.orders.live) == (["UNSENT"], {})


async def test_recover_when_the_page_is_of_an_earlier_run_then_its_orders_are_asked_about(
    desk: Desk,
) -> None:
    order = desk.approved()
    assert commit(desk.page, order)
    for table in (CONTROL_HEADER, COUNTERS_HEADER):
        desk.page._view(table.file, 0, table, 1)["epoch"] = 2
    async with desk.router() as router:
        assert [live.order.token for live in router.fates.unknown()] == [order.token]


async def test_recover_when_a_stop_is_of_an_untraded_symbol_then_no_key_is_touched(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk.router() as router:
        buy = VenueOrder(router.orders.client_id(9), BTC, Side.BUY, 5, OrderKind.MARKET)
        stop = VenueOrder(
            router.orders.client_id(1), BTC, Side.SELL, 5, OrderKind.STOP_MARKET,
            stop_ticks=MARK - 9, reduce_only=True,
        )  # fmt: skip
        await desk.bench.control.send(buy)
        await desk.bench.move_market()
        await desk.bench.control.send(stop)
        adopted: list[int] = []
        monkeypatch.setattr(router.orders, "keys_of_symbol", lambda symbol: [])
        monkeypatch.setattr(router.duties, "adopt_stop", lambda *args: adopted.append(1))
        await router.recover()
        assert adopted == []
        assert list(router._jobs) == []
