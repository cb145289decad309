"""``tripgate status``: the state of an instance, read from its page alone.

It asks no process anything and imports no compiled code, so that it answers when the breaker, every
actor or the root is dead, which is when people look. What it prints then is the last state, and it
says so.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.errors import NotRunningError, UsageError
from tripgate.gate.status import GateStatus, read_status
from tripgate.instance import page_folder, pick_instance
from tripgate.messages import LinkFault
from tripgate.page.layout import ROLE
from tripgate.page.lease import LeaseState
from tripgate.page.mapping import Page, open_page
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX, PPM, money_text

LEVEL_EXIT_CODES = {
    Level.NORMAL: 0,
    Level.SOFT: 11,
    Level.MEDIUM: 12,
    Level.HARD: 13,
    Level.EMERGENCY: 14,
}
LEASE_LAPSED_EXIT_CODE = 20


def status(
    *,
    instance: str | None = None,
    page: Path | None = None,
    exit_level: bool = False,
    json: bool = False,
) -> int:
    """Show levels and who holds them, leases, equity, limits, positions and decisions.

    Reads shared memory alone, so it works when every process of the instance is dead: it prints
    the last state then, says that the root is dead, and exits 3.

    Parameters
    ----------
    instance
        Whose state; else $TRIPGATE_INSTANCE, else the only one running.
    page
        Read this page folder instead (a kept copy, or that of another state root).
    exit_level
        Exit with the highest level of any scope: 0 NORMAL, 11 SOFT, 12 MEDIUM, 13 HARD,
        14 EMERGENCY. A lapsed critical lease denies openings as MEDIUM does: 20 where the level
        is NORMAL or SOFT. A dead root is 3 at any level, since nobody acts on the level then.
    json
        Print one JSON object instead of text.
    """
    if page is not None and instance is not None:
        raise UsageError("name an --instance or a --page, not both")
    opened = open_page(page or page_folder(pick_instance(instance)), writable=False)
    state = read_status(opened)
    running = is_running(state, opened)
    if json:
        write_json({**state.to_json(), "running": running, "ended": _has_ended(opened)})
    else:
        write_status(state, opened)
    if not running:
        write_message(f"tripgate: {_why_not_running(state, opened)}")
        return NotRunningError.exit_code
    return exit_code_of(state) if exit_level else 0


def is_running(state: GateStatus, page: Page) -> bool:
    """Return whether a live root stands behind the page and its run has not ended."""
    return state.root_alive and not _has_ended(page)


def exit_code_of(state: GateStatus) -> int:
    """Return the exit code of ``--exit-level`` for a running instance."""
    lapsed = any(lease.critical and not lease.live for lease in state.leases)
    if lapsed and state.level < Level.MEDIUM:
        return LEASE_LAPSED_EXIT_CODE
    return LEVEL_EXIT_CODES[state.level]


def write_status(state: GateStatus, page: Page) -> None:
    """Print a status as text."""
    _write_head(state, page)
    _write_nodes(state)
    _write_causes(state)
    _write_leases(state, page)
    _write_links(state)
    _write_accounts(state)
    _write_board(state)
    _write_positions(state, page)
    _write_decisions(state)


def _has_ended(page: Page) -> bool:
    return bool(page.header["ended"])


def _why_not_running(state: GateStatus, page: Page) -> str:
    if _has_ended(page):
        return f"the run of '{state.instance}' has ended: this is its last state"
    return (
        f"the root of '{state.instance}' (process {state.root_pid}) is dead: this is the last "
        "state; every lease has lapsed or is about to, and openings are denied"
    )


def _time_text(market_ms: int) -> str:
    return datetime.fromtimestamp(market_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _write_head(state: GateStatus, page: Page) -> None:
    root = "alive" if state.root_alive else "DEAD"
    root = "ended" if _has_ended(page) else root
    gate = "open for openings" if state.open_for_openings else "closed for openings"
    if not is_running(state, page):
        gate = "closed for openings"
    elif state.shadow:
        gate = "as an enforcing gate: " + gate
    shadow = "  SHADOW: denies and closes nothing" if state.shadow else ""
    write_line(f"instance  {state.instance}  epoch {state.epoch}{shadow}")
    write_line(f"root      {root}, process {state.root_pid}")
    write_line(f"market    {_time_text(state.market_ms)}, step {state.step}")
    write_line(f"level     {state.level.name}, {gate}")


def _limit_text(limit_money: int) -> str:
    return "none" if limit_money >= INT_MAX else money_text(limit_money)


def _write_nodes(state: GateStatus) -> None:
    write_line()
    write_table(
        ("scope", "level", "held by", "gross", "limit", "long", "short", "net limit"),
        [
            (
                node.scope, node.level.name, " ".join(node.held_by) or "-",
                money_text(node.gross_money), _limit_text(node.gross_max_money),
                money_text(node.long_worst_money), money_text(node.short_worst_money),
                _limit_text(node.net_max_money),
            )
            for node in state.nodes
        ],
    )  # fmt: skip


def _write_causes(state: GateStatus) -> None:
    held = [cause for cause in state.causes if cause.level > Level.NORMAL or cause.latched]
    if not held:
        return
    write_line()
    write_table(
        ("cause", "scope", "level", "value", ""),
        [
            (
                cause.cause, cause.scope, cause.level.name, _value_text(cause.cause, cause.value),
                "latched" if cause.latched else "",
            )
            for cause in held
        ],
    )  # fmt: skip


def _value_text(cause: str, value: int) -> str:
    texts = {
        "drawdown": f"{value / PPM:.2%}",
        "total_loss": money_text(value),
        "lease_lapsed": f"{value} s",
    }
    return texts.get(cause, "-")


def _write_leases(state: GateStatus, page: Page) -> None:
    lengths_ms = _lease_lengths_ms(page)
    rows = []
    for lease in state.leases:
        who = str(lease.pid) if lease.pid else "-"
        rows.append(
            (
                lease.role, "critical" if lease.critical else "", _lease_text(lease),
                _age_text(lease, lengths_ms[lease.role]), who, str(lease.restarts),
            )
        )  # fmt: skip
    write_line()
    write_table(("lease", "", "state", "age", "process", "restarts"), rows)


def _lease_lengths_ms(page: Page) -> dict[str, float]:
    lengths = page.rows(ROLE)["lease_ns"]
    return {role.text: int(lengths[n]) / 1e6 for n, role in enumerate(page.names.roles)}


def _lease_text(lease: LeaseState) -> str:
    if lease.live:
        return "live"
    return "STALE" if lease.stale else "LAPSED"


def _age_text(lease: LeaseState, length_ms: float) -> str:
    # A lease that was zeroed no longer says when it was renewed.
    was_zeroed = lease.left_ms == -1.0
    return "-" if was_zeroed else f"{length_ms - lease.left_ms:.0f} ms"


def _write_links(state: GateStatus) -> None:
    if not state.links:
        return
    rows = []
    for link in state.links:
        heard = "never" if link.heard_ms is None else f"{link.heard_ms:.0f} ms ago"
        lost = {**link.rejected, "overflowed": link.overflowed, "dropped": link.dropped}
        told = " ".join(f"{name.lower()} {n}" for name, n in lost.items() if n)
        fault = f"{link.fault} {link.argument or ''}".strip()
        rows.append(
            (
                link.name, "SILENT" if link.silent else heard, str(link.sent), str(link.received),
                told or "-", "-" if link.fault == LinkFault.NONE.name else fault,
            )
        )  # fmt: skip
    write_line()
    write_table(("link", "heard", "sent", "received", "not taken", "fault"), rows)


def _write_accounts(state: GateStatus) -> None:
    write_line()
    write_table(
        ("account", "equity", "high-water mark", "drawdown", "largest"),
        [
            (
                account.scope,
                "unknown" if account.equity_money is None else money_text(account.equity_money),
                money_text(account.high_water_mark_money),
                f"{account.drawdown_ppm / PPM:.2%}",
                f"{account.drawdown_max_ppm / PPM:.2%}",
            )
            for account in state.accounts
        ],
    )


def _write_board(state: GateStatus) -> None:
    write_line()
    write_table(
        ("instrument", "mark", "index", "bid", "ask", "last", "age", "published", "bars"),
        [
            (
                row.instrument, *(price or "-" for price in
                (row.mark, row.index, row.bid, row.ask, row.last)),
                "-" if row.age_market_ms is None else f"{row.age_market_ms} ms",
                "-" if row.age_host_ms is None else f"{row.age_host_ms:.0f} ms ago",
                str(row.bars),
            )
            for row in state.board
        ],
    )  # fmt: skip


def _write_positions(state: GateStatus, page: Page) -> None:
    units: dict[str, Any] = {
        f"{name.venue}/{name.symbol}": name.units for name in page.names.instruments
    }
    write_line()
    if not state.positions:
        write_line("positions  none")
        return
    rows = []
    for key, lots in state.positions.items():
        strategy, _, instrument = key.partition(" ")
        rows.append((strategy, instrument, units[instrument].quantity_text(lots), str(lots)))
    write_table(("strategy", "position", "quantity", "lots"), rows)


def _write_decisions(state: GateStatus) -> None:
    verb = "would deny" if state.shadow else "denied"
    write_line()
    write_table(
        ("decision", "count"),
        [
            ("approved", str(state.approved)),
            *((f"{verb} {name}", str(state.denied[name])) for name in _by_count(state)),
        ],
    )


def _by_count(state: GateStatus) -> list[str]:
    return sorted(state.denied, key=lambda name: (-state.denied[name], DenyReason[name]))
