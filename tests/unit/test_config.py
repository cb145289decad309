"""The configuration: every problem at once with its line, exact amounts, no literal secret."""

import json
import tomllib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate import units
from tripgate.config.lines import line_numbers
from tripgate.config.reader import PROBLEMS_MAX, load_text, parse_config
from tripgate.config.rules import Secret
from tripgate.config.shape import plain
from tripgate.config.structs import effective_gross, instrument_key, limit_money
from tripgate.errors import ConfigError

LITERAL = "AKfakeLITERALkey0123456789"
BTC = "binance-main/BTC/USDT:USDT"

# The example of the design, completed with what its prose demands; line 1 is `schema = 1`.
EXAMPLE = """\
schema = 1
reporting_currency = "USDT"
risk = { bar_s = 60, window_bars = 1000, var_confidence = 0.99, var_horizon_s = 86400,\
 var_budget_reporting = 4000 }
[limits.portfolio]
gross_reporting_max = 50000
net_reporting_max = 30000
stress_loss_reporting_max = 12500
loss_reporting_max = 20000
[limits.assets.BTC]
gross_reporting_max = 50000
net_reporting_max = "none"
[limits.venues.binance-main]
gross_reporting_max = 50000
net_reporting_max = 30000
[limits.strategies.trend]
gross_reporting_max = 50000
net_reporting_max = 30000
[venues.binance-main]
exchange = "binanceusdm"
kind = "simulated"
position_mode = "one-way"
api_key = "env:BINANCE_KEY"
starting_equity_reporting = 100000
margin_buffer_reporting = 1000
[instruments."binance-main/BTC/USDT:USDT"]
gross_reporting_max = 30000
net_reporting_max = 30000
order_reporting_max = 5000
collar_bps_max = 200
stop_distance_bps_max = 500
[strategies.trend]
command = ["python", "-m", "tripgate.demo.trend"]
instruments = ["binance-main/BTC/USDT:USDT"]
orders_per_second_max = 5
on_exit = "cancel_entries"
[alerts]
on_level_command = ["notify", "{scope}", "{level}", "{cause}"]
"""


def problems_of(text: str, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "t.toml", environment or {})
    assert caught.value.exit_code == 4
    return caught.value.problems


def problems_or_none(text: str) -> tuple[str, ...] | None:
    try:
        parse_config(text, "t.toml")
    except ConfigError as error:
        return error.problems
    return None


def changed(old: str, new: str) -> str:
    assert EXAMPLE.count(old) >= 1, old
    return EXAMPLE.replace(old, new, 1)


def test_config_when_the_designs_example_is_read_then_every_value_is_kept() -> None:
    config = parse_config(EXAMPLE, "t.toml")
    assert config.limits.portfolio.gross_reporting_max == Decimal(50000)
    assert config.limits.assets["BTC"].net_reporting_max is None
    assert config.venues["binance-main"].starting_equity_reporting == Decimal(100000)
    assert config.instruments[BTC].collar_bps_max == 200
    assert config.strategies["trend"].command == ("python", "-m", "tripgate.demo.trend")
    assert config.risk.var_confidence == Decimal("0.99")
    assert config.risk.soft_factor_ppm == 500_000
    assert config.alerts.on_level_command[1:] == ("{scope}", "{level}", "{cause}")


def test_config_when_five_things_are_wrong_then_all_are_reported_with_lines_and_hints() -> None:
    text = EXAMPLE
    for old, new in (
        (
            "gross_reporting_max = 50000\nnet_reporting_max = 30000\nstress",
            "gros_reporting_max = 50000\nnet_reporting_max = 30000\nstress",
        ),
        ("loss_reporting_max = 20000", 'loss_reporting_max = "lots"'),
        ("collar_bps_max = 200", "collar_bps_max = 0"),
        (f'instruments = ["{BTC}"]', 'instruments = ["binance-main/BTX/USDT:USDT"]'),
    ):
        assert old in text
        text = text.replace(old, new)
    problems = problems_of(text)
    expected = (
        "t.toml:4: limits.portfolio.gross_reporting_max: missing, expected a positive amount or "
        '"none"',
        "t.toml:5: limits.portfolio.gros_reporting_max: unknown key, did you mean "
        "'gross_reporting_max'?",
        't.toml:8: limits.portfolio.loss_reporting_max: expected a positive amount or "none", was '
        '"lots"',
        f't.toml:29: instruments."{BTC}".collar_bps_max: expected a whole number from 1 to 10000, '
        "was 0",
        "t.toml:33: strategies.trend.instruments: there is no instrument "
        f"'binance-main/BTX/USDT:USDT', did you mean '{BTC}'?",
    )
    assert problems == expected


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param("env:BINANCE_KEY\"", "env:X\"\nexchange_id = 1", "unknown key", id="unknown"),
        pytest.param('"env:BINANCE_KEY"', "5", "a reference env:NAME", id="secret-number"),
        pytest.param("= 0.99,", '= "0.99",', "above 0.5 and below 1", id="ratio-text"),
        pytest.param("= 0.99,", "= nan,", "above 0.5 and below 1, was NaN", id="ratio-nan"),
        pytest.param('command = ["python", ', "command = [1, ", "program and arg", id="command"),
        pytest.param(
            "500\n[str", '500\nshared_instruments = "no"\n[str', "true or false",
            id="flag-text",
        ),
        pytest.param("= 0.99,", '= "' + "x" * 99 + '",', 'was "' + "x" * 58 + "…", id="long"),
        pytest.param(
            f'instruments = ["{BTC}"]', "instruments = [7]", "a list of ins",
            id="number-listed",
        ),
        pytest.param(
            "schema = 1", "schema = 2", "t.toml:1: schema: expected 1, was 2",
            id="schema",
        ),
        pytest.param(
            '"USDT"\n', '"usdt"\n', "reporting_currency: expected a currency", id="currency"
        ),
        pytest.param("= 4000 }", "= 0 }", "expected a positive amount, was 0", id="zero"),
        pytest.param("= 4000 }", "= -1 }", "expected a positive amount, was -1", id="negative"),
        pytest.param("= 4000 }", "= nan }", "expected a positive amount, was NaN", id="nan"),
        pytest.param("= 4000 }", "= inf }", "expected a positive amount, was Inf", id="infinite"),
        pytest.param("= 4000 }", "= true }", "expected a positive amount, was true", id="flag"),
        pytest.param("= 4000 }", "= {} }", "a positive amount, was a table", id="table"),
        pytest.param("= 4000 }", '= "4_000" }', "expected a positive amount", id="grouped-text"),
        pytest.param("= 4000 }", "= 1e15 }", "a positive amount of at most", id="too-large"),
        pytest.param("= 4000 }", "= 0.00001 }", "a positive amount of at least", id="too-small"),
        pytest.param("= 4000 }", "= 1.0000000000001 }", "at most 12 decimal places", id="too-fine"),
        pytest.param('= 4000 }', '= "none" }', "expected a positive amount", id="no-none-here"),
        pytest.param("= 60,", "= 60.0,", "risk.bar_s: expected a whole number", id="float-count"),
        pytest.param("= 0.99,", "= 1.0,", "above 0.5 and below 1, was 1.0", id="confidence"),
        pytest.param(
            "= 4000 }", "= 4000, soft_factor = 0 }", "above 0 and at most 1, was 0", id="factor"
        ),
        pytest.param('"one-way"', '"both"', 'expected "one-way" or "hedge"', id="mode"),
        pytest.param('"one-way"', '"hedge"', 'expected "one-way" for a sim', id="simulated-hedge"),
        pytest.param('"simulated"', '"sim"', 'expected "simulated" or "live"', id="kind"),
        pytest.param('"simulated"', '"live"', "only a simulated venue has it", id="live-equity"),
        pytest.param(
            "starting_equity_reporting = 100000\n", "", "(the venue is simulated)", id="no-equity"
        ),
        pytest.param("[venues.binance-main]", "[venues.Binance]", "a venue name", id="venue-name"),
        pytest.param(
            "[limits.assets.BTC]",
            "[limits.assets.ETH]",
            f't.toml:25: limits.assets.BTC: missing, instruments."{BTC}" needs the table '
            "[limits.assets.BTC]",
            id="no-asset-limits",
        ),
        pytest.param(
            "[limits.venues.binance-main]",
            "[limits.venues.binance-mian]",
            "t.toml:12: limits.venues.binance-mian: nothing in this file has this name, did you "
            "mean 'binance-main'?",
            id="misspelt-limits",
        ),
        pytest.param(
            "[limits.strategies.trend]", "[limits.strategies.x]", "limits.strategies.trend: missin",
            id="no-strategy-limits",
        ),
        pytest.param(
            "[strategies.trend]", "[strategies.unattributed]", "the name is reserved", id="reserved"
        ),
        pytest.param(
            f'instruments = ["{BTC}"]', f'instruments = ["{BTC}", "{BTC}"]', "is listed twice",
            id="twice",
        ),
        pytest.param(
            f'instruments = ["{BTC}"]', "instruments = []", "a list of instrument names, was a lis",
            id="no-instruments",
        ),
        pytest.param(
            f'instruments."{BTC}"]', 'instruments."other/BTC/USDT:USDT"]',
            "there is no venue 'other'", id="no-venue",
        ),
        pytest.param(
            f'instruments."{BTC}"]', 'instruments."binance-main/BTC/USD:BTC"]',
            "is quoted in USD, not in USDT: it needs the table [quotes.USD]", id="no-par",
        ),
        pytest.param(
            f'instruments."{BTC}"]', 'instruments."binance-main/BTC"]', "expected VENUE/BASE/QUOTE",
            id="instrument-name",
        ),
        pytest.param('"{level}"', '"{lvel}"', "no placeholder '{lvel}', did you", id="placeholder"),
        pytest.param("[alerts]\n", "[alerts]\nx = 1\n", "alerts.x: unknown key", id="unknown-key"),
        pytest.param(
            'reporting_currency = "USDT"\n', "", "t.toml:1: reporting_currency: missing", id="gone"
        ),
        pytest.param("[limits.portfolio]", "[limits.portfolo]", "missing, expected a table with "
                     "gross_reporting_max, net_reporting_max, stress", id="portfolio-gone"),
    ],
)  # fmt: skip
def test_config_when_one_value_is_wrong_then_the_message_names_it(
    old: str, new: str, problem: str
) -> None:
    assert any(problem in line for line in problems_of(changed(old, new)))


def test_config_when_a_section_is_not_a_table_then_it_says_so() -> None:
    head = "schema = 1\nreporting_currency = 'USDT'\nlimits = 5\nvenues = []\nalerts = 1\n"
    problems = problems_of(head + "[instruments]\nx = 3\n")
    assert "t.toml:3: limits: expected a table, was 5" in problems
    assert "t.toml:4: venues: expected tables by name, was a list of 0" in problems
    assert "t.toml:7: instruments.x: expected a table, was 3" in problems
    assert any("risk: missing, expected a table with var_budget" in line for line in problems)
    assert any("strategies: missing, expected at least one" in line for line in problems)


def test_config_when_two_strategies_share_an_instrument_then_it_must_say_so() -> None:
    second = f"""
[strategies.fade]
command = ["x"]
instruments = ["{BTC}"]
orders_per_second_max = 1
[limits.strategies.fade]
gross_reporting_max = 1
net_reporting_max = 1
"""
    (problem,) = problems_of(EXAMPLE + second)
    assert "belongs to strategy 'trend' already" in problem
    assert f'write shared_instruments = true in [instruments."{BTC}"]' in problem
    shared = changed("collar_bps_max = 200\n", "collar_bps_max = 200\nshared_instruments = true\n")
    assert problems_or_none(shared + second) is None
    unshared = shared.replace("shared_instruments = true", "shared_instruments = false")
    (again,) = problems_of(unshared + second)
    assert again.partition("strategies.")[2] == problem.partition("strategies.")[2]


def test_config_when_a_table_is_over_its_bound_then_it_is_refused() -> None:
    venue = '[venues.v{0}]\nexchange = "x"\nkind = "live"\nposition_mode = "hedge"\n'
    venue += "margin_buffer_reporting = 0\n"
    limits = "[limits.venues.v{0}]\ngross_reporting_max = 1\nnet_reporting_max = 1\n"
    many = "".join((venue + limits).format(number) for number in range(16))
    (problem,) = problems_of(EXAMPLE + many)
    assert "venues: expected 1 to 16 tables" in problem


def test_config_when_problems_are_countless_then_the_list_is_bounded() -> None:
    many = "".join(f"x{number} = 1\n" for number in range(PROBLEMS_MAX + 50))
    problems = problems_of(EXAMPLE + many)
    assert len(problems) == PROBLEMS_MAX + 1
    assert problems[-1] == "t.toml: and 50 more problems"


@pytest.mark.parametrize("key", [LITERAL, f"env {LITERAL}", "env:", "https://x/" + LITERAL])
def test_config_when_a_secret_is_literal_then_it_is_refused_and_not_repeated(key: str) -> None:
    (problem,) = problems_of(changed("env:BINANCE_KEY", key))
    assert problem.startswith("t.toml:22: venues.binance-main.api_key: expected a reference")
    assert LITERAL not in problem
    assert "(not shown)" in problem


def test_config_when_it_is_printed_then_no_secret_reference_appears() -> None:
    config = parse_config(EXAMPLE, "t.toml")
    assert "BINANCE_KEY" not in repr(config)
    assert "BINANCE_KEY" not in json.dumps(plain(config))
    secret = config.venues["binance-main"].api_key
    assert secret is not None
    assert (str(secret), secret.scheme) == ("***", "env")
    assert secret.reveal_reference() == "env:BINANCE_KEY"
    assert secret == Secret("env:BINANCE_KEY")
    assert len({secret, Secret("env:BINANCE_KEY"), Secret("file:/x")}) == 2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("a = [", "t.toml:1: not valid TOML", id="open-array"),
        pytest.param("a = 1\n\na = 2\n", "t.toml:", id="double-key"),
        pytest.param("\n\n[a]\nb = 'x\n", "t.toml:4: not valid TOML", id="open-text"),
        pytest.param("\ufeffschema = 1", "t.toml:1: not valid TOML", id="byte-order-mark"),
        pytest.param("x = " + "[" * 9000, "t.toml: values are nested too deeply", id="deep"),
        pytest.param(
            "x = 1e9999999999999999999", "t.toml: not valid TOML: a number", id="exponent"
        ),
        pytest.param("x = " + "9" * 5000, "t.toml: not valid TOML: a number", id="digits"),
        pytest.param("", "t.toml:1: schema: missing", id="empty"),
    ],
)
def test_config_when_the_text_is_not_toml_then_the_place_is_told(text: str, place: str) -> None:
    assert problems_of(text)[0].startswith(place)


@given(st.data())
def test_config_when_the_text_is_damaged_then_only_a_config_error_arises(
    data: st.DataObject,
) -> None:
    start = data.draw(st.integers(0, len(EXAMPLE)))
    length = data.draw(st.integers(0, 40))
    junk = data.draw(st.text(st.sampled_from("[]{}=\"'\\,.#\n -10aeτ\0"), max_size=8))
    text = EXAMPLE[:start] + junk + EXAMPLE[start + length :]
    # Any exception but a ConfigError fails the test by itself.
    problems = problems_or_none(text)
    assert problems is None or (problems and all(line.startswith("t.toml:") for line in problems))


def test_lines_when_the_text_is_not_toml_then_it_stops_with_an_error() -> None:
    with pytest.raises(ValueError, match="not valid TOML at offset 4"):
        line_numbers("a = ")


def test_lines_when_values_hold_what_looks_like_keys_then_they_are_stepped_over() -> None:
    text = (
        'a = """\nb = 1\n[c]\\"""\n""""\n'  # lines 1 to 4
        "d.'e.f' = [ # x = 1\n  '[g]', { h = 1, i = [\n2] }, ]\n"  # 5 to 7
        '[ j . "k\\u0041" ]\r\nl = 1979-05-27 07:32:00 # m = 2\n'  # 8, 9
        "n = '''\n'o'''''\np = {q = {r = 1}, s = \"#}\"}\n[[t]]\nu = 1\n[[t]]\nu = 2\n"
    )
    tomllib.loads(text)
    lines = line_numbers(text)
    jk = ("j", "kA")
    assert lines == {
        ("a",): 1, ("d",): 5, ("d", "e.f"): 5, ("d", "e.f", "h"): 6, ("d", "e.f", "i"): 6,
        ("j",): 8, jk: 8, (*jk, "l"): 9, (*jk, "n"): 10, (*jk, "p"): 12, (*jk, "p", "q"): 12,
        (*jk, "p", "q", "r"): 12, (*jk, "p", "s"): 12, ("t",): 15, ("t", "u"): 14,
    }  # fmt: skip


@given(st.decimals(min_value="0.0001", max_value=10**12, places=8, allow_nan=False))
def test_amount_when_written_as_number_or_text_then_it_is_kept_exactly(amount: Decimal) -> None:
    plain_text = format(amount, "f")
    if "." not in plain_text:
        plain_text += ".0"
    for written in (plain_text, f'"{plain_text}"'):
        text = changed("loss_reporting_max = 20000", f"loss_reporting_max = {written}")
        kept = parse_config(text, "t.toml").limits.portfolio.loss_reporting_max
        assert kept is not None
        assert kept == amount
        money = limit_money(kept)
        assert Decimal(money) / units.MONEY_SCALE <= amount
        assert amount - Decimal(money) / units.MONEY_SCALE < Decimal(1) / units.MONEY_SCALE


@pytest.mark.parametrize(
    ("gross", "stress", "expected"),
    [
        pytest.param("50000", "12500", 50000 * units.MONEY_SCALE, id="equal"),
        pytest.param("50000", "100", 400 * units.MONEY_SCALE, id="stress-is-tighter"),
        pytest.param("300", "12500", 300 * units.MONEY_SCALE, id="gross-is-tighter"),
        pytest.param('"none"', "100", 400 * units.MONEY_SCALE, id="stress-alone"),
        pytest.param("300", '"none"', 300 * units.MONEY_SCALE, id="gross-alone"),
        pytest.param('"none"', '"none"', units.INT_MAX, id="neither"),
        pytest.param('"none"', "461168601842738", units.INT_MAX, id="widest"),
    ],
)
def test_gross_when_a_stress_loss_is_set_then_the_tighter_of_both_holds(
    gross: str, stress: str, expected: int
) -> None:
    text = changed("gross_reporting_max = 50000", f"gross_reporting_max = {gross}")
    text = text.replace(
        "stress_loss_reporting_max = 12500", f"stress_loss_reporting_max = {stress}"
    )
    assert effective_gross(parse_config(text, "t.toml").limits.portfolio) == expected


def test_instrument_name_when_split_then_its_parts_and_symbol_are_told() -> None:
    key = instrument_key(BTC)
    assert tuple(key) == ("binance-main", "BTC", "USDT", "USDT")
    assert key.symbol == "BTC/USDT:USDT"
    with pytest.raises(ValueError, match=r"^$"):
        instrument_key("BTC/USDT:USDT")
