"""``tripgate orders list``: every live entry of the gate, read from its page alone.

It asks no process anything, so it answers when every actor is dead. What the routers last said of
each order comes from the log, where that can be read; the page does not need it.
"""

from pathlib import Path
from typing import Any

from tripgate.audit.fates import last_words
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.cli.status import is_running
from tripgate.errors import ChainBrokenError, NotRunningError
from tripgate.gate.orders import LiveOrder, live_orders
from tripgate.gate.status import read_status
from tripgate.instance import installation_id, page_folder, pick_instance
from tripgate.machines.reservation import EntryState
from tripgate.messages import EventKind
from tripgate.page.mapping import Page, open_page
from tripgate.units import money_text

FATES = {
    EventKind.ORDER_SENT: "sent",
    EventKind.ORDER_ACKNOWLEDGED: "at the venue",
    EventKind.FILL: "at the venue",
    EventKind.ORDER_UNKNOWN: "unknown",
}
"""What the last word of a router says of a committed order."""
NOT_HEARD = "not heard of"
NOT_SENT = "-"


def list_orders(*, instance: str | None = None, json: bool = False) -> int:
    """List every order that the gate still counts: reserved, committed or being released.

    Reads shared memory, and the log for what became of each at its venue. Works when every process
    of the instance is dead: it prints the last state then and exits 3.

    Parameters
    ----------
    instance
        Whose orders; else $TRIPGATE_INSTANCE, else the only one running.
    json
        Print one JSON object instead of text.
    """
    page = open_page(page_folder(pick_instance(instance)), writable=False)
    orders = live_orders(page, installation_id())
    fates = fates_of(page, orders)
    running = is_running(read_status(page), page)
    if json:
        rows = [order_json(page, order, fates[order.token]) for order in orders]
        write_json({"instance": page.names.instance, "running": running, "orders": rows})
    elif orders:
        _write_orders(page, orders, fates)
    else:
        write_line("no live order")
    if not running:
        write_message("tripgate: the tree is not running: this is its last state")
        return NotRunningError.exit_code
    return 0


def fates_of(page: Page, orders: list[LiveOrder]) -> dict[int, str]:
    """Return what is known of each order at its venue, by token."""
    folder = Path(page.names.state_folder) / "audit"
    words: dict[int, EventKind] = {}
    if any(order.state is EntryState.COMMITTED for order in orders):
        try:
            words = last_words(folder, page.epoch)
        except ChainBrokenError as error:
            write_message(f"tripgate: what became of orders is not known: {error}")
    return {
        order.token: FATES[words[order.token]]
        if order.token in words
        else (NOT_HEARD if order.state is EntryState.COMMITTED else NOT_SENT)
        for order in orders
    }


def order_json(page: Page, order: LiveOrder, fate: str) -> dict[str, Any]:
    """Return an order, JSON-ready, amounts as decimal texts."""
    units = _units(page, order)
    return {
        "token": order.token, "client_order_id": order.client_id, "epoch": order.epoch,
        "strategy": order.strategy, "instrument": f"{order.venue}/{order.symbol}",
        "kind": order.kind, "side": order.side, "lots": order.lots,
        "remaining_lots": order.remaining_lots, "quantity": units.quantity_text(order.lots),
        "price": units.price_text(order.price_ticks) if order.price_ticks else None,
        "stop": units.price_text(order.stop_ticks) if order.stop_ticks else None,
        "state": order.state.name, "fate": fate, "age_ms": order.age_ms,
        "charged": money_text(order.charged_money), "durable": order.durable,
        "unposted": order.unposted,
    }  # fmt: skip


def _units(page: Page, order: LiveOrder) -> Any:
    return page.names.instruments[page.names.instrument(order.venue, order.symbol)].units


def _write_orders(page: Page, orders: list[LiveOrder], fates: dict[int, str]) -> None:
    rows = []
    for order in orders:
        told = order_json(page, order, fates[order.token])
        marks = "" if order.durable else "not durable"
        marks = f"{marks} unposted".strip() if order.unposted else marks
        rows.append(
            (
                str(order.token), order.client_id, order.strategy, told["instrument"], order.kind,
                order.side, str(order.lots), str(order.remaining_lots), told["price"] or "-",
                told["stop"] or "-", order.state.name, fates[order.token],
                f"{order.age_ms / 1000:.1f} s", told["charged"], marks,
            )
        )  # fmt: skip
    head = (
        "token", "client order id", "strategy", "instrument", "kind", "side", "lots", "left",
        "price", "stop", "state", "fate", "age", "charged", "",
    )  # fmt: skip
    write_table(head, rows)
