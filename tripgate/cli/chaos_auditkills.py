"""``tripgate chaos auditkills``: whoever records and whoever stores is killed, and nothing is lost.

A violation exits 40. A run in which somebody never died at one of the places that matter exits 1.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError

if TYPE_CHECKING:
    from chaos.auditkills.run import Verdict

KILLS_MAX = 1_000_000


def auditkills(*, kills: int = 400, seed: int = 0, json: bool = False) -> int:
    """Kill producers of records and the audit writer, and compare the log with what was recorded.

    Parameters
    ----------
    kills
        How many processes die before the verdict.
    seed
        Seed of who dies where; the machine's scheduler adds its own chance.
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if everything held, 40 on a violation, 1 if nobody died at one of the places.
    """
    from chaos.auditkills.run import run_kills

    if not 1 <= kills <= KILLS_MAX:
        raise UsageError(f"--kills: expected 1 .. {KILLS_MAX}, was {kills}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, was {seed}")
    verdict = run_kills(kills=kills, seed=seed)
    if json:
        write_json({**asdict(verdict), "exercised": verdict.is_exercised})
    else:
        _write_verdict(verdict)
    if verdict.violations:
        return EXIT_VIOLATED
    if not verdict.is_exercised:
        write_message("nobody died at one of the places, which is not a pass: run more --kills")
        return EXIT_NOT_EXERCISED
    return 0


def _write_verdict(verdict: "Verdict") -> None:
    write_table(("WHO DIED WHERE", "TIMES"), [(name, str(n)) for name, n in verdict.killed.items()])
    write_line()
    write_line(
        f"seed {verdict.seed}: {verdict.recorded} records stored, {verdict.acknowledged} of them "
        f"acknowledged in time, {verdict.elapsed_s} s, {len(verdict.violations)} violations"
    )
    for text in verdict.violations:
        write_line(text)
