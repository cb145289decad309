"""``tripgate limits reload``: what a file may change in a running gate, and what it may not."""

import json
from pathlib import Path

import pytest

from tests.tree_fixtures import (
    INSTANCE,
    paper_text,
)
from tests.unit.limits_pages import (
    FULL,
    GROSS,
    WHY,
    live_breaker,
    ordered,
    reported,
    run,
    started,
)
from tripgate.cli import limits_change
from tripgate.instance import state_folder
from tripgate.page.layout import INSTRUMENT
from tripgate.page.limits import read_limit, read_limits
from tripgate.units import money


def changed_file(tmp_path: Path, *pairs: tuple[str, str]) -> str:
    """Write the run's configuration with some texts replaced; return its path."""
    text = paper_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "new.toml"
    path.write_text(text)
    return str(path)


def test_reload_when_only_limits_differ_then_tighter_ones_hold_and_looser_ones_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = started()
    rate = int(page.rows(INSTRUMENT)["margin_ppm"][0])
    path = changed_file(
        tmp_path, ("collar_bps_max = 200", "collar_bps_max = 150\nexit_collar_bps_max = 500"),
        ("orders_per_second_max = 50", "orders_per_second_max = 40\nduplicate_window_ms = 9"),
        ("margin_buffer_reporting = 1000", "margin_buffer_reporting = 1500"),
        ("order_reporting_max = 200000", "order_reporting_max = 100000"),
    )  # fmt: skip
    words = ("reload", "--config", path, *WHY)
    with live_breaker(page) as told:
        first = reported(capsys, 0, *words)
        tightened = {(change["scope"], change["key"]) for change in first["tightened"]}
        assert {change["key"] for change in first["open"]} == {"exit_collar_bps_max"}
        assert reported(capsys, 0, *words, "--confirm", first["code"])["open"] == []
    assert tightened == {
        ("venue:sim", "margin_buffer_reporting"),
        *((s, k) for s in page.names.scopes if s.startswith("instrument:")
          for k in ("collar_bps_max", "order_reporting_max")),
        ("strategy:trend", "orders_per_second_max"), ("strategy:trend", "duplicate_window_ms"),
    }  # fmt: skip
    row = page.rows(INSTRUMENT)[0]
    assert (int(row["collar_ppm"]), int(row["exit_collar_ppm"])) == (15_000, 50_000)
    assert int(row["margin_ppm"]) == rate
    assert len(told[0]["config_sha256"]) == 64
    assert reported(capsys, 0, *words)["records"] == [], "it is what the file says now"


def test_reload_when_more_than_limits_differs_then_all_of_it_is_named_and_nothing_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = started()
    before = read_limits(page)
    path = changed_file(
        tmp_path, ("var_budget_reporting = 4000", "var_budget_reporting = 4001"),
        ("\nloss_reporting_max = 50000", "\nloss_reporting_max = 60000"),
        ("collar_bps_max = 200", "collar_bps_max = 100\ninitial_margin_rate = 0.5"),
        ("tripgate.demo.trend", "tripgate.demo.hold"),
    )  # fmt: skip
    assert run("reload", "--config", path, *WHY) == 4
    errors = capsys.readouterr().err
    for key in ("risk.var_budget_reporting", "loss_reporting_max", "strategies.trend.command"):
        assert f"{key}: differs from the running one: needs a restart" in errors
    assert "a rate comes or goes only with a restart" in errors
    assert ordered() == []
    assert read_limits(page) == before


def test_reload_when_the_file_is_wrong_then_every_problem_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started()
    path = changed_file(
        tmp_path, ("collar_bps_max = 200", "collar_bps_max = 0"), ('"one-way"', '"hedge"')
    )
    assert run("reload", "--config", path, *WHY) == 4
    errors = capsys.readouterr().err
    assert "collar_bps_max" in errors
    assert "position_mode" in errors
    assert ordered() == []


def test_reload_when_no_file_is_named_then_it_takes_the_one_of_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = started()
    assert run("reload", *WHY) == 2
    assert "name one, --config" in capsys.readouterr().err
    path = changed_file(tmp_path, ("collar_bps_max = 200", "collar_bps_max = 10"))
    (state_folder(INSTANCE) / "run.json").write_text(json.dumps({"config_name": path}))
    assert run("reload", *WHY) == 0
    assert int(page.rows(INSTRUMENT)["collar_ppm"][0]) == 1_000


def test_reload_when_the_stress_loss_falls_then_a_later_set_stays_below_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = started()
    monkeypatch.setattr(limits_change, "BREAKER_WAIT_S", 0.0)  # no breaker runs here
    assert run("set", "--scope", "portfolio", "--gross", "1000", *WHY) == 0
    path = changed_file(
        tmp_path, ("stress_loss_reporting_max = 50000", "stress_loss_reporting_max = 1000")
    )
    assert run("reload", "--config", path, *WHY) == 0
    capsys.readouterr()
    assert run("set", "--scope", "portfolio", "--gross", "4001", *WHY) == 2
    assert "bounds its gross limit at 4000.00" in capsys.readouterr().err
    assert read_limit(page, "portfolio", GROSS) == money(1_000)


def test_reload_when_the_stress_loss_moves_the_gross_limit_then_the_record_says_so(
    tmp_path: Path,
) -> None:
    started()
    path = changed_file(
        tmp_path, ("stress_loss_reporting_max = 50000", "stress_loss_reporting_max = 10")
    )
    assert run("reload", "--config", path, *WHY) == 0
    assert [record["changes"] for record in ordered()] == [{GROSS: [FULL, money(40)]}]
