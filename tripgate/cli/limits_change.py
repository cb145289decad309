"""Carrying out an order to change limits: what tightens now, what loosens on a code.

A tightening needs nobody: its record is made durable, then the words are lowered, then the
generation rises, after which no check that began earlier can still grant against the old ones; it
works with a dead tree and holds through a restart. A loosening needs a live breaker, which looks
at the latches itself once more, and a code that is bound to all that was shown.

Invariants: H1 a command never makes a word looser; H2 nothing takes effect whose record is not
durable.
"""

from dataclasses import dataclass
from typing import Any

from tripgate.cli.halt import (
    REPLACED_PAGE_TRIES,
    Target,
    announce,
    open_target,
    signature,
)
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.cli.two_step import (
    CODE_LIFE_S,
    acquire,
    offer_code,
    state_facts,
    take_code,
    write_code,
)
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, NotRunningError, PageError, UsageError
from tripgate.gate.limit_orders import (
    LOOSEN,
    TIGHTEN,
    Change,
    carry_out_tightening,
    changes_to,
    latches_near,
    records_of,
)
from tripgate.operator_file import append_records
from tripgate.page.layout import ROLE
from tripgate.page.limits import Values, read_limit
from tripgate.page.mapping import Page

PENDING_NAME = "limits-pending.json"
SCOPES_MAX = 256
"""Scopes that one command may change: so many records fit in any ring at once."""
BREAKER_WAIT_S = 5.0
POLL_S = 0.02
REFUSED_EXIT_CODE = 1


@dataclass(frozen=True)
class Order:
    """Who orders which limits, and why.

    Attributes
    ----------
    wanted
        Values as the page holds them.
    fields
        What every record of this order carries beside its changes.
    """

    source: str
    wanted: Values
    reason: str
    operator: str | None
    fields: dict[str, Any]

    def common(self, page: Page) -> dict[str, Any]:
        """Return the fields of each record."""
        return {
            "source": self.source, "reason": self.reason, "epoch": page.epoch, **self.fields,
            **signature(self.operator),
        }  # fmt: skip

    def facts(self, page: Page) -> dict[str, Any]:
        """Return what a code for the rest of this order is bound to."""
        changes = [[c.scope, c.key, c.old, c.new] for c in changes_to(page, self.wanted)]
        asked = {"source": self.source, "reason": self.reason, "changes": changes, **self.fields}
        return {**asked, **state_facts(page)}


@dataclass
class Outcome:
    """What a command has done and what it has left."""

    tightened: list[Change]
    loosened: list[Change]
    open: list[Change]
    records: list[int]
    refusals: list[str]
    code: str | None = None


def change_limits(
    target: Target, order: Order, *, confirm: str | None, named: Values, as_json: bool
) -> int:
    """Carry out an order and report; return the exit code.

    Parameters
    ----------
    named
        Values that are recorded even where they hold already: an operator who names a limit means
        it, whatever an earlier order that is still under way may do.
    """
    changes = changes_to(target.page, order.wanted)
    if len({change.scope for change in changes}) > SCOPES_MAX:
        raise UsageError(f"more than {SCOPES_MAX} scopes change: reload in several steps")
    if confirm is not None:
        return _confirm(target, order, confirm, as_json=as_json)
    tighter = [change for change in changes if change.tightens]
    changing = {(change.scope, change.key) for change in tighter}
    tighter += [
        Change(*place, value, value)
        for place, value in named.items()
        if place not in changing and read_limit(target.page, *place) == value
    ]
    outcome = Outcome(tighter, [], [change for change in changes if not change.tightens], [], [])
    if tighter:
        outcome.records, target = _tighten(target, order, tighter)
    code = 0
    if outcome.open:
        code = _offer(target, order, outcome)
    _report(target, outcome, as_json=as_json)
    return code


def _tighten(target: Target, order: Order, changes: list[Change]) -> tuple[list[int], Target]:
    """Record and carry out a tightening, in the page that stands at the end."""
    common = order.common(target.page)
    numbers = append_records(target.state, records_of(changes, TIGHTEN, common))
    for _ in range(REPLACED_PAGE_TRIES):
        page = target.page
        announce(page, numbers[-1])
        known = [change for change in changes if change.scope in page.names.scopes]
        carry_out_tightening(page, known)
        try:
            again = open_target(target.instance)
        except (NotRunningError, PageError):
            break
        if again.page.epoch == page.epoch:
            break
        target = again
    return numbers, target


def _offer(target: Target, order: Order, outcome: Outcome) -> int:
    """Say what stands against the loosenings, or give a code for them; return the exit code."""
    if not target.tree_is_live:
        outcome.refusals = ["the tree is not running, and only its breaker loosens a limit"]
        return NotRunningError.exit_code
    outcome.refusals = _latches(target.page, outcome.open)
    if outcome.refusals:
        return REFUSED_EXIT_CODE
    if outcome.records:
        # The breaker counts its own reading of the records; a code given before would not hold.
        await_breaker(target, outcome.records[-1])
    outcome.code = offer_code(target.state / PENDING_NAME, order.facts(target.page))
    return 0


def _latches(page: Page, changes: list[Change]) -> list[str]:
    scopes = dict.fromkeys(change.scope for change in changes)
    return [
        f"{scope} is not loosened: {latch}"
        for scope in scopes
        for latch in latches_near(page, scope)
    ]


def _confirm(target: Target, order: Order, code: str, *, as_json: bool) -> int:
    lock = acquire(target)
    try:
        page = target.page
        take_code(target.state / PENDING_NAME, order.facts(page), code)
        if not target.tree_is_live:
            raise NotRunningError("the tree has ended meanwhile; nothing was done")
        changes = [change for change in changes_to(page, order.wanted) if not change.tightens]
        refusals = _latches(page, changes)
        if refusals:
            _report(target, Outcome([], [], changes, [], refusals), as_json=as_json)
            return REFUSED_EXIT_CODE
        numbers = append_records(target.state, records_of(changes, LOOSEN, order.common(page)))
        announce(page, numbers[-1])
    finally:
        lock.release()
    acted = await_breaker(target, numbers[-1])
    done = [c for c in changes if read_limit(page, c.scope, c.key) == c.new]
    left = [c for c in changes if c not in done]
    refusals = [] if not (acted and left) else _latches(page, left) or [
        "the breaker found another value than the one shown: ask again"
    ]  # fmt: skip
    _report(target, Outcome([], done, left, numbers, refusals), as_json=as_json)
    if not acted:
        write_message(
            f"the breaker has not acted within {BREAKER_WAIT_S:.0f} s; the record stands and it "
            "acts as soon as it can, in this run: see 'tripgate limits show'"
        )
        return DeadlineError.exit_code
    return REFUSED_EXIT_CODE if left else 0


def await_breaker(target: Target, record: int) -> bool:
    """Return whether the breaker of a live tree has read a record within the bound."""
    page = target.page
    role = page.rows(ROLE)[page.names.role("breaker")]
    deadline_ns = host_ns() + int(BREAKER_WAIT_S * NS_PER_S)
    while host_ns() < deadline_ns and target.tree_is_live:
        if int(role["operator_read"]) >= record:
            return True
        sleep_s(POLL_S)
    return False


def _report(target: Target, outcome: Outcome, *, as_json: bool) -> None:
    running = target.tree_is_live
    parts = {"tightened": outcome.tightened, "loosened": outcome.loosened, "open": outcome.open}
    if as_json:
        listed = {
            name: [
                {"scope": c.scope, "key": c.key, "text": c.text(), "old": c.old, "new": c.new}
                for c in changes
            ]
            for name, changes in parts.items()
        }
        write_json(
            {
                "instance": target.instance, **listed, "records": outcome.records,
                "refusals": outcome.refusals, "code": outcome.code, "code_life_s": CODE_LIFE_S,
                "limits_version": int(target.page.header["limits_version"]), "running": running,
            }
        )  # fmt: skip
        return
    words = {"tightened": "in force", "loosened": "in force, loosened", "open": "LOOSENS, not done"}
    for name, changes in parts.items():
        for change in changes:
            write_line(f"{change.text()}  ({words[name]})")
    if not any(parts.values()):
        write_line("every limit is what it should be: nothing was changed")
    for refusal in outcome.refusals:
        write_message(f"refused: {refusal}")
    if outcome.code is not None:
        write_code(outcome.code)
    if not running and outcome.tightened:
        write_message("the tree is not running: the next start keeps what is tighter here")
