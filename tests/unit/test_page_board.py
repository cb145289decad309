"""The board: who may write a venue's rows, and what a writer's death leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gate_fixtures import (
    ALPHA_ROUTER,
    BETA_BTC,
    BETA_ROUTER,
    BTC,
    ETH,
    MARKET_MS,
    MARKS,
    Bench,
    make_bench,
)
from tripgate.errors import InvariantBroken, PageError
from tripgate.gate.slots import take_role_slot
from tripgate.page.board import BoardWriter, Quote, read_quote, write_quote
from tripgate.page.layout import BOARD, SLOT
from tripgate.page.mapping import open_page
from tripgate.processes import process_start_time
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels
TICK = Quote(600_001, 600_002, 600_000, 600_003, MARKET_MS, 2, 0, index_price=599_999)
FEED = """
import sys
from pathlib import Path
from tripgate.gate.slots import take_role_slot
from tripgate.page.board import BoardWriter, Quote
from tripgate.page.mapping import open_page

page, role = open_page(Path(sys.argv[1]), control_writable=True), int(sys.argv[2])
take_role_slot(page, role, 1)
writer = BoardWriter(page, role, "alpha")
print("owner", flush=True)
price = 600_000
while True:
    writer.write(0, Quote(price, price, price, price, int(sys.argv[3]), price, 0, price), 1)
    price = 600_000 + (price + 1) % 1_000
"""

HAMMER = """
import sys
from pathlib import Path
import numba
from tripgate.gate.slots import take_role_slot
from tripgate.page.board import write_row
from tripgate.page.layout import BOARD
from tripgate.page.mapping import open_page

@numba.njit("void(int64, int64)")
def hammer(row, market_ms):
    for price in range(1, 10**12):
        write_row(row, price, price, price, price, price, market_ms, price, price)

page, role = open_page(Path(sys.argv[1]), control_writable=True), int(sys.argv[2])
take_role_slot(page, role, 1)
print("owner", flush=True)
hammer(page.address(BOARD, 0), int(sys.argv[3]))
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


@contextmanager
def running(program: str, bench: Bench) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that owns a feed's slot and writes its venue's board without a pause."""
    command = [sys.executable, "-c", program, str(bench.page.folder), str(ALPHA_ROUTER)]
    process = subprocess.Popen([*command, str(MARKET_MS)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"owner\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def feed(bench: Bench) -> Iterator["subprocess.Popen[bytes]"]:
    """A feed that writes through ``BoardWriter``."""
    with running(FEED, bench) as process:
        yield process


def test_writer_when_it_owns_the_feeds_slot_then_its_rows_are_written(bench: Bench) -> None:
    take_role_slot(bench.page, ALPHA_ROUTER, 1)
    writer = BoardWriter(bench.page, ALPHA_ROUTER, "alpha")
    assert writer.instruments == (BTC, ETH)
    writer.write(BTC, TICK, 17)
    found = read_quote(bench.page, BTC)
    assert found is not None
    assert (found.mark, found.index_price, found.host_ns) == (600_001, 599_999, 17)
    assert found.age_ms(MARKET_MS + 40) == 40


def test_writer_when_the_row_is_another_venues_then_it_crashes(bench: Bench) -> None:
    take_role_slot(bench.page, ALPHA_ROUTER, 1)
    writer = BoardWriter(bench.page, ALPHA_ROUTER, "alpha")
    with pytest.raises(InvariantBroken, match="not of venue alpha"):
        writer.write(BETA_BTC, TICK, 17)
    found = read_quote(bench.page, BETA_BTC)
    assert found is not None
    assert found.mark == MARKS[BETA_BTC]


def test_writer_when_it_owns_no_slot_then_there_is_none(bench: Bench) -> None:
    with pytest.raises(InvariantBroken, match="a board row has one writer"):
        BoardWriter(bench.page, BETA_ROUTER, "beta")


def test_writer_when_the_slot_was_given_to_a_successor_then_it_crashes_before_it_writes(
    bench: Bench,
) -> None:
    take_role_slot(bench.page, ALPHA_ROUTER, 1)
    writer = BoardWriter(bench.page, ALPHA_ROUTER, "alpha")
    owner = bench.page.rows(SLOT)[ALPHA_ROUTER]
    owner["start_time"] = process_start_time(os.getpid()) + 1
    with pytest.raises(InvariantBroken, match="a board row has one writer"):
        writer.write(BTC, TICK, 17)
    found = read_quote(bench.page, BTC)
    assert found is not None
    assert found.mark == MARKS[BTC]


@pytest.mark.jit_only
def test_slot_when_its_owner_lives_then_no_second_feed_can_take_it(
    bench: Bench, feed: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(PageError, match=f"still process {feed.pid}'s"):
        take_role_slot(bench.page, ALPHA_ROUTER, 2)
    with pytest.raises(InvariantBroken, match=f"process {feed.pid} feeds venue alpha"):
        BoardWriter(bench.page, ALPHA_ROUTER, "alpha")
    feed.kill()
    feed.wait()
    take_role_slot(bench.page, ALPHA_ROUTER, 2)
    BoardWriter(bench.page, ALPHA_ROUTER, "alpha").write(BTC, TICK, 17)


@pytest.mark.jit_only
def test_board_when_read_while_another_process_writes_then_every_quote_is_of_one_tick(
    bench: Bench, feed: "subprocess.Popen[bytes]"
) -> None:
    onlooker = open_page(bench.page.folder, writable=False)
    seen = set()
    for _ in range(100_000):
        quote = read_quote(onlooker, BTC)
        if quote is None or not quote.index_price:
            continue  # Never still within the bounded tries, or the fixture's own tick.
        prices = {quote.mark, quote.last, quote.bid, quote.ask, quote.step, quote.index_price}
        assert len(prices) == 1
        seen.add(quote.sequence)
        if len(seen) > 200:
            break
    assert len(seen) > 200


@pytest.mark.jit_only
def test_board_when_its_feed_was_killed_while_writing_then_it_denies_until_the_successor_writes(
    bench: Bench,
) -> None:
    row = bench.page.rows(BOARD)[BTC]
    with running(HAMMER, bench) as feed:
        # Stopped again and again until a stop lies between the two halves of the seqlock.
        for _ in range(10_000):
            os.kill(feed.pid, signal.SIGSTOP)
            os.waitpid(feed.pid, os.WUNTRACED)
            if int(row["sequence"]) & 1:
                break
            os.kill(feed.pid, signal.SIGCONT)
        assert int(row["sequence"]) & 1, "no stop fell into a write"
    handle = bench.handle(BTC)
    assert (read_quote(bench.page, BTC), handle.quote) == (None, None)
    assert handle.check("0.01", "60000", "59000").reason is DenyReason.MARK_STALE
    take_role_slot(bench.page, ALPHA_ROUTER, 2)
    assert int(row["sequence"]) & 1, "stale until the market speaks again"
    BoardWriter(bench.page, ALPHA_ROUTER, "alpha").write(BTC, TICK, 17)
    assert not int(row["sequence"]) & 1
    found = read_quote(bench.page, BTC)
    assert found is not None
    assert found == handle.quote
    assert found.mark == TICK.mark
    assert handle.check("0.01", "60000", "59000").approved


def test_quote_when_the_venue_gives_no_index_then_it_is_absent(bench: Bench) -> None:
    write_quote(bench.page, BTC, Quote(5, 5, 5, 5, MARKET_MS, 1, 0), 1)
    found = read_quote(bench.page, BTC)
    assert found is not None
    assert found.index_price == 0
