"""Orders to change limits as the breaker carries them out, and what a restart keeps of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.breaker import Shell
from supervisors.kept_limits import keep_tighter_limits, operator_limits
from tests.tree_fixtures import INSTANCE, paper_page, records, service
from tripgate.audit.record import Row, pack_body
from tripgate.audit.store import LogWriter
from tripgate.clock import host_ns, utc_ns
from tripgate.gate.cause_rows import store_causes
from tripgate.gate.limit_orders import LOOSEN, TIGHTEN, Change, latches_near, records_of
from tripgate.instance import state_folder
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.messages import EventKind
from tripgate.operator_file import append_record, append_records, read_records
from tripgate.page.layout import ACCOUNT, LIMIT, ROLE
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.limits import read_limit, read_limits
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import PPM, money

BTC, GROSS, NET = "asset:BTC", "gross_reporting_max", "net_reporting_max"
FULL = money(200_000)


class Desk:
    """A breaker that has evaluated every cause, and an operator's file."""

    def __init__(self) -> None:
        self.page = paper_page()
        self.state = state_folder(INSTANCE)
        self.place = service(self.page, "breaker")
        accounts = self.page.rows(ACCOUNT)
        accounts["known"] = 1
        accounts["equity_mark"] = accounts["equity_last"] = accounts["starting"]
        self.shell = Shell(self.place)
        self.shell.apply(self.shell.readings(host_ns()))

    def order(self, direction: str, *changes: Change, epoch: int = 1) -> int:
        fields = {"reason": "r", "operator": "me", "os_user": "us", "epoch": epoch}
        number = append_records(self.state, records_of(changes, direction, fields))[-1]
        self.page.header["operator_sequence"] = number
        return number

    def turn(self) -> list[Any]:
        """Let the breaker read the file; return all that it told of limits so far."""
        self.shell.take_operator_records()
        told = records(self.page, self.place.slot)
        return [body for kind, body in told if kind is EventKind.LIMITS_CHANGED]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.place.close()


def net(new: int, old: int = FULL, scope: str = BTC) -> Change:
    return Change(scope, NET, old, new)


def test_breaker_when_a_loosening_is_ordered_then_it_is_done_counted_and_told(desk: Desk) -> None:
    number = desk.order(LOOSEN, net(FULL + 5))
    (told,) = desk.turn()
    row = desk.page.rows(LIMIT)[desk.page.names.scope(BTC)]
    assert int(row["net_configured"]) == int(row["net_max"]) == FULL + 5
    assert told == {
        "scope": BTC, "direction": "loosen", "changes": {NET: [FULL, FULL + 5]}, "reason": "r",
        "operator": "me", "os_user": "us", "config_sha256": None, "record": number, "refused": {},
        "version": 2,
    }  # fmt: skip
    assert int(desk.page.header["limits_version"]) == 2


def test_breaker_when_a_factor_holds_then_a_loosened_limit_is_still_multiplied(desk: Desk) -> None:
    node = desk.page.names.scope("strategy:trend")
    row = desk.page.rows(ACCOUNT)[node]
    row["drawdown_ppm"] = row["drawdown_last_ppm"] = 60_000
    desk.shell.apply(desk.shell.readings(host_ns()))
    assert int(desk.page.rows(LIMIT)["factor_ppm"][node]) == PPM // 2
    desk.order(LOOSEN, net(2 * FULL, scope="strategy:trend"))
    desk.turn()
    assert int(desk.page.rows(LIMIT)["net_max"][node]) == FULL


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (lambda desk: desk.order(LOOSEN, net(FULL + 5), epoch=9), "ordered in another run"),
        (lambda desk: desk.order(LOOSEN, net(FULL + 5, FULL - 1)), "no longer what the operator"),
    ],
)
def test_breaker_when_a_loosening_is_not_of_this_state_then_it_is_refused_on_record(
    desk: Desk, order: Any, says: str
) -> None:
    before = read_limits(desk.page)
    order(desk)
    (told,) = desk.turn()
    assert says in told["refused"][NET]
    assert read_limits(desk.page) == before
    assert int(desk.page.header["limits_version"]) == 1


def test_breaker_when_a_latch_came_after_the_order_then_it_is_refused(desk: Desk) -> None:
    desk.order(LOOSEN, net(FULL + 5))
    set_level(desk.page, 0, LevelWriter.OPERATOR, Level.HARD)
    (told,) = desk.turn()
    assert told["refused"] == {NET: "portfolio is held at HARD"}
    assert read_limit(desk.page, BTC, NET) == FULL


def test_breaker_when_a_command_died_after_its_record_then_the_tightening_is_done(
    desk: Desk,
) -> None:
    generation = int(desk.page.header["generation"][0])
    desk.order(TIGHTEN, net(7))
    (told,) = desk.turn()
    assert read_limit(desk.page, BTC, NET) == 7
    assert (told["direction"], told["version"]) == ("tighten", 2)
    assert int(desk.page.header["generation"][0]) == generation + 1


def test_breaker_when_it_reads_an_order_twice_then_it_is_done_once(desk: Desk) -> None:
    desk.order(LOOSEN, net(FULL + 5))
    desk.turn()
    desk.page.rows(ROLE)["operator_read"][desk.place.role] = 0
    assert [told["refused"] for told in desk.turn()] == [{}, {}]
    assert read_limit(desk.page, BTC, NET) == FULL + 5


def test_breaker_when_an_order_names_what_is_gone_then_it_is_passed_over(desk: Desk) -> None:
    append_record(desk.state, {
        "command": "limits", "scope": "asset:GONE", "direction": TIGHTEN, "changes": {NET: [1, 1]},
    })  # fmt: skip
    desk.order(TIGHTEN, Change(BTC, "collar_bps_max", 2, 1), net(9))
    (told,) = desk.turn()
    assert told["record"] == 2
    assert read_limit(desk.page, BTC, NET) == 9


def test_latches_near_when_a_cause_is_latched_below_hard_then_it_counts(desk: Desk) -> None:
    latched = CauseState(Level.MEDIUM, 1, latched=True, verdict=Verdict.FRESH)
    store_causes(desk.page, {CauseKey(Cause.RECOVERED, desk.page.names.scope(BTC)): latched})
    assert latches_near(desk.page, "venue:sim") == ("asset:BTC is held at NORMAL by recovered",)
    assert latches_near(desk.page, "asset:ETH") == ()


def log_loosening(state: Path, record: int, *, refused: dict[str, str] | None = None) -> None:
    """Write the breaker's word on a loosening as the audit_writer's log holds it."""
    body = {"direction": LOOSEN, "changes": {NET: [1, 2]}, "record": record,
            "refused": refused or {}}  # fmt: skip
    with LogWriter(state / "audit", state / "heads") as writer:
        kind = int(EventKind.LIMITS_CHANGED)
        writer.append([Row(1, 0, 1, utc_ns(), 1, 1, kind, None, pack_body(body))])


def restarted(desk: Desk) -> Page:
    """Return the page of the next run of the same configuration."""
    return paper_page(epoch=2)


def test_restart_when_an_operator_tightened_then_the_tighter_limit_stays_and_is_told(
    desk: Desk,
) -> None:
    number = desk.order(TIGHTEN, net(100), Change(BTC, GROSS, FULL, FULL))
    page = restarted(desk)
    (kept,) = keep_tighter_limits(page, desk.state)
    assert kept.to_body() == {
        "scope": BTC, "direction": "kept", "record": number, "changes": {NET: [FULL, 100]},
        "refused": {},
    }  # fmt: skip
    row = page.rows(LIMIT)[page.names.scope(BTC)]
    assert int(row["net_configured"]) == int(row["net_max"]) == 100


def test_restart_when_a_loosening_was_carried_out_then_it_is_what_stays(desk: Desk) -> None:
    desk.order(TIGHTEN, net(100))
    number = desk.order(LOOSEN, net(150, 100))
    assert operator_limits(desk.page, desk.state)[BTC, NET] == (100, 1), "not on record as done"
    log_loosening(desk.state, number)
    assert operator_limits(desk.page, desk.state)[BTC, NET] == (150, number)
    desk.order(TIGHTEN, net(120, 150))
    assert operator_limits(desk.page, desk.state)[BTC, NET][0] == 120


def test_restart_when_a_loosening_was_refused_then_the_tighter_limit_stays(desk: Desk) -> None:
    desk.order(TIGHTEN, net(100))
    number = desk.order(LOOSEN, net(150, 100))
    log_loosening(desk.state, number, refused={NET: "held"})
    assert operator_limits(desk.page, desk.state)[BTC, NET] == (100, 1)


def test_restart_when_an_operator_had_loosened_then_the_files_tighter_limit_stands(
    desk: Desk,
) -> None:
    number = desk.order(LOOSEN, net(FULL + 9))
    log_loosening(desk.state, number)
    page = restarted(desk)
    assert keep_tighter_limits(page, desk.state) == []
    assert read_limit(page, BTC, NET) == FULL


def test_append_records_when_several_are_written_then_their_ids_follow_each_other(
    tmp_path: Path,
) -> None:
    assert append_records(tmp_path, [{"a": 1}, {"a": 2}]) == [1, 2]
    assert append_record(tmp_path, {"a": 3}) == 3
    assert [record["a"] for record in read_records(tmp_path, 1)] == [2, 3]
