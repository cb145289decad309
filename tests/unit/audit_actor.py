"""The audit writer as a process of its own, on a real page, over a disk that fails to order.

``fsync`` of the child is replaced by a small library which looks at a file: as long as it says so,
every sync fails ("f") or hangs ("h"), or the wall clock is a month ahead ("m"). File size limits
are set from outside, as an administrator would.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tree_fixtures import MARKET_MS, SYMBOLS, mark, paper_page, paper_text
from tests.unit.audit_logs import ROOT, Folders
from tripgate.audit.record import pack_body
from tripgate.audit.segments import list_segments
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import ChainBrokenError
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.slots import claim_strategy_slot, take_role_slot
from tripgate.messages import EventKind
from tripgate.page.layout import LEASE, ROLE, WATERMARK
from tripgate.page.mapping import Page
from tripgate.page.ring import RingReader, RingWriter

BOUND_S = 60
MARK = 600_000
KEEPER = "position_keeper"

SHIM = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int order(void) {
    char word = 0;
    int file = open(getenv("DISK_ORDER"), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, &word, 1) != 1) word = 0;
        close(file);
    }
    return word;
}

static int obey(void) {
    while (order() == 'h') usleep(5000);
    if (order() == 'f') { errno = EIO; return -1; }
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && order() == 'm') now->tv_sec += 32 * 86400;
    return failed;
}

int fsync(int file) { return obey() ? -1 : (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { return obey() ? -1 : (int)syscall(SYS_fdatasync, file); }
"""

CHILD = """
import json, trio
from actors import audit_writer
from actors.service import attach
async def ready(_):
    print("ready", flush=True)
async def main():
    settings, incarnation = json.loads(sys.argv[2]), int(sys.argv[3])
    place = attach(sys.argv[1], "audit_writer", "", incarnation, settings, ready)
    await audit_writer.run(place)
trio.run(main)
"""


def build_shim(folder: Path) -> Path:
    """Compile the library that lets syncs fail; skip the test where no compiler is."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    source, library = folder / "disk.c", folder / "disk.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


class Bench:
    """A page, its log, an audit writer that can be started, and its disk."""

    def __init__(self, folder: Path, more_config: str = "") -> None:
        self.page: Page = paper_page()
        for number in range(len(SYMBOLS)):
            mark(self.page, number, MARK, step=0, market_ms=MARKET_MS)
        self.folders = Folders(Path(self.page.names.state_folder))
        self.role = self.page.names.role("audit_writer")
        self.keeper = take_role_slot(self.page, self.page.names.role(KEEPER), 1)
        self.slot = claim_strategy_slot(self.page, 0)
        self.order = folder / "order"
        self._settings = {"config_text": paper_text() + more_config, "config_name": "paper"}
        self._folder = folder
        self.child: subprocess.Popen[str] | None = None

    def start(self, *, incarnation: int = 1, shim: Path | None = None) -> None:
        """Start the audit writer and wait until it is ready."""
        environment = {**os.environ, "DISK_ORDER": str(self.order)}
        if shim is not None:
            environment["LD_PRELOAD"] = str(shim)
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CHILD}"
        words = [str(self.page.folder), json.dumps(self._settings), str(incarnation)]
        self.child = subprocess.Popen(
            [sys.executable, "-c", code, *words], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n"

    def stop(self) -> None:
        """Kill the audit writer if it runs."""
        if self.child is not None:
            self.child.kill()
            self.child.communicate(timeout=BOUND_S)
            self.child = None

    def limit_files(self, size: int = resource.RLIM_INFINITY) -> None:
        """Let no file of the running writer grow past ``size`` bytes."""
        assert self.child is not None
        hard = resource.RLIM_INFINITY
        resource.prlimit(self.child.pid, resource.RLIMIT_FSIZE, (size, hard))

    def write(self, slot: int, count: int = 1) -> int:
        """Put records into a slot's ring and return the sequence of the last."""
        ring, last = RingWriter(self.page, slot), 0
        for number in range(count):
            body = pack_body({"n": number})
            stored = ring.append(int(EventKind.EXIT_WISHED), body, host_ns(), MARKET_MS)
            assert stored is not None
            last = stored
        return last

    def ask(self) -> int:
        """Ask the gate for a small opening at a fresh mark; return its token or −reason."""
        mark(self.page, 0, MARK, step=0, market_ms=MARKET_MS)
        return InstrumentHandle(self.page, self.slot, 0).check_raw(1, MARK, MARK - 6_000)

    def durable(self, slot: int) -> int:
        """Return the last durable sequence of a slot."""
        return int(self.page.rows(WATERMARK)["sequence"][slot])

    def backlog(self, slot: int) -> int:
        """Return the bytes of a slot's ring that are not released."""
        return RingReader(self.page, "audit").backlog(slot)

    @property
    def is_live(self) -> bool:
        """Whether the audit writer's lease holds."""
        return int(self.page.rows(LEASE)["deadline_ns"][self.role]) > host_ns()

    @property
    def is_stale(self) -> bool:
        """Whether the audit writer has given its lease up by itself."""
        return bool(self.page.rows(ROLE)["stale"][self.role])

    def files(self) -> list[str]:
        """Return the names of the log's files."""
        return [segment.name for segment in list_segments(self.folders.audit)]

    def kinds(self) -> list[int]:
        """Return the kinds of all rows."""
        try:
            return [stored.row.kind for stored in self.folders.rows()]
        except ChainBrokenError:
            return []


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds, within a generous bound."""
    give_up_ns = host_ns() + BOUND_S * NS_PER_S
    while not condition():
        assert host_ns() < give_up_ns, f"not within {BOUND_S} s: {what}"
        sleep_s(0.005)
