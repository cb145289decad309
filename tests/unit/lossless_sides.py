"""``python lossless_sides.py PAGE DATABASE COUNT``: producers and consumers, forked on demand.

Reads ``producer`` or ``consumer`` from its input, forks one and prints its pid; imports once, so
that a side is started again in milliseconds. The consumer persists what it applied: it commits each
batch with the sequence up to which it goes, then releases it, as an actor does that keeps a log,
and is slow on purpose. Whoever kills it may hit it between any two of these steps.
"""

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

from tripgate.clock import host_ns
from tripgate.page.doorbell import Doorbell, Ringer
from tripgate.page.lossless import LosslessReader
from tripgate.page.mapping import open_page
from tripgate.page.ring import RingWriter, recover_sequence

PRODUCER, KIND = 17, 20
BATCH = 400


def produce(folder: Path, count: int) -> None:
    """Write events as fast as the ring takes them."""
    page = open_page(folder, control_writable=True)
    recover_sequence(page, PRODUCER)
    writer, ringer = RingWriter(page, PRODUCER), Ringer(page.folder)
    while (following := writer.sequence + 1) <= count:
        if writer.append(KIND, f"fill {following}".encode(), host_ns(), 0) is None:
            ringer.ring("keeper")
            time.sleep(0.0005)


def consume(folder: Path, path: str) -> None:
    """Apply what comes, for ever."""
    page = open_page(folder, control_writable=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE IF NOT EXISTS applied (sequence INTEGER, body TEXT)")
    database.execute("PRAGMA synchronous=OFF")
    reader = LosslessReader(page, "keeper", [PRODUCER])
    (last,) = database.execute("SELECT coalesce(max(sequence), 0) FROM applied").fetchone()
    reader.applied_to(PRODUCER, last)
    bell = Doorbell(page.folder, "keeper")
    while True:
        frames = list(reader.read(PRODUCER, BATCH))
        if not frames:
            bell.wait()
            continue
        rows = [(frame.sequence, frame.payload.decode()) for frame in frames]
        with database:
            database.executemany("INSERT INTO applied VALUES (?, ?)", rows)
        time.sleep(0.002)
        reader.release(frames[-1])


def main() -> None:
    folder, path, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid:
            print(pid, flush=True)
        elif line.strip() == "producer":
            produce(folder, count)
            os._exit(0)
        else:
            consume(folder, path)


if __name__ == "__main__":
    main()
