"""Links between processes: what a message costs, and how long it takes until it is applied.

References of the same run: one byte over a pair of pipes to another process and back. Messages of a
control link are timed one way by their stamps (one host, one clock) on a real child of a real tree;
ring events by their stamps when the reader has applied them. Nothing of this is on the path of a
check.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trio

from actors import runtime
from actors.control import Control
from benchmarks.bench import private_page
from benchmarks.link_sides import ANSWER, BELL, SLOT, WAIT_S
from tripgate.audit.record import pack_body
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, InvariantBroken
from tripgate.machines.link import SCHEMA, Envelope, Receiver, Terms, judge, open_frame, seal
from tripgate.messages import EventKind, Heartbeat
from tripgate.page.doorbell import Doorbell, Ringer
from tripgate.page.layout import HOLDER, LINK
from tripgate.page.links import from_root, to_root
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter

ACTOR = "audit_writer"
SECRET = b"b" * 32
BODY = {"trade": 1, "token": 2**40, "strategy": "trend", "venue": "sim", "symbol": "BTC/USDT:USDT",
        "lots": 1, "ticks": 600_000, "fee": 12, "cumulative": 1}  # fmt: skip
"""A fill, as routers record it."""
CHILD_WAIT_S = 120.0
PACED_S = 0.001


def run_links(scale: float = 1.0) -> dict[str, Any]:
    """Return the figures; ``scale`` is the share of the usual effort (tests use little)."""
    figures: dict[str, float] = {}
    with private_page() as page:
        figures |= measure_codec(max(100, int(20_000 * scale)))
        figures |= measure_pipe(max(20, int(5_000 * scale)))
        figures |= measure_bell(page, max(20, int(5_000 * scale)))
        figures |= measure_ring(page, max(1_000, int(100_000 * scale)), "flood", 0.0)
        figures |= measure_ring(page, max(20, int(2_000 * scale)), "paced", PACED_S)
    # A page of its own: its child reads every ring, and nobody has stored those of the other.
    with private_page() as page:
        figures |= trio.run(measure_control, page, max(2, int(50 * scale)))
    return {"schema": 1, "load_average": os.getloadavg()[0], "figures": figures}


def measure_codec(count: int) -> dict[str, float]:
    """Return ns of sealing a heartbeat, and of opening and judging it."""
    terms, state = Terms(1, "a", "b", NS_PER_S), Receiver()
    sealed, began_ns = list[bytes](), host_ns()
    for sequence in range(1, count + 1):
        message = Heartbeat(sequence, 120, 80_000)
        sealed.append(seal(Envelope(SCHEMA, 1, "a", 1, "b", sequence, 5, 6, message), SECRET))
    seal_ns = (host_ns() - began_ns) / count
    began_ns = host_ns()
    for frame in sealed:
        opened = open_frame(frame, SECRET)
        if not isinstance(opened, Envelope):
            raise InvariantBroken(f"the benchmark's own frame is {opened.name}")
        state, _ = judge(terms, state, opened, 5)
    open_ns = (host_ns() - began_ns) / count
    return {"seal_ns": seal_ns, "open_and_judge_ns": open_ns, "frame_bytes": len(sealed[0])}


def _side(mode: str, page_folder: Path, count: int) -> "subprocess.Popen[bytes]":
    box = str(Path(__file__).resolve().parent.parent)
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    side = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.link_sides", mode, str(page_folder), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([box, *inherited])},
    )  # fmt: skip
    if side.stdout is None or side.stdout.readline() != b"ready\n":
        side.communicate()
        raise DeadlineError("the benchmark's other process did not start: see its message above")
    return side


def _spread(name: str, samples: list[int]) -> dict[str, float]:
    p50, p99 = np.percentile(samples, (50, 99))
    return {f"{name}_p50_ns": float(p50), f"{name}_p99_ns": float(p99)}


def _timed(count: int, once: Callable[[], object]) -> list[int]:
    samples = []
    for _ in range(count):
        began_ns = host_ns()
        once()
        samples.append(host_ns() - began_ns)
    return samples


def measure_pipe(count: int) -> dict[str, float]:
    """Return the round trip of one byte over two pipes: the reference."""
    side = _side("echo", Path(), count)

    def once() -> None:
        if side.stdin is None or side.stdout is None:
            raise InvariantBroken("the other process has no pipes")
        side.stdin.write(b"x")
        side.stdout.read(1)

    samples = _timed(count, once)
    side.communicate()
    return _spread("pipe_round_trip", samples)


def measure_bell(page: Page, count: int) -> dict[str, float]:
    """Return the round trip of two doorbells: ring, be rung."""
    side, bell = _side("ring", page.folder, count), Doorbell(page.folder, ANSWER)
    ringer = Ringer(page.folder)
    bell.socket.settimeout(WAIT_S)

    def once() -> None:
        ringer.ring(BELL)
        bell.socket.recv(64)

    samples = _timed(count, once)
    side.communicate()
    bell.close()
    ringer.close()
    return _spread("doorbell_round_trip", samples)


def measure_ring(page: Page, count: int, name: str, pause_s: float) -> dict[str, float]:
    """Return events/s through a ring, and ns from append to applied in the other process."""
    page.rows(HOLDER)["mask"][SLOT] = 2
    side = _side("read", page.folder, count)
    writer, ringer = RingWriter(page, SLOT), Ringer(page.folder)
    payload, full, sent = pack_body(BODY), 0, 0
    while sent < count:
        if writer.append(int(EventKind.FILL), payload, host_ns(), 0) is None:
            full += 1
            ringer.ring(BELL)
            sleep_s(0.0001)
            continue
        sent += 1
        if pause_s:
            ringer.ring(BELL)
            sleep_s(pause_s)
    ringer.ring(BELL)
    out, _ = side.communicate()
    ringer.close()
    told = json.loads(out)
    if told["total"] != count:
        raise InvariantBroken(f"the reader applied {told['total']} of {count} events")
    return {
        f"ring_{name}_events_per_s": count * NS_PER_S / told["took_ns"],
        f"ring_{name}_applied_p50_ns": told["p50_ns"],
        f"ring_{name}_applied_p99_ns": told["p99_ns"],
        f"ring_{name}_times_full": full,
    }


async def measure_control(page: Page, count: int) -> dict[str, float]:
    """Return ns of a message over the control link of a real child, each way, by its stamp."""
    role = page.names.role(ACTOR)
    arguments = {
        "actor": ACTOR, "venue": "", "folder": str(page.folder), "incarnation": 1, "settings": {},
    }  # fmt: skip
    rows = {"up": page.rows(LINK)[to_root(role)], "down": page.rows(LINK)[from_root(role)]}
    ages: dict[str, list[int]] = {"up": [], "down": []}
    heard = dict.fromkeys(ages, 0)
    with trio.fail_after(CHILD_WAIT_S), trio.CancelScope() as scope:
        async with (
            runtime.open_tree("bench"),
            runtime.open_child(f"{ACTOR}#1", arguments, _nothing, _nothing) as child,
            trio.open_nursery() as nursery,
        ):
            control = Control(page, role, 1, lambda _kind, _body: None)
            nursery.start_soon(control.attend, child.context)
            while min(len(found) for found in ages.values()) < count:
                for way, row in rows.items():
                    if int(row["heard_ns"]) != heard[way]:
                        heard[way] = int(row["heard_ns"])
                        ages[way].append(int(row["age_ns"]))
                await trio.sleep(0.02)
            scope.cancel()
    return _spread("control_to_root", ages["up"]) | _spread("control_from_root", ages["down"])


def _nothing(_told: object) -> None:
    """Take what the runtime tells of the child: the benchmark needs none of it."""
