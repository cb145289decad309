"""The closable table: which event moves which half, who may cause it, and what it refuses."""

import itertools

import pytest

from tripgate.errors import InvariantBroken
from tripgate.machines import closable
from tripgate.machines.closable import (
    MOVES,
    Closable,
    ClosableActor,
    ClosableEvent,
    Excess,
    ExitEnded,
    Happened,
    Refused,
)
from tripgate.units import LOTS_MAX

A, E = ClosableActor, ClosableEvent
WHO = {
    "OPEN_FILL": "KEEPER", "CLOSE_FILL": "KEEPER", "EXIT_FILL": "KEEPER", "STOP_FILL": "KEEPER",
    "LIQUIDATION": "KEEPER", "DELEVERAGE": "KEEPER", "MANUAL": "KEEPER", "HOLD": "CLIENT",
    "RELEASE": "CLIENT KEEPER", "CLAIM": "CLIENT BREAKER", "LOWER_WISH": "ROUTER",
    "DROP": "ROUTER", "RELEASED_CLOSE_FILL": "KEEPER",
}  # fmt: skip


def happened(event: ClosableEvent, lots: int = 0) -> Happened:
    return Happened(event, next(iter(sorted(MOVES[event].actors))), lots)


def after(
    start: Closable, event: ClosableEvent, lots: int = 0
) -> tuple[Closable, list[closable.Effect]]:
    moved, effects = closable.step(start, happened(event, lots), 0)
    return moved, list(effects)


def test_closable_when_any_actor_tries_any_event_then_only_the_table_passes() -> None:
    for actor, event in itertools.product(A, E):
        expected = actor.name in WHO[event.name].split()
        assert closable.allowed(actor, event) is expected
        if not expected:
            with pytest.raises(InvariantBroken, match=f"{actor.name} may not cause"):
                closable.step(Closable(5, 1), Happened(event, actor, 1), 0)


@pytest.mark.parametrize(
    ("start", "event", "lots", "expected"),
    [
        (Closable(), E.OPEN_FILL, 5, Closable(5)),
        (Closable(5, 2), E.OPEN_FILL, 3, Closable(8, 2)),
        (Closable(5), E.OPEN_FILL, -8, Closable(-3)),
        (Closable(5, 3), E.CLOSE_FILL, 2, Closable(3, 1)),
        (Closable(-5, 3), E.CLOSE_FILL, 3, Closable(-2, 0)),
        (Closable(5, 3), E.STOP_FILL, 4, Closable(1, 3)),
        (Closable(-5, 3), E.LIQUIDATION, 5, Closable(0, 3)),
        (Closable(5, 1), E.DELEVERAGE, 1, Closable(4, 1)),
        (Closable(5, 1), E.MANUAL, 1, Closable(4, 1)),
        (Closable(5, 0), E.RELEASED_CLOSE_FILL, 2, Closable(3, 0)),
        (Closable(5), E.HOLD, 5, Closable(5, 5)),
        (Closable(-5, 2), E.HOLD, 3, Closable(-5, 5)),
        (Closable(5, 4), E.RELEASE, 4, Closable(5)),
        (Closable(5, 2), E.CLAIM, 3, Closable(5, 2, 3)),
        (Closable(5, 0, 3), E.CLAIM, 2, Closable(5, 0, 3)),
        (Closable(5, 0, 2), E.CLAIM, 9, Closable(5, 0, 5)),
        (Closable(-5, 0, 5), E.EXIT_FILL, 2, Closable(-3, 0, 3)),
        (Closable(5, 0, 4), E.LOWER_WISH, 1, Closable(5, 0, 3)),
    ],
)  # fmt: skip
def test_closable_when_an_event_is_applied_then_only_its_halves_move(
    start: Closable, event: ClosableEvent, lots: int, expected: Closable
) -> None:
    assert after(start, event, lots) == (expected, [])


@pytest.mark.parametrize(
    ("start", "event", "lots", "expected", "beyond"),
    [
        (Closable(2, 5), E.CLOSE_FILL, 5, Closable(0, 0), 3),
        (Closable(-2), E.STOP_FILL, 7, Closable(0), 5),
        (Closable(0, 4), E.CLOSE_FILL, 4, Closable(), 4),
    ],
)
def test_closable_when_a_reduction_exceeds_the_position_then_the_rest_is_anothers(
    start: Closable, event: ClosableEvent, lots: int, expected: Closable, beyond: int
) -> None:
    assert after(start, event, lots) == (expected, [Excess(beyond)])


@pytest.mark.parametrize(
    ("start", "event", "lots"),
    [
        (Closable(5, 3), E.HOLD, 3), (Closable(5, 0, 1), E.HOLD, 1), (Closable(), E.HOLD, 1),
        (Closable(1, 4), E.HOLD, 1), (Closable(), E.CLAIM, 1),
    ],
)  # fmt: skip
def test_closable_when_it_does_not_fit_then_it_is_refused_and_nothing_moves(
    start: Closable, event: ClosableEvent, lots: int
) -> None:
    assert after(start, event, lots) == (start, [Refused(event, lots)])


@pytest.mark.parametrize(
    ("start", "event", "lots"),
    [
        (Closable(5, 0, 3), E.LOWER_WISH, 3), (Closable(5, 0, 3), E.DROP, 0),
        (Closable(3, 0, 3), E.STOP_FILL, 3), (Closable(3, 0, 1), E.OPEN_FILL, -3),
    ],
)  # fmt: skip
def test_closable_when_nothing_of_a_wish_is_left_then_the_exit_has_ended(
    start: Closable, event: ClosableEvent, lots: int
) -> None:
    moved, effects = after(start, event, lots)
    assert (moved.claimed, effects) == (False, [ExitEnded()])


@pytest.mark.parametrize(
    ("start", "message", "says"),
    [
        (Closable(5, 1), happened(E.CLOSE_FILL, 2), "1 are promised"),
        (Closable(5, 1), happened(E.RELEASE, 2), "1 are promised"),
        (Closable(5), happened(E.STOP_FILL, 0), "of 0 lots"),
        (Closable(5), happened(E.STOP_FILL, -1), "of -1 lots"),
        (Closable(5), happened(E.OPEN_FILL, LOTS_MAX + 1), f"of {LOTS_MAX + 1} lots"),
        (Closable(LOTS_MAX), happened(E.OPEN_FILL, 1), "out of range"),
    ],
)
def test_closable_when_lots_cannot_be_true_then_it_raises_and_stays(
    start: Closable, message: Happened, says: str
) -> None:
    with pytest.raises(InvariantBroken, match=says):
        closable.step(start, message, 0)


@pytest.mark.parametrize(
    ("state", "lots", "admitted"),
    [
        (Closable(), 1, True), (Closable(), -1, True), (Closable(5), 1, True),
        (Closable(5), -1, False), (Closable(-5, 2), -1, True), (Closable(-5), 1, False),
        (Closable(0, 1), 1, False), (Closable(0, 1), -1, False),
    ],
)  # fmt: skip
def test_opening_when_the_key_has_another_side_then_it_is_not_admitted(
    state: Closable, lots: int, admitted: bool
) -> None:
    assert closable.admits_opening(state, lots) is admitted
