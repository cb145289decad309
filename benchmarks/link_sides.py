"""The other process of the link benchmarks: ``python -m benchmarks.link_sides MODE FOLDER COUNT``.

``read`` takes events from the bench's ring as an actor does (bell, batch, apply, release) and
prints what it saw as JSON; ``echo`` answers each byte on its input; ``ring`` answers each ring of
its bell by a ring. It says "ready" first. Only ``read`` imports compiled code, which takes long.
"""

import json
import os
import sys
from pathlib import Path

from tripgate.clock import host_ns
from tripgate.page.doorbell import Doorbell, Ringer

SLOT = 5
BATCH = 1_000
BELL, ANSWER = "bench", "answer"
WAIT_S = 1.0


def read_events(folder: Path, count: int) -> dict[str, float]:
    """Apply ``count`` events; return the time it took and their ages when applied, ns."""
    import numpy as np

    from tripgate.audit.record import unpack_body
    from tripgate.page.lossless import LosslessReader
    from tripgate.page.mapping import open_page

    page = open_page(folder, control_writable=True)
    reader, bell = LosslessReader(page, "keeper", [SLOT]), Doorbell(page.folder, BELL)
    print("ready", flush=True)
    ages, total, began_ns = list[int](), 0, 0
    while len(ages) < count:
        last = None
        for last in reader.read(SLOT, BATCH):
            began_ns = began_ns or host_ns()
            total += int(str(unpack_body(last.payload)["lots"]))
            ages.append(host_ns() - last.host_ns)
        if last is None:
            bell.wait(WAIT_S)
        else:
            reader.release(last)
    took_ns = host_ns() - began_ns
    bell.close()
    p50, p99 = np.percentile(ages, (50, 99))
    return {"took_ns": took_ns, "total": total, "p50_ns": float(p50), "p99_ns": float(p99)}


def answer_rings(folder: Path, count: int) -> None:
    """Answer ``count`` rings."""
    bell, ringer = Doorbell(folder, BELL), Ringer(folder)
    print("ready", flush=True)
    bell.socket.setblocking(True)
    for _ in range(count):
        bell.socket.recv(64)
        ringer.ring(ANSWER)
    bell.close()


def echo(count: int) -> None:
    """Answer ``count`` bytes."""
    print("ready", flush=True)
    for _ in range(count):
        os.write(1, os.read(0, 1))


def main() -> None:
    """Play one side."""
    mode, count = sys.argv[1], int(sys.argv[3])
    if mode == "echo":
        echo(count)
        return
    folder = Path(sys.argv[2])
    if mode == "ring":
        answer_rings(folder, count)
    else:
        print(json.dumps(read_events(folder, count)), flush=True)


if __name__ == "__main__":
    main()
