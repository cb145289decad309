"""The page of a run against its config, number by number."""

import os
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from supervisors.page_setup import VenueFacts, make_names, make_page
from supervisors.paper_config import STOP_BPS, STRATEGIES, render_paper_config
from supervisors.tree import TREE, children_of, roles_of
from tests.tree_fixtures import (
    BTC,
    EQUITY,
    ETH,
    INSTANCE,
    MARKET_MS,
    STEP_MS,
    SYMBOLS,
    facts,
    markets,
    paper_config,
    paper_page,
)
from tripgate.clock import NS_PER_MS, coarse_resolution_ns
from tripgate.config.reader import load_text
from tripgate.errors import ConfigError
from tripgate.page.layout import (
    ACCOUNT,
    CURSOR,
    HOLDER,
    INSTRUMENT,
    KEY,
    LEASE,
    LIMIT,
    ROLE,
    STRATEGY,
)
from tripgate.page.level import LevelWriter
from tripgate.processes import process_start_time
from tripgate.reasons import Level
from tripgate.units import PPM, money

TWO = ("trend", "pulse")
LIMIT_OF_TWO = money(300_000)
"""Two strategies at gross 1.0: twice the equity, half as wide again."""


def test_make_page_when_made_then_it_is_closed_and_the_root_owns_it() -> None:
    page = make_page(paper_config(), INSTANCE, 3, facts(), {})
    header = page.header
    assert (int(header["closed"]), int(header["armed"]), page.epoch) == (1, 0, 3)
    assert int(header["owner_pid"]) == os.getpid()
    assert int(header["owner_start"]) == process_start_time(os.getpid())
    assert int(header["coarse_resolution_ns"]) == 2 * coarse_resolution_ns()
    assert int(header["step"]) == -1
    assert int(header["step_ms"]) == STEP_MS
    assert int(header["age_floor_ms"]) == 2 * STEP_MS
    assert int(header["replay"]) == 1
    assert int(header["market_ms"]) == int(header["starting_ms"]) == MARKET_MS
    assert not page.rows(LEASE)["deadline_ns"].any(), "no lease is live before its holder is"


def test_make_page_when_made_then_the_roles_are_those_of_the_tree() -> None:
    page = paper_page()
    names, rows = page.names, page.rows(ROLE)
    assert [role.text for role in names.roles] == [
        "supervisor", "audit_writer", "position_keeper", "breaker", "market_feed(sim)",
        "router(sim)",
    ]  # fmt: skip
    for number, role in enumerate(names.roles):
        row = rows[number]
        assert int(row["lease_ns"]) == TREE[role.actor].lease_ms * NS_PER_MS
        assert int(row["present"]) == 1
        assert int(row["scope_node"]) == (names.scope("venue:sim") if role.venue else 0)
        assert int(row["step"]) == int(row["events_step"]) == -1
    assert not rows["present"][len(names.roles) :].any()


def test_children_of_when_asked_then_it_is_every_role_but_the_root() -> None:
    roles = roles_of(paper_config())
    children = children_of(roles)
    assert [child.name for child in children] == [role.text for role in roles[1:]]
    assert [(c.actor, c.venue) for c in children] == [(r.actor, r.venue) for r in roles[1:]]


def test_make_page_when_made_then_only_routers_rings_wait_for_the_keeper() -> None:
    page = paper_page()
    masks = page.rows(HOLDER)["mask"]
    router = page.names.role("router", "sim")
    assert int(masks[router]) == 3
    assert {int(mask) for slot, mask in enumerate(masks) if slot != router} == {1}
    assert not page.rows(CURSOR)["audit"].any()


def test_make_page_when_made_then_every_limit_is_what_the_config_says() -> None:
    page = paper_page(strategies=TWO)
    rows = page.rows(LIMIT)
    for node in range(len(page.names.scopes)):
        assert int(rows["gross_configured"][node]) == int(rows["gross_max"][node]) == LIMIT_OF_TWO
        assert int(rows["net_configured"][node]) == int(rows["net_max"][node]) == LIMIT_OF_TWO
        assert int(rows["factor_ppm"][node]) == PPM


def test_make_page_when_the_stress_loss_is_tighter_then_it_bounds_the_portfolio() -> None:
    config = paper_config()
    portfolio = msgspec.structs.replace(
        config.limits.portfolio, stress_loss_reporting_max=Decimal(1_000)
    )
    limits = msgspec.structs.replace(config.limits, portfolio=portfolio)
    page = make_page(msgspec.structs.replace(config, limits=limits), INSTANCE, 1, facts(), {})
    assert int(page.rows(LIMIT)["gross_max"][0]) == money(4_000)
    assert int(page.rows(LIMIT)["net_max"][0]) == money(200_000)


def test_make_page_when_made_then_instruments_have_their_grid_limits_and_roles() -> None:
    page = paper_page(strategies=TWO)
    for number, (symbol, strategy) in enumerate(zip(SYMBOLS, TWO, strict=True)):
        row, name = page.rows(INSTRUMENT)[number], page.names.instruments[number]
        assert (name.venue, name.symbol, name.asset) == ("sim", symbol, symbol.partition("/")[0])
        assert int(row["tradable"]) == 1
        assert page.names.scopes[int(row["node"])] == f"instrument:sim/{symbol}"
        assert page.names.scopes[int(row["asset"])] == f"asset:{name.asset}"
        assert int(row["venue"]) == 0
        assert (int(row["value_numerator"]), int(row["value_denominator"])) == (1, 1)
        assert int(row["order_money_max"]) == LIMIT_OF_TWO
        assert int(row["collar_ppm"]) == 20_000
        assert int(row["stop_distance_ppm"]) == STOP_BPS[strategy] * 100
        assert int(row["age_max_ms"]) == 2_000
        assert int(row["role_mask"]) == 0b111111, "every role is critical for the only venue"


def test_make_page_when_there_are_two_venues_then_a_role_counts_at_its_own_only() -> None:
    names = render_paper_config(SYMBOLS, TWO, Decimal(1)).replace("sim/ETH", "other/ETH")
    extra = (
        "[limits.venues.other]\ngross_reporting_max = 7\nnet_reporting_max = 6\n"
        '[venues.other]\nexchange = "binanceusdm"\nkind = "simulated"\nposition_mode = "one-way"\n'
        "starting_equity_reporting = 5\nmargin_buffer_reporting = 0\n"
    )
    config = load_text(names + extra, "two", {}).config
    told = facts((BTC,)) | {"other": replace(facts((ETH,))["sim"], starting_money=money(5))}
    page = make_page(config, INSTANCE, 1, told, {})
    roles = page.names.roles
    for number, venue in enumerate(("sim", "other")):
        expected = sum(1 << n for n, role in enumerate(roles) if role.venue in ("", venue))
        assert int(page.rows(INSTRUMENT)["role_mask"][number]) == expected
    node = page.names.scope("venue:other")
    assert int(page.rows(LIMIT)["gross_max"][node]) == money(7)
    assert int(page.rows(ACCOUNT)["starting"][node]) == money(5)
    assert int(page.rows(ACCOUNT)["starting"][0]) == EQUITY + money(5)
    assert int(page.rows(KEY)["venue"][1]) == 1


def test_make_page_when_made_then_keys_name_their_five_scopes() -> None:
    page = paper_page(strategies=TWO)
    assert page.names.keys == ((0, 0), (1, 1))
    for key, (strategy, instrument) in enumerate(page.names.keys):
        row, traded = page.rows(KEY)[key], page.names.instruments[instrument]
        assert (int(row["strategy"]), int(row["instrument"])) == (strategy, instrument)
        assert [page.names.scopes[int(node)] for node in row["node"]] == [
            f"strategy:{TWO[strategy]}", traded.scope, f"asset:{traded.asset}", "venue:sim",
            "portfolio",
        ]  # fmt: skip
        plan = page.rows(STRATEGY)[strategy]
        assert (int(plan["orders_per_second_max"]), int(plan["order"])) == (50, strategy)
        assert page.names.scopes[int(plan["node"])] == f"strategy:{TWO[strategy]}"


def test_make_page_when_made_then_every_account_starts_at_the_venues_money() -> None:
    page = paper_page(strategies=TWO)
    rows = page.rows(ACCOUNT)
    with_equity = {"portfolio", "venue:sim", "strategy:trend", "strategy:pulse"}
    for node, scope in enumerate(page.names.scopes):
        expected = EQUITY if scope in with_equity else 0
        assert int(rows["starting"][node]) == int(rows["high_water_mark"][node]) == expected
    assert not rows["known"].any()


def test_make_page_when_levels_are_carried_then_they_stand_in_the_breakers_byte() -> None:
    page = paper_page({"portfolio": Level.HARD, "venue:gone": Level.HARD})
    words = page.rows(LIMIT)["level"][: len(page.names.scopes)]
    assert int(words[0]) == int(Level.HARD) << (8 * LevelWriter.BREAKER)
    assert not words[1:].any()


def test_make_names_when_symbols_are_unknown_then_all_of_them_are_named() -> None:
    told = {"sim": VenueFacts({}, EQUITY, STEP_MS, MARKET_MS)}
    with pytest.raises(ConfigError) as caught:
        make_names(paper_config(), INSTANCE, told)
    assert [f"instruments.sim/{symbol}: sim has no such market; it has " for symbol in SYMBOLS] == [
        *caught.value.problems
    ]


def test_make_page_when_a_lot_is_worth_too_much_then_it_is_refused() -> None:
    coarse = {BTC: msgspec.structs.replace(markets()[BTC], lot="1000000", tick="1000")}
    told = {"sim": VenueFacts(markets() | coarse, EQUITY, STEP_MS, MARKET_MS)}
    with pytest.raises(ConfigError, match="worth more than this release can count"):
        make_page(paper_config(), INSTANCE, 1, told, {})


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("gross", ["0.001", "0.5", "1.0", "100"])
def test_render_paper_config_when_rendered_then_the_reader_takes_it(count: int, gross: str) -> None:
    symbols = tuple(f"{base}/USDT:USDT" for base in ("BTC", "ETH", "1000SHIB", "DOGE"))
    text = render_paper_config(symbols, STRATEGIES[:count], Decimal(gross))
    config = load_text(text, "rendered", {}).config
    assert set(config.instruments) == {f"sim/{symbol}" for symbol in symbols}
    given = [name for plan in config.strategies.values() for name in plan.instruments]
    assert sorted(given) == sorted(config.instruments), "each symbol has exactly one strategy"
    limit = max(Decimal(2), Decimal(gross) * count * Decimal("1.5")) * 100_000
    assert config.limits.portfolio.gross_reporting_max == limit
