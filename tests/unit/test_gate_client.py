"""The public client against a real page, and its line to a router against a real socket server."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gate_fixtures import BTC, HEDGE, MARKET_MS, TREND, Bench, make_bench
from tripgate import DenyReason, Gate, Level
from tripgate.errors import DeadlineError, PageError, UsageError, VenueError
from tripgate.frames import Decoder, encode
from tripgate.gate import session
from tripgate.gate.decision import Decision
from tripgate.gate.session import Order, RouterSession
from tripgate.instance import InstanceLock, page_folder, prepare_state
from tripgate.page.layout import KEY, SLOT
from tripgate.processes import ORPHAN_EXIT_CODE

pytestmark = pytest.mark.kernels
BUY = ("0.01", "60000", "59000")
WAIT_S = 5.0
Answer = Callable[[dict[str, object]], list[object]]


class TinyRouter:
    """A socket server that answers each request as the test says, in a thread of its own."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path, self.requests = path, list[dict[str, object]]()
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            decoder = Decoder()
            while data := connection.recv(1 << 16):
                for request in decoder.feed(data):
                    assert isinstance(request, dict)
                    self.requests.append(request)
                    for message in self._answer(request):
                        if message is HANG_UP:
                            return
                        connection.sendall(encode(message))

    def close(self) -> None:
        """Stop serving."""
        self._listener.close()
        self._thread.join()


HANG_UP = object()


def agree(request: dict[str, object]) -> list[object]:
    """Answer every request with nothing but its number."""
    return [{"id": request["id"]}]


@pytest.fixture
def serve(isolated_folders: Path) -> Iterator[Callable[[Answer], TinyRouter]]:
    """Start tiny routers; hang up on whoever is still there at the end."""
    routers: list[TinyRouter] = []

    def start(answer: Answer) -> TinyRouter:
        routers.append(TinyRouter(isolated_folders / f"r{len(routers)}", answer))
        return routers[-1]

    yield start
    for router in routers:
        router.close()


@contextlib.contextmanager
def connected(router: TinyRouter) -> Iterator[RouterSession]:
    with contextlib.closing(
        RouterSession(str(router.path), strategy="trend", slot=16)
    ) as connection:
        yield connection


def test_session_when_opened_then_it_says_who_it_is(
    serve: Callable[[Answer], TinyRouter],
) -> None:
    router = serve(agree)
    with connected(router) as line:
        assert line.submit(5, "limit", "GTC") == Order(5, "limit", "GTC")
        line.cancel(5)
    assert router.requests == [
        {"id": 1, "op": "hello", "strategy": "trend", "slot": 16},
        {"id": 2, "op": "submit", "token": 5, "type": "limit", "time_in_force": "GTC"},
        {"id": 3, "op": "cancel", "token": 5},
    ]


def test_session_when_events_come_between_replies_then_none_is_lost(
    serve: Callable[[Answer], TinyRouter],
) -> None:
    def answer(request: dict[str, object]) -> list[object]:
        return [{"event": "fill", "of": request["id"]}, *agree(request), {"event": "done"}]

    with connected(serve(answer)) as line:
        line.submit(5, None, "IOC")
        got: list[dict[str, object]] = []
        while len(got) < 4:
            got.extend(line.events(WAIT_S))
        assert got == [
            {"event": "fill", "of": 1}, {"event": "done"},
            {"event": "fill", "of": 2}, {"event": "done"},
        ]  # fmt: skip
        assert list(line.events(0.0)) == []


def test_session_when_the_router_refuses_then_its_words_are_told(
    serve: Callable[[Answer], TinyRouter],
) -> None:
    def answer(request: dict[str, object]) -> list[object]:
        said = {"error": "no such token"} if request["op"] == "submit" else {}
        return [{"id": request["id"], **said}]

    with connected(serve(answer)) as line:
        with pytest.raises(UsageError, match="refused submit: no such token"):
            line.submit(5, None, "GTC")
        line.cancel(5)


@pytest.mark.parametrize(
    ("nonsense", "words"),
    [
        ([HANG_UP], "hung up; orders"),
        ([{"event": "cut", "reason": "too slow"}, HANG_UP], r"hung up \(too slow\); orders"),
        ([7], "nonsense"),
        ([{"id": "one"}], "nonsense"),
        ([{"ok": True}], "nonsense"),
    ],
)
def test_session_when_the_router_fails_then_it_is_a_venue_error(
    serve: Callable[[Answer], TinyRouter], nonsense: list[object], words: str
) -> None:
    router = serve(lambda request: agree(request) if request["op"] == "hello" else nonsense)
    with connected(router) as line, pytest.raises(VenueError, match=words):
        line.submit(5, None, "GTC")


def test_session_when_the_router_refuses_hello_then_nothing_is_left_open(
    serve: Callable[[Answer], TinyRouter],
) -> None:
    router = serve(lambda request: [{"id": request["id"], "error": "slot 16 is not yours"}])
    with pytest.raises(UsageError, match="slot 16 is not yours"), connected(router):
        pass


def test_session_when_the_router_is_gone_then_sending_says_so(
    serve: Callable[[Answer], TinyRouter],
) -> None:
    router = serve(lambda request: [*agree(request), HANG_UP])
    with connected(router) as line:
        router.close()
        with pytest.raises(VenueError, match="hung up"):
            line.cancel(5)


def test_session_when_the_connection_is_reset_then_it_is_a_venue_error(
    isolated_folders: Path,
) -> None:
    path = str(isolated_folders / "reset")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def hang_up_with_bytes_unread() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)

        thread = threading.Thread(target=hang_up_with_bytes_unread)
        thread.start()
        with pytest.raises(VenueError, match="hung up"):
            RouterSession(path, strategy="trend", slot=16)
        thread.join()


def test_session_when_no_router_listens_then_the_path_is_named(isolated_folders: Path) -> None:
    with pytest.raises(VenueError, match="no router answers at"):
        RouterSession(str(isolated_folders / "nobody"), strategy="trend", slot=16)


def test_session_when_no_answer_comes_then_the_deadline_says_what_was_asked(
    serve: Callable[[Answer], TinyRouter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "REPLY_WAIT_S", 0.05)
    router = serve(lambda request: agree(request) if request["op"] == "hello" else [])
    with connected(router) as line, pytest.raises(DeadlineError, match="did not answer cancel"):
        line.cancel(5)


@pytest.fixture
def running(isolated_folders: Path) -> Iterator[Bench]:
    """An instance that runs: its lock is held, its page is there, its socket is named."""
    prepare_state("test")
    with InstanceLock("test"):
        sockets = {"alpha": str(isolated_folders / "r0")}
        yield make_bench(page_folder("test"), sockets=sockets)


def test_gate_when_attached_then_it_lists_and_trades_what_its_strategy_may(
    running: Bench,
) -> None:
    with Gate.attach(strategy="hedge") as gate:
        assert gate.instruments[0] == ("alpha", "BTC/USDT:USDT")
        assert len(gate.instruments) == 3
        handle = gate.instrument("alpha", "BTC/USDT:USDT")
        decision = handle.check(*BUY)
        assert decision.approved
        assert decision.token == handle.check(*BUY).token - 1
        assert handle.position_lots == 0
        assert handle.quote is not None
        assert handle.quote.market_ms == MARKET_MS
        assert gate.status().approved == 2
        assert gate.status().level is Level.NORMAL
        assert int(gate.page.rows(SLOT)["strategy"][16]) == HEDGE
        # The client may read the control file, never write it.
        assert not gate.page.header.flags.writeable
    assert int(running.page.rows(SLOT)["participating"][16]) == 0


def test_gate_when_named_wrongly_then_the_error_names_what_there_is(running: Bench) -> None:
    with pytest.raises(UsageError, match="unknown strategy 'tend'; this instance has: trend"):
        Gate.attach(strategy="tend")
    gate = Gate.attach(strategy="trend", instance="test")
    with pytest.raises(UsageError, match="unknown instrument alpha/DOGE"):
        gate.instrument("alpha", "DOGE")
    with pytest.raises(UsageError, match="does not trade alpha/BTC/USDT:USDT with position_side"):
        gate.instrument("alpha", "BTC/USDT:USDT", position_side="long")
    with pytest.raises(UsageError, match="net, long or short, was 'up'"):
        gate.instrument("alpha", "BTC/USDT:USDT", position_side="up")
    (running.page.folder / "control").chmod(0o644)
    with pytest.raises(PageError, match="open to others"):
        Gate.attach(strategy="trend")


def test_gate_when_the_strategy_does_not_list_an_instrument_then_there_is_no_handle(
    running: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate.attach(strategy="trend")
    monkeypatch.setattr("tripgate.gate.client.key_number", lambda *_: -1)
    with pytest.raises(UsageError, match="'trend' does not trade alpha/BTC"):
        gate.instrument("alpha", "BTC/USDT:USDT")


def test_gate_when_it_submits_then_the_router_gets_the_token_alone(
    running: Bench, serve: Callable[[Answer], TinyRouter]
) -> None:
    router = serve(lambda request: [*agree(request), {"event": "seen", "op": request["op"]}])
    with Gate.attach(strategy="trend") as gate:
        decision = gate.instrument("alpha", "BTC/USDT:USDT").check(*BUY)
        order = gate.submit(decision, type="limit", time_in_force="IOC")
        assert order == Order(decision.token, "limit", "IOC")
        gate.cancel(order)
        got: list[object] = []
        while len(got) < 3:
            got.extend(event["op"] for event in gate.events(wait_s=WAIT_S))
        assert got == ["hello", "submit", "cancel"]
    assert router.requests[0] == {"id": 1, "op": "hello", "strategy": "trend", "slot": 16}


def test_gate_when_its_router_comes_back_then_the_next_use_opens_a_new_line(
    running: Bench, serve: Callable[[Answer], TinyRouter]
) -> None:
    first = serve(lambda request: agree(request) if request["op"] == "hello" else [HANG_UP])
    with Gate.attach(strategy="trend") as gate:
        decision = gate.instrument("alpha", "BTC/USDT:USDT").check(*BUY)
        with pytest.raises(VenueError, match="hung up"):
            gate.submit(decision)
        first.close()
        with pytest.raises(VenueError, match="no router answers"):
            gate.submit(decision)
        first.path.unlink()
        second = TinyRouter(first.path, agree)
        assert gate.submit(decision).token == decision.token
    second.close()
    assert [request["op"] for request in second.requests] == ["hello", "submit"]


def test_gate_when_a_decision_is_no_approval_or_not_ours_then_it_is_not_submitted(
    running: Bench,
) -> None:
    gate = Gate.attach(strategy="trend")
    denied = gate.instrument("alpha", "BTC/USDT:USDT").check("0", "60000")
    assert denied.reason is DenyReason.BAD_QUANTITY
    with pytest.raises(UsageError, match="only an approved decision"):
        gate.submit(denied)
    with pytest.raises(UsageError, match="not an order of this process"):
        gate.submit(Decision(12345, None, "", 0, 0, 0))


def test_gate_when_its_slot_was_taken_over_then_closing_leaves_the_successor_alone(
    running: Bench,
) -> None:
    gate = Gate.attach(strategy="trend")
    row = running.page.rows(SLOT)[16]
    row["pid"], row["participating"] = 1, 1
    gate.close()
    assert int(row["participating"]) == 1
    assert TREND == 0
    assert int(running.page.rows(KEY)["closable"][BTC]) == 0


@pytest.mark.jit_only
def test_gate_when_the_tree_that_started_it_is_gone_then_the_strategy_ends(
    running: Bench,
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "from tripgate import Gate; Gate.attach(strategy='trend')"
    environment = {**os.environ, "TRIPGATE_TREE_PID": str(gone.pid)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2]
    )
    assert ended.returncode == ORPHAN_EXIT_CODE
    assert not running.page.rows(SLOT)["pid"][16]
