"""Where a configuration comes from: the file, the environment; and what is generated from it."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from tripgate.cli.init import TEMPLATE
from tripgate.config.reader import FILE_BYTES_MAX, load_config, load_text, parse_config, read_config
from tripgate.config.reference import TABLE_BEGIN, TABLE_END, limits_table, schema_text
from tripgate.errors import ConfigError

ROOT = Path(__file__).parents[2]
BTC = "binance-main/BTC/USDT:USDT"
LITERAL = "AKfakeLITERALkey0123456789"


def problems_of(text: str, environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "t.toml", environment)
    return caught.value.problems


def test_config_when_a_secret_comes_from_the_environment_then_a_literal_is_refused_too() -> None:
    variable = "TRIPGATE_VENUES__BINANCE_MAIN__API_KEY"
    (problem,) = problems_of(TEMPLATE, {variable: LITERAL})
    assert problem.startswith(f"{variable}: venues.binance-main.api_key: expected a reference")
    assert LITERAL not in problem


def test_override_when_the_environment_sets_values_then_they_win_and_are_marked() -> None:
    environment = {
        "TRIPGATE_LIMITS__PORTFOLIO__GROSS_REPORTING_MAX": "40000.5",
        "TRIPGATE_LIMITS__PORTFOLIO__NET_REPORTING_MAX": "none",
        "TRIPGATE_INSTRUMENTS__BINANCE_MAIN_BTC_USDT_USDT__COLLAR_BPS_MAX": "7",
        "TRIPGATE_INSTRUMENTS__BINANCE_MAIN_ETH_USDT_USDT__SHARED_INSTRUMENTS": "true",
        "TRIPGATE_ALERTS__ON_LEVEL_COMMAND": '["say", "{level}"]',
        "TRIPGATE_RISK__SOFT_FACTOR": "0.25",
        "TRIPGATE_STATE": "/nowhere",
    }
    loaded = load_text(TEMPLATE, "t.toml", environment)
    config, origins = loaded.config, loaded.origins
    assert config.limits.portfolio.gross_reporting_max == Decimal("40000.5")
    assert config.limits.portfolio.net_reporting_max is None
    assert config.instruments[BTC].collar_bps_max == 7
    assert config.instruments[BTC.replace("BTC", "ETH")].shared_instruments is True
    assert config.alerts.on_level_command == ("say", "{level}")
    assert config.risk.soft_factor == Decimal("0.25")
    assert {path for path, origin in origins.items() if origin == "env"} == {
        "limits.portfolio.gross_reporting_max",
        "limits.portfolio.net_reporting_max",
        f'instruments."{BTC}".collar_bps_max',
        f'instruments."{BTC.replace("BTC", "ETH")}".shared_instruments',
        "alerts.on_level_command",
        "risk.soft_factor",
    }
    assert origins["risk.bar_s"] == "file"
    assert origins[f'instruments."{BTC}".shared_instruments'] == "default"
    untouched = load_text(TEMPLATE, "t.toml", {})
    assert untouched.text_sha256 == loaded.text_sha256
    assert untouched.config_sha256 != loaded.config_sha256


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("TRIPGATE_LIMTS__PORTFOLIO__X", "1", "there is no 'LIMTS' in the configuration, did you"),
        ("TRIPGATE_LIMITS__VENUES__OTHER__NET_REPORTING_MAX", "1", "there is no 'OTHER' in limits"),
        ("TRIPGATE_LIMITS__PORTFOLIO", "1", "limits.portfolio is a table: name one of its values"),
        ("TRIPGATE_LIMITS__VENUES", "1", "limits.venues is a table: name one of its values"),
        ("TRIPGATE_RISK__BAR_S__X", "1", "risk.bar_s is a value, not a table"),
        ("TRIPGATE_RISK__BAR_S", "1\nx = 2", "risk.bar_s: expected a whole number from 1 to"),
        ("TRIPGATE_RISK__BAR_S", "[" * 9000, "risk.bar_s: expected a whole number from 1 to"),
        ("TRIPGATE_RISK__BAR_S", "-5", "risk.bar_s: expected a whole number from 1 to"),
    ],
)
def test_override_when_it_matches_nothing_or_is_wrong_then_the_variable_is_named(
    variable: str, value: str, problem: str
) -> None:
    (line,) = problems_of(TEMPLATE, {variable: value})
    assert line.startswith(f"{variable}: {problem}")


def test_override_when_two_names_fit_then_it_is_refused() -> None:
    text = TEMPLATE + '[venues."a.b"]\n[venues.a-b]\n'
    variable = "TRIPGATE_VENUES__A_B__KIND"
    problems = problems_of(text, {variable: "live"})
    assert problems[0] == f"{variable}: 'A_B' in venues may mean a-b or a.b"


def test_override_when_the_file_has_no_table_there_then_it_is_refused() -> None:
    variable = "TRIPGATE_ALERTS__ON_LEVEL_COMMAND"
    text = "alerts = 5\n" + TEMPLATE[: TEMPLATE.index("[alerts]")]
    problems = problems_of(text, {variable: "[]"})
    assert problems[0] == f"{variable}: alerts is not a table in the file"


def test_config_when_a_secret_reference_changes_then_the_hash_changes() -> None:
    with_key = TEMPLATE.replace("# api_key", "api_key")
    first = load_text(with_key, "t.toml", {})
    second = load_text(with_key.replace("BINANCE_KEY", "OTHER_KEY"), "t.toml", {})
    assert first.config_sha256 != second.config_sha256
    assert first.config_sha256 == load_text(with_key + "# note\n", "t.toml", {}).config_sha256


def test_config_file_when_it_cannot_be_read_then_the_reason_and_the_way_out_are_told(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; `tripgate init` writes one"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        read_config(tmp_path)
    (tmp_path / "big.toml").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="is larger than"):
        read_config(tmp_path / "big.toml")
    (tmp_path / "latin.toml").write_bytes(b"# one\n# \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: is not UTF-8 text"):
        read_config(tmp_path / "latin.toml")


def test_config_file_when_the_environment_overrides_then_reading_the_file_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.toml"
    path.write_text(TEMPLATE)
    monkeypatch.setenv("TRIPGATE_RISK__BAR_S", "300")
    assert read_config(path).risk.bar_s == 300
    assert load_config(path, {}).config.risk.bar_s == 60
    assert parse_config(TEMPLATE, "t.toml").risk.bar_s == 60


def test_schema_when_generated_then_it_equals_the_shipped_one() -> None:
    shipped = (ROOT / "tripgate" / "tripgate.schema.json").read_text()
    assert schema_text() == shipped
    schema = json.loads(shipped)
    assert schema["additionalProperties"] is False
    venue = schema["properties"]["venues"]["additionalProperties"]
    assert venue["properties"]["kind"]["enum"] == ["simulated", "live"]
    assert "starting_equity_reporting" not in venue["required"]


def test_limits_page_when_its_table_is_compared_then_it_is_the_generated_one() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    table = page.partition(TABLE_BEGIN + "\n")[2].partition(TABLE_END)[0]
    assert table == limits_table()


def test_reference_when_it_lists_amounts_then_no_amount_has_a_default() -> None:
    money = [row for row in limits_table().splitlines() if "(reporting currency)" in row]
    assert len(money) > 10
    for row in money:
        default = row.split(" | ")[2]
        assert default == "mandatory" or "starting_equity" in row


def test_template_when_parsed_then_it_is_a_correct_configuration() -> None:
    config = parse_config(TEMPLATE, "tripgate.toml")
    assert config.venues["binance-main"].kind == "simulated"
    assert TEMPLATE.startswith("#:schema ./tripgate.schema.json\n")
