"""What strategies may ask of the router, and what it answers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors import router_requests as module
from tests.unit.router_desk import MARK, Desk, carry_out, open_desk
from tripgate.messages import EventKind
from tripgate.page.layout import STOP_SLOT

NESTED: list[Any] = []
for _ in range(1_000):
    NESTED = [NESTED]
"""So deep that Python refuses to put it into words; msgpack reads it all the same."""


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[Desk]:
    async with open_desk(isolated_folders) as desk:
        yield desk


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"op": "submit"}, "a request names a token"),
        ({"op": "submit", "token": "7"}, "a request names a token"),
        ({"op": "submit", "token": 7}, "token 7 is not a reservation of this process"),
        ({"op": "submit", "token": -1}, "is not a reservation"),
        ({"op": "submit", "token": 2**63 - 1}, "is not a reservation"),
        ({"op": "submit", "token": 2**64 - 1}, "a request names a token"),
        ({"op": "submit", "token": True}, "a request names a token"),
        ({"op": "submit", "token": 7.0}, "a request names a token"),
        ({"op": NESTED, "token": 7}, "unknown operation a list"),
        ({"op": "x" * 60_000, "token": 7}, "unknown operation 'xxx"),
        ({"op": "cancel", "token": 7}, "no live order has token 7"),
        ({"op": "cancel", "token": -(2**63) + 1}, "no live order has token"),
        ({"op": "leverage", "token": 7}, "unknown operation 'leverage'"),
    ],
)
async def test_request_when_it_makes_no_sense_then_it_is_refused_in_words(
    desk: Desk, request_: dict[str, Any], problem: str
) -> None:
    async with desk.router() as router:
        for slot in (desk.slot, -1, 255):
            assert problem in (router._request(slot, request_) or "")
        assert not router._jobs


@pytest.mark.parametrize(
    ("style", "problem"),
    [
        ({}, None),
        ({"type": "limit", "time_in_force": "IOC"}, None),
        ({"type": "market"}, "checked as a limit order"),
        ({"time_in_force": "FOK"}, "time in force is GTC or IOC, was 'FOK'"),
        ({"time_in_force": None}, "time in force is GTC or IOC, was None"),
        ({"type": 5}, "checked as a limit order"),
        ({"type": NESTED}, "checked as a limit order"),
        ({"time_in_force": NESTED}, "time in force is GTC or IOC, was a list"),
    ],
)
async def test_request_when_a_token_is_submitted_then_only_its_rest_may_be_chosen(
    desk: Desk, style: dict[str, Any], problem: str | None
) -> None:
    async with desk.router() as router:
        order = desk.approved()
        request = {"op": "submit", "token": order.token, **style}
        assert "not a reservation" in (router._request(desk.slot + 1, request) or "")
        answer = router._request(desk.slot, request)
        assert (answer is None) if problem is None else problem in (answer or "")
        assert len(router._jobs) == (problem is None)


async def test_request_when_an_order_is_cancelled_then_it_goes_and_is_asked_once(
    desk: Desk,
) -> None:
    async with desk.router() as router:
        order = desk.approved(price=MARK - 5_000)
        router._put(("send", order, {}))
        await carry_out(router)
        cancel = {"op": "cancel", "token": order.token}
        for stranger in (-1, desk.slot + 1, STOP_SLOT):
            assert "no live order" in (router._request(stranger, cancel) or "")
        assert router._request(desk.slot, cancel) is None
        assert router._request(desk.slot, cancel) is None
        await carry_out(router)
        await desk.bench.move_market()
        await desk.told(router)
        await desk.told(router)
        assert router.orders.live == {}
    assert [body["state"] for body in desk.events(EventKind.ORDER_DONE)] == ["CANCELLED"]


async def test_request_when_too_many_jobs_wait_then_it_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOBS_MAX", 0)
    async with desk.router() as router:
        request = {"op": "submit", "token": desk.approved().token}
        assert router._request(desk.slot, request) == "too many requests"
