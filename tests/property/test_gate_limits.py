"""P2, P4, P5: whatever happens in whatever order, page and model agree to the unit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.gate_fixtures import MARKS, SCOPES
from tests.property.gate_machine import Trading
from tests.property.gate_model import PAIRS
from tests.property.gate_weather import Weather
from tripgate.page.level import LevelWriter
from tripgate.reasons import DenyReason, Level
from tripgate.units import PPM

pytestmark = pytest.mark.kernels
STEPS = settings(max_examples=50, stateful_step_count=50)
LONG_RUN_STEPS = 1_500
Moves = list[tuple[int, Callable[[], None]]]
INVARIANTS = (
    "words_are_sums", "gross_is_within_its_limits", "no_quantity_is_negative", "no_grant_was_over",
)  # fmt: skip


def test_P2_gate_when_anything_happens_in_any_order_then_page_and_model_agree() -> None:
    run_state_machine_as_test(Trading, settings=STEPS)


def test_P2_P4_P5_gate_when_everything_moves_too_then_page_and_model_agree() -> None:
    run_state_machine_as_test(Weather, settings=STEPS)


def trading_moves(machine: Trading, draw: np.random.Generator) -> Moves:
    """Return random things to do, orders and fills more often than the rest."""
    pair = PAIRS[int(draw.integers(len(PAIRS)))]
    share, pick = int(draw.integers(1, 101)), int(draw.integers(1_000))
    size, stop = int(draw.integers(1, 60)), int(draw.choice([98, 98, 98, 98, 98, 85, 100, 0]))
    offset, market = int(draw.integers(-60, 60)), pick % 7 == 0
    away = int(draw.choice([-200, -3, 0, 3, 200]))
    return [
        (8, lambda: machine.ask(pair, size, bool(pick % 2), offset, stop, market)),
        (6, lambda: machine.ask_to_close(pair, share, away, market)),
        (6, lambda: machine.send(pick)),
        (6, lambda: machine.fill(pick, share)),
        (2, lambda: machine.end(pick)),
        (1, lambda: machine.fail_to_send(pick)),
        (1, lambda: machine.stop_out(pair, share)),
        (1, lambda: machine.flatten(pair)),
        (4, lambda: machine.work_exit(pair)),
        (1, machine.reap),
        (1, machine.log),
        (1, machine.mark_positions),
    ]


def weather_moves(machine: Weather, draw: np.random.Generator) -> Moves:
    """Return what moves beside trading; calm comes more often than storm."""
    scope = SCOPES[int(draw.integers(len(SCOPES)))]
    instrument, pick = int(draw.integers(len(MARKS))), int(draw.integers(1_000))
    pair, size = PAIRS[int(draw.integers(len(PAIRS)))], int(draw.integers(1, 6))
    times, step, stop = int(draw.integers(2, 12)), pick % 2, int(draw.choice([98, 98, 0]))
    return [
        (4, lambda: machine.insist(pair, size, bool(pick % 3), times, step, stop)),
        (8, lambda: machine.let_time_pass(int(draw.choice([1, 100, 400, 1_000, 2_001])))),
        (3, lambda: machine.tick(instrument, int(draw.integers(-40_000, 40_000)))),
        (6, machine.tick_all),
        (1, lambda: machine.move_rate(int(draw.choice([PPM, 1_020_000, 980_000])))),
        (1, lambda: machine.set_level(scope, LevelWriter(pick % 4), Level(pick % 5))),
        (4, machine.calm_down),
        (1, lambda: machine.set_factor(scope, int(draw.choice([1, 400_000, 700_001, PPM])))),
        (1, lambda: machine.lapse(pick % 5)),
        (2, machine.freeze),
        (4, machine.repair),
        (2, machine.post),
    ]


def play(machine: Trading, draw: np.random.Generator, moves: Moves) -> None:
    """Make one of the moves and look at everything."""
    weights = np.array([weight for weight, _ in moves], dtype=float)
    moves[int(draw.choice(len(moves), p=weights / weights.sum()))][1]()
    for name in INVARIANTS:
        getattr(machine, name)()


@pytest.mark.parametrize("seed", range(4))
def test_P2_gate_when_it_trades_for_long_then_page_and_model_agree(seed: int) -> None:
    machine, draw = Trading(), np.random.default_rng(seed)
    for _ in range(LONG_RUN_STEPS):
        play(machine, draw, trading_moves(machine, draw))
    reached = {reason for reason, _ in machine.answers}
    assert {None, DenyReason.GROSS_LIMIT, DenyReason.NET_LIMIT} <= reached
    assert {"open", "close"} == {kind for reason, kind in machine.answers if reason is None}


@pytest.mark.parametrize("seed", range(4))
def test_P2_P4_P5_gate_when_it_trades_through_all_weathers_then_page_and_model_agree(
    seed: int,
) -> None:
    machine, draw = Weather(), np.random.default_rng(seed)
    for _ in range(LONG_RUN_STEPS):
        moves = [*trading_moves(machine, draw), *weather_moves(machine, draw)]
        play(machine, draw, moves)
        machine.limits_are_never_wider_than_configured()
    reached = {reason for reason, _ in machine.answers}
    assert {
        None, DenyReason.LEVEL, DenyReason.LEASE_LAPSED, DenyReason.MARK_STALE, DenyReason.FROZEN,
        DenyReason.EXIT_IN_PROGRESS, DenyReason.DUPLICATE_ORDER, DenyReason.REPEATED_ORDER,
        DenyReason.ORDER_RATE, DenyReason.ATTEMPT_RATE, DenyReason.ORDER_NOTIONAL,
    } <= reached  # fmt: skip
