"""A paper run's page on which two strategies share an instrument; ETH is the second one's alone."""

from supervisors.page_setup import make_page
from tests.tree_fixtures import BTC, ETH, INSTANCE, facts, paper_text, vouch
from tripgate.config.reader import load_text
from tripgate.instance import prepare_state
from tripgate.page.layout import LIMIT
from tripgate.page.mapping import Page
from tripgate.units import INT_MAX

STRATEGIES = ("trend", "pulse")
FIRST, SECOND, ETHER = 0, 1, 2
"""Closable keys: (trend, BTC), (pulse, BTC), (pulse, ETH)."""


def shared_text() -> str:
    """Return the config of such a run."""
    text = paper_text(STRATEGIES)
    mine, instrument = f'instruments = ["sim/{ETH}"]', f'[instruments."sim/{BTC}"]'
    assert mine in text
    assert instrument in text
    text = text.replace(mine, f'instruments = ["sim/{BTC}", "sim/{ETH}"]')
    return text.replace(instrument, f"{instrument}\nshared_instruments = true")


def shared_page() -> Page:
    """Return the page, armed, every critical lease an hour long."""
    prepare_state(INSTANCE)
    page = make_page(load_text(shared_text(), "shared", {}).config, INSTANCE, 1, facts(), {})
    page.header["armed"], page.header["closed"] = 1, 0
    page.rows(LIMIT)["margin_max"] = INT_MAX
    vouch(page)
    assert page.names.keys == ((0, 0), (1, 0), (1, 1))
    return page
