"""The live view: everything a page can say is shown, and nothing in it can break the run."""

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from tests.unit.cli_pages import BREAKER, FEED, hold, make_instance
from tripgate.cli.live_view import REASONS_SHOWN, LiveView, render, time_text
from tripgate.gate.status import read_status
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.page.layout import ACCOUNT, LEASE, ROLE, SLOT, SUM
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason, Level
from tripgate.units import money


def shown(page: Page) -> str:
    """Return the view as plain text on a wide terminal."""
    console = Console(file=io.StringIO(), width=300, force_terminal=False)
    console.print(render(read_status(page)))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.fixture
def page() -> Page:
    return make_instance()


@pytest.mark.parametrize("level", list(Level))
def test_render_when_at_a_level_then_the_level_and_the_gate_are_named(
    page: Page, level: Level
) -> None:
    set_level(page, 0, LevelWriter.OPERATOR, level)
    text = shown(page)
    assert text.startswith("tripgate paper-1 · epoch 1 · 2021-05-19 04:53:20 · step 7 · ")
    assert f" {level.name} · " in text.splitlines()[0]
    gate = "open" if level < Level.MEDIUM else "closed"
    assert f"{gate} for openings" in text


def test_render_when_causes_hold_levels_then_each_is_named_with_its_latch(page: Page) -> None:
    hold(page, {
        CauseKey(Cause.DRAWDOWN, 0): CauseState(Level.HARD, latched=True, verdict=Verdict.FRESH),
        CauseKey(Cause.OPERATOR, 2): CauseState(Level.SOFT),
        CauseKey(Cause.LEASE_LAPSED, 0): CauseState(),
    })  # fmt: skip
    text = shown(page)
    assert "portfolio: drawdown holds HARD (latched)" in text
    assert "asset:BTC: operator holds SOFT\n" in text
    assert "lease_lapsed" not in text


@pytest.mark.parametrize("field", ["known", "stale"])
def test_render_when_equity_is_unknown_then_no_number_is_made_up(page: Page, field: str) -> None:
    assert "800.00" in shown(page)
    page.rows(ACCOUNT)[field][0] = int(field == "stale")
    text = shown(page)
    assert "unknown" in text
    assert "800.00" not in text
    assert "20.00%" in text


def test_render_when_exposure_is_held_then_it_stands_beside_its_limit(page: Page) -> None:
    page.rows(SUM)["gross"][0] = money(123)
    (line,) = [line for line in shown(page).splitlines() if line.startswith("portfolio")]
    assert line.split() == ["portfolio", "NORMAL", "800.00", "20.00%", "123.00", "1000.00"]


def test_render_when_leases_lapsed_or_are_stale_then_they_say_so(page: Page) -> None:
    deadlines = page.rows(LEASE)["deadline_ns"]
    deadlines[BREAKER] = 1
    deadlines[FEED] = 0
    page.rows(ROLE)["stale"][FEED] = 1
    (line,) = [line for line in shown(page).splitlines() if line.startswith("leases")]
    assert "breaker lapsed" in line
    assert "market_feed(sim) stale" in line
    assert "supervisor 3" in line
    assert " ms" in line
    assert "closed for openings" in shown(page)


def test_render_when_orders_were_denied_then_the_commonest_reasons_come_first(page: Page) -> None:
    assert "approved 0 · denied: none" in shown(page)
    row = page.rows(SLOT)[17]
    row["approved"] = 4
    reasons = list(DenyReason)[: REASONS_SHOWN + 2]
    for count, reason in enumerate(reasons, start=1):
        row["denied"][reason] = count
    (line,) = [line for line in shown(page).splitlines() if line.startswith("approved 4")]
    top = [f"{reason.name} {n}" for n, reason in enumerate(reasons, 1)][::-1][:REASONS_SHOWN]
    assert line == f"approved 4 · denied: {', '.join(top)}"


def test_show_when_there_is_no_terminal_then_only_changes_of_levels_are_printed(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    with LiveView(enabled=True) as view:
        view.show(page)
        set_level(page, 2, LevelWriter.BREAKER, Level.HARD)
        view.show(page)
        view.show(page)
        set_level(page, 2, LevelWriter.BREAKER, Level.NORMAL)
        view.show(page)
        view.note("armed")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "2021-05-19 04:53:20  asset:BTC: HARD", "2021-05-19 04:53:20  asset:BTC: NORMAL", "armed",
    ]  # fmt: skip


def test_show_when_it_is_quiet_then_nothing_is_printed(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    set_level(page, 0, LevelWriter.BREAKER, Level.HARD)
    with LiveView(enabled=False) as view:
        view.show(page)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_show_when_there_is_a_terminal_then_one_view_is_repainted_there(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal: Any = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with LiveView(enabled=True) as view:
        view.show(page)
        set_level(page, 0, LevelWriter.BREAKER, Level.EMERGENCY)
        view.show(page)
    written = terminal.getvalue()
    assert "EMERGENCY" in written
    # Painted twice, the second time over the first, and taken away at the end.
    assert written.count("step 7 · ") >= 2
    assert written.endswith("\x1b[2K")


def test_time_text_when_given_market_time_then_it_is_utc() -> None:
    assert time_text(0) == "1970-01-01 00:00:00"
