"""The venue as a process that keeps a book: an account that goes on over orderly ends."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import trio

from exchange_adapters.contract import kit
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.simulator.book_file import BookFile
from exchange_adapters.venue_port import (
    AccountSnapshot,
    OrderKind,
    RejectClass,
    Rejected,
    VenueOrder,
)
from tests.contract.test_venue_process import BTC, GOOD, PATIENCE_S, buy, refused, venue_process
from tripgate.reasons import Side

FAR_BELOW_TICKS, FAR_ABOVE_TICKS = 1, 2**30


def stop(number: int, stop_ticks: int) -> VenueOrder:
    kind = OrderKind.STOP_MARKET
    return VenueOrder(
        kit.client_id(number), BTC, Side.SELL, 1, kind, stop_ticks=stop_ticks, reduce_only=True
    )


async def trade(venue: LocalVenue) -> AccountSnapshot:
    """Buy, and leave a stop that never triggers and one that would on any tick."""
    await buy(venue)
    await kit.send_well(venue, stop(2, FAR_BELOW_TICKS))
    await kit.send_well(venue, stop(3, FAR_ABOVE_TICKS))
    return await venue.account()


async def go_on(venue: LocalVenue, before: AccountSnapshot) -> None:
    """Check that the account is the one of before, then that it goes on."""
    account = await venue.account()
    assert account.step == 0
    assert account.positions == before.positions
    assert account.average_prices == before.average_prices
    assert account.open_orders == before.open_orders
    assert account.cash_money == before.cash_money
    assert account.fees_money == before.fees_money
    assert account.last_trade_id == before.last_trade_id == 1
    refusal = await venue.send(stop(2, FAR_BELOW_TICKS))
    assert isinstance(refusal, Rejected)
    assert refusal.reject_class is RejectClass.DUPLICATE_CLIENT_ID
    status = await venue.query(kit.client_id(1))
    assert status is not None
    assert status.cumulative_lots == 3
    await venue.advance(0)
    fills = (await venue.trades(1)).fills
    assert [(fill.trade_id, fill.client_id) for fill in fills] == [(2, kit.client_id(3))]
    assert (await venue.account()).positions == {BTC: 2}


@pytest.mark.parametrize("ending", ["shutdown", "SIGTERM", "SIGINT", "idle"])
def test_venue_process_when_it_ended_well_then_the_next_one_goes_on_with_its_book(
    ending: str, tmp_path: Path
) -> None:
    path, book = tmp_path / "venue.sock", tmp_path / "book.json"
    options = (*GOOD, "--book", str(book))

    async def first() -> AccountSnapshot:
        async with open_local_venue(path) as venue:
            account = await trade(venue)
            if ending == "shutdown":
                await venue.shutdown()
            return account

    async def second(before: AccountSnapshot) -> None:
        async with open_local_venue(path) as venue:
            assert (await venue.hello()).starting_equity_money == 1_000_000_000
            await go_on(venue, before)

    patience = ("--idle-exit-s", "3") if ending == "idle" else ()
    with venue_process(path, *options, *patience) as process:
        before = trio.run(first)
        if ending.startswith("SIG"):
            process.send_signal(signal.Signals[ending])
        assert process.wait(PATIENCE_S) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["book.json"]
    with venue_process(path, *options, "--equity", "5", "--seed", "9") as process:
        trio.run(second, before)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=PATIENCE_S)[1]
        assert told == f"venue: the book {book} began with 100000.00; --equity 5 is not used\n"
        assert process.returncode == 0


def test_venue_process_when_it_was_killed_then_its_book_is_the_one_before(tmp_path: Path) -> None:
    path, book = tmp_path / "venue.sock", tmp_path / "book.json"
    options = (*GOOD, "--book", str(book))

    async def look_and_buy() -> int:
        async with open_local_venue(path) as venue:
            before = (await venue.account()).last_trade_id
            await buy(venue)
            assert (await venue.account()).last_trade_id == 1
            return before

    with venue_process(path, *options) as process:
        assert trio.run(look_and_buy) == 0
        process.kill()
        process.wait(PATIENCE_S)
    assert not book.exists()
    with venue_process(path, *options):
        assert trio.run(look_and_buy) == 0


def test_venue_process_when_its_book_is_damaged_then_says_what_to_do_and_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book.json"
    book.write_text("{}")
    options = (*GOOD, "--book", str(book))
    code, told = refused(tmp_path / "venue.sock", *options, capsys=capsys)
    assert code == 4
    assert told.startswith(f"venue: {book} is no book")
    assert "move the file away" in told
    assert told.count("\n") == 1
    assert book.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [book]


def test_venue_process_when_its_feed_lacks_a_held_instrument_then_refuses_the_book(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, book = tmp_path / "venue.sock", tmp_path / "book.json"
    options = (*GOOD, "--book", str(book))

    async def trade_and_end() -> None:
        async with open_local_venue(path) as venue:
            await trade(venue)
            await venue.shutdown()

    with venue_process(path, *options) as process:
        trio.run(trade_and_end)
        assert process.wait(PATIENCE_S) == 0
    kept = book.read_bytes()
    code, told = refused(path, *options, "--symbols", "ETH/USDT:USDT", capsys=capsys)
    assert code == 4
    assert "position of 3 lots and 2 open orders in BTC/USDT:USDT" in told
    assert book.read_bytes() == kept


def test_venue_process_when_its_book_is_held_or_has_no_place_then_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, book = tmp_path / "venue.sock", tmp_path / "book.json"
    with BookFile(book):
        code, told = refused(path, *GOOD, "--book", str(book), capsys=capsys)
    assert code == 6
    assert f"process {os.getpid()}" in told
    code, told = refused(path, *GOOD, "--book", str(tmp_path / "none" / "b"), capsys=capsys)
    assert code == 7
    assert refused(path, *GOOD, "--book", "", capsys=capsys)[0] == 2


def test_venue_process_when_its_book_cannot_be_written_then_ends_with_the_reason(
    tmp_path: Path,
) -> None:
    path, folder = tmp_path / "venue.sock", tmp_path / "gone"
    folder.mkdir()
    with venue_process(path, *GOOD, "--book", str(folder / "book.json")) as process:
        shutil.rmtree(folder)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=PATIENCE_S)[1]
        assert process.returncode == 7
        assert told.startswith("venue: cannot write")
        assert not path.exists()
