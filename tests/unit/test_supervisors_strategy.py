"""one_for_one as a table: what is decided after a death."""

import pytest

from supervisors.child_spec import ChildSpec, RestartRule
from supervisors.strategy import SLOW_RETRY_S, Decision, LeaveDown, Restart, decide

NOW_S = 1_000.0
PERMANENT = ChildSpec("breaker", "breaker")


def child(rule: RestartRule) -> ChildSpec:
    return ChildSpec("child", "child", restart=rule)


@pytest.mark.parametrize(
    ("rule", "failed", "expected"),
    [
        (RestartRule.PERMANENT, True, Restart(0.0)),
        (RestartRule.PERMANENT, False, Restart(0.0)),
        (RestartRule.TRANSIENT, True, Restart(0.0)),
        (RestartRule.TRANSIENT, False, LeaveDown()),
        (RestartRule.TEMPORARY, True, LeaveDown()),
        (RestartRule.TEMPORARY, False, LeaveDown()),
    ],
)
def test_decide_when_a_child_dies_once_then_its_rule_says_whether_it_starts_again(
    rule: RestartRule, failed: bool, expected: Decision
) -> None:
    assert decide(child(rule), [NOW_S], NOW_S, failed) == expected


@pytest.mark.parametrize(
    ("deaths", "expected"),
    [
        (1, Restart(0.0)),
        (2, Restart(0.2)),
        (3, Restart(0.4)),
        (4, Restart(0.8)),
        (5, Restart(1.6)),
        (6, Restart(SLOW_RETRY_S, escalate=True)),
        (60, Restart(SLOW_RETRY_S, escalate=True)),
    ],
)
def test_decide_when_deaths_follow_each_other_then_it_waits_longer_and_then_escalates(
    deaths: int, expected: Decision
) -> None:
    assert decide(PERMANENT, [NOW_S] * deaths, NOW_S, failed=True) == expected


def test_decide_when_the_back_off_would_pass_its_maximum_then_it_stays_there() -> None:
    spec = ChildSpec("slow", "slow", intensity_max=50)
    decision = decide(spec, [NOW_S] * 50, NOW_S, failed=True)
    assert decision == Restart(spec.back_off_max_s)


@pytest.mark.parametrize(("age_s", "delay_s"), [(60.0, 0.2), (60.001, 0.0)])
def test_decide_when_a_death_is_older_than_the_period_then_it_no_longer_counts(
    age_s: float, delay_s: float
) -> None:
    assert decide(PERMANENT, [NOW_S - age_s, NOW_S], NOW_S, failed=True) == Restart(delay_s)


def test_decide_when_it_escalates_then_a_permanent_child_is_never_left_down() -> None:
    deaths = [NOW_S - n for n in range(40)]
    decisions = [decide(PERMANENT, deaths[: n + 1], NOW_S, failed=True) for n in range(40)]
    assert not any(isinstance(decision, LeaveDown) for decision in decisions)
