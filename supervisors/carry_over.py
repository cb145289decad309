"""What a new run takes over from an earlier one of the same instance.

A restart withdraws nothing that latches: levels are the maximum of what the old page and the log
say, and a run that did not end in order begins at MEDIUM until an operator resumes. The high-water
marks come from the last risk snapshot. Leftover processes of the old tree are killed by pid and
start time. Operators' records that are in the log were acted on: they are not acted on again.
"""

from dataclasses import dataclass
from pathlib import Path

from supervisors.leftovers import tree_processes
from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.durable import write_durably
from tripgate.errors import DeadlineError, PageError
from tripgate.instance import page_folder
from tripgate.messages import EventKind
from tripgate.page.level import bump_generation, node_level
from tripgate.page.mapping import Page, open_page
from tripgate.processes import kill_and_wait
from tripgate.reasons import Level

ENDED_FILE = "ended"
LEFTOVER_WAIT_S = 10.0
UNTIL_RESUMED = ("operator", "recovered", "keeper_fault")
"""Causes that only an operator's resume ends, whatever their level."""


@dataclass(frozen=True)
class CarryOver:
    """What must survive into the new run.

    Attributes
    ----------
    orderly
        Whether this is the first run or the last one ended in order.
    levels
        Level by scope name that the new page must begin with.
    high_water_marks
        Money units by scope name.
    operator_read
        Id of the last operator's record that is in the log, 0 if there is none.
    """

    orderly: bool
    levels: dict[str, Level]
    high_water_marks: dict[str, int]
    operator_read: int


def close_old_page(instance: str) -> dict[str, Level]:
    """Close the page an earlier run left, end its leftovers, and return its levels by scope."""
    try:
        page = open_page(page_folder(instance), control_writable=True)
    except PageError:
        return {}
    page.header["closed"] = page.header["ended"] = 1
    bump_generation(page)
    _kill_leftovers(page)
    levels = {name: node_level(page, node) for node, name in enumerate(page.names.scopes)}
    return {name: level for name, level in levels.items() if level > Level.NORMAL}


def _kill_leftovers(page: Page) -> None:
    for pid, start_time in tree_processes(page).items():
        # Waited for: the next tree takes over the log's lock and reads what the last one wrote.
        if not kill_and_wait(pid, start_time, LEFTOVER_WAIT_S):
            raise DeadlineError(
                f"process {pid} of the last run does not end: end it, then start again"
            )


def carry_over(state: Path, last_epoch: int, page_levels: dict[str, Level]) -> CarryOver:
    """Return what the run after ``last_epoch`` (0: there was none) takes over."""
    orderly = last_epoch == 0 or read_ended(state) == last_epoch
    reader = LogReader(state / "audit")
    logged, halted = _logged_levels(reader)
    levels = {
        scope: max(level, page_levels.get(scope, Level.NORMAL))
        for scope, level in {**page_levels, **logged}.items()
    }
    if orderly:
        levels = {
            scope: level
            for scope, level in levels.items()
            if level >= Level.HARD or scope in halted
        }
    else:
        levels["portfolio"] = max(levels.get("portfolio", Level.NORMAL), Level.MEDIUM)
    marks: dict[str, int] = {}
    for stored in reader.newest(1, kinds=(int(EventKind.RISK_SNAPSHOT),)):
        accounts = unpack_body(stored.row.body)["accounts"]
        if isinstance(accounts, dict):
            marks = {str(k): int(v["high_water_mark"]) for k, v in accounts.items()}
    read = 0
    for stored in reader.newest(1, kinds=(int(EventKind.OPERATOR),)):
        read = int(str(unpack_body(stored.row.body)["id"]))
    return CarryOver(orderly, levels, marks, read)


def _logged_levels(reader: LogReader) -> tuple[dict[str, Level], set[str]]:
    """Return each scope's last logged level, and the scopes that an operator halted there.

    Read over all epochs: a run that takes a level over does not log it again, and a run that
    failed at its start has logged nothing at all.
    """
    levels: dict[str, Level] = {}
    halted: set[str] = set()
    for stored in reader.rows(kinds=(int(EventKind.LEVEL_CHANGED),)):
        body = unpack_body(stored.row.body)
        scope, level = str(body["scope"]), Level[str(body["level"])]
        levels[scope] = level
        if level and body["cause"] in UNTIL_RESUMED:
            halted.add(scope)
        else:
            halted.discard(scope)
    return levels, halted


def read_ended(state: Path) -> int:
    """Return the epoch whose run last ended in order, or 0."""
    try:
        return int((state / ENDED_FILE).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def note_ended(state: Path, epoch: int) -> None:
    """Record durably that the run of ``epoch`` ended in order."""
    write_durably(state / ENDED_FILE, f"{epoch}\n".encode("ascii"))
