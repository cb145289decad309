"""What a guest can ask: the same answers and the same effects as the client package's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import router_requests
from tests.tree_fixtures import hold, mark
from tests.unit.guest_line import GuestDesk, open_guest_desk
from tests.unit.router_desk import MARK, STOP, Desk
from tests.unit.test_actors_peer import VALUES
from tests.unit.test_actors_requests import NESTED
from tripgate.gate.commit import find_reserved
from tripgate.messages import EventKind
from tripgate.page.layout import KEY
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import DenyReason, Level

OPERATIONS = (
    "hello", "check", "order", "submit", "cancel", "close", "move_stop", "board", "positions",
    "orders", "level", "done", "ping", "leverage",
)  # fmt: skip
FIELDS = (
    "instrument", "side", "lots", "price", "stop", "token", "step", "key", "type",
    "time_in_force", "slot",
)  # fmt: skip
LIKELY = st.sampled_from([0, 1, -1, 10, MARK, STOP, "GTC", "IOC", "limit", "market", NESTED])


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[GuestDesk]:
    async with open_guest_desk(isolated_folders) as desk:
        yield desk


async def test_P1_check_when_approved_then_only_its_token_can_be_submitted(desk: GuestDesk) -> None:
    async with desk.guest() as line:
        answer = await line.ask("check", instrument=0, lots=10, price=MARK + 50, stop=STOP)
        token = answer.pop("token")
        assert answer == {"ok": True, "approved": True}
        order = find_reserved(desk.page, token, desk.slot)
        assert order is not None
        assert (order.lots, order.price_ticks, order.stop_ticks) == (10, MARK + 50, STOP)
        assert "not a reservation" in (await line.ask("submit", token=token + 1))["error"]
        wrong = await line.ask("submit", token=token, type="market", lots=10_000)
        assert "checked as a limit order" in wrong["error"]
        assert await line.ask("submit", token=token, lots=10_000) == {"ok": True}
        await desk.trade()
        (position, _) = (await line.ask("positions"))["positions"]
        assert [b["lots"] for b in desk.desk.events(EventKind.ORDER_SENT)] == [10]
        assert position["instrument"] == 0
        kinds = [event["event"] for event in line.events]
        assert kinds == ["order_acknowledged", "fill", "order_done"]


async def test_check_when_denied_then_the_answer_holds_what_a_decision_holds(
    desk: GuestDesk,
) -> None:
    set_level(desk.page, desk.page.names.scope("asset:BTC"), LevelWriter.BREAKER, Level.MEDIUM)
    async with desk.guest() as line:
        for operation, more in (("check", {}), ("order", {"submitted": False})):
            answer = await line.ask(operation, instrument=0, lots=10, price=MARK, stop=STOP)
            assert answer == {
                "ok": True, "approved": False, "token": 0, "reason": 6, "name": "LEVEL",
                "text": "a breaker level at MEDIUM or above allows only exits",
                "scope": "asset:BTC", "limit": 2, "used": 2, "requested": 0,
                "would_deny": False, **more,
            }  # fmt: skip
    assert not desk.router._jobs


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lots": 0}, DenyReason.BAD_QUANTITY),
        ({"lots": 2**63 - 1}, DenyReason.BAD_QUANTITY),
        ({"price": -1}, DenyReason.BAD_PRICE),
        ({"stop": 2**63 - 1}, DenyReason.BAD_PRICE),
        ({"stop": 0}, DenyReason.STOP_MISSING),
        ({"price": 0, "stop": MARK + 50}, DenyReason.STOP_WRONG_SIDE),
    ],
)
async def test_check_when_a_number_is_out_of_range_then_the_gate_denies_it(
    desk: GuestDesk, fields: dict[str, int], reason: DenyReason
) -> None:
    async with desk.guest() as line:
        order = {"instrument": 0, "lots": 10, "price": MARK, "stop": STOP}
        assert (await line.ask("check", **order | fields))["name"] == reason.name


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"operation": "check", "instrument": 0}, "lots is a whole number of 64 bits, was None"),
        ({"operation": "check", "lots": 1}, "instrument is a whole number"),
        (
            {"operation": "check", "instrument": 9, "lots": 1},
            "not trade instrument 9 on side 0",
        ),
        ({"operation": "check", "instrument": 0, "side": 1, "lots": 1}, "instrument 0 on side 1"),
        ({"operation": "check", "instrument": 0, "lots": 2**63}, "lots is a whole number"),
        ({"operation": "check", "instrument": 0, "lots": 1.0}, "lots is a whole number"),
        ({"operation": "check", "instrument": 0, "lots": 1, "stop": "5"}, "stop is a whole number"),
        (
            {"operation": "order", "instrument": 0, "lots": 1, "price": True},
            "price is a whole number",
        ),
        ({"operation": "order", "instrument": 0, "lots": 1, "type": "limit"}, "as a market order"),
        ({"operation": "order", "instrument": 0, "lots": 1, "time_in_force": "FOK"}, "was 'FOK'"),
        ({"operation": "close", "instrument": 0}, "there is no position to close"),
        ({"operation": "move_stop", "instrument": 0, "stop": 5}, "there is no position"),
        ({"operation": "cancel", "token": 7}, "no live order has token 7"),
        ({"operation": "board", "instrument": 7}, "does not trade instrument 7"),
        ({"operation": "done", "step": 7}, "step 7 is not to be finished"),
        ({"operation": "leverage"}, "unknown operation 'leverage'"),
        ({}, "unknown operation None"),
        ({"operation": ["check"]}, "unknown operation a list"),
    ],
)
async def test_request_when_it_makes_no_sense_then_it_is_refused_in_words_and_nothing_changes(
    desk: GuestDesk, request_: dict[str, Any], problem: str
) -> None:
    async with desk.guest() as line:
        answer = await line.ask(**{"operation": None} | request_)
        assert problem in answer["error"]
        assert not desk.router._jobs


async def test_order_when_the_queue_is_full_then_nothing_is_reserved(
    desk: GuestDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_requests, "JOBS_MAX", 0)
    async with desk.guest() as line:
        answer = await line.ask("order", instrument=0, lots=10, price=MARK, stop=STOP)
        assert answer == {"error": "too many requests"}
        assert desk.desk.events(EventKind.ORDER_SENT) == []


async def test_close_when_a_position_is_held_then_all_or_part_of_it_is_closed(
    desk: GuestDesk,
) -> None:
    async with desk.guest() as line:
        bought = await line.ask("order", instrument=0, lots=10, stop=STOP)
        assert bought["submitted"], bought
        await desk.trade()
        book(desk.desk)
        mark(desk.page, 0, MARK, step=0, market_ms=int(desk.page.header["market_ms"]))
        for lots in (11, 0, -1):
            refused = await line.ask("close", instrument=0, lots=lots)
            assert refused["error"] == f"lots to close are 1 to 10, was {lots}"
        part = await line.ask("close", instrument=0, lots=4, price=MARK + 40)
        assert part["submitted"], part
        rest = await line.ask("close", instrument=0)
        assert (rest["approved"], rest["name"]) == (False, "EXIT_IN_PROGRESS"), rest
        assert int(desk.page.rows(KEY)["exit_lots"][0]) == 10, "the merged exit takes it all"


async def test_board_when_asked_then_prices_come_with_their_age(desk: GuestDesk) -> None:
    async with desk.guest() as line:
        fresh = await line.ask("board", instrument=0)
        assert (fresh["mark"], fresh["age_ms"], fresh["is_stale"]) == (MARK, 0, False)
        assert fresh["host_age_ms"] >= 0
        desk.page.header["market_ms"] += int(desk.page.header["age_floor_ms"]) + 1
        assert (await line.ask("board", instrument=0))["is_stale"]
        assert await line.ask("board", instrument=1) == {
            "ok": True, "instrument": 1, "is_stale": True,
        }  # fmt: skip


async def test_cancel_when_an_order_rests_then_it_goes_and_its_end_is_told(desk: GuestDesk) -> None:
    async with desk.guest() as line:
        resting = await line.ask("order", instrument=0, lots=10, price=MARK - 5_000, stop=STOP)
        await desk.trade()
        assert (await line.ask("cancel", token=resting["token"])) == {"ok": True}
        await desk.trade()
        told = await line.event("order_done")
        assert (told["token"], told["state"]) == (resting["token"], "CANCELLED")


async def test_request_when_it_holds_anything_at_all_then_it_is_answered(desk: GuestDesk) -> None:
    async with desk.guest():
        slot, reception = desk.slot, desk.router.reception

        @settings(max_examples=150, suppress_health_check=list(HealthCheck))
        @given(
            st.sampled_from(OPERATIONS) | VALUES,
            st.dictionaries(st.sampled_from(FIELDS), LIKELY | VALUES, max_size=6),
        )
        def attack(operation: object, fields: dict[str, object]) -> None:
            request = {"id": 1, "op": operation, **fields}
            for who in (slot, slot + 1):
                answer = reception.handle(who, request)
                assert (answer.get("ok") is True) != isinstance(answer.get("error"), str)
                assert len(answer.get("error", "")) < 200
            seat, answer = reception.hello(1, request | {"protocol": 1})
            assert (seat, "error" in answer) == (-1, True)

        attack()


def book(desk: Desk) -> None:
    """Book what filled as the keeper does: from the router's records."""
    for body in desk.events(EventKind.FILL):
        hold(desk.page, 0, int(body["lots"]))
