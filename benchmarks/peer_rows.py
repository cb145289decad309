"""The peers' rows of the gate's table, measured as the gate's own calls from Python are.

The database lies in the machine's folder for temporary files, because a synchronous write into
memory would cost nothing and prove nothing; the Redis socket in the benchmark's own folder.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import loops
from benchmarks.measure import Effort, Row, Spread, measure_call
from benchmarks.page import MARK_TICKS, STOP_TICKS
from benchmarks.peer_redis import RedisPeer, server_path
from benchmarks.peer_sqlite import SqlitePeer
from benchmarks.peers import NODES, ArrayPeer, DictPeer, Peer, Terms
from tripgate.errors import InvariantBroken

REFERENCE = "check_handle_raw"
"""Peers are divided by the gate's answer to the same question from Python."""

SYNCHRONOUS = ("NORMAL", "FULL")
NO_REDIS = "redis-server is not installed"
_ORDERS = ((1, MARK_TICKS, STOP_TICKS), (2, MARK_TICKS, STOP_TICKS))
_BATCH_WORTH = loops.BATCH // 2 * sum(lots for lots, _, _ in _ORDERS) * MARK_TICKS


def measure_peers(folder: Path, effort: Effort) -> list[Row]:
    """Return a row for each peer; ``folder`` is for the socket."""
    return [*_memory_rows(effort), *_sqlite_rows(effort), _redis_row(folder, effort)]


def _memory_rows(effort: Effort) -> Iterator[Row]:
    for peer in (DictPeer(Terms()), ArrayPeer(Terms())):
        yield Row(peer.name, peer.says, REFERENCE, measure_peer(peer, effort))


def _sqlite_rows(effort: Effort) -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp(prefix="tripgate-bench-"))
    try:
        for synchronous in SYNCHRONOUS:
            peer = SqlitePeer(Terms(), folder, synchronous)
            yield Row(peer.name, peer.says, REFERENCE, measure_peer(peer, effort))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _redis_row(folder: Path, effort: Effort) -> Row:
    server = server_path()
    if server is None:
        return Row(RedisPeer.name, RedisPeer.says, REFERENCE, None, NO_REDIS)
    peer = RedisPeer(Terms(), folder, server)
    return Row(peer.name, peer.says, REFERENCE, measure_peer(peer, effort))


def measure_peer(peer: Peer, effort: Effort) -> Spread:
    """Time a peer's answer to the gate's opening and close the peer; every order is approved."""

    def after() -> None:
        if peer.sums() != [(_BATCH_WORTH, _BATCH_WORTH, 0)] * NODES:
            raise InvariantBroken(f"{peer.name} reserved {peer.sums()} for a batch")
        peer.release_all()

    try:
        return measure_call(peer.check, *_ORDERS, loops.BATCH, effort, after)
    finally:
        peer.close()
