"""The simulated account's book: what fits, what is refused, and a file that survives a kill."""

import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from exchange_adapters.simulator import book_file
from exchange_adapters.simulator.account import Terms, basis_points
from exchange_adapters.simulator.book import Book, BookError, decode_book, encode_book
from exchange_adapters.simulator.book_file import BookFile
from exchange_adapters.simulator.matching import MatchingEngine
from exchange_adapters.simulator.restore import book_of, restore_engine
from exchange_adapters.venue_port import (
    OrderKind,
    OrderState,
    RejectClass,
    Rejected,
    VenueFill,
    VenueOrder,
)
from tripgate.errors import AlreadyRunningError, StateUnwritableError, UsageError
from tripgate.reasons import Side
from tripgate.units import InstrumentUnits

ROOT = Path(__file__).parents[2]
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
EQUITY_MONEY = 1_000_000_000
PATIENCE_S = 60.0


def terms_of(symbol: str, tick: str = "0.1") -> Terms:
    units = InstrumentUnits(Decimal(tick), Decimal("0.001"), Decimal(1))
    return Terms(symbol, units, *map(basis_points, ("0", "5", "2")))


def order(number: int, symbol: str, side: Side, lots: int, **changes: object) -> VenueOrder:
    fields: dict[str, object] = {"kind": OrderKind.MARKET, **changes}
    return VenueOrder(f"T{number:024d}", symbol, side, lots, **fields)  # type: ignore[arg-type]


def stop(number: int, symbol: str, stop_ticks: int) -> VenueOrder:
    changes = {"kind": OrderKind.STOP_MARKET, "stop_ticks": stop_ticks, "reduce_only": True}
    return order(number, symbol, Side.SELL, 10, **changes)


def traded() -> MatchingEngine:
    """Long 10 lots of BTC with a resting stop; ETH was bought and sold with a profit."""
    engine = MatchingEngine(EQUITY_MONEY, [terms_of(BTC), terms_of(ETH)])
    engine.send(order(1, BTC, Side.BUY, 10), 1)
    engine.send(order(2, ETH, Side.BUY, 4), 1)
    engine.apply_ticks((1_000, 50), 2)
    engine.send(order(3, ETH, Side.SELL, 4), 2)
    engine.send(stop(4, BTC, 900), 2)
    engine.apply_ticks((1_010, 57), 3)
    assert engine.account.open_positions() == {BTC: 10}
    assert [record.order.client_id[-1] for record in engine.open_records()] == ["4"]
    return engine


BOOK = book_of(traded())


def changed(part: str, place: int, **changes: object) -> Book:
    rows = list(getattr(BOOK, part))
    rows[place] = msgspec.structs.replace(rows[place], **changes)
    return msgspec.structs.replace(BOOK, **{part: tuple(rows)})


def test_stop_when_it_rested_in_the_book_then_fills_on_the_first_tick_that_reaches_it() -> None:
    engine = restore_engine(BOOK, [terms_of(ETH), terms_of(BTC)])
    assert engine.apply_ticks((57, 901), 10) == []
    events = engine.apply_ticks((57, 899), 11)
    assert [(type(event), event.client_id) for event in events] == [(VenueFill, f"T{4:024d}")]
    assert engine.fills[-1].trade_id == 4
    assert engine.account.open_positions() == {}


def test_marks_when_only_set_then_fill_no_order() -> None:
    engine = restore_engine(BOOK, [terms_of(BTC), terms_of(ETH)])
    engine.set_marks((500, None), 10)
    assert engine.account.open_positions() == {BTC: 10}
    assert engine.account.marks_ticks == {BTC: 500, ETH: 57}


def test_instrument_when_the_feed_lacks_it_and_it_is_flat_then_its_history_is_kept() -> None:
    engine = restore_engine(BOOK, [terms_of(BTC)])
    whole = traded()
    assert engine.account.cash() == whole.account.cash()
    assert engine.account.equity() == whole.account.equity()
    status = engine.query(f"T{3:024d}")
    assert status is not None
    assert status.state is OrderState.FILLED
    refusal = engine.send(order(9, ETH, Side.BUY, 1), 10)
    assert isinstance(refusal, Rejected)
    assert refusal.reject_class is RejectClass.UNKNOWN_SYMBOL
    engine.apply_ticks((1_010,), 11)
    # Back in a later feed it trades again, and the account has lost nothing on the way.
    back = restore_engine(book_of(engine), [terms_of(ETH), terms_of(BTC)])
    assert back.account.cash() == whole.account.cash()
    assert not isinstance(back.send(order(9, ETH, Side.BUY, 1), 12), Rejected)


@pytest.mark.parametrize(
    ("terms", "texts"),
    [
        ([], ["position of 10 lots and 1 open orders in BTC/USDT:USDT", "feed that has it"]),
        ([terms_of(BTC, tick="0.2")], ["ticks of 0.1", "ticks of 0.2", "release that wrote it"]),
        ([terms_of(BTC), terms_of(ETH, tick="1")], ["counts ETH/USDT:USDT"]),
        ([terms_of(ETH, tick="1")], ["in BTC/USDT:USDT", "counts ETH/USDT:USDT"]),
    ],
    ids=["held", "grid", "grid of a flat one", "both"],
)
def test_book_when_it_does_not_fit_the_feed_then_is_refused_with_all_reasons_in_one_line(
    terms: list[Terms], texts: list[str]
) -> None:
    with pytest.raises(BookError) as caught:
        restore_engine(BOOK, terms)
    assert all(text in str(caught.value) for text in texts)
    assert "\n" not in str(caught.value)


def test_position_when_its_instrument_left_the_feed_then_the_book_is_refused() -> None:
    engine = traded()
    engine.cancel_all(None, 4)
    with pytest.raises(BookError, match="10 lots and 0 open orders in BTC"):
        restore_engine(book_of(engine), [terms_of(ETH)])


def test_open_order_when_its_instrument_left_the_feed_then_the_book_is_refused() -> None:
    engine = MatchingEngine(EQUITY_MONEY, [terms_of(BTC), terms_of(ETH)])
    limit = {"kind": OrderKind.LIMIT, "price_ticks": 10}
    engine.send(order(1, ETH, Side.BUY, 4, **limit), 1)
    with pytest.raises(BookError, match="0 lots and 1 open orders in ETH"):
        restore_engine(book_of(engine), [terms_of(BTC)])


@pytest.mark.parametrize(
    "book",
    [
        changed("instruments", 0, lots=9),
        changed("instruments", 0, mark_ticks=None),
        changed("instruments", 0, entry_tick_lots=10_001),
        changed("instruments", 1, entry_tick_lots=1, realised_tick_lots=29),
        changed("instruments", 1, symbol=BTC),
        changed("orders", 0, instrument=2),
        changed("orders", 0, client_id=f"T{2:024d}"),
        changed("orders", 0, lots=9),
        changed("orders", 3, stop_ticks=None),
        changed("fills", 0, order=9),
        changed("fills", 0, fee_money=0),
        msgspec.structs.replace(BOOK, fills=BOOK.fills[:-1]),
    ],
    ids=range(12),
)
def test_book_when_it_contradicts_itself_then_is_refused(book: Book) -> None:
    with pytest.raises(BookError, match="contradicts itself"):
        restore_engine(decode_book(encode_book(book)), [terms_of(BTC), terms_of(ETH)])


def test_amount_when_it_is_beyond_64_bits_then_is_kept_exactly() -> None:
    book = changed("instruments", 0, entry_tick_lots=10**30, realised_tick_lots=10**30 - 1)
    assert decode_book(encode_book(book)) == book


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is no book"),
        (b"\xff\xfe not text", "is no book"),
        (b'{"schema": 1}', "is no book"),
        (b'{"x":' + b"[" * 100_000, "is no book"),
        (b'{"schema":1,"sha256":"\xff","book":{}}\n', "is no book"),
        (b'{"schema":1,"sha256":"","book":{}}\n', "checksum"),
        (encode_book(BOOK)[:-20], "is no book"),
        (encode_book(BOOK).replace(b'"lots":10,', b'"lots":11,'), "checksum"),
        (encode_book(BOOK).replace(b'"schema":1', b'"schema":2'), "schema 2"),
        (encode_book(msgspec.structs.replace(BOOK, fees_money=-1)), "makes no sense"),
        (encode_book(BOOK)[:-1], "checksum"),
        (encode_book(BOOK).replace(b'"schema":1', b'"schema": 1'), "checksum"),
        (encode_book(BOOK).replace(b'"schema":1', b'"schema":1,"more":0'), "checksum"),
    ],
    ids=range(13),
)
def test_file_when_it_is_damaged_or_foreign_then_is_refused_and_left_alone(
    text: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "book.json"
    path.write_bytes(text)
    with BookFile(path) as file, pytest.raises(BookError, match=reason):
        file.read()
    assert path.read_bytes() == text


def test_file_when_it_was_never_written_then_there_is_no_book(tmp_path: Path) -> None:
    with BookFile(tmp_path / "book.json") as file:
        assert file.read() is None
    assert list(tmp_path.iterdir()) == []


def test_file_when_it_is_no_file_or_too_large_then_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(encode_book(BOOK))
    monkeypatch.setattr(book_file, "BOOK_BYTES_MAX", 100)
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "large"):
        with pytest.raises(BookError, match="is no book"):
            BookFile(tmp_path / name).read()
    with pytest.raises(BookError, match="cannot be read"):
        BookFile(tmp_path / "large" / "book.json").read()
    with pytest.raises(UsageError, match="names no file"):
        BookFile(Path())


def test_file_when_another_venue_holds_it_then_says_who(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    with BookFile(path):
        with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()}"):
            BookFile(path).__enter__()
    with BookFile(path) as file:
        file.write(BOOK)
        assert file.read() == BOOK


def test_file_when_its_folder_is_missing_then_fails_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritableError):
        BookFile(tmp_path / "none" / "book.json").__enter__()


@pytest.mark.parametrize(
    ("call", "is_new"),
    [
        ("os.write", False),
        ("os.fsync", False),
        ("os.replace", False),
        ("durable.sync_folder", True),
    ],
)
def test_file_when_its_writer_is_killed_while_writing_then_holds_its_old_or_new_book_whole(
    call: str, is_new: bool, tmp_path: Path
) -> None:
    path = tmp_path / "book.json"
    newer = msgspec.structs.replace(BOOK, starting_equity_money=7)
    (tmp_path / "newer").write_bytes(encode_book(newer))
    with BookFile(path) as file:
        file.write(BOOK)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from exchange_adapters.simulator.book_file import BookFile, decode_book\n"
        "from tripgate import durable\n"
        "newer = decode_book(Path(sys.argv[2]).read_bytes())\n"
        "real_write = os.write\n"
        "def die(*arguments):\n"
        "    if isinstance(arguments[-1], memoryview):\n"
        "        real_write(arguments[0], arguments[-1][:100])\n"
        "    os.kill(os.getpid(), 9)\n"
        "with BookFile(Path(sys.argv[1])) as file:\n"
        f"    {call} = die\n"
        "    file.write(newer)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "newer")]
    died = subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert died.returncode == -signal.SIGKILL
    # The killed writer's lock went with it: the next venue is not held up.
    with BookFile(path) as file:
        assert file.read() == (newer if is_new else BOOK)
