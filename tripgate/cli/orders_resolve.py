"""``tripgate orders resolve``: say by hand what became of an order that nobody has heard of.

Where a venue enforces no send window, or lies about what it knows, an order of unknown fate is
counted for ever. Somebody who has looked at the venue ends it here, in two steps: the first says
what will be booked and given back, the second leaves a durable record. The keeper acts on it once
the router says that it knows nothing of the order either; if the venue knows it after all, the
record is refused. With a dead tree the record waits for the next start.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tripgate.audit.fates import refusal_of
from tripgate.cli.halt import Target, announce, check_reason, open_target, signature
from tripgate.cli.orders import FATES, fates_of, order_json
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.cli.two_step import CODE_LIFE_S, acquire, offer_code, take_code, write_code
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import ChainBrokenError, DeadlineError, UsageError
from tripgate.gate.client_order_id import decode_client_id
from tripgate.gate.orders import LiveOrder, live_orders
from tripgate.instance import installation_id
from tripgate.machines.reservation import EntryState
from tripgate.messages import EventKind
from tripgate.operator_file import RESOLVE_COMMAND, RESOLVE_STATES, append_record
from tripgate.page.mapping import Page
from tripgate.spelling import did_you_mean
from tripgate.units import money_text

PENDING_NAME = "resolve-pending.json"
KEEPER_WAIT_S = 5.0
POLL_S = 0.05
TOKEN_DIGITS_MAX = 19
"""Decimal digits of a 63-bit token; a client order id has more characters than that."""
REFUSED_EXIT_CODE = 1
UNKNOWN = FATES[EventKind.ORDER_UNKNOWN]
WHY_NOT = {
    EntryState.RESERVING: "its client is just deciding",
    EntryState.RESERVED: "it was not sent, and expires within seconds",
    EntryState.RELEASING: "it has ended, and is being released",
    EntryState.UNSENT: "it was never sent, and is being released",
}
"""Why an order in another state needs no resolving."""


@dataclass(frozen=True)
class Request:
    """What an operator says became of an order."""

    token: int
    state: str
    filled_lots: int
    ticks: int
    reason: str


def resolve(
    token: str,
    /,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    reason: str,
    filled_lots: int | None = None,
    price: str | None = None,
    confirm: str | None = None,
    operator: str | None = None,
    instance: str | None = None,
    json: bool = False,
) -> int:
    """End an order of unknown fate by hand: first print the effect and a code, then act on it.

    Only a committed order whose fate is unknown can be resolved. Look at the venue first: what is
    said here is booked, and what the order reserved is given back. Trades of the venue that come
    later replace what was said, lot by lot.

    Parameters
    ----------
    token
        The order's token or client order id, see 'tripgate orders list'.
    as_
        filled (all of it), cancelled or rejected.
    reason
        Why, for the record.
    filled_lots
        Lots filled in all; default: all for filled, those booked already for the others.
    price
        Average price of the lots that are not booked yet.
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
        0; 1 if the keeper has refused; 2 if the order cannot be resolved so or the code is
        refused; 5 if the keeper of a live tree has not acted within 5 seconds.
    """
    why = check_reason(reason)
    target = open_target(instance)
    order = find_order(target.page, token)
    request = make_request(target.page, order, as_, filled_lots, price, why)
    _check_fate(target, order)
    if confirm is None:
        return _offer(target, order, request, as_json=json)
    return _confirm(target, order, request, confirm, operator, as_json=json)


def find_order(page: Page, text: str) -> LiveOrder:
    """Return the live order of a token or client order id. Raises ``UsageError`` if there is none.

    Raises
    ------
    UsageError
        No live order has it, or the order is not committed: it says what to do.
    """
    installation = installation_id()
    word = text.strip().upper()
    is_token = word.isascii() and word.isdigit() and len(word) <= TOKEN_DIGITS_MAX
    token = int(word) if is_token else decode_client_id(installation, word)
    found = [order for order in live_orders(page, installation) if order.token == token]
    if not found:
        raise UsageError(
            f"no live order has token or client order id {text!r}: it has ended, or is of another "
            "instance; see 'tripgate orders list'"
        )
    order = found[0]
    if order.state is not EntryState.COMMITTED:
        raise UsageError(
            f"order {order.token} is {order.state.name}: {WHY_NOT[order.state]}; nothing to resolve"
        )
    return order


def make_request(
    page: Page, order: LiveOrder, state: str, filled_lots: int | None, price: str | None, why: str
) -> Request:
    """Return what is asked for, whole and in range. Raises ``UsageError`` saying what is wrong."""
    name = state.upper()
    if name not in RESOLVE_STATES:
        choices = ", ".join(choice.lower() for choice in RESOLVE_STATES)
        raise UsageError(
            f"--as is one of {choices}; was {state!r}{did_you_mean(name, RESOLVE_STATES)}"
        )
    booked = order.filled_lots
    lots = filled_lots
    if lots is None:
        lots = order.lots if name == "FILLED" else booked
    if name == "REJECTED" and (lots or booked):
        raise UsageError(f"a rejected order has no fills, {max(lots, booked)} lots were given")
    if name == "FILLED" and lots != order.lots:
        raise UsageError(
            f"a filled order has all its {order.lots} lots; for {lots} of them say --as cancelled"
        )
    if not booked <= lots <= order.lots:
        raise UsageError(
            f"--filled-lots is {booked} (booked already) to {order.lots} (ordered), was {lots}"
        )
    return Request(order.token, name, lots, _ticks(page, order, lots - booked, price), why)


def _ticks(page: Page, order: LiveOrder, fresh: int, price: str | None) -> int:
    if price is None:
        if fresh:
            raise UsageError(f"--price: {fresh} lots would be booked; say at which average price")
        return 0
    units = page.names.instruments[page.names.instrument(order.venue, order.symbol)].units
    try:
        ticks = units.price_ticks(price)
    except ValueError as error:
        raise UsageError(f"--price: {error}") from None
    if ticks <= 0:
        raise UsageError(f"--price is above 0, was {price}")
    return ticks


def _check_fate(target: Target, order: LiveOrder) -> None:
    """Refuse an order that a live tree knows more of than its operator."""
    fate = fates_of(target.page, [order])[order.token]
    if target.tree_is_live and fate != UNKNOWN:
        raise UsageError(
            f"the fate of order {order.token} is not unknown ({fate}): cancel it through its "
            "strategy or with 'tripgate halt', and let the venue say how it ended"
        )


def bound_facts(page: Page, order: LiveOrder, request: Request) -> dict[str, Any]:
    """Return everything that a code is bound to, JSON-ready."""
    return {
        "token": request.token, "as": request.state, "filled lots": request.filled_lots,
        "price in ticks": request.ticks, "reason": request.reason, "epoch": page.epoch,
        "lots left": order.remaining_lots,
    }  # fmt: skip


def _effect(page: Page, order: LiveOrder, request: Request) -> list[str]:
    told = order_json(page, order, UNKNOWN)
    fresh = request.filled_lots - order.filled_lots
    units = page.names.instruments[page.names.instrument(order.venue, order.symbol)].units
    lines = [
        f"order {order.token}: {order.strategy} {order.side} {order.lots} lots of "
        f"{told['instrument']} ({order.kind}), {order.filled_lots} booked",
        f"  will end: {request.state}",
    ]
    if fresh:
        lines.append(
            f"  will be booked: {order.side} {fresh} lots at {units.price_text(request.ticks)}"
        )
    lines.append(f"  will be given back: {money_text(order.charged_money)} of its reservation")
    return lines


def _offer(target: Target, order: LiveOrder, request: Request, *, as_json: bool) -> int:
    facts = bound_facts(target.page, order, request)
    code = offer_code(target.state / PENDING_NAME, facts)
    running = target.tree_is_live
    if as_json:
        write_json(
            {
                "instance": target.instance, "order": order_json(target.page, order, UNKNOWN),
                "as": request.state, "filled_lots": request.filled_lots,
                "booked_lots": request.filled_lots - order.filled_lots, "running": running,
                "code": code, "code_life_s": CODE_LIFE_S,
            }
        )  # fmt: skip
        return 0
    for line in _effect(target.page, order, request):
        write_line(line)
    if not running:
        write_message(
            "the tree is not running: the order is kept on record and acted on at the next start, "
            "unless the venue knows it then"
        )
    write_code(code)
    return 0


def _confirm(
    target: Target, order: LiveOrder, request: Request, code: str, operator: str | None, *,
    as_json: bool,
) -> int:  # fmt: skip
    lock = acquire(target)
    try:
        facts = bound_facts(target.page, order, request)
        take_code(target.state / PENDING_NAME, facts, code)
        record = {
            "command": RESOLVE_COMMAND, "scope": f"instrument:{order.venue}/{order.symbol}",
            "token": request.token, "state": request.state, "filled_lots": request.filled_lots,
            "ticks": request.ticks, "reason": request.reason, **signature(operator),
        }  # fmt: skip
        number = append_record(target.state, record)
        announce(target.page, number)
    finally:
        lock.release()
    acted, refused = _await_keeper(target, request.token, number)
    if as_json:
        write_json(
            {
                "instance": target.instance, "token": request.token, "record": number,
                "running": acted is not None, "acted": bool(acted), "refused": refused,
            }
        )  # fmt: skip
    elif acted:
        write_line(f"order {request.token}: {request.state}, record {number}")
    else:
        write_line(f"order {request.token}: record {number}")
    return _exit_code(acted, refused)


def _exit_code(acted: bool | None, refused: str | None) -> int:
    if refused is not None:
        write_message(f"not resolved: {refused}")
        return REFUSED_EXIT_CODE
    if acted is None:
        write_message("the tree is not running: the keeper judges this record at the next start")
        return 0
    if not acted:
        write_message(
            f"the keeper has not acted within {KEEPER_WAIT_S:.0f} s; the record stands and it acts "
            "as soon as the router has asked the venue: see 'tripgate orders list'"
        )
        return DeadlineError.exit_code
    return 0


def _await_keeper(target: Target, token: int, record: int) -> tuple[bool | None, str | None]:
    """Return whether the order has ended within the bound (None: no tree), and a refusal."""
    deadline_ns = host_ns() + int(KEEPER_WAIT_S * NS_PER_S)
    installation = installation_id()
    while host_ns() < deadline_ns:
        if not target.tree_is_live:
            return None, None
        standing = live_orders(target.page, installation)
        refused = _refusal(target.state, record)
        if refused is not None:
            return False, refused
        if not any(o.token == token and o.state is EntryState.COMMITTED for o in standing):
            return True, None
        sleep_s(POLL_S)
    return False, None


def _refusal(state: Path, record: int) -> str | None:
    try:
        return refusal_of(state / "audit", record)
    except ChainBrokenError:
        return None  # being made, or damaged: the page says what became of the order
