"""The breaker's hands on a real page: readings, effects, operators' orders, claims, flat."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from actors.breaker import FLAT_READS_APART_MS, Shell, make_spec, run
from tests.tree_fixtures import (
    EQUITY,
    byte_of,
    hold,
    levels,
    paper_page,
    paper_text,
    records,
    service,
    until,
)
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.cause_rows import load_causes
from tripgate.instance import state_folder
from tripgate.machines.breaker_types import Cause, CauseKey, Evaluate, Reading, Verdict
from tripgate.messages import EventKind
from tripgate.operator_file import append_record
from tripgate.page.layout import ACCOUNT, KEY, LEASE, LIMIT, ROLE
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import PPM, money

DRAWDOWN, LOSS, LAPSED = (
    CauseKey(cause, 0) for cause in (Cause.DRAWDOWN, Cause.TOTAL_LOSS, Cause.LEASE_LAPSED)
)


class Desk:
    """A breaker on a page whose accounts are all known and calm."""

    def __init__(self, page: Page | None = None, **settings: Any) -> None:
        self.page = page or paper_page()
        self.place = service(self.page, "breaker", **settings)
        accounts = self.page.rows(ACCOUNT)
        accounts["known"] = 1
        accounts["equity_mark"] = accounts["equity_last"] = accounts["starting"]
        self.shell = Shell(self.place)

    def turn(self) -> None:
        self.shell.take_operator_records()
        self.shell.apply(self.shell.readings(host_ns()))
        self.shell.drive_exits()
        self.shell.observe_flat()

    def fall(self, ppm: int, last_ppm: int | None = None, scope: str = "portfolio") -> None:
        row = self.page.rows(ACCOUNT)[self.page.names.scope(scope)]
        row["drawdown_ppm"] = ppm
        row["drawdown_last_ppm"] = ppm if last_ppm is None else last_ppm

    def later(self, ms: int) -> None:
        self.page.header["market_ms"] += ms

    def order(self, command: str, **record: Any) -> int:
        number = append_record(state_folder(self.page.names.instance), {
            "command": command, "scope": "portfolio", "rebase": False, "operator": "me", **record,
        })  # fmt: skip
        self.page.header["operator_sequence"] = number
        return number

    def told(self, kind: EventKind) -> list[Any]:
        return [body for found, body in records(self.page, self.place.slot) if found is kind]

    def hard(self) -> None:
        """Fall far enough, confirmed by both prices."""
        self.turn()
        self.fall(160_000)
        self.turn()
        self.later(500)
        self.turn()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.place.close()


def test_make_spec_when_made_then_every_account_and_the_total_loss_is_watched(desk: Desk) -> None:
    spec = make_spec(desk.place)
    scopes = {
        desk.page.names.scopes[key.scope] for key in spec.causes if key.cause is Cause.DRAWDOWN
    }
    assert scopes == {"portfolio", "venue:sim", "strategy:trend"}
    assert {LOSS, LAPSED} <= set(spec.causes)
    assert spec.causes[LOSS].emergency == money(50_000)


def test_make_spec_when_no_total_loss_is_set_then_none_is_watched() -> None:
    text = paper_text().replace("\nloss_reporting_max = 50000", '\nloss_reporting_max = "none"')
    desk = Desk(config_text=text)
    assert LOSS not in make_spec(desk.place).causes
    desk.place.close()


def test_readings_when_accounts_are_known_then_each_cause_has_its_values(desk: Desk) -> None:
    row = desk.page.rows(ACCOUNT)[0]
    row["equity_mark"], row["equity_last"] = EQUITY - 7, EQUITY + 9
    desk.fall(11, 12)
    values = desk.shell.readings(host_ns()).values
    assert values[DRAWDOWN] == Reading(11, 12)
    assert values[LOSS] == Reading(7, 0), "a gain is no loss below zero"
    assert values[LAPSED] == Reading(0)


@pytest.mark.parametrize("field", ["known", "stale"])
def test_readings_when_an_account_is_not_to_be_trusted_then_it_is_stale(
    desk: Desk, field: str
) -> None:
    desk.page.rows(ACCOUNT)[field][0] = int(field == "stale")
    values = desk.shell.readings(host_ns()).values
    assert values[DRAWDOWN] is values[LOSS] is Verdict.STALE
    assert values[CauseKey(Cause.DRAWDOWN, 1)] == Reading(0, 0)
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.SOFT


def test_readings_when_a_critical_lease_is_lapsed_then_its_seconds_count(desk: Desk) -> None:
    now_ns, roles = host_ns(), desk.page.rows(ROLE)
    keeper, own = desk.page.names.role("position_keeper"), desk.place.role
    for role, seconds in ((keeper, 31), (own, 90)):
        roles["lapsed_since_ns"][role] = now_ns - seconds * NS_PER_S
        desk.page.rows(LEASE)["deadline_ns"][role] = 0
    assert desk.shell.readings(now_ns).values[LAPSED] == Reading(31)
    desk.page.rows(LEASE)["deadline_ns"][keeper] = now_ns + NS_PER_S
    assert desk.shell.readings(now_ns).values[LAPSED] == Reading(0), "it has been renewed since"


def test_readings_when_the_tree_is_still_starting_then_no_lapse_counts(desk: Desk) -> None:
    now_ns, keeper = host_ns(), desk.page.names.role("position_keeper")
    desk.page.rows(ROLE)["lapsed_since_ns"][keeper] = now_ns - 40 * NS_PER_S
    desk.page.rows(LEASE)["deadline_ns"][keeper] = 0
    desk.page.header["armed"] = 0
    assert desk.shell.readings(now_ns).values[LAPSED] == Reading(0)
    desk.page.header["armed"] = 1
    assert desk.shell.readings(now_ns).values[LAPSED] == Reading(40)


@pytest.mark.parametrize(
    ("ppm", "level"),
    [
        (49_999, Level.NORMAL),
        (50_000, Level.SOFT),
        (100_000, Level.MEDIUM),
        (199_999, Level.MEDIUM),
    ],
)
def test_apply_when_the_drawdown_passes_a_threshold_then_level_factor_and_record_follow(
    desk: Desk, ppm: int, level: Level
) -> None:
    desk.turn()
    generation = int(desk.page.header["generation"][0])
    desk.fall(ppm)
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == level
    limits = desk.page.rows(LIMIT)[0]
    factor = PPM // 2 if level else PPM
    assert int(limits["factor_ppm"]) == factor
    assert int(limits["gross_max"]) == int(limits["gross_configured"]) * factor // PPM
    changes = desk.told(EventKind.LEVEL_CHANGED)
    if level:
        assert changes == [
            {"scope": "portfolio", "level": level.name, "before": "NORMAL", "cause": "drawdown"}
        ]
        assert int(desk.page.header["generation"][0]) > generation
    else:
        assert changes == []
    assert load_causes(desk.page)[DRAWDOWN].level is level


def test_drive_exits_when_a_scope_is_hard_then_its_positions_are_claimed_once(desk: Desk) -> None:
    hold(desk.page, 0, 10)
    hold(desk.page, 1, -4)
    desk.hard()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.HARD
    assert list(desk.page.rows(KEY)["exit_claim"]) == [1, 1]
    desk.turn()
    assert desk.told(EventKind.EXIT_WISHED) == [
        {"strategy": "trend", "instrument": "instrument:sim/BTC/USDT:USDT", "lots": 10,
         "level": "HARD"},
        {"strategy": "trend", "instrument": "instrument:sim/ETH/USDT:USDT", "lots": -4,
         "level": "HARD"},
    ]  # fmt: skip


def test_drive_exits_when_a_strategy_is_closing_already_then_all_of_it_goes_at_the_level(
    desk: Desk,
) -> None:
    hold(desk.page, 0, 10)
    row = desk.page.rows(KEY)[0]
    row["exit_lots"], row["exit_claim"] = 4, 1
    desk.turn()
    assert (int(row["exit_lots"]), int(row["exit_cause"])) == (4, 0), "no level, no word of ours"
    desk.hard()
    assert (int(row["exit_lots"]), int(row["exit_cause"])) == (10, Level.HARD)
    row["exit_cause"] = 0
    row["exit_lots"] = 7
    desk.turn()
    assert (int(row["exit_lots"]), int(row["exit_cause"])) == (10, Level.HARD)
    wished = desk.told(EventKind.EXIT_WISHED)
    assert [(body["lots"], body["level"]) for body in wished] == [(10, "HARD")], "said once"
    hold(desk.page, 0, -10)
    row["exit_claim"] = row["exit_lots"] = row["exit_cause"] = 0
    desk.turn()
    hold(desk.page, 0, 5)
    desk.turn()
    assert [body["lots"] for body in desk.told(EventKind.EXIT_WISHED)] == [10, 5]


def test_drive_exits_when_one_asset_is_halted_then_only_its_position_is_claimed(desk: Desk) -> None:
    hold(desk.page, 0, 10)
    hold(desk.page, 1, 10)
    set_level(desk.page, desk.page.names.scope("asset:ETH"), LevelWriter.OPERATOR, Level.HARD)
    desk.turn()
    assert list(desk.page.rows(KEY)["exit_claim"]) == [0, 1]


def test_observe_flat_when_seen_twice_a_second_apart_then_it_is_recorded_once(desk: Desk) -> None:
    router = desk.page.rows(ROLE)[desk.page.names.role("router", "sim")]
    router["account_flat"] = 1
    set_level(desk.page, 0, LevelWriter.OPERATOR, Level.HARD)
    for read_ms in (5, 6, 5 + FLAT_READS_APART_MS - 1):
        router["account_ms"] = read_ms
        desk.turn()
    assert desk.told(EventKind.FLAT) == []
    for read_ms in (5 + FLAT_READS_APART_MS, 9 + FLAT_READS_APART_MS):
        router["account_ms"] = read_ms
        desk.turn()
    assert desk.told(EventKind.FLAT) == [{"scope": "portfolio"}]


def test_observe_flat_when_something_is_held_in_between_then_it_counts_anew(desk: Desk) -> None:
    router = desk.page.rows(ROLE)[desk.page.names.role("router", "sim")]
    router["account_flat"], router["account_ms"] = 1, 5
    set_level(desk.page, 0, LevelWriter.OPERATOR, Level.HARD)
    desk.turn()
    hold(desk.page, 0, 1)
    router["account_ms"] = 5 + FLAT_READS_APART_MS
    desk.turn()
    hold(desk.page, 0, -1)
    desk.turn()
    assert desk.told(EventKind.FLAT) == []
    router["account_flat"], router["account_ms"] = 0, 5 + 3 * FLAT_READS_APART_MS
    desk.turn()
    assert desk.told(EventKind.FLAT) == []


def test_operator_when_a_halt_is_recorded_then_the_breaker_holds_it_too(desk: Desk) -> None:
    desk.turn()
    number = desk.order("halt", level="MEDIUM", scope="asset:BTC")
    desk.turn()
    assert levels(desk.page) == {"asset:BTC": Level.MEDIUM}
    assert int(desk.page.rows(ROLE)["operator_read"][desk.place.role]) == number
    assert desk.told(EventKind.LEVEL_CHANGED)[-1]["cause"] == "operator"
    desk.order("resume", scope="asset:BTC")
    desk.turn()
    assert levels(desk.page) == {}
    (told,) = desk.told(EventKind.RESUMED)
    assert (told["scope"], told["cause"], told["after"]) == ("asset:BTC", "operator", "NORMAL")


def test_operator_when_nothing_was_evaluated_yet_then_records_wait(desk: Desk) -> None:
    desk.order("halt", level="HARD")
    desk.shell.take_operator_records()
    assert int(desk.page.rows(ROLE)["operator_read"][desk.place.role]) == 0
    desk.turn()
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.HARD


def test_operator_when_the_scope_is_gone_then_the_record_is_passed_over(desk: Desk) -> None:
    desk.turn()
    number = desk.order("halt", level="HARD", scope="asset:GONE")
    desk.turn()
    assert levels(desk.page) == {}
    assert int(desk.page.rows(ROLE)["operator_read"][desk.place.role]) == number


def test_operator_when_a_cause_is_still_beyond_then_its_release_is_refused_on_record(
    desk: Desk,
) -> None:
    desk.hard()
    desk.order("resume")
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.HARD
    (told,) = desk.told(EventKind.RESUMED)
    assert "still beyond" in told["refused"]


def test_operator_when_a_rebase_is_ordered_then_it_waits_for_the_keeper(desk: Desk) -> None:
    desk.hard()
    number = desk.order("resume", rebase=True)
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.HARD
    desk.fall(0)
    desk.page.rows(ACCOUNT)["rebase_sequence"][0] = number
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.NORMAL
    assert desk.told(EventKind.RESUMED)[-1]["cause"] == "drawdown"


def test_shell_when_the_breaker_is_restarted_then_its_latch_stays_without_a_new_record(
    desk: Desk,
) -> None:
    desk.hard()
    changes = desk.told(EventKind.LEVEL_CHANGED)
    desk.fall(0)
    again = Shell(desk.place)
    again.apply(again.readings(host_ns()))
    assert again.state.causes[DRAWDOWN].latched
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.HARD
    assert desk.told(EventKind.LEVEL_CHANGED) == changes


def test_shell_when_a_level_is_taken_over_then_only_a_resume_ends_it() -> None:
    desk = Desk(paper_page({"portfolio": Level.MEDIUM}))
    for _ in range(3):
        desk.later(3_600_000)
        desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.MEDIUM
    desk.order("resume")
    desk.turn()
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.NORMAL
    desk.place.close()


def test_apply_when_a_reading_is_missing_then_it_counts_as_stale(desk: Desk) -> None:
    desk.turn()
    desk.shell.apply(Evaluate({}))
    assert byte_of(desk.page, 0, LevelWriter.BREAKER) == Level.SOFT


async def test_run_when_the_keeper_has_marked_then_the_step_is_judged_and_the_lease_lives(
    desk: Desk,
) -> None:
    steps, deadlines = desk.page.rows(ROLE)["step"], desk.page.rows(LEASE)["deadline_ns"]
    deadlines[desk.place.role] = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, desk.place)
        for _ in range(5):
            await trio.sleep(0.01)
        assert int(deadlines[desk.place.role]) == 0, "without a mark there is nothing to vouch for"
        steps[desk.page.names.role("position_keeper")] = 3
        desk.place.ringer.ring_all()
        await until(lambda: int(steps[desk.place.role]) == 3)
        await until(lambda: int(deadlines[desk.place.role]) > host_ns())
        nursery.cancel_scope.cancel()
