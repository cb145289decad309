"""``tripgate chaos tampering``: whether every known way of changing an audit log is noticed.

A change that was neither noticed nor harmless exits 40, and so does a verifier that fell over or
hung. A kind that has to be found and was never tried exits 1.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError

if TYPE_CHECKING:
    from chaos.tampering.run import Verdict

TRIALS_MAX = 100_000
VIOLATIONS_SHOWN = 20


def tampering(*, trials: int = 10, seed: int = 0, json: bool = False) -> int:
    """Tamper with a real log in every way known and see whether the verifier notices.

    Parameters
    ----------
    trials
        How often to try each kind, each time elsewhere.
    seed
        Seed of where.
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if all was noticed or harmless, 40 if something was missed or the verifier fell over, 1 if
        a kind never got as far as being found.
    """
    from chaos.tampering.run import run_tampering

    if not 1 <= trials <= TRIALS_MAX:
        raise UsageError(f"--trials: expected 1 .. {TRIALS_MAX}, was {trials}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, was {seed}")
    verdict = run_tampering(trials=trials, seed=seed)
    if json:
        found = {"violations": verdict.violations, "exercised": verdict.is_exercised}
        write_json({**asdict(verdict), **found})
    else:
        _write_verdict(verdict)
    if verdict.violations:
        return EXIT_VIOLATED
    if not verdict.is_exercised:
        write_message("a kind that has to be found never was, which is not a pass")
        return EXIT_NOT_EXERCISED
    return 0


def _write_verdict(verdict: "Verdict") -> None:
    write_table(
        ("TAMPERING", "MUST BE", "TRIALS", "NOTICED", "BY (TRIALS)"),
        [
            (
                kind.name, kind.demand, str(kind.trials), str(kind.found),
                ", ".join(f"{name} {count}" for name, count in kind.found_by.items()),
            )
            for kind in verdict.kinds
        ],
    )  # fmt: skip
    write_line()
    trials = sum(kind.trials for kind in verdict.kinds)
    write_line(
        f"seed {verdict.seed}: {len(verdict.kinds)} kinds, {trials} trials on {verdict.rows} rows, "
        f"{verdict.elapsed_s} s, {len(verdict.violations)} violations"
    )
    for text in verdict.violations[:VIOLATIONS_SHOWN]:
        write_line(text)
