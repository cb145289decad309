"""The words of limits: where they stand, which way is tighter, and swaps that undo nobody."""

from decimal import Decimal

import pytest

from tests.tree_fixtures import BTC, paper_config, paper_page, paper_text
from tripgate.config.reader import load_text
from tripgate.page.layout import INSTRUMENT, LIMIT, STRATEGY
from tripgate.page.level import fit_effective_limits, set_effective_limits
from tripgate.page.limits import (
    LIMIT_KEYS,
    configured_values,
    count_change,
    is_tighter,
    keys_of,
    margin_terms,
    read_limit,
    read_limits,
    related_nodes,
    replace,
    tighten,
    write_limits,
)
from tripgate.units import INT_MAX, LOTS_MAX, PPM, money

BTC_SCOPE = f"instrument:sim/{BTC}"
VENUE, GROSS, NET = "venue:sim", "gross_reporting_max", "net_reporting_max"


def test_configured_values_when_a_page_is_made_of_them_then_it_holds_each_one() -> None:
    page = paper_page()
    values = configured_values(paper_config(), page.names)
    held = read_limits(page)
    assert values.items() <= held.items()
    derived = {place for place in held if place not in values}
    assert {key for _, key in derived} == {"initial_margin_rate"}


def test_configured_values_when_options_are_written_then_units_round_against_the_caller() -> None:
    text = (
        paper_text()
        .replace("collar_bps_max = 200", "collar_bps_max = 200\norder_lots_max = 7", 1)
        .replace("collar_bps_max = 200", "collar_bps_max = 200\ninitial_margin_rate = 0.0333337", 1)
        .replace("margin_buffer_reporting = 1000", "margin_buffer_reporting = 0.00019")
    )
    page = paper_page()
    values = configured_values(load_text(text, "t", {}).config, page.names)
    assert values[BTC_SCOPE, "order_lots_max"] == 7
    assert values[BTC_SCOPE, "initial_margin_rate"] == 33_334
    assert values[VENUE, "margin_buffer_reporting"] == 2
    assert values[VENUE, "margin_haircut"] == 9_500
    assert values[BTC_SCOPE, "collar_bps_max"] == 20_000
    assert values[BTC_SCOPE, "exit_collar_bps_max"] == 40_000


@pytest.mark.parametrize(
    ("key", "tight", "loose"),
    [
        (GROSS, 1, INT_MAX),
        ("margin_buffer_reporting", 5, 4),
        ("margin_haircut", 9_000, 9_500),
        ("initial_margin_rate", PPM, 10_000),
        ("duplicate_window_ms", 500, 0),
        ("repeated_orders_max", 3, 0),
        ("repeated_orders_max", 3, 4),
        ("repeated_window_s", 60_000, 1_000),
        ("resting_closes_max", 1, 4),
    ],
)
def test_is_tighter_when_two_values_are_compared_then_each_key_has_its_direction(
    key: str, tight: int, loose: int
) -> None:
    assert is_tighter(key, tight, loose)
    assert not is_tighter(key, loose, tight)
    assert not is_tighter(key, tight, tight)


def test_tighten_when_it_is_looser_then_the_word_stays() -> None:
    page = paper_page()
    for scope in page.names.scopes:
        for key in keys_of(scope):
            before = read_limit(page, scope, key)
            rule = LIMIT_KEYS[key]
            looser = before + 1 if rule.low_is_tight else before - 1
            if looser < 0 or (rule.zero_is_off and before == 0):
                continue
            assert tighten(page, scope, key, looser) == (before, before)
            assert read_limit(page, scope, key) == before


def test_tighten_when_one_part_of_a_word_moves_then_the_other_part_stays() -> None:
    page = paper_page()
    node = page.names.scope(VENUE)
    assert margin_terms(page, node) == (money(1_000), 9_500)
    assert tighten(page, VENUE, "margin_haircut", 9_000) == (9_500, 9_000)
    assert tighten(page, VENUE, "margin_buffer_reporting", money(2_000))[1] == money(2_000)
    assert margin_terms(page, node) == (money(2_000), 9_000)
    assert replace(page, VENUE, "margin_haircut", 9_000, 9_900)
    assert margin_terms(page, node) == (money(2_000), 9_900)


def test_tighten_when_a_factor_holds_then_the_effective_limit_is_the_product() -> None:
    page = paper_page()
    row = page.rows(LIMIT)[0]
    set_effective_limits(page, 0, PPM // 2)
    tighten(page, "portfolio", GROSS, money(100))
    assert (int(row["gross_configured"]), int(row["gross_max"])) == (money(100), money(50))
    set_effective_limits(page, 0, PPM)
    assert int(row["gross_max"]) == money(100)


def test_fit_when_it_may_not_raise_then_a_low_effective_limit_stays() -> None:
    page = paper_page()
    row = page.rows(LIMIT)[0]
    row["net_max"] = 5
    fit_effective_limits(page, 0, may_raise=False)
    assert int(row["net_max"]) == 5
    fit_effective_limits(page, 0, may_raise=True)
    assert int(row["net_max"]) == int(row["net_configured"])


def test_replace_when_the_word_is_another_then_nothing_changes() -> None:
    page = paper_page()
    held = read_limit(page, BTC_SCOPE, NET)
    assert not replace(page, BTC_SCOPE, NET, held - 1, held + 5)
    assert read_limit(page, BTC_SCOPE, NET) == held
    assert replace(page, BTC_SCOPE, NET, held, held + 5)
    assert int(page.rows(LIMIT)["net_max"][page.names.scope(BTC_SCOPE)]) == held + 5
    assert replace(page, BTC_SCOPE, NET, held, held + 5), "done before counts as done"


def test_write_limits_when_rows_of_each_table_are_named_then_those_words_are_set() -> None:
    page = paper_page()
    values = {
        ("strategy:trend", "repeated_window_s"): 9_000, (BTC_SCOPE, "order_lots_max"): 3,
        ("asset:BTC", GROSS): 77,
    }  # fmt: skip
    write_limits(page, values)
    assert int(page.rows(STRATEGY)["repeat_window_ms"][0]) == 9_000
    assert int(page.rows(INSTRUMENT)["order_lots_max"][0]) == 3
    assert int(page.rows(LIMIT)["gross_max"][page.names.scope("asset:BTC")]) == 77


def test_count_change_when_called_then_the_version_rises_by_one() -> None:
    page = paper_page()
    assert count_change(page) == int(page.header["limits_version"]) == 2


def test_related_nodes_when_orders_share_a_way_then_both_ends_know_each_other() -> None:
    page = paper_page(strategies=("trend", "pulse"))
    names = page.names

    def near(scope: str) -> set[str]:
        return {names.scopes[node] for node in related_nodes(names, names.scope(scope))}

    assert near("portfolio") == set(names.scopes)
    assert near("strategy:trend") == {
        "portfolio", "venue:sim", "asset:BTC", "strategy:trend", BTC_SCOPE,
    }  # fmt: skip
    assert "strategy:pulse" not in near("asset:BTC")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (GROSS, INT_MAX, "none"), (GROSS, money(5), "5.00"), ("collar_bps_max", 20_000, "200"),
        ("order_lots_max", LOTS_MAX, "none"), ("margin_haircut", 9_500, "0.95"),
        ("initial_margin_rate", 33_334, "0.033334"), ("repeated_window_s", 60_000, "60"),
        ("duplicate_window_ms", 500, "500"), ("margin_haircut", 10_000, "1"),
    ],
)  # fmt: skip
def test_text_when_a_word_is_shown_then_it_is_as_the_file_writes_it(
    key: str, value: int, text: str
) -> None:
    assert LIMIT_KEYS[key].text(value) == text
    if text != "none":
        assert Decimal(text) >= 0
