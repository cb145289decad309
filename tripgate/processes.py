"""Knowing whether a process is the one we mean, and dying with the one we depend on.

A pid alone names nobody: it is reused. A process here is (pid, start time), and watching one is
done through a pidfd, which cannot be fooled by reuse.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable

ORPHAN_EXIT_CODE = 70
"""Exit code of a process that ended because the one it was guarding had died."""


def process_start_time(pid: int) -> int:
    """Return a process' start time in clock ticks since boot, or 0 if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # A zombie has ended; its start time must not make it look alive. A main thread that ended
    # before the others looks like one: such a process can still write.
    ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return 0 if ended else int(fields[19])


def is_alive(pid: int, start_time: int) -> bool:
    """Return whether the very process that (pid, start time) names still runs."""
    return pid > 0 and start_time > 0 and process_start_time(pid) == start_time


def kill_if_same(pid: int, start_time: int, signal_number: int) -> bool:
    """Send a signal to the process that (pid, start time) names; return whether it was sent."""
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return False
    try:
        # The descriptor pins the process; the start time then proves that it is the right one.
        if not is_alive(pid, start_time):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal_number)
            return True
        return False
    finally:
        os.close(descriptor)


def kill_and_wait(pid: int, start_time: int, wait_s: float) -> bool:
    """SIGKILL the process that (pid, start time) names; return whether it has ended.

    Its last thread is gone when this returns True, so that it writes no shared word any more. True
    also if there was no such process.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return True
    try:
        if not is_alive(pid, start_time):
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(wait_s * 1_000))
    finally:
        os.close(descriptor)


def end_even_if_stopped() -> None:
    """Let the kernel end this process with its parent even while it is stopped.

    A stopped process cannot see through its guard that its parent has died. But a stopped process
    group that is orphaned by that death is sent SIGHUP and continued, and a child that leads a
    group of its own in its parent's session is just such a group.
    """
    # A session's leader leads its group already, and may not be moved.
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)


def exit_with(pid: int, last: Callable[[], object] | None = None) -> None:
    """End this process at once, from a daemon thread, when process ``pid`` ends.

    ``last`` is called before, whatever it raises: this process ends all the same.

    A prctl death signal would be tied to the *thread* that forked us and fires when that thread
    retires; a pidfd is not. Ends at once if the process is already gone.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(ORPHAN_EXIT_CODE)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)

    def wait() -> None:
        poller.poll()
        try:
            if last is not None:
                last()
        finally:
            os._exit(ORPHAN_EXIT_CODE)

    threading.Thread(target=wait, name=f"guard-{pid}", daemon=True).start()
