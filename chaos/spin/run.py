"""Running the models: generate a verifier, compile it, run it within bounds, judge its report.

Each variant is a process of its own in a temporary folder, without partial order reduction (Spin's
is not sound beside ``provided`` clauses), so that every interleaving is looked at.

Invariants: S1 a search cut short by any bound is *undecided*, never *holds*; S2 a variant is
refuted only by a violated assertion; S3 a model's assertion that none of its holding variants
reaches is named as unreached, and then the model has not passed.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path

from chaos.spin.manifest import MODELS, Model, Variant
from chaos.spin.verifier import SearchReport, read_report
from tripgate.clock import NS_PER_S, host_ns
from tripgate.errors import MissingPartError

FOLDER = Path(__file__).resolve().parent
DEPTH_MAX = 100_000
MEMORY_MB_MAX = 1_024
RUN_BOUND_S = 300.0
COMPILE_BOUND_S = 120.0
HASH_BITS = 21
"""Slots of the verifier's hash table: 2 ** HASH_BITS; it grows by itself."""

_INSTALL = "apt-get install spin gcc"


@unique
class Verdict(Enum):
    """What a search showed."""

    HOLDS = "holds"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Tools:
    """The programs that check a model."""

    spin: str
    compiler: str

    def spin_version(self) -> str:
        """Return Spin's version, such as ``6.5.2``."""
        finished = _run([self.spin, "-V"], FOLDER, COMPILE_BOUND_S)
        words = finished.stdout.split()
        return words[2] if len(words) > 2 else "unknown"


@dataclass(frozen=True)
class Outcome:
    """One variant's search.

    Attributes
    ----------
    why
        Why the search is undecided, or the violated assertion; empty if it holds.
    seconds
        Of the search, without generating and compiling.
    """

    model: Model
    variant: Variant
    verdict: Verdict
    states: int
    depth: int
    seconds: float
    why: str
    unreached_assertions: tuple[str, ...]

    @property
    def is_expected(self) -> bool:
        """Whether the verdict is the one that the manifest demands."""
        return self.verdict is (Verdict.HOLDS if self.variant.holds else Verdict.REFUTED)


@dataclass(frozen=True)
class Verification:
    """All outcomes of a run."""

    outcomes: tuple[Outcome, ...]

    @property
    def unreached(self) -> tuple[str, ...]:
        """Assertions that none of their model's holding variants reached."""
        places: set[str] = set()
        for name in {outcome.model.name for outcome in self.outcomes}:
            held = [
                set(outcome.unreached_assertions)
                for outcome in self.outcomes
                if outcome.model.name == name and outcome.verdict is Verdict.HOLDS
            ]
            places |= set.intersection(*held) if held else set()
        return tuple(sorted(places))

    @property
    def is_passed(self) -> bool:
        """Whether every verdict is as demanded and every assertion was reached."""
        return all(outcome.is_expected for outcome in self.outcomes) and not self.unreached


def find_tools() -> Tools:
    """Return the programs that check a model.

    Raises
    ------
    MissingPartError
        Spin or a C compiler is not installed.
    """
    spin = shutil.which("spin")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if spin is None:
        raise MissingPartError(f"the model checker 'spin' is not installed: run `{_INSTALL}`")
    if compiler is None:
        raise MissingPartError(f"Spin needs a C compiler and there is none: run `{_INSTALL}`")
    return Tools(spin, compiler)


def verify_all(
    tools: Tools, models: Iterable[Model] = MODELS, report: Callable[[Outcome], None] | None = None
) -> Verification:
    """Check every variant of some models, telling ``report`` of each as it is done."""
    outcomes = []
    for model in models:
        for variant in model.variants:
            outcome = verify(tools, model, variant)
            outcomes.append(outcome)
            if report is not None:
                report(outcome)
    return Verification(tuple(outcomes))


def verify(
    tools: Tools, model: Model, variant: Variant, *, depth_max: int = DEPTH_MAX,
    memory_mb_max: int = MEMORY_MB_MAX, bound_s: float = RUN_BOUND_S, folder: Path = FOLDER,
) -> Outcome:  # fmt: skip
    """Check one variant of a model.

    Parameters
    ----------
    depth_max, memory_mb_max, bound_s
        Bounds of the search: steps of a path, megabytes, seconds of the wall clock.
    folder
        Where the model's ``.pml`` file lies.
    """
    with tempfile.TemporaryDirectory(prefix="tripgate-spin-") as name:
        place = Path(name)
        shutil.copy(folder / f"{model.name}.pml", place)
        defines = [f"-D{define}" for define in variant.defines]
        # Refutations come early: there a fast compilation saves more than a fast verifier.
        optimise = "-O2" if variant.holds else "-O0"
        trouble = _build(tools, place, model, [optimise, f"-DMEMLIM={memory_mb_max}"], defines)
        if trouble:
            return _outcome(model, variant, None, 0.0, trouble)
        command = [str(place / "pan"), f"-m{depth_max}", f"-w{HASH_BITS}"]
        if model.kills:
            command.append("-E")
        began_ns = host_ns()
        try:
            finished = _run(command, place, bound_s)
        except subprocess.TimeoutExpired:
            return _outcome(model, variant, None, bound_s, "the bound of the time was reached")
        seconds = (host_ns() - began_ns) / NS_PER_S
        found = read_report(finished.stdout)
        lines = (finished.stdout + finished.stderr).strip().splitlines()
        last = lines[-1] if lines else f"exit code {finished.returncode}"
        return _outcome(model, variant, found, seconds, f"the verifier failed: {last}")


def _build(tools: Tools, place: Path, model: Model, options: list[str], defines: list[str]) -> str:
    # Returns what went wrong, or nothing.
    commands = (
        [tools.spin, "-a", *defines, f"{model.name}.pml"],
        [tools.compiler, *options, "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"],
    )  # fmt: skip
    for command in commands:
        try:
            finished = _run(command, place, COMPILE_BOUND_S)
        except subprocess.TimeoutExpired:
            return f"{Path(command[0]).name} did not end in time"
        if finished.returncode:
            lines = (finished.stdout + finished.stderr).strip().splitlines()
            return f"{Path(command[0]).name} failed: {lines[0] if lines else 'without a word'}"
    return ""


def _run(command: list[str], place: Path, bound_s: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, errors="replace", timeout=bound_s,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def _outcome(
    model: Model, variant: Variant, report: SearchReport | None, seconds: float, trouble: str
) -> Outcome:
    if report is None:
        return Outcome(model, variant, Verdict.UNDECIDED, 0, 0, seconds, trouble, ())
    verdict, why = Verdict.HOLDS, ""
    if report.violates_assertion:
        verdict, why = Verdict.REFUTED, report.error
    elif report.errors or report.shortened:
        verdict, why = Verdict.UNDECIDED, report.shortened or report.error
    return Outcome(
        model, variant, verdict, report.states, report.depth, seconds, why,
        report.unreached_assertions,
    )  # fmt: skip
