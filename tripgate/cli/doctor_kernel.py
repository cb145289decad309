"""The checks of ``tripgate doctor`` on the kernel: what it offers, allows and times."""

import ctypes
import os
import platform
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tripgate.cli.doctor_check import Check, fail, ok, warn

PR_GET_CHILD_SUBREAPER = 37
STA_UNSYNC = 0x0040
TIMEX_WORDS = 64
"""Room for the kernel's ``struct timex``, which has some 26 words."""
TIMEX_STATUS_AT = 5
CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
SLOW_SOURCES = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
MEMORY_BYTES_MIN = 1_600 << 20
"""What a tree with two venues may take (DESIGN section 11)."""
MACHINES = ("x86_64", "aarch64")
PROCESSES_MIN = 256
CORES_MIN = 2


def _need_pidfd() -> None:
    descriptor = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(descriptor, 0)
    finally:
        os.close(descriptor)


def _need_waitid() -> None:
    child = os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {})
    descriptor = os.pidfd_open(child)
    try:
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
    except OSError:
        os.waitpid(child, 0)
        raise
    finally:
        os.close(descriptor)


def _need_subreaper() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    answer = ctypes.c_int()
    if library.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _need_credentials() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        data = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if int.from_bytes(data[:4], "little") != os.getpid():
        raise OSError("SO_PEERCRED does not tell the peer's process")


def _need_processes() -> None:
    # Without it, a process cannot be told from another one that got its number later.
    with open("/proc/self/stat", "rb") as file:
        file.read(1)
    if not os.path.isdir(f"/proc/{os.getppid()}") and os.getppid() > 1:
        raise OSError("/proc hides other processes (hidepid)")


FEATURES: dict[str, Callable[[], None]] = {
    "pidfd": _need_pidfd,
    "waitid on a pidfd": _need_waitid,
    "child subreaper": _need_subreaper,
    "peer credentials": _need_credentials,
    "/proc": _need_processes,
}
"""What supervision and the strategies' socket rest on, each tried."""


def check_kernel() -> Check:
    """Check that the kernel has what supervision rests on."""
    return judge_kernel(platform.release(), platform.machine(), FEATURES)


def judge_kernel(release: str, machine: str, features: dict[str, Callable[[], None]]) -> Check:
    """Judge a kernel by its machine and by trying its features."""
    missing = []
    for name, need in features.items():
        try:
            need()
        except (AttributeError, OSError) as error:
            missing.append(f"{name} ({getattr(error, 'strerror', None) or error})")
    if missing:
        return fail(
            "kernel", f"Linux {release} lacks: {', '.join(missing)}",
            "use Linux 5.4 or newer, and a container profile that allows these calls",
        )  # fmt: skip
    if machine not in MACHINES:
        return fail("kernel", f"{machine} processor", "atomic words are built for x86-64 and arm64")
    return ok("kernel", f"Linux {release}: {', '.join(features)}")


def check_wall_clock() -> Check:
    """Check that the wall clock is kept in step with the world's, and read from a fast source."""
    words = (ctypes.c_long * TIMEX_WORDS)()
    status: int | None = None
    # Modes 0: the call only reads.
    if ctypes.CDLL(None).adjtimex(ctypes.byref(words)) >= 0:
        status = int(words[TIMEX_STATUS_AT]) & 0xFFFF_FFFF
    source = CLOCK_SOURCE.read_text().strip() if CLOCK_SOURCE.exists() else ""
    return judge_wall_clock(status, source)


def judge_wall_clock(status: int | None, source: str) -> Check:
    """Judge the kernel's clock status (None: it cannot be read) and the name of its source."""
    if source in SLOW_SOURCES:
        return warn(
            "wall clock", f"clock source {source}",
            "each reading costs microseconds: use a machine whose source is tsc or kvm-clock",
        )  # fmt: skip
    if status is None:
        return warn("wall clock", "the kernel does not tell", "make sure that time is kept by NTP")
    if status & STA_UNSYNC:
        return warn(
            "wall clock", "not synchronised, as far as this kernel knows",
            "venues refuse orders signed at the wrong time: run chrony or systemd-timesyncd (in a "
            "container, on the host)",
        )  # fmt: skip
    return ok("wall clock", f"synchronised, source {source or 'unknown'}")


def check_limits() -> Check:
    """Check what this user's processes may take."""
    limits = {
        "file size": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "address space": resource.getrlimit(resource.RLIMIT_AS)[0],
        "processes": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "core dump": resource.getrlimit(resource.RLIMIT_CORE)[0],
    }
    memory = MEMORY_LIMIT.read_text().strip() if MEMORY_LIMIT.exists() else "max"
    return judge_limits(limits, memory, len(os.sched_getaffinity(0)))


def judge_limits(limits: dict[str, int], memory: str, cores: int) -> Check:
    """Judge limits in bytes or counts (−1: none), the container's memory and the cores."""
    problems = []
    if limits["file size"] != resource.RLIM_INFINITY:
        problems.append((f"files end at {limits['file size']} bytes", "ulimit -f unlimited"))
    if limits["address space"] != resource.RLIM_INFINITY:
        problems.append(
            (f"address space ends at {limits['address space']} bytes", "ulimit -v unlimited")
        )
    if 0 <= limits["processes"] < PROCESSES_MIN:
        problems.append((f"{limits['processes']} processes", f"ulimit -u {PROCESSES_MIN}"))
    if limits["core dump"] != 0:
        problems.append(("a crash may write keys into a core dump", "ulimit -c 0"))
    if memory.isdigit() and int(memory) < MEMORY_BYTES_MIN:
        problems.append(
            (f"memory ends at {int(memory) >> 20} MiB", f"allow {MEMORY_BYTES_MIN >> 20} MiB")
        )
    if cores < CORES_MIN:
        problems.append((f"{cores} core", f"leases are set for {CORES_MIN} cores or more"))
    if problems:
        return warn(
            "limits", "; ".join(found for found, _ in problems),
            "; ".join(advice for _, advice in problems),
        )  # fmt: skip
    return ok("limits", f"files, memory and processes suffice; {cores} cores; no core dumps")
