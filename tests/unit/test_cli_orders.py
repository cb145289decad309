"""``tripgate orders list|resolve`` on a real page; where a keeper is needed, the real one acts."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors.audit_writer import Drain
from tests.tree_fixtures import BTC, INSTANCE, approve, hold
from tests.unit.keeper_desk import PRICE, STOP, Desk
from tripgate.cli import orders_resolve as module
from tripgate.cli.app import main
from tripgate.clock import host_ns
from tripgate.gate import orders as page_orders
from tripgate.gate import words
from tripgate.gate.client_order_id import encode_client_id
from tripgate.gate.commit import Approved
from tripgate.gate.exits import issue_exit, issue_stop
from tripgate.gate.orders import live_orders
from tripgate.gate.words import COMMITTED, make_token, token_epoch, token_slot
from tripgate.instance import installation_id, state_folder
from tripgate.machines.reservation import EntryState
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.layout import ENTRY

WHY = ("--reason", "seen at the venue")


class CliDesk(Desk):
    """A keeper's desk, and commands that are run beside it."""

    def lost(self, lots: int = 10) -> Approved:
        """Return an order of unknown fate, on record as such."""
        order = self.entry(lots)
        self.router.emit(EventKind.ORDER_UNKNOWN, {"token": order.token})
        self.keeper.take_events()
        self.store()
        return order

    def die(self) -> None:
        self.page.header["owner_start"] = 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let keeper and audit_writer take their turns, as in a tree, while a command waits."""
        stop = threading.Event()

        def turns() -> None:
            drain = Drain(self.writer, self.log)
            while not stop.wait(0.005):
                self.keeper.take_events()
                self.keeper.tidy(host_ns())
                # The log lags behind the keeper: what it has heard is stored after the order.
                if operator_records() and (frames := drain.gather()):
                    drain.store(frames)
                    drain.publish(frames)

        thread = threading.Thread(target=turns)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def desk() -> Iterator[CliDesk]:
    desk = CliDesk()
    yield desk
    desk.close()


def run(*arguments: str) -> int:
    return main(["orders", arguments[0], "--instance", INSTANCE, *arguments[1:]])


def listed(capsys: pytest.CaptureFixture[str], code: int = 0) -> list[Any]:
    capsys.readouterr()
    assert run("list", "--json") == code
    orders: list[Any] = json.loads(capsys.readouterr().out)["orders"]
    return orders


def offered(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Take the first step of a resolve and return its code."""
    capsys.readouterr()
    assert run("resolve", *arguments, "--json") == 0
    return str(json.loads(capsys.readouterr().out)["code"])


def operator_records() -> list[Any]:
    return list(read_records(state_folder(INSTANCE), 0))


def test_list_when_orders_live_then_everything_of_each_is_shown(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = desk.lost()
    reserved = approve(desk.page, desk.slot, 0, 5, PRICE, STOP)
    desk.page.header["market_ms"] += 2_000
    first, second = listed(capsys)
    assert first == {
        "token": lost.token, "client_order_id": encode_client_id(installation_id(), lost.token),
        "epoch": 1, "strategy": "trend", "instrument": "sim/" + BTC, "kind": "entry",
        "side": "buy", "lots": 10, "remaining_lots": 10, "quantity": "0.010", "price": "50000.0",
        "stop": "48000.0", "state": "COMMITTED", "fate": "unknown", "age_ms": 2_000,
        "charged": "500.00", "durable": True, "unposted": False,
    }  # fmt: skip
    told = {name: second[name] for name in ("token", "state", "fate", "durable", "lots")}
    assert told == {
        "token": reserved.token, "state": "RESERVED", "fate": "-", "durable": False, "lots": 5,
    }  # fmt: skip
    assert run("list") == 0
    text = capsys.readouterr().out
    assert str(lost.token) in text
    assert "not durable" in text


def test_list_when_the_tree_has_its_own_orders_then_exits_and_stops_are_among_them(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(desk.page, 0, 10, 10 * PRICE)
    ring, market_ms = desk.router.ring, int(desk.page.header["market_ms"])
    assert issue_exit(desk.page, ring, 0, market_ms)
    assert issue_stop(desk.page, ring, 0, STOP, market_ms)
    told = [(o["kind"], o["side"], o["price"], o["stop"], o["durable"]) for o in listed(capsys)]
    assert sorted(told, key=str) == [
        ("exit", "sell", None, None, False), ("stop", "sell", None, "48000.0", False),
    ]  # fmt: skip
    desk.store()
    assert [order["durable"] for order in listed(capsys)] == [True, True]


def test_list_when_nothing_lives_then_it_says_so(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == 0
    assert capsys.readouterr().out == "no live order\n"


@pytest.mark.parametrize("has_log", [True, False])
def test_list_when_every_actor_is_dead_then_the_page_still_tells_and_it_exits_3(
    desk: CliDesk, capsys: pytest.CaptureFixture[str], has_log: bool
) -> None:
    order = desk.lost()
    desk.die()
    desk.log.close()
    if not has_log:
        (file,) = (state_folder(INSTANCE) / "audit").glob("audit-*.db")
        file.write_bytes(b"no database")
    (told,) = listed(capsys, 3)
    assert told["token"] == order.token
    assert told["fate"] == ("unknown" if has_log else "not heard of")


def test_list_when_it_is_run_then_it_imports_no_compiled_code() -> None:
    code = (
        "import sys, tripgate.cli.orders; "
        "sys.exit(any(name.split('.')[0] == 'numba' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_live_orders_when_bits_are_read_then_they_are_those_of_the_words() -> None:
    token = make_token(3, 17, 99)
    assert token >> page_orders.TOKEN_EPOCH_SHIFT == token_epoch(token)
    slot = (token >> page_orders.TOKEN_SLOT_SHIFT) & page_orders.TOKEN_SLOT_MASK
    assert slot == token_slot(token)
    assert (page_orders.STATE_MASK, page_orders.UNPOSTED) == (words.STATE_MASK, words.UNPOSTED)


def test_live_orders_when_an_exit_is_unposted_or_restored_then_it_is_marked(desk: CliDesk) -> None:
    order = desk.entry()
    row = desk.page.rows(ENTRY)[order.row]
    row["word"] |= words.UNPOSTED
    row["record_sequence"] = -1
    (told,) = live_orders(desk.page, installation_id())
    assert (told.unposted, told.durable, told.state) == (True, True, EntryState.COMMITTED)


def test_resolve_when_asked_first_then_it_says_what_would_happen_and_changes_nothing(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    order = desk.lost()
    words_before = desk.words()
    arguments = (str(order.token), "--as", "cancelled", "--filled-lots", "4", "--price", "49990")
    assert run("resolve", *arguments, *WHY) == 0
    text = capsys.readouterr().out
    assert "trend buy 10 lots of sim/BTC/USDT:USDT (entry), 0 booked" in text
    assert "will end: CANCELLED" in text
    assert "will be booked: buy 4 lots at 49990.0" in text
    assert "will be given back: 500.00" in text
    assert (operator_records(), desk.words()) == ([], words_before)


@pytest.mark.parametrize("by_client_id", [True, False])
def test_resolve_when_confirmed_then_the_keeper_books_and_releases_it(
    desk: CliDesk, capsys: pytest.CaptureFixture[str], by_client_id: bool
) -> None:
    order = desk.lost()
    name = encode_client_id(installation_id(), order.token) if by_client_id else str(order.token)
    arguments = (name, "--as", "filled", "--price", "49990", *WHY)
    code = offered(capsys, *arguments)
    with desk.at_work():
        assert run("resolve", *arguments, "--confirm", code, "--operator", "ann") == 0
    assert f"order {order.token}: FILLED, record 1" in capsys.readouterr().out
    assert (desk.lots(), desk.state_of(order) != COMMITTED) == (10, True)
    (record,) = operator_records()
    assert (record["operator"], record["filled_lots"], record["ticks"]) == ("ann", 10, 499_900)
    assert run("resolve", *arguments, "--confirm", code) == 2
    assert "no live order" in capsys.readouterr().err


def test_resolve_when_the_venue_knows_it_after_all_then_it_is_refused_and_exits_1(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    order = desk.lost()
    arguments = (str(order.token), "--as", "rejected", *WHY)
    code = offered(capsys, *arguments)
    # It answers just before the operator confirms; the log does not have it yet.
    desk.router.emit(EventKind.ORDER_ACKNOWLEDGED, {"token": order.token})
    with desk.at_work():
        assert run("resolve", *arguments, "--confirm", code) == 1
    assert "the venue knows the order" in capsys.readouterr().err
    assert desk.state_of(order) == COMMITTED


def test_resolve_when_the_tree_is_dead_then_it_is_kept_for_the_next_start(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    order = desk.entry()
    desk.die()
    arguments = (str(order.token), "--as", "rejected", *WHY)
    code = offered(capsys, *arguments)
    assert run("resolve", *arguments, "--confirm", code) == 0
    assert "at the next start" in capsys.readouterr().err
    # The next start: its router has asked the venue, which knows nothing.
    desk.keeper.tidy(host_ns())
    assert desk.state_of(order) == COMMITTED
    desk.router.emit(EventKind.ORDER_UNKNOWN, {"token": order.token})
    desk.keeper.take_events()
    desk.keeper.tidy(host_ns())
    assert desk.state_of(order) != COMMITTED


def test_resolve_when_the_keeper_does_not_act_then_it_exits_5(
    desk: CliDesk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = desk.lost()
    monkeypatch.setattr(module, "KEEPER_WAIT_S", 0.1)  # nothing to wait for but the bound
    arguments = (str(order.token), "--as", "cancelled", *WHY)
    code = offered(capsys, *arguments)
    assert run("resolve", *arguments, "--confirm", code) == 5
    assert "the record stands" in capsys.readouterr().err
    assert len(operator_records()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--as", "lost"), "--as is one of filled, cancelled, rejected"),
        (("--as", "filed", "--price", "1"), "did you mean 'FILLED'"),
        (("--as", "filled"), "say at which average price"),
        (("--as", "filled", "--price", "50000.05"), "--price: "),
        (("--as", "filled", "--price", "-1"), "--price is above 0"),
        (("--as", "filled", "--price", "x"), "--price: "),
        (("--as", "filled", "--filled-lots", "4", "--price", "1"), "say --as cancelled"),
        (("--as", "cancelled", "--filled-lots", "11", "--price", "1"), "to 10 (ordered)"),
        (("--as", "cancelled", "--filled-lots", "-1"), "--filled-lots is 0"),
        (("--as", "rejected", "--filled-lots", "1"), "a rejected order has no fills"),
    ],
)
def test_resolve_when_it_is_asked_wrongly_then_nothing_happens_and_it_exits_2(
    desk: CliDesk, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    order = desk.lost()
    assert run("resolve", str(order.token), *arguments, *WHY) == 2
    assert says in capsys.readouterr().err
    assert not (state_folder(INSTANCE) / module.PENDING_NAME).exists()
    assert operator_records() == []


@pytest.mark.parametrize("word", ["77", "nonsense", "9" * 30])
def test_resolve_when_no_live_order_has_the_token_then_it_says_where_to_look(
    desk: CliDesk, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert run("resolve", word, "--as", "rejected", *WHY) == 2
    assert "orders list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "says"),
    [(EventKind.ORDER_ACKNOWLEDGED, "(at the venue)"), (None, "(not heard of)")],
)
def test_resolve_when_its_fate_is_not_unknown_then_it_is_refused_with_what_to_do(
    desk: CliDesk, capsys: pytest.CaptureFixture[str], word: EventKind | None, says: str
) -> None:
    order = desk.entry()
    if word is not None:
        desk.router.emit(word, {"token": order.token})
        desk.store()
    assert run("resolve", str(order.token), "--as", "rejected", *WHY) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "cancel it" in error


def test_resolve_when_the_order_was_not_sent_then_there_is_nothing_to_resolve(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    order = approve(desk.page, desk.slot, 0, 5, PRICE, STOP)
    assert run("resolve", str(order.token), "--as", "rejected", *WHY) == 2
    assert "RESERVED: it was not sent" in capsys.readouterr().err


def test_resolve_when_lots_were_booked_meanwhile_then_the_code_is_refused(
    desk: CliDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    order = desk.lost()
    arguments = (str(order.token), "--as", "cancelled", "--filled-lots", "4", "--price", "50000")
    code = offered(capsys, *arguments, *WHY)
    desk.fill(order.token, 2)
    desk.keeper.take_events()
    desk.router.emit(EventKind.ORDER_UNKNOWN, {"token": order.token})
    desk.keeper.take_events()
    desk.store()
    assert run("resolve", *arguments, *WHY, "--confirm", code) == 2
    assert "lots left: 10 then, 8 now" in capsys.readouterr().err
    assert operator_records() == []
