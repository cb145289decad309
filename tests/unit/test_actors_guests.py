"""Guests of the router: who is let in, what they are told, and what is left when they go."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors import router_guests as module
from tests.tree_fixtures import BTC, MARKET_MS, hold, mark, until
from tests.unit.guest_line import HELLO_FIELDS, GuestDesk, open_guest_desk
from tests.unit.router_desk import MARK, STOP
from tripgate.gate.settle import Settlement
from tripgate.gate.slots import claim_strategy_slot, release_slot
from tripgate.gate.steps import participants, strategies_done
from tripgate.messages import EventKind
from tripgate.page.layout import ENTRY, LIMIT, ROLE, ROLE_SLOTS, SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.reasons import Level


@pytest.fixture
async def desk(isolated_folders: Path) -> AsyncIterator[GuestDesk]:
    async with open_guest_desk(isolated_folders) as desk:
        yield desk


def publish(desk: GuestDesk, step: int) -> None:
    """Let the breaker have judged a step, and the router look at it."""
    desk.page.header["step"] = step
    desk.page.rows(ROLE)["step"][desk.page.names.role("breaker")] = step
    desk.router.guests.turn()


async def test_hello_when_said_then_the_guest_learns_all_it_needs_and_has_a_slot(
    desk: GuestDesk,
) -> None:
    async with desk.line() as line:
        welcome = await line.ask(**HELLO_FIELDS)
        names, row = desk.page.names, desk.page.rows(SLOT)[desk.slot]
        assert welcome["instance"] == names.instance
        assert (welcome["epoch"], welcome["replay"], welcome["level"]) == (1, True, 0)
        assert (welcome["currency"], welcome["money_per_unit"]) == ("USDT", 10_000)
        assert welcome["instruments"][0] == {
            "number": 0, "venue": "sim", "symbol": BTC, "asset": "BTC", "tick": "0.1",
            "lot": "0.001", "contract_size": "1", "quote": "USDT", "inverse": False,
            "side": 0, "shared": False,
        }  # fmt: skip
        assert len(welcome["instruments"]) == 2
        assert int(row["pid"]) == int(desk.page.rows(SLOT)["pid"][desk.desk.place.slot])
        assert (int(row["strategy"]), int(row["participating"])) == (0, 1)
        assert (await line.ask("hello"))["error"] == "hello was said already"
    (attached,) = desk.desk.events(EventKind.GUEST_ATTACHED)
    assert (attached["strategy"], attached["protocol"]) == ("trend", 1)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"protocol": 2}, "speaks protocol 1, asked was 2"),
        ({"protocol": True}, "speaks protocol 1"),
        ({"protocol": None}, "asked was None"),
        ({"strategy": "hold"}, "unknown strategy 'hold'; this instance has: trend"),
        ({"strategy": ["trend"]}, "unknown strategy a list"),
        ({"slot": "16"}, "a slot is 0 to 255"),
        ({"slot": 2**60}, "a slot is 0 to 255"),
        ({"slot": 0}, "slot 0 belongs to another process"),
    ],
)
async def test_hello_when_it_makes_no_sense_then_it_is_refused_and_may_be_corrected(
    desk: GuestDesk, fields: dict[str, Any], problem: str
) -> None:
    desk.page.rows(SLOT)["pid"][0] = 1
    async with desk.line() as line:
        assert problem in (await line.ask(**HELLO_FIELDS | fields))["error"]
        assert (await line.ask(**HELLO_FIELDS))["ok"]


async def test_hello_when_the_strategy_is_attached_then_it_is_refused_until_that_one_left(
    desk: GuestDesk,
) -> None:
    own = claim_strategy_slot(desk.page, 0)
    async with desk.line() as line:
        assert "attached already" in (await line.ask(**HELLO_FIELDS))["error"]
        assert release_slot(desk.page, own)
        assert (await line.ask(**HELLO_FIELDS))["ok"]
        async with desk.line() as second:
            assert "attached already" in (await second.ask(**HELLO_FIELDS))["error"]


async def test_hello_when_places_or_slots_are_taken_then_it_is_refused(
    desk: GuestDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GUESTS_MAX", 1)
    async with desk.guest() as line:
        await line.ask("order", instrument=0, lots=10, price=MARK - 5_000, stop=STOP)
        await desk.carry_out()
        left = desk.slot
    await until(lambda: not desk.router.guests.has(left))
    async with desk.line() as line:
        # The order of the one that left is not settled: its slot still counts.
        assert "all 1 places" in (await line.ask(**HELLO_FIELDS))["error"]
        monkeypatch.setattr(module, "GUESTS_MAX", 9)
        desk.page.rows(SLOT)["pid"][ROLE_SLOTS:] = 1
        desk.page.rows(ENTRY)["word"] |= 1
        assert "every slot" in (await line.ask(**HELLO_FIELDS))["error"]


async def test_leave_when_the_connection_ends_then_entries_are_cancelled_and_the_slot_is_free(
    desk: GuestDesk,
) -> None:
    async with desk.guest() as line:
        resting = await line.ask("order", instrument=0, lots=10, price=MARK - 5_000, stop=STOP)
        mark(desk.page, 1, 20_000, step=0, market_ms=MARKET_MS)
        unsent = await line.ask("check", instrument=1, lots=10, price=20_000, stop=19_500)
        assert resting["submitted"], resting
        assert unsent["approved"], unsent
        await desk.carry_out()
        assert (await line.ask("orders"))["orders"][0]["kind"] == "open"
        slot = desk.slot
        assert desk.router.duties.cancels(0) == [], "its owner lives"
    await until(lambda: not desk.router.guests.has(slot))
    assert int(desk.page.rows(SLOT)["participating"][slot]) == 0
    (orphan,) = desk.router.duties.cancels(0)
    assert orphan.order.token == resting["token"]
    Settlement(desk.page, desk.page.names.role("position_keeper")).reap(1 << 62)
    states = desk.page.rows(ENTRY)["word"][desk.page.slot_entries(slot) :][:64] & 0xFF
    assert sorted(set(states.tolist())) == [0, 3, 4], "one rests, the other's reservation expired"
    (ended,) = desk.desk.events(EventKind.GUEST_ENDED)
    assert (ended["strategy"], ended["slot"], ended["reason"]) == ("trend", slot, "it hung up")


async def test_step_when_it_is_the_guests_turn_then_it_is_told_once_and_waited_for(
    desk: GuestDesk,
) -> None:
    async with desk.guest() as line:
        publish(desk, 0)
        publish(desk, 0)
        told = await line.event("step")
        assert (told["step"], told["level"]) == (0, 0)
        assert told["quotes"][0] == {
            "instrument": 0, "mark": MARK, "last": MARK, "bid": MARK, "ask": MARK,
        }  # fmt: skip
        assert not strategies_done(desk.page, 0)
        assert participants(desk.page) == [desk.slot]
        for wrong in (1, -1):
            assert "told was 0" in (await line.ask("done", step=wrong))["error"]
        assert await line.ask("done", step=0) == {"ok": True}
        assert strategies_done(desk.page, 0)
        assert "told was 0" in (await line.ask("done", step=0))["error"]
        assert line.events == [], "it was told once"


async def test_step_when_the_feed_has_ended_then_the_guest_is_told_after_its_last_step(
    desk: GuestDesk,
) -> None:
    async with desk.guest() as line:
        desk.page.header["feed_finished"] = 1
        publish(desk, 3)
        assert (await line.event("step"))["step"] == 3
        desk.router.guests.turn()
        await line.ask("done", step=3)
        assert line.events == []
        for _ in range(2):
            desk.router.guests.turn()
        assert await line.event("ended") == {"event": "ended"}
        await line.ask("ping")
        assert line.events == []


async def test_level_when_it_moves_then_the_guest_is_told_of_its_own_scopes(
    desk: GuestDesk,
) -> None:
    node = desk.page.names.scope("asset:BTC")
    async with desk.guest() as line:
        assert (await line.ask("level"))["level"] == 0
        set_level(desk.page, node, LevelWriter.BREAKER, Level.MEDIUM)
        desk.router.guests.turn()
        told = {"event": "level", "scope": "asset:BTC", "level": 2}
        assert await line.event("level") == told
        answer = await line.ask("level")
        assert (answer["level"], answer["levels"]["asset:BTC"]) == (2, 2)
        assert answer["levels"]["portfolio"] == 0
        desk.page.rows(LIMIT)["level"][node] = 0
        desk.router.guests.turn()
        assert await line.event("level") == {**told, "level": 0}


async def test_fill_when_it_is_of_a_stop_then_the_guest_hears_of_it_too(desk: GuestDesk) -> None:
    async with desk.guest() as line:
        hold(desk.page, 0, 10)
        for slot, of in ((254, "stop"), (255, "exit")):
            desk.router.guests.tell(slot, {"event": "fill", "strategy": "trend", "lots": -10})
            told = await line.event("fill")
            assert (told["of"], told["lots"]) == (of, -10)
            desk.router.guests.tell(slot, {"event": "fill", "strategy": "pulse", "lots": -10})
        await line.ask("ping")
        assert line.events == []


async def test_stranger_when_one_was_refused_then_the_operational_log_says_so(
    desk: GuestDesk,
) -> None:
    desk.router.reception.refused(12_345)
    logs = Path(desk.page.names.state_folder) / "logs"
    line = json.loads((logs / "router-sim.jsonl").read_text())
    assert (line["event"], line["user"]) == ("refused a connection of another user", 12_345)
