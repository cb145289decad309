"""The breaker's step: ladders, confirmation, latches, clearing, restarts."""

from dataclasses import replace

import pytest

from tripgate.errors import InvariantBroken
from tripgate.machines import breaker
from tripgate.machines.breaker import (
    DRAWDOWN_THRESHOLDS,
    LEASE_LAPSED_THRESHOLDS,
    Breaker,
    BreakerSpec,
    CancelEntries,
    Cause,
    CauseKey,
    CauseState,
    Evaluate,
    Flatten,
    Halt,
    Message,
    Reading,
    Rebase,
    Restore,
    Resume,
    Resumed,
    ResumeRefused,
    SetFactor,
    SetLevel,
    Stop,
    Thresholds,
    Verdict,
    total_loss_thresholds,
)
from tripgate.reasons import Level

DRAWDOWN = CauseKey(Cause.DRAWDOWN, 0)
LOSS = CauseKey(Cause.TOTAL_LOSS, 0)
LEASE = CauseKey(Cause.LEASE_LAPSED, 0)
OPERATOR = CauseKey(Cause.OPERATOR, 0)
RECOVERED = CauseKey(Cause.RECOVERED, 0)
MINUTE_MS = 60_000
COOL_MS = 15 * MINUTE_MS
FACTOR_PPM = 500_000
N, SOFT, MEDIUM, HARD, EMERGENCY = Level


def new(**more: int) -> Breaker:
    spec = BreakerSpec(
        {
            DRAWDOWN: DRAWDOWN_THRESHOLDS,
            LOSS: total_loss_thresholds(1_000),
            LEASE: LEASE_LAPSED_THRESHOLDS,
        },
        soft_factor_ppm=FACTOR_PPM,
        **more,
    )
    return breaker.new_breaker(spec)


def reading(
    drawdown: int | None, second: int | None = -1, loss: int = 0, lease_s: int = 0
) -> Evaluate:
    """Return readings; ``second`` -1 means that the last price agrees with the mark."""
    if drawdown is None:
        return Evaluate({LOSS: Reading(loss, loss), LEASE: Reading(lease_s)})
    agreed = drawdown if second == -1 else second
    return Evaluate(
        {DRAWDOWN: Reading(drawdown, agreed), LOSS: Reading(loss, loss), LEASE: Reading(lease_s)}
    )


def run(state: Breaker, *timed: tuple[int, Message]) -> tuple[Breaker, list[breaker.Effect]]:
    effects: list[breaker.Effect] = []
    for now, message in timed:
        state, more = breaker.step(state, message, now)
        effects.extend(more)
    return state, effects


def hard() -> Breaker:
    return run(new(), (0, reading(0)), (1_000, reading(160_000)), (2_000, reading(160_000)))[0]


@pytest.mark.parametrize(
    ("ppm", "level"), [(49_999, N), (50_000, SOFT), (99_999, SOFT), (100_000, MEDIUM)]
)
def test_breaker_when_drawdown_reaches_a_threshold_then_the_level_follows_at_once(
    ppm: int, level: Level
) -> None:
    state, effects = run(new(), (0, reading(0)), (1_000, reading(ppm, second=0)))
    assert breaker.level_of(state, 0) is level
    levels = [effect for effect in effects if isinstance(effect, SetLevel)]
    assert levels == ([SetLevel(0, level, Cause.DRAWDOWN)] if level else [])
    assert breaker.factor_ppm(state, 0) == (FACTOR_PPM if level else 1_000_000)


def test_breaker_when_hard_is_confirmed_then_actions_follow_their_level() -> None:
    state, effects = run(new(), (0, reading(0)), (1_000, reading(150_000)))
    assert effects == [
        SetLevel(0, MEDIUM, Cause.DRAWDOWN),
        SetFactor(0, FACTOR_PPM),
        CancelEntries(0),
    ]
    state, effects = run(state, (1_499, reading(150_000)))
    assert effects == []
    state, effects = run(state, (1_500, reading(150_000)))
    assert effects == [SetLevel(0, HARD, Cause.DRAWDOWN), Flatten(0)]
    assert state.causes[DRAWDOWN].latched


@pytest.mark.parametrize("second", [149_999, 0, None])
def test_breaker_when_the_second_price_disagrees_then_it_stays_at_medium(
    second: int | None,
) -> None:
    state, _ = run(new(), *((time, reading(199_000, second)) for time in range(0, 9_000, 100)))
    assert breaker.level_of(state, 0) is MEDIUM
    assert not state.causes[DRAWDOWN].latched


def test_breaker_when_agreement_breaks_off_then_confirmation_starts_anew() -> None:
    state, _ = run(
        new(),
        (0, reading(160_000)),
        (400, reading(160_000, 100_000)),
        (600, reading(160_000)),
        (1_099, reading(160_000)),
    )
    assert breaker.level_of(state, 0) is MEDIUM
    assert breaker.level_of(run(state, (1_100, reading(160_000)))[0], 0) is HARD


def test_breaker_when_a_reading_is_beyond_emergency_then_it_is_confirmed_by_its_own_timer() -> None:
    state, _ = run(new(), (0, reading(250_000)))
    assert breaker.level_of(state, 0) is MEDIUM
    state, effects = run(state, (500, reading(250_000)))
    assert breaker.level_of(state, 0) is EMERGENCY
    assert effects == [SetLevel(0, EMERGENCY, Cause.DRAWDOWN), Flatten(0), Stop(0)]
    late, _ = run(hard(), (3_000, reading(250_000)))
    assert breaker.level_of(late, 0) is HARD
    late, effects = run(late, (3_500, reading(250_000)))
    assert effects == [SetLevel(0, EMERGENCY, Cause.DRAWDOWN), Stop(0)]


def test_breaker_when_the_loss_floor_is_reached_then_emergency_after_confirmation() -> None:
    state, _ = run(new(), (0, reading(0, loss=1_000)))
    assert breaker.level_of(state, 0) is MEDIUM
    state, effects = run(state, (500, reading(0, loss=1_000)))
    assert effects[0] == SetLevel(0, EMERGENCY, Cause.TOTAL_LOSS)
    assert effects[-1] == Stop(0)


def test_breaker_when_a_lease_has_been_lapsed_for_30_s_then_medium_without_second_price() -> None:
    state, _ = run(new(), (0, reading(0, lease_s=29)))
    assert breaker.level_of(state, 0) is N
    state, effects = run(state, (1_000, reading(0, lease_s=30)))
    assert effects[0] == SetLevel(0, MEDIUM, Cause.LEASE_LAPSED)


def test_breaker_when_below_80_percent_for_the_cool_down_then_it_steps_down_on_record() -> None:
    state, _ = run(new(), (0, reading(0)), (1_000, reading(120_000)), (2_000, reading(80_000)))
    # Exactly 80 % is not below 80 %.
    state, effects = run(state, (2_000 + COOL_MS, reading(80_000)))
    assert (breaker.level_of(state, 0), effects) == (MEDIUM, [])
    begin = 3_000 + COOL_MS
    state, _ = run(state, (begin, reading(79_999)), (begin + COOL_MS - 1, reading(79_999)))
    assert breaker.level_of(state, 0) is MEDIUM
    state, effects = run(state, (begin + COOL_MS, reading(79_999)))
    assert effects == [SetLevel(0, SOFT, Cause.DRAWDOWN)]
    begin += 2 * COOL_MS
    state, effects = run(state, (begin, reading(0)), (begin + COOL_MS, reading(0)))
    assert effects == [SetLevel(0, N, Cause.DRAWDOWN), SetFactor(0, 1_000_000)]


def test_breaker_when_the_hold_is_interrupted_then_it_starts_anew() -> None:
    start, _ = run(new(), (0, reading(60_000)), (1_000, reading(0)))
    half = 1_000 + COOL_MS // 2
    for interruption in (reading(40_000), reading(None)):
        state, _ = run(start, (half, interruption), (half + 1_000, reading(0)))
        state, _ = run(state, (half + COOL_MS, reading(0)))
        assert breaker.level_of(state, 0) is SOFT
        state, _ = run(state, (half + 1_000 + COOL_MS, reading(0)))
        assert breaker.level_of(state, 0) is N


def test_breaker_when_a_value_is_stale_then_its_scope_is_soft_until_fresh_for_the_hold() -> None:
    state, effects = run(new(blind_hold_ms=5_000), (0, reading(0)), (1_000, reading(None)))
    assert effects == [SetLevel(0, SOFT, Cause.DRAWDOWN), SetFactor(0, FACTOR_PPM)]
    assert state.causes[DRAWDOWN].verdict is Verdict.STALE
    state, effects = run(state, (2_000, reading(0)), (6_999, reading(0)))
    assert effects == []
    state, effects = run(state, (7_000, reading(0)))
    assert effects == [SetLevel(0, N, Cause.DRAWDOWN), SetFactor(0, 1_000_000)]


def test_breaker_when_a_latched_cause_is_stale_then_it_keeps_its_level() -> None:
    state, effects = run(hard(), *((time, reading(None)) for time in range(3_000, 10_000, 1_000)))
    assert (breaker.level_of(state, 0), effects) == (HARD, [])


def test_breaker_when_resumed_beyond_the_latching_threshold_then_it_is_refused() -> None:
    state, effects = run(hard(), (9_000, Resume(0, False, "ann", 5)))
    assert state == replace(hard(), causes=state.causes)
    assert breaker.level_of(state, 0) is HARD
    [refused] = effects
    assert isinstance(refused, ResumeRefused)
    assert "beyond" in refused.reason


def test_breaker_when_resumed_while_stale_then_it_is_refused() -> None:
    stale, _ = run(hard(), (3_000, reading(None)))
    for rebase in (False, True):
        state, effects = run(stale, (9_000, Resume(0, rebase, "ann", 5)))
        assert breaker.level_of(state, 0) is HARD
        assert [type(effect) for effect in effects] == [ResumeRefused]


def test_breaker_when_resumed_below_the_threshold_then_only_the_latch_goes() -> None:
    state, _ = run(hard(), (3_000, reading(140_000)))
    state, effects = run(state, (9_000, Resume(0, False, "ann", 5)))
    assert effects == [
        Resumed(DRAWDOWN, HARD, MEDIUM, "ann", 5),
        SetLevel(0, MEDIUM, Cause.DRAWDOWN),
    ]
    again, _ = run(state, (9_500, reading(151_000)), (10_000, reading(151_000)))
    assert breaker.level_of(again, 0) is HARD
    calm, _ = run(hard(), (3_000, reading(0)), (3_000 + COOL_MS, reading(0)))
    assert breaker.level_of(calm, 0) is HARD
    calm, _ = run(calm, (3_001 + COOL_MS, Resume(0, False, "ann", 5)))
    assert breaker.level_of(calm, 0) is N


@pytest.mark.parametrize("ppm", [60_000, 120_000])
def test_breaker_when_resumed_with_rebase_then_soft_and_medium_go_as_well(ppm: int) -> None:
    state, _ = run(new(), (0, reading(0)), (1_000, reading(ppm)))
    kept, effects = run(state, (2_000, Resume(0, False, "ann", 5)))
    assert (kept.causes, effects) == (state.causes, [])
    state, effects = run(state, (2_000, Resume(0, True, "ann", 5)))
    assert breaker.level_of(state, 0) is N
    assert Rebase(0, "ann", 5) in effects
    assert effects[-1] == SetFactor(0, 1_000_000)


def test_breaker_when_resumed_with_rebase_then_the_loss_floor_stays() -> None:
    state, _ = run(new(), (0, reading(0, loss=2_000)), (1_000, reading(0, loss=2_000)))
    state, effects = run(state, (2_000, Resume(0, True, "ann", 5)))
    assert breaker.level_of(state, 0) is EMERGENCY
    assert [type(effect) for effect in effects] == [ResumeRefused]


def test_breaker_when_another_scope_is_resumed_then_nothing_happens() -> None:
    state, effects = run(hard(), (9_000, Resume(1, True, "ann", 5)))
    assert (state, effects) == (hard(), [])


def test_breaker_when_the_operator_halts_then_only_the_operator_ends_it() -> None:
    state, effects = run(new(), (0, reading(0)), (1_000, Halt(0, HARD, 5)))
    assert effects[0] == SetLevel(0, HARD, Cause.OPERATOR)
    assert Flatten(0) in effects
    state, effects = run(state, (2_000, Halt(0, SOFT, 6)), (9 * COOL_MS, reading(0)))
    assert (breaker.level_of(state, 0), effects) == (HARD, [])
    state, effects = run(state, (9 * COOL_MS, Resume(0, False, "ann", 7)))
    assert Resumed(OPERATOR, HARD, N, "ann", 7) in effects
    assert breaker.level_of(state, 0) is N


def test_breaker_when_restored_then_every_level_and_action_is_said_again() -> None:
    state, effects = run(new(), (3_000, Restore(hard().causes, {0: HARD})))
    assert effects == [
        SetLevel(0, HARD, Cause.DRAWDOWN),
        SetFactor(0, FACTOR_PPM),
        CancelEntries(0),
        Flatten(0),
    ]
    assert state.causes[DRAWDOWN].verdict is Verdict.NEVER
    assert not breaker.is_evaluated(state)
    assert breaker.is_evaluated(run(state, (4_000, Evaluate({})))[0])


def test_breaker_when_restored_then_nothing_clears_before_every_cause_is_fresh() -> None:
    soft, _ = run(new(), (0, reading(60_000)))
    state, _ = run(new(), (1_000, Restore(soft.causes, {})))
    only_drawdown = Evaluate({DRAWDOWN: Reading(0, 0), LEASE: Reading(0)})
    state, _ = run(state, *((1_000 + n * COOL_MS, only_drawdown) for n in range(1, 5)))
    assert breaker.level_of(state, 0) is SOFT
    _, effects = run(state, (5 * COOL_MS, Resume(0, True, "ann", 1)))
    assert [type(effect) for effect in effects] == [ResumeRefused]
    state, _ = run(state, (6 * COOL_MS, reading(0)), (7 * COOL_MS - 1, reading(0)))
    assert breaker.level_of(state, 0) is SOFT
    assert breaker.level_of(run(state, (7 * COOL_MS, reading(0)))[0], 0) is N


def test_breaker_when_the_page_is_tighter_than_the_log_then_only_the_operator_ends_it() -> None:
    state, effects = run(new(), (1_000, Restore({}, {0: HARD, 3: MEDIUM})))
    assert SetLevel(0, HARD, Cause.RECOVERED) in effects
    assert SetLevel(3, MEDIUM, Cause.RECOVERED) in effects
    state, _ = run(state, (2_000, reading(0)), (3_000 + COOL_MS, reading(0)))
    assert breaker.level_of(state, 0) is HARD
    state, _ = run(state, (4_000 + COOL_MS, Resume(0, False, "ann", 1)))
    assert (breaker.level_of(state, 0), breaker.level_of(state, 3)) == (N, MEDIUM)


def test_breaker_when_time_runs_backwards_then_it_tightens_only() -> None:
    state, _ = run(new(), (0, reading(60_000)), (COOL_MS, reading(60_000)))
    for time in range(COOL_MS - 1, 0, -MINUTE_MS):
        state, effects = run(state, (time, reading(0)))
        assert effects == []
    assert state.causes[DRAWDOWN].value == 60_000
    _, effects = run(state, (1, reading(110_000)))
    assert effects[0] == SetLevel(0, MEDIUM, Cause.DRAWDOWN)
    state, _ = run(state, (COOL_MS, reading(0)), (2 * COOL_MS - 1, reading(0)))
    assert breaker.level_of(state, 0) is SOFT


def test_breaker_when_effects_are_cut_short_then_the_log_is_at_least_as_tight_as_the_page() -> None:
    before = hard()
    calm, _ = run(before, (3_000, reading(0)))
    resumed, _ = run(calm, (4_000, Resume(0, True, "ann", 1)))
    assert breaker.persisted_first(calm, resumed)[DRAWDOWN] == calm.causes[DRAWDOWN]
    fresh, _ = run(new(), (0, reading(0)))
    assert breaker.persisted_first(fresh, before)[DRAWDOWN] == before.causes[DRAWDOWN]
    halted, _ = run(fresh, (1_000, Halt(0, SOFT, 1)))
    assert breaker.persisted_first(fresh, halted)[OPERATOR].level is SOFT


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Evaluate({CauseKey(Cause.DRAWDOWN, 9): Reading(0, 0)}), id="unknown reading"),
        pytest.param(Restore({CauseKey(Cause.DRAWDOWN, 9): CauseState()}, {}), id="unknown cause"),
    ],
)
def test_breaker_when_a_cause_is_unknown_then_it_raises(message: Message) -> None:
    with pytest.raises(InvariantBroken, match="scope 9"):
        breaker.step(hard(), message, 5_000)


def test_breaker_when_the_specification_is_wrong_then_it_is_refused() -> None:
    for ladder in [(None, None), (0, 1), (2, 1), (-1, None), (1, 1)]:
        with pytest.raises(InvariantBroken, match="rise"):
            Thresholds(*ladder)
    for factor in (0, 1_000_001):
        with pytest.raises(InvariantBroken, match="soft factor"):
            BreakerSpec({}, soft_factor_ppm=factor)
    with pytest.raises(InvariantBroken, match="never measured"):
        breaker.new_breaker(BreakerSpec({OPERATOR: DRAWDOWN_THRESHOLDS}, 1))
    with pytest.raises(InvariantBroken, match="without a value"):
        Evaluate({DRAWDOWN: Verdict.FRESH})
