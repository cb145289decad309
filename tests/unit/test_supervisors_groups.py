"""A group as its decisions see it: starting, restarting and ending in order, escalating."""

from dataclasses import replace

import pytest

from supervisors.child_spec import ChildSpec, GroupRule, GroupSpec, RestartRule
from supervisors.group_types import (
    ChildState,
    CloseScope,
    Died,
    Effect,
    Group,
    GroupDown,
    GroupRestarted,
    Kill,
    LeftDown,
    Message,
    Ready,
    ScopeBusy,
    ScopeIdle,
    Start,
    StartAll,
    Stop,
    StopAll,
    Timer,
    TimerDue,
)
from supervisors.strategy import NEVER_ENDED, NEVER_READY, SLOW_RETRY_S, step
from tripgate.errors import InvariantBroken

ONE, REST, ALL = GroupRule.ONE_FOR_ONE, GroupRule.REST_FOR_ONE, GroupRule.ONE_FOR_ALL
A, B, C = (ChildSpec(name, name) for name in "abc")


class Tale:
    """A group to which messages are told one after the other."""

    def __init__(self, *specs: ChildSpec, rule: GroupRule = ONE, idle: bool = False) -> None:
        self.group = Group.of(GroupSpec("g", specs or (A, B, C), rule))
        self.now_s = 0.0
        if idle:
            self.tell(ScopeIdle())

    def tell(self, message: Message) -> list[Effect]:
        """Tell a message; return the effects but the timers."""
        self.group, effects = step(self.group, message, self.now_s)
        return [effect for effect in effects if not isinstance(effect, Timer)]

    def ready(self, *names: str) -> list[Effect]:
        effects: list[Effect] = []
        for name in names:
            effects += self.tell(Ready(name, self.number(name)))
        return effects

    def die(self, name: str, *, failed: bool = True) -> list[Effect]:
        return self.tell(Died(name, self.number(name), "signal SIGKILL", -9, failed, 0.0))

    def due(self, name: str) -> list[Effect]:
        return self.tell(TimerDue(name, self.group.children[self.group.place(name)].timer))

    def number(self, name: str) -> int:
        return self.group.children[self.group.place(name)].incarnation

    def states(self) -> dict[str, ChildState]:
        return {child.spec.name: child.state for child in self.group.children}


def running(*specs: ChildSpec, rule: GroupRule = ONE, idle: bool = False) -> Tale:
    tale = Tale(*specs, rule=rule, idle=idle)
    tale.tell(StartAll())
    for child in tale.group.children:
        tale.ready(child.spec.name)
    assert set(tale.states().values()) == {ChildState.READY}
    return tale


def test_group_when_started_then_all_start_at_once_unless_a_spec_waits() -> None:
    assert Tale().tell(StartAll()) == [Start("a", 1), Start("b", 1), Start("c", 1)]
    tale = Tale(A, B, replace(C, waits_for_earlier=True))
    assert tale.tell(StartAll()) == [Start("a", 1), Start("b", 1)]
    assert tale.ready("b") == []
    assert tale.ready("a") == [Start("c", 1)]


def test_group_when_rest_for_one_is_started_then_each_waits_for_the_one_before() -> None:
    tale = Tale(rule=REST)
    assert tale.tell(StartAll()) == [Start("a", 1)]
    assert tale.ready("a") == [Start("b", 1)]
    assert tale.ready("b") == [Start("c", 1)]


def test_group_when_an_earlier_run_used_numbers_then_they_only_rise() -> None:
    group = Group.of(GroupSpec("g", (A,)), {"a": 7})
    _, effects = step(group, StartAll(), 0.0)
    assert effects[0] == Start("a", 8)


def test_group_when_one_for_one_then_a_death_touches_nobody_else() -> None:
    tale = running()
    assert tale.die("b") == [Start("b", 2)]
    assert tale.states() == {
        "a": ChildState.READY, "b": ChildState.STARTING, "c": ChildState.READY,
    }  # fmt: skip


def test_group_when_rest_for_one_then_those_after_the_dead_end_in_reverse_and_start_in_order() -> (
    None
):
    tale = running(rule=REST)
    assert tale.die("a") == [GroupRestarted("a", ("b", "c")), Stop("c", 1)]
    assert tale.die("c") == [Stop("b", 1)]
    assert tale.die("b") == [Start("a", 2)]
    assert tale.ready("a") == [Start("b", 2)]
    assert tale.ready("b") == [Start("c", 2)]
    assert tale.ready("c") == []
    assert tale.die("c") == [Start("c", 3)]


def test_group_when_one_for_all_then_all_start_again_once_all_have_ended() -> None:
    tale = running(rule=ALL)
    assert tale.die("b") == [GroupRestarted("b", ("a", "c")), Stop("c", 1), Stop("a", 1)]
    assert tale.die("a") == []
    assert tale.die("c") == [Start("a", 2), Start("b", 2), Start("c", 2)]


def test_group_when_one_for_all_backs_off_then_the_others_wait_with_it() -> None:
    tale = running(A, B, rule=ALL)
    tale.die("a")
    tale.die("b")
    tale.ready("a", "b")
    assert tale.die("a") == [GroupRestarted("a", ("b",)), Stop("b", 2)]
    assert tale.die("b") == []
    assert tale.due("a") == [Start("a", 3), Start("b", 3)]


def test_group_when_a_temporary_member_is_stopped_with_its_group_then_it_stays_down() -> None:
    tale = running(A, replace(B, restart=RestartRule.TEMPORARY), rule=ALL)
    tale.die("a")
    left = [effect for effect in tale.die("b") if isinstance(effect, LeftDown)]
    assert [effect.child for effect in left] == ["b"]
    assert tale.states()["a"] is ChildState.STARTING


def test_group_when_a_transient_member_ends_well_then_it_is_left_down_alone() -> None:
    tale = running(A, replace(B, restart=RestartRule.TRANSIENT), rule=ALL)
    assert tale.die("b", failed=False) == [LeftDown("b", "signal SIGKILL", -9, gave_up=False)]
    assert tale.states()["a"] is ChildState.READY


def test_group_when_a_child_dies_too_often_then_its_scope_closes_and_it_is_tried_for_ever() -> None:
    tale = running(replace(A, intensity_max=1), B)
    tale.die("a")
    for _ in range(20):
        tale.ready("a")
        effects = tale.die("a")
        assert effects == [CloseScope("portfolio", "a dies too often")]
        child = tale.group.children[0]
        assert (child.state, bool(child.timer)) == (ChildState.WAITING, True)
        tale.now_s += SLOW_RETRY_S
        assert tale.due("a") == [Start("a", child.incarnation + 1)]
    assert tale.states()["b"] is ChildState.READY


def test_group_when_a_child_is_given_up_then_its_scope_closes_and_it_is_left_down() -> None:
    spec = replace(A, intensity_max=0, gives_up=True, scope="strategy:a")
    tale = running(spec)
    assert tale.die("a") == [
        CloseScope("strategy:a", "a dies too often"),
        LeftDown("a", "signal SIGKILL", -9, gave_up=True),
    ]


def test_group_when_a_child_does_not_become_ready_then_it_is_killed_and_started_again() -> None:
    tale = Tale(A)
    tale.tell(StartAll())
    assert tale.due("a") == [Kill("a", 1, NEVER_READY)]
    assert tale.die("a") == [Start("a", 2)]


def test_group_when_a_timer_of_before_runs_out_then_nothing_happens() -> None:
    tale = Tale(A)
    tale.tell(StartAll())
    stale = tale.group.children[0].timer
    tale.ready("a")
    assert tale.tell(TimerDue("a", stale)) == []
    tale.die("a")
    assert tale.tell(TimerDue("a", stale)) == []


def test_group_when_an_old_incarnation_speaks_then_nothing_happens() -> None:
    tale = running(A)
    tale.die("a")
    before = tale.group
    assert tale.tell(Ready("a", 1)) == []
    assert tale.tell(Died("a", 1, "", 0, True, 0.0)) == []
    assert tale.group == before


def test_group_when_stopped_then_it_ends_in_reverse_order_and_kills_who_will_not() -> None:
    tale = running(A, replace(B, ends_before_earlier=True), replace(C, waits_for_earlier=True))
    assert tale.tell(StopAll()) == [Stop("c", 1)]
    assert tale.due("c") == [Kill("c", 1, NEVER_ENDED)]
    assert tale.die("c") == [Stop("b", 1)]
    assert tale.die("b") == [Stop("a", 1)]
    assert tale.die("a") == [GroupDown()]


def test_group_when_no_order_is_asked_for_then_its_members_end_side_by_side() -> None:
    tale = running()
    assert tale.tell(StopAll()) == [Stop("c", 1), Stop("b", 1), Stop("a", 1)]


def test_group_when_stopped_before_it_started_or_while_it_starts_then_it_goes_down() -> None:
    assert Tale(A).tell(StopAll()) == [GroupDown()]
    tale = Tale(A, replace(B, waits_for_earlier=True))
    tale.tell(StartAll())
    assert tale.tell(StopAll()) == [Stop("a", 1)]
    assert tale.ready("a") == []
    assert tale.die("a") == [GroupDown()]


ROUTER = replace(A, exit_path=True)


def test_P4_group_when_something_is_open_then_the_exit_path_is_spared_until_nothing_is() -> None:
    tale = running(ROUTER, B, rule=ALL)
    assert tale.die("b") == [Start("b", 2)]
    tale.ready("b")
    assert tale.tell(ScopeBusy()) == []
    assert tale.tell(ScopeIdle()) == [
        GroupRestarted("owed since its group restarted", ("a",)), Stop("a", 1),
    ]  # fmt: skip
    assert tale.die("a") == [Start("a", 2)]
    assert tale.tell(ScopeIdle()) == []


def test_P4_group_when_something_opens_before_the_exit_path_is_asked_then_it_is_spared() -> None:
    tale = running(ROUTER, replace(B, ends_before_earlier=True), C, rule=ALL, idle=True)
    assert tale.die("c") == [GroupRestarted("c", ("a", "b")), Stop("b", 1)]
    assert tale.tell(ScopeBusy()) == []
    assert tale.die("b") == [Start("b", 2), Start("c", 2)]
    assert tale.states()["a"] is ChildState.READY


def test_P4_group_when_something_opens_then_the_exit_path_waits_for_nobody() -> None:
    tale = running(ROUTER, B, rule=ALL, idle=True)
    assert tale.die("a") == [GroupRestarted("a", ("b",)), Stop("b", 1)]
    assert tale.tell(ScopeBusy()) == [Start("a", 2)]
    assert tale.die("b") == [Start("b", 2)]


def test_P4_group_when_something_opens_while_the_exit_path_ends_then_it_comes_back_at_once() -> (
    None
):
    tale = running(ROUTER, B, C, rule=ALL, idle=True)
    assert tale.die("c") == [GroupRestarted("c", ("a", "b")), Stop("b", 1), Stop("a", 1)]
    assert tale.tell(ScopeBusy()) == []
    assert tale.die("a") == [Start("a", 2)]


def test_P4_group_when_the_exit_path_itself_dies_while_busy_then_it_starts_at_once() -> None:
    tale = running(ROUTER, B, rule=ALL)
    assert tale.die("a") == [GroupRestarted("a", ("b",)), Stop("b", 1), Start("a", 2)]


@pytest.mark.parametrize("message", [StartAll(), ScopeBusy(), ScopeIdle()])
def test_group_when_told_what_it_knows_then_nothing_changes(message: Message) -> None:
    tale = running()
    assert tale.tell(message) == []
    assert set(tale.states().values()) == {ChildState.READY}


def test_group_when_a_child_moves_along_no_way_of_the_table_then_it_is_a_bug() -> None:
    from supervisors.group_types import ChildEvent
    from supervisors.strategy import _Work

    with pytest.raises(InvariantBroken, match="READY is impossible while WAITING"):
        _Work(Tale(A).group, 0.0).move(0, ChildEvent.READY)
