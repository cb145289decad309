"""``tripgate halt``: raise a scope's level by hand, with no process of the tree needed.

First the record (durable), then the operator's byte of the level word, which every check that
begins from then on sees; then the word that tells the actors, so that the breaker closes positions;
last the generation, after which no check that began earlier can still grant. The generation needs
compiled code, whose import takes seconds on a busy machine: nothing else may wait for that.

A tightening never waits for a lock either: where another operator's command holds it, halt goes on
after half a second, because its only store is one that raises, and orders it again after that
command has ended.

Invariants: H1 the operator's byte is never lowered here; H2 nothing takes effect whose record is
not durable.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripgate.cli.output import write_json, write_line, write_message
from tripgate.cli.status import is_running
from tripgate.clock import utc_ns
from tripgate.durable import FileLock
from tripgate.errors import NotRunningError, PageError, UsageError
from tripgate.gate.status import read_status
from tripgate.instance import page_folder, pick_instance
from tripgate.operator_file import append_record
from tripgate.page.doorbell import Ringer
from tripgate.page.layout import LIMIT
from tripgate.page.level import LevelWriter, bump_generation, node_level, writer_level
from tripgate.page.mapping import Page, open_page
from tripgate.page.names import PageNames
from tripgate.reasons import Level
from tripgate.spelling import did_you_mean

LOCK_NAME = "operator.lock"
REASON_CHARACTERS_MAX = 500
REPLACED_PAGE_TRIES = 5
HALT_LEVELS = ("MEDIUM", "HARD", "EMERGENCY")


@dataclass(frozen=True)
class Target:
    """What an operator's command acts on: the page (control writable) and the state folder."""

    instance: str
    page: Page
    state: Path

    @property
    def lock(self) -> FileLock:
        """The lock that serialises operators' commands."""
        return FileLock(self.state / LOCK_NAME, is_removed=False)

    @property
    def tree_is_live(self) -> bool:
        """Whether a live root will act on a record."""
        return is_running(read_status(self.page), self.page)


def halt(
    *,
    scope: str,
    reason: str,
    level: str = "HARD",
    operator: str | None = None,
    instance: str | None = None,
    json: bool = False,
) -> int:
    """Raise the breaker level of a scope at once; it stays until 'tripgate resume'.

    Needs no live process. MEDIUM allows only exits, HARD also closes all positions of the scope,
    EMERGENCY then ends the run.

    Parameters
    ----------
    scope
        portfolio, venue:V, asset:A, strategy:S or instrument:V/SYMBOL.
    reason
        Why, for the record.
    level
        MEDIUM, HARD or EMERGENCY.
    operator
        Who orders it, beside the user of this process.
    instance
        Whose gate; else $TRIPGATE_INSTANCE, else the only one running.
    json
        Print one JSON object instead of text.
    """
    wanted = parse_level(level)
    why = check_reason(reason)
    target = open_target(instance)
    node = find_scope(target.page.names, scope)
    before = writer_level(target.page, node, LevelWriter.OPERATOR)
    record = {
        "command": "halt", "scope": scope, "level": wanted.name, "reason": why,
        **signature(operator),
    }  # fmt: skip
    lock = target.lock
    is_alone = lock.acquire()
    try:
        number = append_record(target.state, record)
        target, node = _tighten(target, scope, wanted, number)
        if not is_alone and lock.acquire():
            # What held the lock may have been a resume that lowered what was just raised.
            number = append_record(target.state, record)
            target, node = _tighten(target, scope, wanted, number)
    finally:
        lock.release()
    held = writer_level(target.page, node, LevelWriter.OPERATOR)
    result: dict[str, Any] = {
        "instance": target.instance, "scope": scope, "record": number,
        "operator_level_before": before.name, "operator_level": held.name,
        "level": node_level(target.page, node).name, "running": target.tree_is_live,
        "shadow": bool(target.page.header["shadow"]),
    }  # fmt: skip
    _write_result(result, wanted, as_json=json)
    return 0


def parse_level(text: str) -> Level:
    """Return the level a halt may set. Raises ``UsageError`` for any other word."""
    name = text.upper()
    if name not in HALT_LEVELS:
        choices = ", ".join(HALT_LEVELS)
        hint = did_you_mean(name, HALT_LEVELS)
        raise UsageError(f"--level is one of {choices}; was {text!r}{hint}")
    return Level[name]


def check_reason(text: str) -> str:
    """Return a reason on one line. Raises ``UsageError`` if it says nothing or too much."""
    reason = " ".join(text.split())
    if not 0 < len(reason) <= REASON_CHARACTERS_MAX:
        raise UsageError(
            f"--reason says why in 1 to {REASON_CHARACTERS_MAX} characters, had {len(reason)}"
        )
    return reason


def find_scope(names: PageNames, scope: str) -> int:
    """Return a scope's node. Raises ``UsageError`` with the nearest name and all there are."""
    if scope in names.scopes:
        return names.scope(scope)
    known = ", ".join(names.scopes)
    hint = did_you_mean(scope, names.scopes)
    raise UsageError(f"unknown scope {scope!r}{hint} (this instance has: {known})")


def signature(operator: str | None) -> dict[str, Any]:
    """Return who orders something, and when: the fields that each record carries."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        user = str(os.getuid())
    return {"operator": operator or user, "os_user": user, "utc_ns": utc_ns()}


def open_target(instance: str | None) -> Target:
    """Open the page that an operator's command acts on.

    Raises
    ------
    NotRunningError
        The instance has no page: nothing is running there and nothing can be granted.
    PageError
        There is a page that may not be trusted.
    """
    name = pick_instance(instance)
    folder = page_folder(name)
    if not folder.is_dir():
        raise NotRunningError(
            f"instance '{name}' has no page: nothing runs there, so nothing can be granted"
        )
    page = open_page(folder, control_writable=True, writable=False)
    return Target(name, page, Path(page.names.state_folder))


def announce(page: Page, record: int) -> None:
    """Tell the actors that the operator's file has a new record, and wake them."""
    header = page.header
    header["operator_sequence"] = max(int(header["operator_sequence"]), record)
    ringer = Ringer(page.folder)
    ringer.ring_all()
    ringer.close()


def _tighten(target: Target, scope: str, level: Level, record: int) -> tuple[Target, int]:
    """Raise the operator's byte and announce the record, in the page that stands at the end.

    A starting tree replaces the page after it has read the old one's levels: a byte stored in
    between would be lost with the old file.
    """
    for _ in range(REPLACED_PAGE_TRIES):
        page = target.page
        node = find_scope(page.names, scope)
        tightens = level > writer_level(page, node, LevelWriter.OPERATOR)
        if tightens:
            place = LIMIT.offset("level") + LevelWriter.OPERATOR
            page.bytes_of(LIMIT, node)[place] = int(level)
        announce(page, record)
        if tightens:
            bump_generation(page)
        try:
            again = open_target(target.instance)
        except (NotRunningError, PageError):
            return target, node
        if again.page.epoch == page.epoch:
            return target, node
        target = again
    return target, node


def _write_result(result: dict[str, Any], wanted: Level, *, as_json: bool) -> None:
    if as_json:
        write_json(result)
    else:
        write_line(
            f"{result['scope']}: the operator holds {result['operator_level']} (before: "
            f"{result['operator_level_before']}), level {result['level']}, "
            f"record {result['record']}"
        )
    if Level[result["operator_level"]] > wanted:
        write_message(
            f"an earlier halt holds {result['operator_level']} there: 'tripgate resume' lowers it"
        )
    if not result["running"]:
        write_message(
            "the tree is not running: openings are denied already, nobody closes positions, and "
            "the next start takes this level over"
        )
    elif result["shadow"]:
        write_message(
            "this is a shadow page: the level is on record, but denies and closes nothing"
        )
    elif wanted >= Level.HARD:
        write_message("the positions of the scope are being closed: watch 'tripgate status'")
