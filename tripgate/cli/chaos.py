"""``tripgate chaos run`` and ``list``: the deterministic simulation. ``chaos spin``: the models.

A campaign draws one plan per seed and runs each against the real steps of keeper and breaker. It
ends at the first violation, prints the seed and the shrunk plan, and exits 40. An invariant that
was never exercised has not passed: a campaign that leaves one so exits 1. The models are judged
alike: a verdict other than the demanded one exits 40, an assertion that no model reached exits 1.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError

if TYPE_CHECKING:
    from chaos.simulation.campaign import Campaign
    from chaos.spin.run import Outcome, Verification

EXIT_VIOLATED = 40
EXIT_NOT_EXERCISED = 1
SEEDS_MAX = 1_000_000


def run(
    *, seeds: int = 200, first_seed: int = 0, plan: Path | None = None, json: bool = False
) -> int:
    """Run fault plans in the simulator and check the invariants after every step.

    Parameters
    ----------
    seeds
        How many plans to draw, one per seed.
    first_seed
        The first seed.
    plan
        Run this plan alone instead of drawing any.
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if everything held, 40 on a violation, 1 if a campaign left an invariant unexercised.
    """
    from chaos.plan import read_plan
    from chaos.simulation.campaign import draw_plan, run_campaign

    if not 1 <= seeds <= SEEDS_MAX:
        raise UsageError(f"--seeds: expected 1 .. {SEEDS_MAX}, was {seeds}")
    if plan is not None:
        campaign = run_campaign([read_plan(plan)])
    else:
        campaign = run_campaign(map(draw_plan, range(first_seed, first_seed + seeds)))
    if json:
        write_json(_as_object(campaign))
    else:
        _write_table(campaign)
    if campaign.failed is not None:
        return EXIT_VIOLATED
    if plan is None and not campaign.is_passed:
        write_message("an invariant was never exercised, which is not a pass: run more --seeds")
        return EXIT_NOT_EXERCISED
    return 0


def list_plans(*, json: bool = False) -> int:
    """List faults, targets, invariants and the plans kept because they once found a bug.

    Parameters
    ----------
    json
        Print one JSON object instead of tables.
    """
    from chaos.faults import FAULTS
    from chaos.plan import read_plan
    from chaos.simulation.campaign import invariant_names, regression_paths
    from chaos.simulation.run import TARGETS

    plans = [(path, read_plan(path)) for path in regression_paths()]
    invariants = invariant_names()
    if json:
        write_json(
            {
                "faults": dict(FAULTS),
                "targets": list(TARGETS),
                "invariants": dict(invariants),
                "plans": [{"path": str(path), "title": kept.title} for path, kept in plans],
            }
        )
        return 0
    write_table(("FAULT", "WHAT IT DOES"), FAULTS.items())
    write_line()
    write_table(("TARGET",), [(target,) for target in TARGETS])
    write_line()
    write_table(("INVARIANT", "JUDGES"), invariants.items())
    write_line()
    write_table(("PLAN", "TITLE"), [(str(path), kept.title) for path, kept in plans])
    return 0


def spin(*, json: bool = False) -> int:
    """Check the Promela models of the gate's protocols with Spin (about a minute).

    Parameters
    ----------
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if every model holds and every variant that breaks a rule is refuted, 40 if a verdict
        differs, 1 if an assertion was never reached, 4 if Spin or a C compiler is missing.
    """
    from chaos.spin.run import find_tools, verify_all

    tools = find_tools()

    def tell(outcome: "Outcome") -> None:
        mark = "" if outcome.is_expected else ", which is wrong"
        name = f"{outcome.model.name} {outcome.variant.name}"
        write_message(f"{name}: {outcome.verdict.value}{mark}")

    verification = verify_all(tools, report=tell)
    if json:
        write_json(_models_object(verification, tools.spin_version()))
    else:
        write_table(
            ("MODEL", "VARIANT", "VERDICT", "STATES", "DEPTH", "WHAT HOLDS, OR WHAT IS LEFT OUT"),
            [
                (one.model.name, one.variant.name, one.verdict.value, str(one.states),
                 str(one.depth), one.variant.says)
                for one in verification.outcomes
            ],
        )  # fmt: skip
    wrong = [one for one in verification.outcomes if not one.is_expected]
    for one in wrong:
        name = f"{one.model.name} {one.variant.name}"
        demanded = "holds" if one.variant.holds else "refuted"
        write_message(f"{name}: {one.verdict.value} instead of {demanded}: {one.why or 'no error'}")
    if wrong:
        return EXIT_VIOLATED
    if verification.unreached:
        write_message(f"never reached, which is not a pass: {', '.join(verification.unreached)}")
        return EXIT_NOT_EXERCISED
    return 0


def _models_object(verification: "Verification", spin_version: str) -> dict[str, object]:
    return {
        "passed": verification.is_passed,
        "spin": spin_version,
        "unreached_assertions": list(verification.unreached),
        "models": [
            {
                "model": one.model.name,
                "variant": one.variant.name,
                "says": one.variant.says,
                "demanded": "holds" if one.variant.holds else "refuted",
                "verdict": one.verdict.value,
                "why": one.why,
                "states": one.states,
                "depth": one.depth,
                "seconds": round(one.seconds, 2),
            }
            for one in verification.outcomes
        ],
    }


def _write_table(campaign: "Campaign") -> None:
    from chaos.plan import to_json

    write_table(
        ("INVARIANT", "VERDICT", "JUDGED", "RUNS", "WHAT IT JUDGES"),
        [
            (count.name, count.verdict.value, str(count.exercised), str(count.runs), count.judges)
            for count in campaign.invariants
        ],
    )
    write_line()
    write_line(f"{campaign.runs} runs, {campaign.fills} fills, {campaign.restarts} restarts")
    failed, shrunk = campaign.failed, campaign.shrunk
    if failed is None or shrunk is None or failed.violation is None or shrunk.violation is None:
        return
    violation = shrunk.violation
    write_line()
    write_line(f"seed {failed.plan.seed} violates {violation.invariant}: {violation.message}")
    write_line(
        f"{violation.time_ms} ms after the start; "
        f"{len(failed.plan.faults)} faults, shrunk to {len(shrunk.plan.faults)}. "
        "Run it again with --plan FILE:"
    )
    write_line(to_json(shrunk.plan).rstrip())


def _as_object(campaign: "Campaign") -> dict[str, object]:
    from chaos.plan import as_document

    failed, shrunk = campaign.failed, campaign.shrunk
    result: dict[str, object] = {
        "runs": campaign.runs,
        "fills": campaign.fills,
        "restarts": campaign.restarts,
        "passed": campaign.is_passed,
        "invariants": {
            count.name: {
                "verdict": count.verdict.value,
                "exercised": count.exercised,
                "runs": count.runs,
            }
            for count in campaign.invariants
        },
        "violation": None,
    }
    if failed is not None and shrunk is not None and shrunk.violation is not None:
        result["violation"] = {
            "seed": failed.plan.seed,
            "invariant": shrunk.violation.invariant,
            "time_ms": shrunk.violation.time_ms,
            "message": shrunk.violation.message,
            "shrunk_plan": as_document(shrunk.plan),
        }
    return result
