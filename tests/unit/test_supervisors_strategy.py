"""One child as a table: what is decided after a death; and the wishes a spec must not have."""

import pytest

from supervisors.child_spec import ChildSpec, GroupSpec, RestartRule
from supervisors.strategy import (
    JITTER,
    SLOW_RETRY_S,
    Decision,
    LeaveDown,
    Restart,
    decide,
)
from tripgate.errors import InvariantBroken

NOW_S = 1_000.0
PERMANENT = ChildSpec("breaker", "breaker")
LAST = 1.0 - 2**-32


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


@pytest.mark.parametrize("deaths", [2, 3, 5, 6])
def test_decide_when_chance_differs_then_the_wait_does_within_its_bound(deaths: int) -> None:
    waits = [
        decision.delay_s
        for random in (0.0, 0.5, LAST)
        if isinstance(
            decision := decide(PERMANENT, [NOW_S] * deaths, NOW_S, failed=True, random=random),
            Restart,
        )
    ]
    assert waits == sorted(set(waits), reverse=True)
    assert waits[-1] > waits[0] * (1.0 - JITTER) > 0.0


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


def test_decide_when_a_child_that_is_given_up_dies_too_often_then_it_is_left_down() -> None:
    spec = ChildSpec("trend", "strategy", restart=RestartRule.TRANSIENT, gives_up=True)
    assert decide(spec, [NOW_S] * 5, NOW_S, failed=True) == Restart(1.6)
    assert decide(spec, [NOW_S] * 6, NOW_S, failed=True) == LeaveDown(escalate=True)


@pytest.mark.parametrize(
    ("rule", "gives_up"),
    [(RestartRule.TRANSIENT, False), (RestartRule.TEMPORARY, False), (RestartRule.PERMANENT, True)],
)
def test_child_spec_when_the_exit_path_could_be_left_down_then_it_is_refused(
    rule: RestartRule, gives_up: bool
) -> None:
    with pytest.raises(InvariantBroken, match="exit path"):
        ChildSpec("router", "router", restart=rule, gives_up=gives_up, exit_path=True)


@pytest.mark.parametrize(
    ("spec", "scope"),
    [
        (ChildSpec("breaker", "breaker"), "portfolio"),
        (ChildSpec("router(sim)", "router", "sim"), "venue:sim"),
        (ChildSpec("trend", "strategy", scope="strategy:trend"), "strategy:trend"),
    ],
)
def test_child_spec_when_it_escalates_then_its_scope_is_closed(spec: ChildSpec, scope: str) -> None:
    assert spec.closes == scope


def test_group_spec_when_two_children_share_a_name_then_it_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="twice"):
        GroupSpec("core", (PERMANENT, PERMANENT))
