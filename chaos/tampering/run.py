"""A campaign: every kind of tampering, several times, each judged by the real verifier.

What counts is one of two things: the verdict names a problem, or every row that was in the log is
still there, byte for byte. A kind that changes log and heads together is given a second chance with
the heads that an outside witness kept, and must be found there.
"""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Self

from chaos.tampering import acts_bytes, acts_history, acts_tables
from chaos.tampering.examiner import Answer, Question
from chaos.tampering.ground import Log, Originals, make_originals
from chaos.tampering.kinds import Demand, Kind, Scene
from tripgate.clock import NS_PER_S, host_ns, utc_ns
from tripgate.errors import TripgateError

KINDS: tuple[Kind, ...] = (*acts_bytes.KINDS, *acts_tables.KINDS, *acts_history.KINDS)
BOX = Path(__file__).resolve().parent.parent.parent
SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - only what is read back matters
ANSWER_BOUND_S = 60.0
ROWS_MAX = 1_000_000
HARMLESS, OUTSIDE, MISSED, ALARM = "harmless", "outside head", "missed", "false alarm"

FINDERS = (
    ("schema", r"the schema|has no table of rows"),
    ("files", r"follows|joins the chain|had been acknowledged|\.retired|there is no log"),
    ("heads", r"heads\.jsonl"),
    ("read error", r"cannot be (read|opened)"),
    ("integrity", r"is damaged"),
    ("chain", r"row|producers"),
)
"""What a problem's text says about who found it; the first that matches."""


@dataclass
class Tally:
    """All trials of one kind.

    Attributes
    ----------
    found_by
        By finder, in how many trials it had something to say; a trial can have several. With them
        ``harmless`` and ``outside head``.
    """

    name: str
    demand: str
    trials: int = 0
    found: int = 0
    found_by: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What a campaign saw."""

    seed: int
    rows: int
    kinds: list[Tally]
    elapsed_s: float

    @property
    def violations(self) -> list[str]:
        """Return every violation with its kind."""
        return [f"{kind.name}: {text}" for kind in self.kinds for text in kind.violations]

    @property
    def is_exercised(self) -> bool:
        """Whether every kind that must be found was tried and found."""
        must = {Demand.FOUND.value, Demand.OUTSIDE.value}
        return all(kind.found for kind in self.kinds if kind.demand in must)


class Examiner:
    """The examining process, started anew when it hangs or dies."""

    def __init__(self) -> None:
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, question: Question) -> Answer:
        """Return the answer; one that never came is an accident."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(question)) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_BOUND_S)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return Answer(**json.loads(line))
        self._end()
        self._process = self._start()
        return Answer([], 0, None, ["the examiner hung" if not ready else "the examiner died"])

    @staticmethod
    def _start() -> "subprocess.Popen[str]":
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join(filter(None, (str(BOX), inherited)))
        return subprocess.Popen(
            [sys.executable, "-m", "chaos.tampering.examiner"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def run_tampering(*, trials: int, seed: int, kinds: tuple[Kind, ...] = KINDS) -> Verdict:
    """Try every kind ``trials`` times.

    Raises
    ------
    TripgateError
        The sound logs did not verify: there is nothing to tamper with.
    """
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-tampering-", dir=root))
    began_ns = host_ns()
    try:
        originals = make_originals(folder, utc_ns())
        with Examiner() as examiner:
            sound = {
                log.state.name: _examine_sound(examiner, log, folder)
                for log in (originals.closed, originals.hot)
            }
            tallies = [
                _try_kind(kind, trials, seed, originals, examiner, sound, folder) for kind in kinds
            ]
        elapsed_s = round((host_ns() - began_ns) / NS_PER_S, 1)
        return Verdict(seed, sound[originals.closed.state.name].count, tallies, elapsed_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _examine_sound(examiner: Examiner, log: Log, folder: Path) -> Answer:
    copy = log.copy_to(folder / "trial")
    answer = examiner.ask(Question(str(copy.state), str(copy.heads), ROWS_MAX))
    shutil.rmtree(copy.state)
    if answer.problems or answer.accidents:
        raise TripgateError(f"the sound log does not verify: {answer.problems + answer.accidents}")
    return answer


def _try_kind(
    kind: Kind, trials: int, seed: int, originals: Originals, examiner: Examiner,
    sound: dict[str, Answer], folder: Path,
) -> Tally:  # fmt: skip
    tally = Tally(kind.name, kind.demand.value)
    original = originals.hot if kind.is_hot else originals.closed
    for trial in range(trials):
        draw = Random(f"{seed}/{kind.name}/{trial}")
        log = original.copy_to(folder / "trial")
        kind.act(Scene(log, originals, draw))
        before = sound[original.state.name]
        question = Question(str(log.state), str(originals.outside), before.count)
        # The outside witness looks first: the other examination ends with a writer's start.
        outside = examiner.ask(question) if kind.demand in _OUTSIDERS else None
        inside = examiner.ask(Question(str(log.state), str(log.heads), before.count))
        shutil.rmtree(log.state)
        _count(tally, kind.demand, inside, outside, before)
    return tally


_OUTSIDERS = (Demand.OUTSIDE, Demand.FOUND_OR_YOUNG)


def _count(
    tally: Tally, demand: Demand, inside: Answer, outside: Answer | None, before: Answer
) -> None:
    tally.trials += 1
    is_whole = (inside.count, inside.digest) == (before.count, before.digest)
    found_by = {finder_of(problem) for problem in inside.problems}
    if not inside.problems and is_whole:
        found_by = {HARMLESS}
    elif not inside.problems and outside is not None and outside.problems:
        found_by = {OUTSIDE}
    tally.found += bool(inside.problems) or OUTSIDE in found_by
    accidents = inside.accidents + (outside.accidents if outside else [])
    if demand is Demand.HARMLESS and found_by != {HARMLESS}:
        found_by = {ALARM}
    elif not found_by or (found_by == {HARMLESS} and demand in (Demand.FOUND, Demand.OUTSIDE)):
        found_by = {MISSED}
    for name in sorted(found_by):
        tally.found_by[name] = tally.found_by.get(name, 0) + 1
    if found_by & {MISSED, ALARM}:
        tally.violations.append(f"{', '.join(found_by)}: {inside.problems[:1]}")
    tally.violations += accidents


def finder_of(problem: str) -> str:
    """Return which part of the verification a problem comes from."""
    for name, pattern in FINDERS:
        if re.search(pattern, problem):
            return name
    return "other"
