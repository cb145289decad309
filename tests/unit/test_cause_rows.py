"""The breaker's memory in the page: what was stored comes back, whatever it is."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tree_fixtures import paper_page
from tripgate.errors import InvariantBroken
from tripgate.gate.cause_rows import load_causes, store_causes
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.page.layout import CAUSE
from tripgate.page.mapping import Page
from tripgate.reasons import Level

TIMES = st.none() | st.integers(0, 2**42)
STATES = st.builds(
    CauseState,
    level=st.sampled_from(Level),
    value=st.integers(-(2**62), 2**62),
    since_ms=st.integers(0, 2**42),
    latched=st.booleans(),
    verdict=st.sampled_from(Verdict),
    blind=st.booleans(),
    fresh_since_ms=TIMES,
    pending_hard_since_ms=TIMES,
    pending_emergency_since_ms=TIMES,
    below_since_ms=st.tuples(TIMES, TIMES, TIMES, TIMES),
)
CAUSES = st.dictionaries(
    st.builds(CauseKey, st.sampled_from(Cause), st.integers(0, 5)), STATES, max_size=30
)


@pytest.fixture
def page() -> Page:
    return paper_page()


@given(causes=CAUSES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_P5_causes_when_stored_then_a_restarted_breaker_finds_the_same(
    page: Page, causes: dict[CauseKey, CauseState]
) -> None:
    page.rows(CAUSE)["used"] = 0
    store_causes(page, causes)
    assert load_causes(page) == causes


def test_causes_when_stored_again_then_each_keeps_its_row(page: Page) -> None:
    key, other = CauseKey(Cause.DRAWDOWN, 0), CauseKey(Cause.OPERATOR, 1)
    store_causes(page, {key: CauseState(Level.SOFT)})
    store_causes(page, {key: CauseState(Level.HARD, latched=True), other: CauseState()})
    assert load_causes(page) == {key: CauseState(Level.HARD, latched=True), other: CauseState()}


def test_load_causes_when_the_page_is_new_then_there_are_none(page: Page) -> None:
    assert load_causes(page) == {}


def test_store_causes_when_they_are_more_than_rows_then_it_is_a_bug(page: Page) -> None:
    count = len(page.rows(CAUSE)) + 1
    causes = {CauseKey(Cause.DRAWDOWN, scope): CauseState() for scope in range(count)}
    with pytest.raises(InvariantBroken, match=f"{count} are needed"):
        store_causes(page, causes)
