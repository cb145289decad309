"""A campaign: record the writer's run once, draw power cuts from it, judge each.

The same cuts are also judged for writers that leave a sync out: the campaign proves something only
if each of those is found losing something. SQLite's own setting is turned off in a second run; the
other syncs are taken out of the trace, which comes to the same, because nobody looks at their
result.

Everything is drawn from the seed, but the trace has the clock's stamps in it: a moment and a choice
come again, their bytes do not.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from chaos.powercut.disk import Act, Choice, Disk
from chaos.powercut.judge import judge, lay_out
from chaos.powercut.record import Moment, compile_shim, record
from chaos.powercut.workload import FAITHFUL, HEADS_FOLDER, SYNCHRONOUS_OFF, batches
from tripgate.audit.record import Row
from tripgate.audit.segments import RESERVE_NAME
from tripgate.clock import NS_PER_S, host_ns, utc_ns

SHARED_ROOT = Path("/dev/shm")  # noqa: S108 - a real disk would only be slower
VIOLATIONS_KEPT = 20
KILLS, LIFE_OPERATIONS = 3, (1, 500)
"""Deaths of the writing process itself on the way, and after how many operations each: what a
killed writer had not synced, its successor must."""
CONTROL_SHARE = 3
"""A control is judged on one state for this many of the campaign's own."""


@dataclass(frozen=True)
class Control:
    """A writer that leaves something out, and the invariants one of which must show it."""

    name: str
    says: str
    variant: str
    leaves_out: Callable[[str], bool]


def _is_heads_file(path: str) -> bool:
    return path.startswith(f"{HEADS_FOLDER}/")


def _is_marker(path: str) -> bool:
    # The marker is written into the space set aside for it and renamed afterwards.
    return path.endswith(f"/{RESERVE_NAME}")


def _is_folder(path: str) -> bool:
    return "." not in path


def _nothing(path: str) -> bool:
    del path
    return False


CONTROLS = (
    Control("synchronous-off", "SQLite syncs nothing", SYNCHRONOUS_OFF, _nothing),
    Control("heads-not-synced", "checkpoints are written, not synced", FAITHFUL, _is_heads_file),
    Control("marker-not-synced", "the retirement's text is not synced", FAITHFUL, _is_marker),
    Control("folders-not-synced", "new names are not synced", FAITHFUL, _is_folder),
)


@dataclass
class Tally:
    """States judged for one writer, and what was broken in them."""

    name: str
    says: str
    states: int = 0
    failed_states: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    choices: dict[str, int] = field(default_factory=dict)
    lossy: int = 0
    """States that differ from what the process had written, after something was acknowledged."""


@dataclass(frozen=True)
class Verdict:
    """What a campaign judged and found."""

    seed: int
    operations: int
    rows: int
    campaign: Tally
    controls: list[Tally]
    elapsed_s: float

    @property
    def is_exercised(self) -> bool:
        """Whether writes were lost, and every control was found out."""
        return self.campaign.lossy > 0 and all(one.failed_states for one in self.controls)


def run_cuts(*, states: int, seed: int) -> Verdict:
    """Judge ``states`` power cuts, and a third as many for each control.

    Raises
    ------
    TripgateError
        The drill itself could not run: no compiler, or the writing process failed.
    """
    root = SHARED_ROOT if os.access(SHARED_ROOT, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tripgate-powercut-", dir=root))
    began_ns = host_ns()
    try:
        start_ns = utc_ns()
        given = [row for batch in batches(start_ns) for row in batch.rows]
        shim = compile_shim(folder)
        draw = Random(seed)
        lives = [draw.randint(*LIFE_OPERATIONS) for _ in range(KILLS)]
        traces = {
            FAITHFUL: record(shim, folder, start_ns, FAITHFUL, lives),
            SYNCHRONOUS_OFF: record(shim, folder, start_ns, SYNCHRONOUS_OFF, []),
        }
        faithful = Control("tripgate", "the writer as it is", FAITHFUL, _nothing)
        campaign = _judge_all(faithful, traces[FAITHFUL], given, states, Random(seed), folder)
        few = max(1, states // CONTROL_SHARE)
        controls = [
            _judge_all(one, traces[one.variant], given, few, Random(seed), folder)
            for one in CONTROLS
        ]
        return Verdict(
            seed=seed, operations=len(traces[FAITHFUL]), rows=len(given), campaign=campaign,
            controls=controls, elapsed_s=round((host_ns() - began_ns) / NS_PER_S, 1),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judge_all(
    writer: Control, moments: list[Moment], given: list[Row], states: int, draw: Random,
    folder: Path,
) -> Tally:  # fmt: skip
    tally = Tally(writer.name, writer.says)
    disk, cuts = Disk(writer.leaves_out), Counter(draw.choices(range(len(moments)), k=states))
    for number, moment in enumerate(moments):
        for _ in range(cuts[number]):
            data, entries = draw.choice(list(Choice)), draw.choice(_ENTRY_CHOICES)
            image = disk.image(data, entries, draw)
            state = folder / "cut"
            lay_out(image, state)
            broken = judge(state, moment, given)
            shutil.rmtree(state)
            tally.states += 1
            _count(tally.choices, data.value)
            written = disk.image(Choice.ALL, Choice.ALL, Random(0))
            tally.lossy += bool(moment.rows) and image != written
            tally.failed_states += bool(broken)
            for name in {name for name, _ in broken}:
                _count(tally.broken, name)
            if len(tally.violations) < VIOLATIONS_KEPT:
                place = f"before operation {number} ({_text(moment)}), {data.value}/{entries.value}"
                tally.violations += [f"{name}: {seen} [{place}]" for name, seen in broken]
        disk.step(moment.operation)
    return tally


_ENTRY_CHOICES = (Choice.NONE, Choice.PREFIX, Choice.SUBSET, Choice.ALL)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _text(moment: Moment) -> str:
    operation = moment.operation
    target = operation.path or f"descriptor {operation.descriptor}"
    return f"{Act(operation.act).name.lower()} {target}"
