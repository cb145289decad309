"""Promise P5 and its neighbours as properties of the breaker's step."""

from hypothesis import given
from hypothesis import strategies as st

from tripgate.machines import breaker
from tripgate.machines.breaker import (
    DRAWDOWN_THRESHOLDS,
    LEASE_LAPSED_THRESHOLDS,
    Breaker,
    BreakerSpec,
    Cause,
    CauseKey,
    Evaluate,
    Halt,
    Message,
    Reading,
    Restore,
    SetLevel,
    total_loss_thresholds,
)
from tripgate.reasons import Level

DRAWDOWN = CauseKey(Cause.DRAWDOWN, 0)
LOSS = CauseKey(Cause.TOTAL_LOSS, 0)
LEASE = CauseKey(Cause.LEASE_LAPSED, 0)
RECOVERED = CauseKey(Cause.RECOVERED, 0)
COOL_MS = 15 * 60_000


def new() -> Breaker:
    spec = BreakerSpec(
        {
            DRAWDOWN: DRAWDOWN_THRESHOLDS,
            LOSS: total_loss_thresholds(1_000),
            LEASE: LEASE_LAPSED_THRESHOLDS,
        },
        soft_factor_ppm=500_000,
    )
    return breaker.new_breaker(spec)


def reading(drawdown: int | None, second: int, loss: int = 0, lease_s: int = 0) -> Evaluate:
    """Return readings; without a drawdown that cause is stale."""
    if drawdown is None:
        return Evaluate({LOSS: Reading(loss, loss), LEASE: Reading(lease_s)})
    return Evaluate(
        {DRAWDOWN: Reading(drawdown, second), LOSS: Reading(loss, loss), LEASE: Reading(lease_s)}
    )


PPM = st.sampled_from([0, 39_000, 45_000, 60_000, 79_000, 110_000, 130_000, 160_000, 210_000])
GAP = st.sampled_from([100, 500, 60_000, COOL_MS // 2, COOL_MS])
MESSAGE = st.one_of(
    st.builds(reading, st.none() | PPM, PPM, st.sampled_from([0, 900, 1_000]), st.just(0)),
    st.builds(Halt, st.just(0), st.sampled_from(Level), st.just(1)),
)


@given(st.lists(st.tuples(st.integers(-COOL_MS, COOL_MS), MESSAGE), max_size=30))
def test_P5_breaker_when_no_resume_is_given_then_a_latched_level_never_falls(
    script: list[tuple[int, Message]],
) -> None:
    state, now = new(), 0
    for gap, message in script:
        now += gap
        following, _ = breaker.step(state, message, now)
        for key, cause in state.causes.items():
            if cause.latched:
                assert following.causes[key].latched
                assert following.causes[key].level >= cause.level
        state = following


@given(st.lists(st.tuples(GAP, MESSAGE), max_size=20), st.lists(PPM, max_size=3))
def test_P5_breaker_when_restarted_anywhere_then_no_level_is_lower(
    script: list[tuple[int, Message]], afterwards: list[int]
) -> None:
    state, now = new(), 0
    for gap, message in script:
        now += gap
        state, _ = breaker.step(state, message, now)
    before = breaker.level_of(state, 0)
    restored, effects = breaker.step(new(), Restore(state.causes, {0: before}), now)
    assert breaker.level_of(restored, 0) is before
    assert RECOVERED not in restored.causes
    said = [effect.level for effect in effects if isinstance(effect, SetLevel)]
    assert said == [before]
    for ppm in afterwards:
        partial = Evaluate({DRAWDOWN: Reading(ppm, ppm), LEASE: Reading(0)})
        now += COOL_MS
        restored, _ = breaker.step(restored, partial, now)
        assert breaker.level_of(restored, 0) >= before


@given(
    st.lists(
        st.tuples(GAP, PPM, PPM, st.sampled_from([0, 5_000, 31_000, 60_000, 100_000])), max_size=30
    )
)
def test_K5_breaker_when_values_are_worse_then_the_level_is_never_lower(
    script: list[tuple[int, int, int, int]],
) -> None:
    better, worse, now = new(), new(), 0
    for gap, value, second, more in script:
        now += gap
        better, _ = breaker.step(better, reading(value, second), now)
        worse, _ = breaker.step(worse, reading(value + more, second + more), now)
        assert breaker.level_of(worse, 0) >= breaker.level_of(better, 0)


@given(st.lists(st.tuples(st.integers(0, 3 * COOL_MS), PPM), min_size=1, max_size=30))
def test_K4_breaker_when_readings_come_late_then_nothing_is_withdrawn(
    late: list[tuple[int, int]],
) -> None:
    now = 4 * COOL_MS
    state, _ = breaker.step(new(), reading(60_000, 60_000), now)
    for time, ppm in late:
        following, _ = breaker.step(state, reading(ppm, ppm), time)
        assert breaker.level_of(following, 0) >= breaker.level_of(state, 0)
        state = following
