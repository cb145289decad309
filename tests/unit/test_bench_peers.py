"""The peers of the benchmark: each must do the work that it is timed for, limits exact.

A peer that let an order through beyond the limit, or refused one that fits, would make the
comparison a lie.
"""

import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import peer_redis
from benchmarks.peer_redis import RedisLine, RedisPeer, server_path
from benchmarks.peer_sqlite import SqlitePeer
from benchmarks.peers import NODES, ArrayPeer, DictPeer, Peer, Terms
from tripgate.errors import DeadlineError, InvariantBroken
from tripgate.reasons import DenyReason, Level

MARK, STOP = 600_000, 590_000
SERVER = server_path()
needs_redis = pytest.mark.skipif(SERVER is None, reason="redis-server is not installed")
NAMES = ["dicts", "array", "sqlite_normal", "sqlite_full", pytest.param("redis", marks=needs_redis)]


def redis_peer(terms: Terms, folder: Path) -> Peer:
    assert SERVER is not None
    return RedisPeer(terms, folder, SERVER)


MAKERS: dict[str, Callable[[Terms, Path], Peer]] = {
    "dicts": lambda terms, folder: DictPeer(terms),
    "array": lambda terms, folder: ArrayPeer(terms),
    "sqlite_normal": lambda terms, folder: SqlitePeer(terms, folder, "NORMAL"),
    "sqlite_full": lambda terms, folder: SqlitePeer(terms, folder, "FULL"),
    "redis": redis_peer,
}


@contextmanager
def made(name: str, terms: Terms) -> Iterator[Peer]:
    # A socket's path may hold 107 bytes.
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    peer = MAKERS[name](terms, folder)
    try:
        yield peer
    finally:
        peer.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("lots", "stop", "side"), [(2, STOP, 1), (-2, 610_000, 2)])
def test_peer_when_orders_reach_the_limit_then_the_last_fits_exactly_and_the_next_is_refused(
    name: str, lots: int, stop: int, side: int
) -> None:
    worth = 2 * MARK
    with made(name, Terms(limit_money=3 * worth)) as peer:
        answers = [peer.check(lots, MARK, stop) for _ in range(5)]
        assert all(answer > 0 for answer in answers[:3])
        assert len(set(answers[:3])) == 3
        assert answers[3:] == [-DenyReason.GROSS_LIMIT] * 2
        filled = [0, 0, 0]
        filled[0] = filled[side] = 3 * worth
        assert peer.sums() == [tuple(filled)] * NODES
        peer.release_all()
        assert peer.sums() == [(0, 0, 0)] * NODES
        assert peer.check(lots, MARK, stop) > 0


@pytest.mark.parametrize("name", NAMES)
def test_peer_when_one_money_unit_is_missing_then_the_order_is_refused_and_changes_nothing(
    name: str,
) -> None:
    with made(name, Terms(limit_money=MARK - 1)) as peer:
        assert peer.check(1, MARK, STOP) == -DenyReason.GROSS_LIMIT
        assert peer.sums() == [(0, 0, 0)] * NODES


@pytest.mark.parametrize("name", NAMES)
def test_peer_when_worth_is_a_fraction_then_it_is_rounded_up(name: str) -> None:
    with made(name, Terms(value_numerator=1, value_denominator=7)) as peer:
        assert peer.check(1, MARK, STOP) > 0
        assert peer.sums()[0] == (85_715, 85_715, 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("terms", "order", "reason"),
    [
        (Terms(level=Level.MEDIUM), (1, MARK, STOP), DenyReason.LEVEL),
        (Terms(lease_ns=-1), (1, MARK, STOP), DenyReason.LEASE_LAPSED),
        (Terms(age_max_ns=-1_000_000), (1, MARK, STOP), DenyReason.MARK_STALE),
        (Terms(), (1, MARK * 2, STOP), DenyReason.PRICE_COLLAR),
        (Terms(), (1, MARK, MARK), DenyReason.STOP_WRONG_SIDE),
        (Terms(), (-1, MARK, MARK), DenyReason.STOP_WRONG_SIDE),
        (Terms(), (1, MARK, MARK // 2), DenyReason.STOP_TOO_FAR),
        (Terms(order_money_max=MARK - 1), (1, MARK, STOP), DenyReason.ORDER_NOTIONAL),
    ],
    ids=lambda value: value.name if isinstance(value, DenyReason) else None,
)
def test_peer_when_a_check_fails_then_it_names_the_gates_reason_and_reserves_nothing(
    name: str, terms: Terms, order: tuple[int, int, int], reason: DenyReason
) -> None:
    with made(name, terms) as peer:
        assert peer.check(*order) == -reason
        assert peer.sums() == [(0, 0, 0)] * NODES


@pytest.mark.parametrize("name", NAMES)
def test_peer_when_a_longer_side_is_full_then_the_net_limit_speaks(name: str) -> None:
    with made(name, Terms(limit_money=2 * MARK)) as peer:
        limit_net_to_one(peer)
        assert peer.check(1, MARK, STOP) > 0
        assert peer.check(1, MARK, STOP) == -DenyReason.NET_LIMIT
        assert peer.check(-1, MARK, 610_000) > 0
        assert peer.sums() == [(2 * MARK, MARK, MARK)] * NODES


def limit_net_to_one(peer: Peer) -> None:
    """Lower the net limit of the last node to one lot, in the peer's own storage."""
    if isinstance(peer, DictPeer):
        peer._nodes[-1]["net_max"] = MARK
    elif isinstance(peer, ArrayPeer):
        peer._array.get_obj()[NODES * 3 + 2 * NODES - 1] = MARK
    elif isinstance(peer, SqlitePeer):
        peer._line.execute("UPDATE node SET net_max = ? WHERE id = ?", (MARK, NODES - 1))
    else:
        assert isinstance(peer, RedisPeer)
        peer._line.call("HSET", f"node{NODES - 1}", "net_max", MARK)


def reserve_until_refused(peer: ArrayPeer) -> int:
    count = 0
    while peer.check(1, MARK, STOP) > 0:
        count += 1
    return count


def report_until_refused(peer: ArrayPeer, granted: "multiprocessing.Queue[int]") -> None:
    granted.put(0)  # so that the other begins when this one is up
    granted.put(reserve_until_refused(peer))


def test_array_when_two_processes_fill_it_then_together_they_hold_the_limit() -> None:
    peer = ArrayPeer(Terms(limit_money=5_000 * MARK))
    context = multiprocessing.get_context("spawn")
    granted: multiprocessing.Queue[int] = context.Queue()
    other = context.Process(target=report_until_refused, args=(peer, granted))
    other.start()
    granted.get(timeout=120)
    mine = reserve_until_refused(peer)
    assert mine + granted.get(timeout=120) == 5_000
    other.join(60)
    assert peer.sums() == [(5_000 * MARK, 5_000 * MARK, 0)] * NODES


@needs_redis
def test_redis_when_it_answers_an_error_then_it_is_raised() -> None:
    with made("redis", Terms()) as peer:
        assert isinstance(peer, RedisPeer)
        with pytest.raises(InvariantBroken, match="unknown command"):
            peer._line.call("NONSENSE")
        assert peer._line.call("GET", "absent") is None


@needs_redis
def test_redis_when_its_peer_is_closed_then_the_server_is_gone() -> None:
    with made("redis", Terms()) as peer:
        assert isinstance(peer, RedisPeer)
        server = peer._server
        assert server.poll() is None
    assert server.poll() is not None


def test_redis_when_its_server_ends_at_once_then_the_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(DeadlineError, match="answers no connection"):
        RedisPeer(Terms(), tmp_path, "/bin/false")


def test_redis_when_nobody_listens_then_a_connection_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        RedisLine(tmp_path / "absent.sock")


def test_redis_when_its_server_does_not_stop_then_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_redis, "END_WAIT_S", 0.05)  # nothing to wait for but the bound
    deaf = subprocess.Popen(
        [sys.executable, "-c",
         "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True);"
         "time.sleep(120)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert deaf.stdout is not None
    deaf.stdout.readline()
    peer_redis._end(deaf)
    deaf.stdout.close()
    assert deaf.returncode == -9
