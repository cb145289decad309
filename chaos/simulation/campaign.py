"""Many runs: drawing plans from seeds, adding up verdicts, shrinking what failed."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import chaos
from chaos.faults import sigkill
from chaos.invariants import Limits, all_invariants
from chaos.plan import FaultAt, Plan
from chaos.simulation.run import DOWN_MS, STEP_MS, TARGETS, RunResult, simulate
from chaos.simulation.surroundings import Steps

HEAL_STEPS = 130
END_STEPS = 210
"""The healed part is longer than the breaker's cool-down, so that trading can resume in it."""

FAULTS_DRAWN_MAX = 8
AFTER_EFFECTS_MAX = 6
DOWN_STEPS_MAX = 3


class RunVerdict(StrEnum):
    """Verdict on one invariant. Not exercised is not a pass."""

    PASS = "pass"  # noqa: S105 - a verdict, not a secret
    FAIL = "fail"
    NOT_EXERCISED = "not exercised"


@dataclass(frozen=True, slots=True)
class InvariantCount:
    """One invariant over a campaign: how often it judged, in how many runs, and what came out."""

    name: str
    judges: str
    exercised: int
    runs: int
    verdict: RunVerdict


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign's outcome; ``failed`` is the first run that violated an invariant."""

    runs: int
    fills: int
    restarts: int
    invariants: tuple[InvariantCount, ...]
    failed: RunResult | None
    shrunk: RunResult | None

    @property
    def is_passed(self) -> bool:
        """Whether every invariant was exercised and held."""
        return all(count.verdict is RunVerdict.PASS for count in self.invariants)


def draw_plan(seed: int) -> Plan:
    """Return the plan of a seed: up to eight kills of keeper and breaker at random moments."""
    source = random.Random(f"plan/{seed}")
    faults = [
        FaultAt(
            time_ms=source.randrange(HEAL_STEPS) * STEP_MS,
            fault=sigkill.NAME,
            target=source.choice(TARGETS),
            arguments={
                sigkill.AFTER_EFFECTS: source.randrange(AFTER_EFFECTS_MAX + 1),
                DOWN_MS: source.randrange(DOWN_STEPS_MAX + 1) * STEP_MS,
            },
        )
        for _ in range(source.randrange(FAULTS_DRAWN_MAX + 1))
    ]
    return Plan(
        title=f"drawn from seed {seed}",
        seed=seed,
        hypothesis=(),
        faults=tuple(sorted(faults, key=FaultAt.sort_key)),
        heal_ms=HEAL_STEPS * STEP_MS,
        end_ms=END_STEPS * STEP_MS,
    )


def shrink(failed: RunResult, steps: Steps | None = None) -> RunResult:
    """Return the run of a smaller plan that violates the same invariant.

    Faults are left out one at a time, as long as the violation stays, until no single one can go:
    at most n² runs for n faults.
    """
    assert failed.violation is not None, "only a failed run can be shrunk"
    smallest = failed
    number = 0
    while number < len(smallest.plan.faults):
        plan = smallest.plan
        faults = plan.faults[:number] + plan.faults[number + 1 :]
        smaller = Plan(
            title=f"{plan.title}, shrunk" if plan is failed.plan else plan.title,
            seed=plan.seed,
            hypothesis=plan.hypothesis,
            faults=faults,
            heal_ms=plan.heal_ms,
            end_ms=plan.end_ms,
        )
        tried = simulate(smaller, steps)
        if tried.violation is not None and tried.violation.invariant == failed.violation.invariant:
            smallest = tried
            number = 0
        else:
            number += 1
    return smallest


def run_campaign(plans: Iterable[Plan], steps: Steps | None = None) -> Campaign:
    """Run plans until one fails; add up what each invariant judged."""
    exercised: dict[str, int] = {}
    runs_exercised: dict[str, int] = {}
    runs = fills = restarts = 0
    failed: RunResult | None = None
    for plan in plans:
        result = simulate(plan, steps)
        runs += 1
        fills += result.fills
        restarts += result.restarts
        for name, count in result.exercised.items():
            exercised[name] = exercised.get(name, 0) + count
            runs_exercised[name] = runs_exercised.get(name, 0) + (count > 0)
        if result.violation is not None:
            failed = result
            break
    return Campaign(
        runs=runs,
        fills=fills,
        restarts=restarts,
        invariants=_counts(exercised, runs_exercised, failed),
        failed=failed,
        shrunk=None if failed is None else shrink(failed, steps),
    )


def _counts(
    exercised: Mapping[str, int], runs: Mapping[str, int], failed: RunResult | None
) -> tuple[InvariantCount, ...]:
    violated = None if failed is None or failed.violation is None else failed.violation.invariant
    counts = []
    for name, judges in invariant_names().items():
        if name not in exercised:
            continue
        verdict = RunVerdict.PASS if exercised[name] else RunVerdict.NOT_EXERCISED
        if name == violated:
            verdict = RunVerdict.FAIL
        counts.append(InvariantCount(name, judges, exercised[name], runs[name], verdict))
    return tuple(counts)


def invariant_names() -> Mapping[str, str]:
    """Return every invariant's name and what it judges."""
    limits = Limits({}, 1, (1, 2, 3, 4), 0, 0, 0)
    return {invariant.name: invariant.judges for invariant in all_invariants(limits)}


def regression_paths() -> list[Path]:
    """Return the files of plans that once found a bug, sorted by name."""
    return sorted((Path(chaos.__file__).parent / "regressions").glob("*.json"))
