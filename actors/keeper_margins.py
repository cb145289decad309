"""The keeper's margin words: what initial margin may reach at each venue, and currency rates.

A venue's margin limit is min(rate, par) × haircut × equity − buffer: collateral counts at the
cheaper of market and par, and never at what the venue calls available. It is 0 while the equity is
unknown or stands on stale marks. A fall is a tightening, so it trips; a rise is none.

The rate of a quote currency is the mark of an instrument that trades it against the reporting
currency, rounded up. Where none does and every venue concerned is simulated, the rate is par, now:
a simulated account has no market for its own currency. Elsewhere the row keeps its age, and the
gate denies openings in that currency.
"""

import math
from fractions import Fraction

from actors.service import Service
from tripgate.config.reader import parse_config
from tripgate.machines import book
from tripgate.machines.book_types import Book
from tripgate.page.board import read_quote
from tripgate.page.layout import ACCOUNT, INSTRUMENT, KEY, LIMIT, RATE
from tripgate.page.level import bump_generation
from tripgate.page.limits import HAIRCUT_SCALE, margin_terms
from tripgate.units import PPM


class Margins:
    """Writes LIMIT.margin_max of the venues, the RATE rows, and the margin rates of the keys."""

    def __init__(self, service: Service) -> None:
        self._page, self._names = service.page, service.names
        config = parse_config(service.settings["config_text"], service.settings["config_name"])
        self._reporting = config.reporting_currency
        simulated = {name for name, venue in config.venues.items() if venue.kind == "simulated"}
        # Currencies that some live venue quotes in: par is no rate for them.
        self._live = {n.quote for n in self._names.instruments if n.venue not in simulated}

    def update(self, state: Book, market_ms: int) -> None:
        """Write rates, then margin limits, after the accounts were marked."""
        self._follow_rates_of_instruments()
        for number, currency in enumerate(self._names.quotes):
            if number:
                self._write_rate(number, currency, market_ms)
        limits, fell = self._page.rows(LIMIT), False
        for venue in self._names.venues:
            node = self._names.scope(f"venue:{venue}")
            new = self._margin_max(state, venue, node)
            fell = fell or new < int(limits["margin_max"][node])
            limits["margin_max"][node] = new
        if fell:
            bump_generation(self._page)

    def _follow_rates_of_instruments(self) -> None:
        # The keeper alone moves positions' margins, so the rate never changes within a move.
        keys, rates = self._page.rows(KEY), self._page.rows(INSTRUMENT)["margin_ppm"]
        for key, (_, instrument) in enumerate(self._names.keys):
            keys["margin_ppm"][key] = rates[instrument]

    def _write_rate(self, number: int, currency: str, market_ms: int) -> None:
        row = self._page.rows(RATE)[number]
        for instrument, name in enumerate(self._names.instruments):
            quoted = name.quote or self._reporting
            if name.asset != currency or quoted != self._reporting or name.inverse:
                continue
            quote = read_quote(self._page, instrument)
            if quote is not None:
                # Rounded up: exposure counts at the dearer of rate and par.
                row["rate_ppm"] = math.ceil(Fraction(name.tick) * quote.mark * PPM)
                row["market_ms"] = quote.market_ms
            return
        if currency not in self._live:
            row["rate_ppm"], row["market_ms"] = row["par_ppm"], market_ms

    def _margin_max(self, state: Book, venue: str, node: int) -> int:
        equity = self._equity(state, venue, node)
        if equity is None:
            return 0
        buffer, haircut = margin_terms(self._page, node)
        worth = equity * haircut * self._collateral_ppm(venue)
        return max(0, worth // (HAIRCUT_SCALE * PPM) - buffer)

    def _collateral_ppm(self, venue: str) -> int:
        """Return what the account's currency counts for, ppm of the reporting currency.

        An inverse contract settles in its coin, for which there is no rate: it counts nothing.
        """
        rates = self._page.rows(RATE)
        quotes = self._page.rows(INSTRUMENT)["quote"]
        worths = [
            0 if name.inverse else min(int(rates["rate_ppm"][row]), int(rates["par_ppm"][row]))
            for number, name in enumerate(self._names.instruments)
            if name.venue == venue
            for row in (int(quotes[number]),)
        ]
        return min(worths, default=PPM)

    def _equity(self, state: Book, venue: str, node: int) -> int | None:
        row = self._page.rows(ACCOUNT)[node]
        if not row["known"] or row["stale"]:
            return None
        if len(self._names.venues) == 1:
            return int(row["equity_mark"])
        # The book is one over all venues; each venue's own money is its start and its results.
        equity = int(row["starting"])
        for key in state.positions:
            if self._names.instruments[key.instrument].venue == venue:
                realised, unrealised = book.split_money(state, key)
                if unrealised is None:
                    return None
                equity += realised + unrealised
        return equity
