"""The judge of a single death: what it takes for a fault, on made-up observations."""

import pytest

from chaos.deaths.case import LATE_NS, Case
from chaos.deaths.fates import BY_NAME, FATES
from tripgate.audit.record import Body
from tripgate.clock import NS_PER_MS
from tripgate.reasons import DenyReason

EVENT_NS = 1_000 * NS_PER_MS
SOON_NS = EVENT_NS + 5 * NS_PER_MS


def case(name: str = "sigkill", *, down: Body | None = None, back: bool = True) -> Case:
    """Return a death that was handled as it should be, unless told otherwise."""
    fate = BY_NAME[name]
    made = Case(fate, 1, "victim(v1)", 4, 99, EVENT_NS, event_ns=EVENT_NS)
    made.see_answer(EVENT_NS - 1, EVENT_NS, 0, 4)
    made.see_answer(SOON_NS - 1, SOON_NS, DenyReason.LEASE_LAPSED, 4)
    made.see_lease(SOON_NS, 0)
    made.see_down(SOON_NS, down or {"code": -9, "reason": ""})
    if back:
        made.see_answer(SOON_NS + 1, SOON_NS + 2, 0, 5)
    return made


def test_case_when_all_went_well_then_there_is_no_fault_and_every_figure_is_there() -> None:
    seen = case()
    assert seen.is_over
    assert seen.faults() == []
    assert seen.figures() == {
        "denied_ms": 5.0, "zeroed_ms": 5.0, "recorded_ms": 5.0, "back_ms": 5.0,
    }  # fmt: skip
    assert seen.denial_name == "LEASE_LAPSED"


@pytest.mark.parametrize(
    ("late_ns", "fault"),
    [(LATE_NS, ""), (LATE_NS + 1, "approved 270.0 ms after it")],
)
def test_P3_case_when_an_approval_comes_later_than_the_bound_then_that_is_a_fault(
    late_ns: int, fault: str
) -> None:
    seen = case(back=False)
    seen.see_answer(EVENT_NS + late_ns, EVENT_NS + late_ns + 1, 0, 4)
    seen.see_answer(EVENT_NS + late_ns + 2, EVENT_NS + late_ns + 3, 0, 5)
    assert seen.is_late == bool(fault)
    assert [text[-len(fault) :] for text in seen.faults()] == [fault] * seen.is_late


@pytest.mark.parametrize(
    ("name", "down", "fault"),
    [
        ("sigkill", {"code": 0, "reason": ""}, "exit code 0 on record"),
        ("exception", {"code": -9, "reason": "hung"}, "reason 'hung' on record"),
        ("sigstop", {"code": -9, "reason": ""}, "reason '' on record"),
    ],
)
def test_case_when_it_is_told_wrongly_then_that_is_a_fault(
    name: str, down: Body, fault: str
) -> None:
    assert fault in "".join(case(name, down=down).faults())


def test_case_when_no_successor_comes_then_that_is_a_fault() -> None:
    assert "its successor is missing" in "".join(case(back=False).faults())


def test_case_when_it_never_became_ready_then_no_approval_may_be_its_own() -> None:
    seen = case("exit_before_ready", down={"code": 3, "reason": ""})
    assert seen.faults() == []
    assert "denied_ms" not in seen.figures()
    seen.approved_ns = EVENT_NS + LATE_NS + 1
    assert "never became ready" in "".join(seen.faults())


def test_fates_when_listed_then_numbers_and_names_are_their_own() -> None:
    assert len({fate.number for fate in FATES}) == len({fate.name for fate in FATES}) == len(FATES)
    assert min(fate.number for fate in FATES) > 0
