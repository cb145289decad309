"""``tripgate limits show|set``: what is shown, what tightens at once, what needs a code."""

import pytest

from tests.tree_fixtures import (
    BTC,
    INSTANCE,
    MARKET_MS,
    mark,
    paper_page,
)
from tests.unit.limits_pages import (
    FULL,
    GROSS,
    NET,
    WHY,
    live_breaker,
    ordered,
    reported,
    run,
    started,
)
from tripgate.cli import limits_change
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot
from tripgate.instance import state_folder
from tripgate.page.layout import LIMIT, SUM
from tripgate.page.level import LevelWriter, set_effective_limits, set_level
from tripgate.page.limits import read_limit, read_limits
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX, PPM, money


def test_show_when_every_process_is_dead_then_the_page_alone_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    page.header["owner_start"] = 1
    node = page.names.scope("venue:sim")
    total, limit = page.rows(SUM)[node], page.rows(LIMIT)[node]
    total["gross"], total["long_worst"], total["short_worst"] = money(50), money(40), money(30)
    total["margin"], limit["margin_max"], limit["factor_ppm"] = money(5), money(9), PPM // 2
    shown = reported(capsys, 0, "show")
    assert shown["limits_version"] == 1
    assert shown["nodes"]["venue:sim"] == {
        "gross": "50.00", "gross_max": "200000.00", "gross_configured": "200000.00",
        "gross_left": "199950.00", "long_worst": "40.00", "short_worst": "30.00",
        "net_max": "200000.00", "net_configured": "200000.00", "net_left": "199960.00",
        "factor": 0.5, "margin": "5.00", "margin_max": "9.00", "margin_left": "4.00",
    }  # fmt: skip
    assert shown["nodes"]["portfolio"]["margin"] == "-"
    assert shown["other"]["venue:sim"] == {
        "margin_buffer_reporting": "1000.00", "margin_haircut": "0.95"
    }  # fmt: skip
    assert shown["other"][f"instrument:sim/{BTC}"]["collar_bps_max"] == "200"
    assert run("show") == 0
    assert "limits version 1" in capsys.readouterr().out


def test_set_when_it_tightens_and_the_tree_is_dead_then_it_is_in_force_and_on_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    page.header["owner_start"] = 1
    generation = int(page.header["generation"][0])
    words = ("--scope", "asset:BTC", "--gross", "500.00019", "--reason", " a \n b ")
    assert run("set", *words, "--operator", "ann") == 0
    captured = capsys.readouterr()
    assert "asset:BTC gross_reporting_max: 200000.00 -> 500.00  (in force)" in captured.out
    assert "the next start keeps what is tighter" in captured.err
    row = page.rows(LIMIT)[page.names.scope("asset:BTC")]
    assert int(row["gross_configured"]) == int(row["gross_max"]) == 5_000_001
    assert int(row["net_configured"]) == FULL
    assert int(page.header["generation"][0]) == generation + 1
    assert int(page.header["limits_version"]) == 2
    assert int(page.header["operator_sequence"]) == 1
    (record,) = ordered()
    assert record["changes"] == {GROSS: [FULL, 5_000_001]}
    assert (record["command"], record["direction"]) == ("limits", "tighten")
    assert (record["scope"], record["reason"], record["operator"]) == ("asset:BTC", "a b", "ann")


def test_set_when_a_handle_is_attached_then_its_next_check_sees_the_new_limit() -> None:
    page = started()
    mark(page, 0, 500_000, step=0, market_ms=MARKET_MS)
    handle = InstrumentHandle(page, claim_strategy_slot(page, 0), 0)
    hash_before = int(page.header["layout_hash"])
    assert handle.check_raw(1, 500_000, 495_000) > 0
    assert run("set", "--scope", f"instrument:sim/{BTC}", "--gross", "60", *WHY) == 0
    assert handle.check_raw(1, 500_000, 495_000) == -DenyReason.GROSS_LIMIT
    assert int(page.header["layout_hash"]) == hash_before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scope", "asset:BTX", "--gross", "1", *WHY), "did you mean 'asset:BTC'?"),
        (("--scope", "portfolio", *WHY), "name what to change"),
        (("--scope", "portfolio", "--gross", "-1", *WHY), "--gross is a positive amount or none"),
        (("--scope", "portfolio", "--net", "lots", *WHY), "--net is a positive amount or none"),
        (("--scope", "portfolio", "--gross", "1", "--reason", " "), "had 0"),
        (("--scope", "portfolio", "--gross", "300000", *WHY), "stress_loss_reporting_max bounds"),
        (
            ("--scope", f"instrument:sim/{BTC}", "--gross", "none", *WHY),
            "its initial margin rate was read for a gross limit of at most 200000.00",
        ),
        (("--scope", "asset:BTC", "--gross", "1", *WHY, "--confirm", "ABC"), "no code is pending"),
    ],
)
def test_set_when_it_is_asked_wrongly_then_nothing_happens_and_it_exits_2(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = started()
    before = read_limits(page)
    assert run("set", *words) == 2
    assert says in capsys.readouterr().err
    assert ordered() == []
    assert read_limits(page) == before


def test_set_when_it_loosens_and_the_tree_is_dead_then_it_is_refused_and_exits_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    page.header["owner_start"] = 1
    assert run("set", "--scope", "asset:BTC", "--net", "none", *WHY) == 3
    captured = capsys.readouterr()
    assert "200000.00 -> none  (LOOSENS, not done)" in captured.out
    assert "only its breaker loosens" in captured.err
    assert ordered() == []
    assert read_limit(page, "asset:BTC", NET) == FULL


def test_set_when_it_is_mixed_then_it_tightens_now_and_loosens_on_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    words = ("set", "--scope", "asset:BTC", "--gross", "700", "--net", "250000", *WHY)
    with live_breaker(page) as told:
        first = reported(capsys, 0, *words)
        assert [change["key"] for change in first["tightened"]] == [GROSS]
        assert [change["key"] for change in first["open"]] == [NET]
        assert read_limit(page, "asset:BTC", NET) == FULL
        second = reported(capsys, 0, *words, "--confirm", first["code"].lower())
    assert [change["key"] for change in second["loosened"]] == [NET]
    row = page.rows(LIMIT)[page.names.scope("asset:BTC")]
    assert int(row["net_configured"]) == int(row["net_max"]) == money(250_000)
    assert int(row["gross_max"]) == money(700)
    assert [(body["direction"], body["record"], body["refused"]) for body in told] == [
        ("tighten", 1, {}), ("loosen", 2, {}),
    ]  # fmt: skip
    assert told[1]["changes"] == {NET: [FULL, money(250_000)]}
    assert told[1]["version"] == int(page.header["limits_version"]) == 3
    assert run(*words, "--confirm", first["code"]) == 2, "each code acts once"


@pytest.mark.parametrize("held", ["portfolio", f"instrument:sim/{BTC}", "strategy:trend"])
def test_set_when_a_breaker_holds_a_scope_on_the_way_then_loosening_exits_1_and_says_which(
    held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = started()
    set_level(page, page.names.scope(held), LevelWriter.BREAKER, Level.HARD)
    assert run("set", "--scope", "asset:BTC", "--net", "none", *WHY) == 1
    assert f"asset:BTC is not loosened: {held} is held at HARD" in capsys.readouterr().err
    assert ordered() == []
    assert run("set", "--scope", "asset:BTC", "--net", "5", *WHY) == 0, "tightening never waits"


def test_set_when_an_unrelated_scope_is_held_then_loosening_is_offered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    set_level(page, page.names.scope("asset:ETH"), LevelWriter.BREAKER, Level.HARD)
    assert reported(capsys, 0, "set", "--scope", "asset:BTC", "--net", "none", *WHY)["code"]


def test_set_when_a_latch_comes_after_the_code_then_the_code_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    words = ("set", "--scope", "asset:BTC", "--net", "none", *WHY)
    code = reported(capsys, 0, *words)["code"]
    set_level(page, 0, LevelWriter.OPERATOR, Level.MEDIUM)
    assert run(*words, "--confirm", code) == 2
    assert "level of portfolio: NORMAL then, MEDIUM by operator now" in capsys.readouterr().err
    assert ordered() == []


def test_set_when_a_factor_moves_after_the_code_then_the_code_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    words = ("set", "--scope", "asset:BTC", "--net", "none", *WHY)
    code = reported(capsys, 0, *words)["code"]
    set_effective_limits(page, page.names.scope("asset:ETH"), PPM // 2)
    assert run(*words, "--confirm", code) == 2
    assert "factors: {} then, {'asset:ETH': 500000} now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (("--scope", "asset:BTC", "--net", "300000", *WHY), "changes: "),
        (("--scope", "asset:BTC", "--net", "none", "--reason", "s"), "reason: 'r' then, 's' now"),
    ],
)
def test_set_when_confirmed_for_something_else_then_it_is_refused(
    other: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = started()
    code = reported(capsys, 0, "set", "--scope", "asset:BTC", "--net", "none", *WHY)["code"]
    assert run("set", *other, "--confirm", code) == 2
    assert says in capsys.readouterr().err
    assert read_limit(page, "asset:BTC", NET) == FULL


def test_set_when_a_live_breaker_does_not_act_then_it_exits_5_and_nothing_is_loose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = started()
    monkeypatch.setattr(limits_change, "BREAKER_WAIT_S", 0.1)  # nothing to wait for but the bound
    words = ("set", "--scope", "asset:BTC", "--net", "none", *WHY)
    code = reported(capsys, 0, *words)["code"]
    assert run(*words, "--confirm", code) == 5
    assert "has not acted" in capsys.readouterr().err
    assert read_limit(page, "asset:BTC", NET) == FULL
    assert [record["direction"] for record in ordered()] == ["loosen"]


def test_set_when_its_record_cannot_be_stored_then_it_exits_7_and_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    (state_folder(INSTANCE) / "operator.jsonl").mkdir()
    assert run("set", "--scope", "asset:BTC", "--net", "5", *WHY) == 7
    assert "operator.jsonl" in capsys.readouterr().err
    assert read_limit(page, "asset:BTC", NET) == FULL


def test_limits_when_the_state_has_no_configuration_then_it_exits_4(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = paper_page()
    assert run("set", "--scope", "asset:BTC", "--net", "5", *WHY) == 4
    assert "what the run was started with" in capsys.readouterr().err
    assert read_limit(page, "asset:BTC", NET) == FULL


def test_limits_when_none_is_written_then_it_is_shown_as_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = started()
    row = page.rows(LIMIT)[0]
    row["gross_max"] = row["gross_configured"] = INT_MAX
    node = reported(capsys, 0, "show")["nodes"]["portfolio"]
    assert (node["gross_max"], node["gross_left"]) == ("none", "none")
