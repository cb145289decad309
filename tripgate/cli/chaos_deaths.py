"""``tripgate chaos deaths``: every way to die, on real processes under the real supervisor.

A violation exits 40: an approval later than lease + 20 ms after a death, a death that is told
wrongly or not at all, a bystander that died too, a process that lived on.
"""

from typing import Any

from tripgate.cli.chaos import EXIT_VIOLATED
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import UsageError

ROUNDS_MAX = 1_000
TOGETHER_MAX = 12
SOAK_S_MAX = 86_400.0


def deaths(
    *, rounds: int = 1, together: int = 2, soak: float = 0.0, seed: int = 0, roots: bool = False,
    json: bool = False,
) -> int:  # fmt: skip
    """Let real actors die in every way, and watch the gate from outside.

    Parameters
    ----------
    rounds
        How often each fate is dealt.
    together
        How many victims die at once; one at a time gives the steadiest figures.
    soak
        Instead of the table: deal random deaths to victims that stream to the root, for so many
        seconds.
    seed
        Seed of the soak's draws; the machine's scheduler adds its own chance.
    roots
        Instead: kill and stop roots of small trees.
    json
        Print one JSON object instead of a table.

    Returns
    -------
    int
        0 if everything held, 40 on a violation.
    """
    if not 1 <= rounds <= ROUNDS_MAX:
        raise UsageError(f"--rounds: expected 1 .. {ROUNDS_MAX}, was {rounds}")
    if not 1 <= together <= TOGETHER_MAX:
        raise UsageError(f"--together: expected 1 .. {TOGETHER_MAX}, was {together}")
    if not 0 <= soak <= SOAK_S_MAX:
        raise UsageError(f"--soak: expected 0 .. {SOAK_S_MAX:.0f} seconds, was {soak}")
    if seed < 0:
        raise UsageError(f"--seed: expected 0 or more, was {seed}")
    if roots and soak:
        raise UsageError("--roots and --soak are drills of their own: ask for one of them")
    result = _run(rounds, together, soak, seed, roots=roots)
    if json:
        write_json(result)
    else:
        _write(result)
    return EXIT_VIOLATED if result["violations"] else 0


def _run(rounds: int, together: int, soak_s: float, seed: int, *, roots: bool) -> dict[str, Any]:
    if roots:
        from chaos.deaths.roots import run_roots

        write_message("killing and stopping roots of small trees")
        return run_roots(rounds)
    from chaos.deaths.run import run_matrix, run_soak

    if soak_s:
        write_message(f"dealing random deaths for {soak_s:g} s")
        return run_soak(soak_s, seed=seed).as_object()
    write_message("dealing every fate (some are only noticed by a lapsed lease)")
    return run_matrix(rounds, together=together).as_object()


def _write(result: dict[str, Any]) -> None:
    from chaos.deaths import text

    write_table(text.HEADS[result["kind"]], text.rows(result))
    write_line()
    for line in text.lines(result):
        write_line(line)
