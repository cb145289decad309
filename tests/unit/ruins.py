"""A page in ruins: what the dead leave behind, how it is mended, and the plainest way to add up.

Helpers for tests of the repair; the sums here share no code with the product's.
"""

from pathlib import Path

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BTC,
    ETH,
    HEDGE,
    KEEPER,
    MARKET_MS,
    TREND,
    Bench,
    make_bench,
)
from tripgate.gate.commit import commit, find_reserved
from tripgate.gate.exits import issue_exit
from tripgate.gate.recount import Truth
from tripgate.gate.repair import freeze, rebuild, thaw
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.words import FREE, RESERVING, STATE_MASK, UNPOSTED, entry_word
from tripgate.page import atomics
from tripgate.page.layout import CLAIM, COUNTERS_HEADER, ENTRY, INSTRUMENT, KEY, SLOT, SUM
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter

BUY = ("0.01", "60000", "59000")
BUY_MONEY = 6_000_000
DEAD_PID = 2**22 + 1
"""No Linux process can have it."""
MARGIN_PPM = 33_333


def margin_bench(folder: Path) -> Bench:
    """Return a page whose venues ask for initial margin."""
    bench = make_bench(folder)
    bench.page.rows(INSTRUMENT)["margin_ppm"][:] = MARGIN_PPM
    bench.page.rows(KEY)["margin_ppm"][:] = MARGIN_PPM
    return bench


def let_die(bench: Bench, slot: int) -> None:
    """Make a slot's owner a process that has ended."""
    bench.page.rows(SLOT)["pid"][slot] = DEAD_PID


def unposted(bench: Bench) -> int:
    """Return the count of exits that no sum holds yet."""
    return atomics.load(bench.page.address(COUNTERS_HEADER, 0, "unposted"))


def mend(bench: Bench, truth: Truth) -> None:
    """Do what the keeper does."""
    freeze(bench.page, KEEPER)
    rebuild(bench.page, truth)
    thaw(bench.page)


def spoil(bench: Bench) -> None:
    """Overwrite every word that is a sum of others."""
    for name in ("gross", "long_worst", "short_worst", "margin"):
        bench.page.rows(SUM)[name][:] = 123_456_789
    bench.page.rows(CLAIM)["lots"][:] = -77
    for name in ("closable", "resting", "charged", "margin_charged"):
        bench.page.rows(KEY)[name][:] = 5


def a_bit_of_everything(bench: Bench) -> Truth:
    """Make a position, an opening half filled, a close half filled, an exit and a reservation."""
    bench.hold(20)
    opening = bench.handle(ETH).check("-0.05", "3000", "3010").token
    order = find_reserved(bench.page, opening, bench.slots[TREND])
    assert order is not None
    assert commit(bench.page, order)
    bench.settlement.fill(bench.key(ETH), bench.settlement.find(opening), -2, -600_000)
    closing = bench.handle().check("-0.005", "60000").token
    bench.settlement.fill(0, bench.settlement.find(closing), -2, 18 * 600_000)
    assert bench.handle(BTC, HEDGE).check(*BUY)
    assert issue_exit(bench.page, RingWriter(bench.page, ALPHA_ROUTER), 0, MARKET_MS)
    released = bench.handle().check(*BUY).token
    assert bench.settlement.release(released)
    return Truth(
        positions={0: 18, bench.key(ETH): -2},
        charged={0: 18 * 600_000, bench.key(ETH): -600_000},
        filled={opening: 2, closing: 2},
    )


def die_in_a_check(bench: Bench, strategy: int = HEDGE) -> int:
    """Leave what a client leaves that is killed after reserving three nodes; return the row."""
    slot = claim_strategy_slot(bench.page, strategy)
    row = bench.page.slot_entries(slot)
    bench.page.rows(ENTRY)["word"][row] = entry_word(5, RESERVING)
    bench.page.rows(SLOT)["section"][slot] = 1
    bench.page.rows(SUM)["gross"][:3] += BUY_MONEY
    bench.page.rows(CLAIM)["lots"][BTC] += 10
    let_die(bench, slot)
    return row


def die_in_an_exit(bench: Bench) -> int:
    """Leave what a client leaves that is killed in an exit during a freeze; return the row."""
    slot = claim_strategy_slot(bench.page, TREND)
    row = bench.page.slot_entries(slot)
    bench.page.rows(ENTRY)["word"][row] = entry_word(6, RESERVING) | UNPOSTED
    bench.page.rows(SLOT)["exit_section"][slot] = 3
    bench.page.rows(KEY)["closable"][0] += 4
    bench.page.rows(KEY)["resting"][0] += 1
    atomics.fetch_add(bench.page.address(COUNTERS_HEADER, 0, "unposted"), 1)
    let_die(bench, slot)
    return row


def plain_sums(page: Page) -> dict[str, list[int]]:
    """Add up the tables the simplest way there is, by the page's own words for each part."""
    sums: dict[str, list[int]] = {
        name: [0] * len(page.names.scopes)
        for name in ("gross", "long_worst", "short_worst", "margin")
    }
    parts = []
    for key in page.rows(KEY):
        worth, margin = int(key["charged"]), int(key["margin_charged"])
        parts.append((key, abs(worth), worth, -worth, margin))
    for entry in page.rows(ENTRY):
        word, flags = int(entry["word"]), int(entry["flags"])
        if word & STATE_MASK in (FREE, RESERVING) or word & UNPOSTED:
            continue
        charged, buys, opens = int(entry["charged"]), int(entry["lots"]) > 0, flags & 13 == 0
        sides = (charged, 0) if buys else (0, charged)
        margin = int(entry["margin_charged"]) * opens
        parts.append((page.rows(KEY)[int(entry["key"])], charged * opens, *sides, margin))
    for key, gross, long, short, margin in parts:
        for place, node in enumerate(int(node) for node in key["node"]):
            sums["gross"][node] += gross
            sums["long_worst"][node] += long
            sums["short_worst"][node] += short
            sums["margin"][node] += margin * (place == 3)
    return sums


def stored_sums(page: Page) -> dict[str, list[int]]:
    rows = page.rows(SUM)
    return {
        name: [int(word) for word in rows[name]]
        for name in ("gross", "long_worst", "short_worst", "margin")
    }
