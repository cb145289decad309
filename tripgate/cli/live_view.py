"""The live view of a run in the terminal: levels and causes, leases, equity, decisions.

Reads the page alone. On a terminal it is one repainted panel; elsewhere it prints a line whenever
a level changes, so that a log stays readable.
"""

import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tripgate.cli.output import console, write_message
from tripgate.gate.status import GateStatus, read_status
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import PPM, money_text

STYLES = {
    Level.NORMAL: "green",
    Level.SOFT: "yellow",
    Level.MEDIUM: "dark_orange",
    Level.HARD: "bold red",
    Level.EMERGENCY: "bold magenta",
}
REASONS_SHOWN = 6


class LiveView:
    """Shows a page while a run goes on."""

    def __init__(self, *, enabled: bool) -> None:
        self._live: Live | None = None
        self._enabled = enabled
        self._levels: dict[str, Level] = {}
        if enabled and sys.stderr.isatty():
            self._live = Live(console=console(sys.stderr), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Start painting."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop painting."""
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Say something once."""
        write_message(text)

    def show(self, page: Page) -> None:
        """Show the page's present state."""
        status = read_status(page)
        if self._live is not None:
            self._live.update(render(status), refresh=True)
        elif self._enabled:
            self._print_changes(status)

    def _print_changes(self, status: GateStatus) -> None:
        for node in status.nodes:
            if node.level is not self._levels.get(node.scope, Level.NORMAL):
                write_message(f"{time_text(status.market_ms)}  {node.scope}: {node.level.name}")
            self._levels[node.scope] = node.level


def time_text(market_ms: int) -> str:
    """Return market time as UTC text."""
    return datetime.fromtimestamp(market_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def render(status: GateStatus) -> Group:
    """Return the view of one status."""
    return Group(_head(status), _accounts(status), _leases(status), _decisions(status))


def _head(status: GateStatus) -> Text:
    text = Text(
        f"tripgate {status.instance} · epoch {status.epoch} · {time_text(status.market_ms)}"
    )
    text.append(f" · step {status.step} · ")
    text.append(status.level.name, STYLES[status.level])
    text.append(f" · {gate_text(status)}")
    for cause in status.causes:
        if cause.level > Level.NORMAL:
            latched = " (latched)" if cause.latched else ""
            text.append(f"\n  {cause.scope}: {cause.cause} holds {cause.level.name}{latched}")
    return text


def gate_text(status: GateStatus) -> str:
    """Return whether openings are granted, as people read it."""
    if status.shadow:
        return "SHADOW: denies nothing"
    return "open for openings" if status.open_for_openings else "closed for openings"


def _accounts(status: GateStatus) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("scope", "level", "equity", "drawdown", "gross", "gross max"):
        table.add_column(name, justify="left" if name in ("scope", "level") else "right")
    nodes = {node.scope: node for node in status.nodes}
    for account in status.accounts:
        node = nodes[account.scope]
        equity = "unknown" if account.equity_money is None else money_text(account.equity_money)
        table.add_row(
            account.scope, Text(node.level.name, STYLES[node.level]), equity,
            f"{account.drawdown_ppm / PPM:.2%}", money_text(node.gross_money),
            money_text(node.gross_max_money),
        )  # fmt: skip
    return table


def _leases(status: GateStatus) -> Text:
    text = Text("leases  ")
    for lease in status.leases:
        style = "green" if lease.live else "bold red"
        left = f"{lease.left_ms:.0f} ms" if lease.live else ("stale" if lease.stale else "lapsed")
        text.append(f"{lease.role} ", "dim")
        text.append(f"{left}  ", style)
    return text


def _decisions(status: GateStatus) -> Text:
    denied = sorted(status.denied.items(), key=lambda item: -item[1])[:REASONS_SHOWN]
    reasons = ", ".join(f"{name} {count}" for name, count in denied) or "none"
    verb = "would deny" if status.shadow else "denied"
    return Text(f"approved {status.approved} · {verb}: {reasons}")
