"""docs/protocol.md says what the code does: operations, events and limits, none missing."""

import re
from pathlib import Path

import pytest

from actors import router_guests, router_peer, router_requests, router_server
from actors.router_guest_operations import ORDERS_TOLD_MAX, Operations
from tests.unit.guest_line import GuestDesk, open_guest_desk

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text()
LIMITS = {
    "connections": router_server.CONNECTIONS_MAX,
    "guests": router_guests.GUESTS_MAX,
    "time to hello": router_server.HELLO_WAIT_S,
    "bytes of a request": router_peer.REQUEST_BYTES_MAX,
    "time to finish a frame that was begun": router_peer.FRAME_WAIT_S,
    "requests": router_peer.REQUESTS_PER_SECOND_MAX,
    "events and replies that wait to be read": router_peer.OUTBOX_FRAMES_MAX,
    "time without reading anything, socket buffer full": router_peer.SEND_WAIT_S,
    "orders that wait to be sent": router_requests.JOBS_MAX,
}


def section(heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", LIMITS)
def test_limit_when_documented_then_it_is_the_one_in_force(name: str) -> None:
    row = re.search(rf"^\| {re.escape(name)} \| ([\d,]+)", PAGE, re.MULTILINE)
    assert row is not None
    assert int(row[1].replace(",", "")) == LIMITS[name]


async def test_operations_when_documented_then_each_is_there_and_no_other(
    isolated_folders: Path,
) -> None:
    listed = re.findall(r"^\| `(\w+)` \|", section("Requests"), re.MULTILINE)
    async with open_guest_desk(isolated_folders) as desk:
        operations = operations_of(desk)
        assert sorted(listed) == sorted(operations._by_name)
    assert f"at most {ORDERS_TOLD_MAX} of" in section("Requests")


async def test_answers_when_documented_then_they_name_each_field(isolated_folders: Path) -> None:
    async with open_guest_desk(isolated_folders) as desk, desk.line() as line:
        welcome = await line.ask("hello", protocol=1, strategy="trend")
        fields = {*welcome, *welcome["instruments"][0]} - {"ok"}
        assert missing(fields, section("Hello")) == set()
        answers = [
            await line.ask("board", instrument=0), await line.ask("level"),
            await line.ask("ping"), (await line.ask("positions"))["positions"][0],
            await line.ask("check", instrument=0, lots=1),
        ]  # fmt: skip
        told = {name for answer in answers for name in answer} - {"ok"}
        assert missing(told, section("Requests")) == set()


def missing(names: set[str], text: str) -> set[str]:
    """Return the names that a text does not hold as words."""
    return {name for name in names if not re.search(rf"\b{name}\b", text)}


def operations_of(desk: GuestDesk) -> Operations:
    """Return the operations of a desk's router."""
    return desk.router.guests._operations
