"""``tripgate chaos storm``: real processes killed and stopped at random on one real page.

A violation exits 40. A storm in which something it is about never happened exits 1: it has not
passed.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError

if TYPE_CHECKING:
    from chaos.storm.run import Verdict

KILLS_MAX = 100_000
VIOLATIONS_SHOWN = 20


def storm(*, kills: int = 300, seed: int = 0, json: bool = False) -> int:
    """Kill and stop real processes at random while they trade on one page.

    Parameters
    ----------
    kills
        How many processes to kill before the verdict.
    seed
        Seed of everything the storm decides; the machine's scheduler adds its own chance.
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if everything held, 40 on a violation, 1 if the storm was too short to mean anything.
    """
    from chaos.storm.run import run_storm

    if not 1 <= kills <= KILLS_MAX:
        raise UsageError(f"--kills: expected 1 .. {KILLS_MAX}, was {kills}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, was {seed}")
    verdict = run_storm(kills=kills, seed=seed)
    if json:
        write_json({**asdict(verdict), "exercised": verdict.is_exercised})
    else:
        _write_storm(verdict)
    if verdict.violations:
        return EXIT_VIOLATED
    if not verdict.is_exercised:
        write_message("the storm was too short to reach everything: run it with more --kills")
        return EXIT_NOT_EXERCISED
    return 0


def _write_storm(verdict: "Verdict") -> None:
    rows = [
        ("kills", ", ".join(f"{role} {count}" for role, count in sorted(verdict.killed.items()))),
        ("of them inside a section", str(verdict.killed_inside)),
        ("of them during a repair", str(verdict.killed_repairing)),
        ("stops", str(verdict.stops)),
        ("killed by a repair that they held up", str(verdict.overstayed)),
        ("grants, fills", f"{verdict.grants}, {verdict.fills}"),
        ("denials", str(sum(verdict.denials.values()))),
        ("repairs completed, begun", f"{verdict.repairs}, {verdict.repairs_begun}"),
        ("glances, exact comparisons", f"{verdict.glances}, {verdict.exact}"),
        ("fullest node", f"{verdict.used_ppm_max / 10_000:.2f} % of its limit"),
        ("time", f"{verdict.elapsed_s} s"),
        ("violations", str(len(verdict.violations))),
    ]
    write_table(("STORM", f"SEED {verdict.seed}"), rows)
    for text in verdict.violations[:VIOLATIONS_SHOWN]:
        write_line(text)
