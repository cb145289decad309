"""The keeper's margin limits and currency rates on a real page."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest

from actors.keeper_margins import Margins
from supervisors.page_setup import VenueFacts, initial_margin_ppm, make_page
from supervisors.paper_config import render_paper_config
from tests.tree_fixtures import (
    BTC,
    EQUITY,
    ETH,
    INSTANCE,
    MARKET_MS,
    STEP_MS,
    SYMBOLS,
    facts,
    mark,
    markets,
    paper_config,
    paper_page,
    paper_text,
    service,
)
from tripgate.config.reader import load_text
from tripgate.config.structs import instrument_key
from tripgate.instance import prepare_state
from tripgate.machines import book
from tripgate.machines.book_types import Book, BookInstrument, Fill, Marks
from tripgate.page.layout import ACCOUNT, INSTRUMENT, KEY, LIMIT, RATE
from tripgate.page.limits import tighten
from tripgate.page.mapping import Page
from tripgate.units import INT_MAX, PPM, money

BUFFER = money(1_000)


class Desk:
    """Margins of a page whose accounts are written by hand."""

    def __init__(self, page: Page, text: str) -> None:
        self.page = page
        self.place = service(page, "position_keeper", config_text=text)
        self.margins = Margins(self.place)
        self.book: Book = book.new_book({0: BookInstrument(Fraction(1))}, EQUITY, {0: EQUITY})

    def at(self, equity: int, *, known: int = 1, stale: int = 0, venue: str = "sim") -> int:
        node = self.page.names.scope(f"venue:{venue}")
        row = self.page.rows(ACCOUNT)[node]
        row["equity_mark"], row["known"], row["stale"] = equity, known, stale
        self.margins.update(self.book, MARKET_MS)
        return int(self.page.rows(LIMIT)["margin_max"][node])


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk(paper_page(), paper_text())
    yield desk
    desk.place.close()


def test_margin_when_equity_is_known_then_it_is_the_haircut_share_less_the_buffer(
    desk: Desk,
) -> None:
    assert desk.at(EQUITY) == EQUITY * 95 // 100 - BUFFER
    assert desk.at(EQUITY + 3) == (EQUITY + 3) * 95 // 100 - BUFFER
    assert desk.at(BUFFER) == 0, "what is left would be below nothing"
    assert desk.at(-EQUITY) == 0
    assert int(desk.page.rows(LIMIT)["margin_max"][0]) == INT_MAX, "venues only"


@pytest.mark.parametrize(("known", "stale"), [(0, 0), (1, 1), (0, 1)])
def test_margin_when_equity_is_not_to_be_trusted_then_it_is_nothing(
    desk: Desk, known: int, stale: int
) -> None:
    assert desk.at(EQUITY) > 0
    assert desk.at(EQUITY, known=known, stale=stale) == 0


def test_margin_when_it_falls_then_it_trips_and_a_rise_does_not(desk: Desk) -> None:
    desk.at(EQUITY)
    generation = desk.page.header["generation"]
    before = int(generation[0])
    desk.at(EQUITY + 100)
    desk.at(EQUITY + 100)
    assert int(generation[0]) == before
    desk.at(EQUITY + 1)
    assert int(generation[0]) == before + 1


def test_margin_when_its_terms_are_tightened_then_the_next_mark_has_them(desk: Desk) -> None:
    before = desk.at(EQUITY)
    tighten(desk.page, "venue:sim", "margin_haircut", 5_000)
    tighten(desk.page, "venue:sim", "margin_buffer_reporting", 2 * BUFFER)
    assert desk.at(EQUITY) == EQUITY // 2 - 2 * BUFFER < before


def test_margin_rate_when_the_instruments_rises_then_its_keys_follow(desk: Desk) -> None:
    tighten(desk.page, f"instrument:sim/{ETH}", "initial_margin_rate", PPM // 2)
    desk.at(EQUITY)
    rates = {
        instrument: int(desk.page.rows(KEY)["margin_ppm"][key])
        for key, (_, instrument) in enumerate(desk.page.names.keys)
    }
    assert rates == {0: int(desk.page.rows(INSTRUMENT)["margin_ppm"][0]), 1: PPM // 2}


@pytest.mark.parametrize(
    ("gross", "ppm"),
    [("50000", 10_000), ("50000.01", 33_334), ("1000000", 100_000), ("9e9", 100_000)],
)
def test_initial_margin_when_it_is_not_written_then_the_bracket_of_the_gross_limit_tells_it(
    gross: str, ppm: int
) -> None:
    limit = "net_reporting_max = 200000\norder_reporting_max"
    text = paper_text().replace(
        f"gross_reporting_max = 200000\n{limit}", f"gross_reporting_max = {gross}\n{limit}"
    )
    config, page = load_text(text, "t", {}).config, paper_page()
    assert initial_margin_ppm(markets()[BTC], config, page.names.instruments[0]) == ppm


def test_initial_margin_when_there_is_no_limit_or_no_tier_then_the_dearest_rate_holds() -> None:
    page = paper_page()
    limit = "net_reporting_max = 200000\norder_reporting_max"
    text = paper_text().replace(
        f"gross_reporting_max = 200000\n{limit}", f'gross_reporting_max = "none"\n{limit}'
    )
    config, name = load_text(text, "t", {}).config, page.names.instruments[0]
    assert initial_margin_ppm(markets()[BTC], config, name) == 100_000
    untold = msgspec.structs.replace(markets()[BTC], margin_tiers=())
    assert initial_margin_ppm(untold, paper_config(), name) == PPM


USDC = "BTC/USDC:USDC"


def usdc_page(*, with_rate: bool, kind: str = "simulated") -> tuple[Page, str]:
    """Return the page of a venue that trades BTC in USDC, and USDC in USDT or not."""
    symbols = (USDC, "USDC/USDT:USDT") if with_rate else (USDC,)
    text = render_paper_config(symbols, ("trend",), Decimal(1)) + '[quotes.USDC]\npar = "0.998"\n'
    if kind == "live":
        text = text.replace('kind = "simulated"', 'kind = "live"')
        text = text.replace("starting_equity_reporting = 100000\n", "")
        text = text.replace("collar_bps_max", "initial_margin_rate = 0.1\ncollar_bps_max")
    base = markets((BTC,))[BTC]
    ticks = {USDC: base.tick, "USDC/USDT:USDT": "0.0001"}
    told = {
        symbol: msgspec.structs.replace(
            base, symbol=symbol, tick=ticks[symbol], quote=instrument_key(f"sim/{symbol}").quote
        )
        for symbol in symbols
    }
    prepare_state(INSTANCE)
    config = load_text(text, "t", {}).config
    venue = VenueFacts(told, EQUITY, STEP_MS, MARKET_MS)
    return make_page(config, INSTANCE, 1, {"sim": venue}, {}), text


def test_rate_when_an_instrument_trades_the_currency_then_its_mark_is_the_rate() -> None:
    page, text = usdc_page(with_rate=True)
    assert page.names.quotes == ("USDT", "USDC")
    assert [int(q) for q in page.rows(INSTRUMENT)["quote"]] == [1, 0]
    row = page.rows(RATE)[1]
    assert (int(row["rate_ppm"]), int(row["par_ppm"]), int(row["market_ms"])) == (0, 998_000, 0)
    desk = Desk(page, text)
    assert desk.at(EQUITY) == 0, "no rate yet, so the collateral counts for nothing"
    mark(page, 1, 9_900, step=0, market_ms=MARKET_MS - 7)
    assert desk.at(EQUITY) == EQUITY * 95 * 99 // 10_000 - BUFFER
    assert (int(row["rate_ppm"]), int(row["market_ms"])) == (990_000, MARKET_MS - 7)
    mark(page, 1, 10_100, step=1, market_ms=MARKET_MS)
    assert desk.at(EQUITY) == EQUITY * 95 * 998 // 100_000 - BUFFER, "never above par"
    desk.place.close()


def test_rate_when_nothing_trades_the_currency_at_a_simulated_venue_then_it_is_par() -> None:
    page, text = usdc_page(with_rate=False)
    desk = Desk(page, text)
    assert desk.at(EQUITY) == EQUITY * 95 * 998 // 100_000 - BUFFER
    row = page.rows(RATE)[1]
    assert (int(row["rate_ppm"]), int(row["market_ms"])) == (998_000, MARKET_MS)
    desk.place.close()


def test_rate_when_nothing_trades_the_currency_at_a_live_venue_then_there_is_none() -> None:
    page, text = usdc_page(with_rate=False, kind="live")
    desk = Desk(page, text)
    assert desk.at(EQUITY) == 0
    assert int(page.rows(RATE)[1]["market_ms"]) == 0
    desk.place.close()


def test_margin_when_there_are_two_venues_then_each_counts_its_own_money() -> None:
    text = paper_text().replace(f"sim/{ETH}", f"other/{ETH}") + (
        "[limits.venues.other]\ngross_reporting_max = 7\nnet_reporting_max = 6\n"
        '[venues.other]\nexchange = "binanceusdm"\nkind = "simulated"\nposition_mode = "one-way"\n'
        "starting_equity_reporting = 5\nmargin_buffer_reporting = 0\n"
    )
    prepare_state(INSTANCE)
    told = facts((BTC,)) | {"other": replace(facts((ETH,))["sim"], starting_money=money(5_000))}
    page = make_page(load_text(text, "two", {}).config, INSTANCE, 1, told, {})
    desk = Desk(page, text)
    values = {number: BookInstrument(Fraction(1)) for number in range(len(SYMBOLS))}
    desk.book = book.new_book(values, EQUITY + money(5_000), {0: EQUITY})
    desk.book, _ = book.step(desk.book, Fill(1, 0, 0, 0, 10, 500_000, 7, MARKET_MS), MARKET_MS)
    assert desk.at(EQUITY) == 0, "a position without a mark"
    marks = Marks(0, MARKET_MS, {0: 600_000}, {0: 600_000})
    desk.book, _ = book.step(desk.book, marks, MARKET_MS)
    gain = 10 * 100_000 - 7
    assert desk.at(EQUITY) == (EQUITY + gain) * 95 // 100 - BUFFER
    assert desk.at(EQUITY, venue="other") == money(5_000) * 95 // 100
    desk.place.close()
