"""The checks of ``tripgate doctor`` on the machine: memory, clocks, ports, disk, leftovers."""

import os
import resource
import shutil
import socket
import tempfile
from pathlib import Path

from tripgate.cli.doctor_check import Check, fail, ok, warn
from tripgate.clock import (
    NS_PER_MS,
    NS_PER_S,
    boot_ns,
    coarse_resolution_ns,
    host_ns,
    utc_ns,
)
from tripgate.durable import unwritable
from tripgate.errors import PageError, TripgateError
from tripgate.gate.status import read_status
from tripgate.instance import page_folder, state_root
from tripgate.page.mapping import open_page

PAGE_BYTES = 64 << 20
"""Room for one instance's page with its rings, generously."""

STATE_BYTES = 1 << 30
COARSE_MAX_NS = 10 * NS_PER_MS
SYNC_TRIES = 5
SYNC_BYTES = 4_096
SYNC_SLOW_NS = 50 * NS_PER_MS
DESCRIPTORS_MIN = 1_024
CONNECT_WAIT_S = 5.0
REMOTE_KINDS = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs")
VOLATILE_KINDS = ("tmpfs", "ramfs", "ramdisk")
UTC_EARLIEST_NS = 1_767_225_600 * NS_PER_S
"""2026-01-01: a wall clock before it was never set."""

INSTANCE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


def shared_root() -> Path:
    """Return the folder in which pages are made."""
    return page_folder("doctor").parent


def check_shared_memory() -> Check:
    """Check that pages can be made, in memory, with room for them."""
    return judge_shared_memory(shared_root())


def judge_shared_memory(root: Path) -> Check:
    """Judge a folder as the place of pages."""
    try:
        with tempfile.TemporaryFile(dir=root) as file:
            file.truncate(SYNC_BYTES)
        free = shutil.disk_usage(root).free
    except OSError as error:
        return fail(
            "shared memory", f"{root}: {error.strerror}",
            "mount a tmpfs there that you may write, or set TRIPGATE_SHM to one",
        )  # fmt: skip
    found = f"{root}, {free >> 20} MiB free"
    if free < PAGE_BYTES:
        return fail("shared memory", found, f"one instance needs {PAGE_BYTES >> 20} MiB: free some")
    return ok("shared memory", found)


def check_coarse_clock() -> Check:
    """Check the step of the clock that the gate reads: it is taken off every lease."""
    step_ns = coarse_resolution_ns()
    found = f"CLOCK_MONOTONIC_COARSE moves every {step_ns / NS_PER_MS:g} ms"
    if step_ns > COARSE_MAX_NS:
        return warn("coarse clock", found, "leases are that much shorter: use a kernel with 250 Hz")
    return ok("coarse clock", found)


def check_clocks() -> Check:
    """Check that host time goes on and that the wall clock was set."""
    first = host_ns()
    moved = any(host_ns() > first for _ in range(1_000_000))
    suspended_s = (boot_ns() - host_ns()) / NS_PER_S
    if not moved:
        return fail("clocks", "host time stands still", "no lease can lapse: use another machine")
    if utc_ns() < UTC_EARLIEST_NS:
        return warn("clocks", "the wall clock is years behind", "set it: log rows carry its time")
    if suspended_s > 1:
        return warn(
            "clocks", f"this machine has slept {suspended_s:.0f} s since it was started",
            "switch suspend off where an instance runs",
        )  # fmt: skip
    return ok("clocks", "host time advances, the wall clock is set")


def check_descriptors() -> Check:
    """Check how many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS_MIN:
        return warn(
            "descriptors", f"{soft} (at most {hard})", f"raise it: ulimit -n {DESCRIPTORS_MIN}"
        )
    return ok("descriptors", str(soft))


def check_loopback() -> Check:
    """Check that a free TCP port of the loopback can be taken and reached: actors talk there."""
    with socket.socket() as listener, socket.socket() as caller:
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            port = listener.getsockname()[1]
        except OSError as error:
            return fail(
                "loopback", f"127.0.0.1: {error.strerror}", "bring it up: ip link set lo up"
            )
        caller.settimeout(CONNECT_WAIT_S)
        try:
            caller.connect(("127.0.0.1", port))
        except OSError as error:
            return fail(
                "loopback", f"port {port} of 127.0.0.1 cannot be reached: {error}",
                "allow connections within 127.0.0.1 in the firewall",
            )  # fmt: skip
    return ok("loopback", f"port {port} of 127.0.0.1 was free and answers")


def check_disk() -> Check:
    """Check that state lies on a file system of this machine that keeps what it is given."""
    root = state_root()
    place = next(path for path in (root, *root.parents) if path.exists())
    return judge_disk(root, filesystem_of(place, Path("/proc/self/mountinfo").read_text()))


def filesystem_of(place: Path, mounts: str) -> str:
    """Return the kind of file system that a path lies on, from the text of ``mountinfo``."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # The kernel writes a blank in a path as \\040.
        point = before.split()[4].replace("\\040", " ")
        if place.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def judge_disk(root: Path, kind: str) -> Check:
    """Judge the kind of file system that state lies on."""
    if kind.startswith(REMOTE_KINDS):
        return fail(
            "disk", f"{root} is on {kind}",
            "the log's write-ahead file needs a disk of this machine: set TRIPGATE_STATE to one",
        )  # fmt: skip
    if kind in VOLATILE_KINDS:
        return warn(
            "disk", f"{root} is on {kind}, in memory",
            "the log does not outlive this machine: set TRIPGATE_STATE to a folder on a disk",
        )  # fmt: skip
    return ok("disk", f"{root} is on {kind}")


def check_state() -> Check:
    """Check that state can be written and how long the disk takes to make it durable."""
    return judge_state(state_root())


def judge_state(root: Path) -> Check:
    """Judge a folder, which need not exist yet, as the root of all state."""
    place = next(path for path in (root, *root.parents) if path.exists())
    times = []
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            for _ in range(SYNC_TRIES):
                began = host_ns()
                file.write(b"\0" * SYNC_BYTES)
                file.flush()
                os.fsync(file.fileno())
                times.append(host_ns() - began)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return fail("state", f"{root}: {error.strerror}", str(unwritable(place, error)))
    median_ns = sorted(times)[SYNC_TRIES // 2]
    found = f"{root}, sync {median_ns / NS_PER_MS:.1f} ms, {free >> 20} MiB free"
    if median_ns > SYNC_SLOW_NS:
        return warn(
            "state", found, "openings wait for the log's sync: use a faster disk (TRIPGATE_STATE)"
        )
    if free < STATE_BYTES:
        return warn("state", found, "the log grows: free some space")
    return ok("state", found)


def check_leftovers() -> Check:
    """Check for pages whose owner is dead: their memory stays taken until a next start."""
    left = leftovers(shared_root())
    if not left:
        return ok("leftovers", "no page without a live owner")
    folders = ", ".join(str(folder) for folder in left)
    return warn(
        "leftovers", f"{len(left)} without a live owner: {folders}",
        "look at each with 'tripgate status --page FOLDER'; a next start of the instance takes its "
        "levels over, so remove the folder only if that instance will not run again",
    )  # fmt: skip


def leftovers(root: Path) -> list[Path]:
    """Return this user's page folders under ``root`` that no live root stands behind."""
    prefix = f"tripgate-{os.getuid()}-"
    left = []
    for folder in sorted(root.glob(f"{prefix}*")):
        name = folder.name.removeprefix(prefix)
        if not folder.is_dir() or not set(name) <= set(INSTANCE_LETTERS):
            continue
        try:
            is_owned = read_status(open_page(folder, writable=False)).root_alive
        except PageError:
            is_owned = False
        if not is_owned:
            left.append(folder)
    return left


def check_panels() -> Check:
    """Check whether recorded market data is here; without it the generator is used."""
    from exchange_adapters.market.replay import PANEL_FILE, panels_folder

    try:
        folder = panels_folder()
    except TripgateError as error:
        return fail("panels", str(error), "correct TRIPGATE_PANELS or unset it")
    count = len(list(folder.glob(f"*/{PANEL_FILE}"))) if folder is not None else 0
    if not count:
        return warn(
            "panels", "none found", "without recordings 'paper' runs on its generator; "
            "TRIPGATE_PANELS names a folder of panels",
        )  # fmt: skip
    return ok("panels", f"{count} recordings in {folder}")
