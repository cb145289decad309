"""The object a run ends with, counted from a real page and a real log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.audit_writer import Drain
from supervisors.summary import summarise
from tests.tree_fixtures import EQUITY, MARKET_MS, approve, hold, mark, paper_page, service
from tripgate.audit.store import LogWriter
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot
from tripgate.messages import EventKind
from tripgate.page.layout import ACCOUNT, PROTECTION, ROLE
from tripgate.reasons import DenyReason, Level

PRICE, STOP = 500_000, 480_000


class Desk:
    """A run whose processes are this one: strategies ask, a router records, a writer stores."""

    def __init__(self) -> None:
        self.page = paper_page(strategies=("trend", "pulse"))
        self.router = service(self.page, "router", "sim")
        self.breaker = service(self.page, "breaker")
        self.writer = service(self.page, "audit_writer")
        state = Path(self.page.names.state_folder)
        self.log = LogWriter(state / "audit", state / "heads")
        self.slots = [claim_strategy_slot(self.page, number) for number in (0, 1)]
        for instrument in (0, 1):
            mark(self.page, instrument, PRICE, step=0, market_ms=MARKET_MS)

    def store(self) -> None:
        drain = Drain(self.writer, self.log)
        frames = drain.gather()
        drain.store(frames)
        drain.publish(frames)

    def fill(self, token: int) -> None:
        self.router.emit(EventKind.FILL, {"trade": 1, "token": token})

    def level(self, scope: str, level: Level) -> None:
        body = {"scope": scope, "level": level.name, "before": "NORMAL", "cause": "drawdown"}
        self.breaker.emit(EventKind.LEVEL_CHANGED, body)

    def close(self) -> None:
        self.log.close()
        for place in (self.router, self.breaker, self.writer):
            place.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_summarise_when_a_run_has_traded_then_everything_is_counted_from_page_and_log(
    desk: Desk,
) -> None:
    order = approve(desk.page, desk.slots[0], 0, 10, PRICE, STOP)
    assert InstrumentHandle(desk.page, desk.slots[1], 1).check_raw(10, PRICE, 0) == (
        -DenyReason.STOP_MISSING
    )
    desk.fill(order.token)
    desk.fill(0)
    desk.level("portfolio", Level.SOFT)
    desk.level("asset:BTC", Level.HARD)
    desk.level("asset:BTC", Level.NORMAL)
    hold(desk.page, 0, 10, 10 * PRICE)
    desk.store()
    account = desk.page.rows(ACCOUNT)[0]
    account["known"], account["equity_mark"], account["drawdown_max_ppm"] = 1, EQUITY, 125_000
    desk.page.rows(PROTECTION)["unprotected_ms_max"][1] = 1_500
    desk.page.rows(ROLE)["restarts"][:3] = (0, 2, 1)
    desk.page.header["step"] = 6
    told = summarise(desk.page, 3.5)
    assert told["armed_s"] == 3.5
    assert (told["steps"], told["ticks"]) == (7, 2)
    assert (told["decisions"]["approved"], told["decisions"]["denied"]) == (
        1, {DenyReason.STOP_MISSING.name: 1},
    )  # fmt: skip
    assert (told["fills"], told["liquidations"]) == (2, 1)
    assert (told["equity"], told["drawdown_max"]) == (100_000.0, 0.125)
    assert told["level_max"] == "HARD"
    assert told["levels"] == [
        [MARKET_MS, "portfolio", "SOFT", "drawdown"],
        [MARKET_MS, "asset:BTC", "HARD", "drawdown"],
        [MARKET_MS, "asset:BTC", "NORMAL", "drawdown"],
    ]
    assert not told["flat"]
    assert told["overshoot_at_grant_max"] < 0
    assert (told["seconds_unprotected_max"], told["restarts"]) == (1.5, 3)
    assert (told["audit"]["rows"], told["audit"]["verified"]) == (7, True)


def test_summarise_when_nothing_is_known_then_nothing_is_made_up(desk: Desk) -> None:
    told = summarise(desk.page, None)
    assert told["armed_s"] is told["equity"] is told["overshoot_at_grant_max"] is None
    assert (told["flat"], told["level_max"], told["levels"]) == (True, "NORMAL", [])


def digest_of(*, in_turn: bool) -> object:
    """Return the digest of two strategies' two decisions each, stored in turn or in two blocks."""
    desk = Desk()
    try:
        handles = [
            InstrumentHandle(desk.page, slot, key) for key, slot in enumerate(desk.slots)
        ]  # fmt: skip
        order = (0, 1, 0, 1) if in_turn else (0, 0, 1, 1)
        for which in order:
            handles[which].check_raw(0, 0, 0)
            if in_turn:
                desk.store()
        desk.store()
        return summarise(desk.page, None)["decisions"]["digest"]
    finally:
        desk.close()


def test_digest_when_only_the_interleaving_differs_then_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch, isolated_folders: Path
) -> None:
    found = []
    for name in ("one", "two"):
        for variable in ("TRIPGATE_STATE", "TRIPGATE_SHM"):
            folder = isolated_folders / name / variable[-3:]
            folder.mkdir(parents=True)
            monkeypatch.setenv(variable, str(folder))
        found.append(digest_of(in_turn=name == "one"))
    assert found[0] == found[1]


def test_digest_when_a_decision_differs_then_it_differs(desk: Desk) -> None:
    InstrumentHandle(desk.page, desk.slots[0], 0).check_raw(0, 0, 0)
    desk.store()
    before = summarise(desk.page, None)["decisions"]["digest"]
    InstrumentHandle(desk.page, desk.slots[0], 0).check_raw(1, 0, 0)
    desk.store()
    assert summarise(desk.page, None)["decisions"]["digest"] != before
