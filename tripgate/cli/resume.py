"""``tripgate resume``: release a scope's latches by hand, in two steps.

The first step says what holds the scope, what the breaker will release and what will stay, and
gives a code; the second, within a minute, acts (``two_step``). What it says is not a guess: it runs
the breaker's own step on the causes that stand in the page.

Invariant: S2 only the operator's own byte is lowered here, everything else is the breaker's to
release.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.cli.halt import (
    Target,
    announce,
    check_reason,
    find_scope,
    open_target,
    signature,
)
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.cli.resume_effect import effect_of_resume, refusals_of
from tripgate.cli.two_step import (
    CODE_LIFE_S,
    acquire,
    offer_code,
    state_facts,
    take_code,
    write_code,
)
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, UsageError
from tripgate.operator_file import append_record
from tripgate.page.layout import ACCOUNT, ROLE
from tripgate.page.level import LevelWriter, node_level, set_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level

PENDING_NAME = "resume-pending.json"
BREAKER_WAIT_S = 5.0
POLL_S = 0.02
STILL_HELD_EXIT_CODE = 1


@dataclass(frozen=True)
class Request:
    """What an operator asks for."""

    scope: str
    reason: str
    rebase: bool
    operator: str | None


def resume(
    *,
    scope: str,
    reason: str,
    rebase_drawdown: bool = False,
    confirm: str | None = None,
    operator: str | None = None,
    instance: str | None = None,
    json: bool = False,
) -> int:
    """Release the latches of a scope: first print the effect and a code, then act on the code.

    Without --confirm nothing changes. With it, the same scope, reason and --rebase-drawdown must be
    given again; if levels, factors, limits or the run have changed since, the code is
    refused (exit 2) and says what changed.

    Parameters
    ----------
    scope
        portfolio, venue:V, asset:A, strategy:S or instrument:V/SYMBOL.
    reason
        Why, for the record.
    rebase_drawdown
        Restart the scope's high-water mark at present equity: its drawdown is then zero.
    confirm
        The code of the first step, at most 60 seconds old.
    operator
        Who orders it, beside the user of this process.
    instance
        Whose gate; else $TRIPGATE_INSTANCE, else the only one running.
    json
        Print one JSON object instead of text.

    Returns
    -------
    int
        0; 1 if the breaker has acted and still holds the scope at HARD or above; 2 if the code is
        refused; 5 if the breaker of a live tree has not acted within 5 seconds.
    """
    request = Request(scope, check_reason(reason), rebase_drawdown, operator)
    target = open_target(instance)
    find_scope(target.page.names, scope)
    if rebase_drawdown:
        _check_rebase(target.page, scope)
    if confirm is None:
        return _offer(target, request, as_json=json)
    return _confirm(target, request, confirm, as_json=json)


def bound_facts(page: Page, request: Request) -> dict[str, Any]:
    """Return everything that a code is bound to, JSON-ready."""
    asked = {"scope": request.scope, "reason": request.reason, "rebase": request.rebase}
    return {**asked, **state_facts(page)}


def _check_rebase(page: Page, scope: str) -> None:
    row = page.rows(ACCOUNT)[page.names.scope(scope)]
    if not row["starting"]:
        raise UsageError(f"--rebase-drawdown: {scope} has no equity of its own, so no drawdown")
    if not row["known"] or row["stale"]:
        raise UsageError(
            f"--rebase-drawdown: the equity of {scope} is not known now, so there is no mark to "
            "begin from: wait for fresh prices and try again"
        )


def _offer(target: Target, request: Request, *, as_json: bool) -> int:
    effect = effect_of_resume(target.page, request.scope, rebase=request.rebase)
    needed = effect.has_something_to_release or request.rebase
    running = target.tree_is_live
    path = target.state / PENDING_NAME
    code = offer_code(path, bound_facts(target.page, request)) if needed else None
    if as_json:
        write_json(
            {
                "instance": target.instance, **effect.to_json(), "running": running, "code": code,
                "code_life_s": CODE_LIFE_S,
            }
        )  # fmt: skip
        return 0
    for line in effect.lines():
        write_line(line)
    if not running:
        write_message(
            "the tree is not running: the order is kept on record and the breaker judges it at "
            "the next start"
        )
    if code is not None:
        write_code(code)
    return 0


def _confirm(target: Target, request: Request, code: str, *, as_json: bool) -> int:
    lock = acquire(target)
    try:
        take_code(target.state / PENDING_NAME, bound_facts(target.page, request), code)
        before = node_level(target.page, target.page.names.scope(request.scope))
        record = {
            "command": "resume", "scope": request.scope, "reason": request.reason,
            "rebase": request.rebase, **signature(request.operator),
        }  # fmt: skip
        number = append_record(target.state, record)
        node = target.page.names.scope(request.scope)
        set_level(target.page, node, LevelWriter.OPERATOR, Level.NORMAL)
        announce(target.page, number)
    finally:
        lock.release()
    acted = _await_breaker(target, node, number, rebase=request.rebase)
    after = node_level(target.page, node)
    refusals = refusals_of(target.state, number) if acted and after >= Level.HARD else []
    if as_json:
        write_json(
            {
                "instance": target.instance, "scope": request.scope, "record": number,
                "level_before": before.name, "level": after.name, "running": acted is not None,
                "acted": bool(acted), "refused": refusals,
            }
        )  # fmt: skip
    else:
        write_line(f"{request.scope}: level {after.name} (before: {before.name}), record {number}")
        for text in refusals:
            write_line(f"  not released: {text}")
    return _exit_code(acted, after)


def _exit_code(acted: bool | None, after: Level) -> int:
    if acted is None:
        write_message(
            "the tree is not running: the breaker judges this record at the next start; until "
            "then its own level stays"
        )
        return 0
    if not acted:
        write_message(
            f"the breaker has not acted within {BREAKER_WAIT_S:.0f} s; the record stands and it "
            "acts as soon as it can: see 'tripgate status'"
        )
        return DeadlineError.exit_code
    if after >= Level.HARD:
        write_message(
            "the scope is still held, and what holds it must end first: see 'tripgate status'"
        )
        return STILL_HELD_EXIT_CODE
    return 0


def _await_breaker(target: Target, node: int, record: int, *, rebase: bool) -> bool | None:
    """Return whether the breaker has acted on a record within the bound; None if no tree lives."""
    page = target.page
    role = page.rows(ROLE)[page.names.role("breaker")]
    deadline_ns = host_ns() + int(BREAKER_WAIT_S * NS_PER_S)
    while host_ns() < deadline_ns:
        if not target.tree_is_live:
            return None
        rebased = not rebase or int(page.rows(ACCOUNT)["rebase_sequence"][node]) >= record
        if int(role["operator_read"]) >= record and rebased:
            return True
        sleep_s(POLL_S)
    return False
