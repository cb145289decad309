"""SQLite as the holder of the limits: one immediate transaction for each order.

Several processes may share the file, and a killed one leaves nothing half done. With
``synchronous=NORMAL`` the last orders are lost when the machine stops, with ``FULL`` none is. One
statement moves all five nodes, and the transaction is rolled back unless all five could move. The
tables are the benchmark's own and no part of the audit log.
"""

import sqlite3
from pathlib import Path

from benchmarks.peers import LEASES, MEDIUM, NODES, Terms, judge
from tripgate.clock import host_ns
from tripgate.reasons import DenyReason

BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE node (
    id INTEGER PRIMARY KEY, gross INTEGER NOT NULL, long INTEGER NOT NULL, short INTEGER NOT NULL,
    gross_max INTEGER NOT NULL, net_max INTEGER NOT NULL, level INTEGER NOT NULL
);
CREATE TABLE lease (id INTEGER PRIMARY KEY, deadline_ns INTEGER NOT NULL);
CREATE TABLE mark (id INTEGER PRIMARY KEY, marked_ns INTEGER NOT NULL, sequence INTEGER NOT NULL);
"""
_READ = """
SELECT (SELECT max(level) FROM node), (SELECT min(deadline_ns) FROM lease), marked_ns FROM mark
"""
_MOVE_LONG = """
UPDATE node SET gross = gross + :worth, long = long + :worth
WHERE gross + :worth <= gross_max AND long + :worth <= net_max
"""
_MOVE_SHORT = """
UPDATE node SET gross = gross + :worth, short = short + :worth
WHERE gross + :worth <= gross_max AND short + :worth <= net_max
"""
_COUNT = "UPDATE mark SET sequence = sequence + 1 RETURNING sequence"
_OVER_GROSS = "SELECT count(*) FROM node WHERE gross + ? > gross_max"


class SqlitePeer:
    """A database in write-ahead mode under ``folder``; ``synchronous`` is NORMAL or FULL."""

    def __init__(self, terms: Terms, folder: Path, synchronous: str) -> None:
        self.name = f"peer_sqlite_{synchronous.lower()}"
        kept = "none is lost" if synchronous == "FULL" else "the last are lost with the power"
        self.says = f"SQLite transaction, WAL, synchronous={synchronous}: {kept}"
        self._terms = terms
        self._line = sqlite3.connect(
            folder / f"{self.name}.db", timeout=BUSY_S, isolation_level=None
        )
        self._line.execute("PRAGMA journal_mode=WAL")
        self._line.execute(f"PRAGMA synchronous={synchronous}")
        self._line.executescript(_SCHEMA)
        now = host_ns()
        limit, level = terms.limit_money, int(terms.level)
        self._line.executemany(
            "INSERT INTO node VALUES (?, 0, 0, 0, ?, ?, ?)",
            [(number, limit, limit, level) for number in range(NODES)],
        )
        deadline = now + terms.lease_ns
        self._line.executemany(
            "INSERT INTO lease VALUES (?, ?)", [(number, deadline) for number in range(LEASES)]
        )
        self._line.execute("INSERT INTO mark VALUES (0, ?, 0)", (now,))

    def check(self, lots: int, price: int, stop: int) -> int:
        """See ``peers.Peer.check``."""
        now = host_ns()
        run = self._line.execute
        run("BEGIN IMMEDIATE")
        level, deadline, marked = run(_READ).fetchone()
        if level >= MEDIUM:
            amount = -int(DenyReason.LEVEL)
        elif deadline <= now:
            amount = -int(DenyReason.LEASE_LAPSED)
        else:
            amount = judge(self._terms, now - marked, lots, price, stop)
        if amount < 0:
            run("ROLLBACK")
            return amount
        moved = run(_MOVE_LONG if lots > 0 else _MOVE_SHORT, {"worth": amount}).rowcount
        if moved != NODES:
            run("ROLLBACK")
            over: int = run(_OVER_GROSS, (amount,)).fetchone()[0]
            return -DenyReason.GROSS_LIMIT if over else -DenyReason.NET_LIMIT
        sequence: int = run(_COUNT).fetchone()[0]
        run("COMMIT")
        return sequence

    def sums(self) -> list[tuple[int, int, int]]:
        """See ``peers.Peer.sums``."""
        return self._line.execute("SELECT gross, long, short FROM node ORDER BY id").fetchall()

    def release_all(self) -> None:
        """See ``peers.Peer.release_all``."""
        self._line.execute("UPDATE node SET gross = 0, long = 0, short = 0")

    def close(self) -> None:
        """Close the database; its files go with their folder."""
        self._line.close()
