"""P1 in types: the way to a venue takes what the gate approved, and nothing else type-checks.

mypy runs through its own API on small programs, one of which is right, so that a broken check
cannot pass for a strict one.
"""

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
from actors.router import Router
from actors.router_orders import Orders
from exchange_adapters.venue_port import OrderKind, VenueOrder
from tripgate.gate.commit import Approved, commit, find_reserved
from tripgate.gate.decision import Decision
from tripgate.page.mapping import Page
from tripgate.reasons import Side

ORDER = VenueOrder("x", "BTC/USDT:USDT", Side.BUY, 1, OrderKind.MARKET)
"""

RIGHT = """
async def send(router: Router, orders: Orders, page: Page, token: int, slot: int) -> None:
    order = find_reserved(page, token, slot)
    if order is not None and commit(page, order):
        orders.begin(order, orders.venue_order(order, {}))
        await router._send(order, {})
"""

WRONG = {
    "a plain order is sent": """
async def send(router: Router) -> None:
    await router._send(ORDER, {})
""",
    "a plain order is turned into a venue's": """
def build(orders: Orders) -> VenueOrder:
    return orders.venue_order(ORDER, {})
""",
    "a strategy's decision is sent": """
async def send(router: Router, decision: Decision) -> None:
    await router._send(decision, {})
""",
    "a token alone is sent": """
async def send(router: Router, token: int) -> None:
    await router._send(token, {})
""",
    "what may not be there is sent unchecked": """
async def send(router: Router, page: Page, token: int, slot: int) -> None:
    await router._send(find_reserved(page, token, slot), {})
""",
    "a plain order is begun": """
def begin(orders: Orders) -> None:
    orders.begin(ORDER, ORDER)
""",
    "an approved order is changed": """
def widen(order: Approved) -> None:
    order.lots = 10
""",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture(scope="module")
def answers(cache: Path) -> dict[str, str]:
    """Check all programs in one run of mypy; return what it says of each, by file name."""
    paths = {}
    for number, (name, program) in enumerate({"right": RIGHT, **WRONG}.items()):
        paths[name] = cache / f"program_{number}.py"
        paths[name].write_text(HEAD + program)
    output, errors, _ = api.run([
        "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache / "cache"),
        "--no-error-summary", *map(str, paths.values()),
    ])  # fmt: skip
    assert errors == ""
    return {
        name: "\n".join(line for line in output.splitlines() if path.name in line)
        for name, path in paths.items()
    }


def test_P1_send_when_the_gate_approved_it_then_it_type_checks(answers: dict[str, str]) -> None:
    assert answers["right"] == ""


@pytest.mark.parametrize("name", WRONG)
def test_P1_send_when_the_gate_did_not_approve_it_then_it_does_not_type_check(
    answers: dict[str, str], name: str
) -> None:
    text = answers[name]
    assert "error: " in text
    assert "[arg-type]" in text or "[misc]" in text
    assert len(text.splitlines()) == 1, "for that reason and no other"
