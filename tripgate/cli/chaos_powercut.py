"""``tripgate chaos powercut``: what the audit log is worth after a power cut at any moment.

A violation exits 40. A campaign that lost no write, or in which a writer that leaves a sync out was
not found out, exits 1: it has not passed.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError

if TYPE_CHECKING:
    from chaos.powercut.run import Tally, Verdict

STATES_MAX = 1_000_000


def powercut(*, states: int = 600, seed: int = 0, json: bool = False) -> int:
    """Cut the power at random moments of a real audit writer and recover from each.

    Parameters
    ----------
    states
        How many states of the disk to draw and to recover from.
    seed
        Seed of the moments, of what the disk keeps, and of when the writer is killed.
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if everything held, 40 on a violation, 1 if a writer with a planted fault passed too, 4 if
        there is no C compiler.
    """
    from chaos.powercut.run import run_cuts

    if not 1 <= states <= STATES_MAX:
        raise UsageError(f"--states: expected 1 .. {STATES_MAX}, was {states}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, was {seed}")
    verdict = run_cuts(states=states, seed=seed)
    if json:
        write_json({**asdict(verdict), "exercised": verdict.is_exercised})
    else:
        _write_verdict(verdict)
    if verdict.campaign.failed_states:
        return EXIT_VIOLATED
    if not verdict.is_exercised:
        write_message("a planted fault was not found, which is not a pass: run more --states")
        return EXIT_NOT_EXERCISED
    return 0


def _write_verdict(verdict: "Verdict") -> None:
    write_table(
        ("WRITER", "STATES", "LOSSY", "FAILED", "BROKEN", "WHAT IT DOES"),
        [_row(tally) for tally in (verdict.campaign, *verdict.controls)],
    )
    write_line()
    write_line(
        f"seed {verdict.seed}: {verdict.operations} operations, {verdict.rows} rows, "
        f"{verdict.elapsed_s} s"
    )
    for text in verdict.campaign.violations:
        write_line(text)


def _row(tally: "Tally") -> tuple[str, ...]:
    broken = ", ".join(f"{name} {count}" for name, count in tally.broken.items())
    numbers = (tally.states, tally.lossy, tally.failed_states)
    return (tally.name, *map(str, numbers), broken or "-", tally.says)
