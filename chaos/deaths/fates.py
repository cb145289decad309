"""Ways for an actor to end or to hang, and what its supervisor should make of each.

A fate is either dealt from outside by a signal or met by the victim itself on order. ``reason`` and
``codes`` say what the record of the death must tell: the exit code where the process chose one, a
word of what went wrong where it could still speak, "hung" where only its silence told.
"""

import contextlib
import faulthandler
import itertools
import os
import resource
import signal
import socket
import struct
import sys
import threading
from dataclasses import dataclass
from enum import Enum

from tripgate.clock import sleep_s

FOREVER_S = 3_600.0
EXIT_CODE = 3
EXIT_CODE_BY_NAME = 4
MEMORY_LEFT_BYTES = 32 << 20
MEMORY_WANTED_BYTES = 1 << 30
FRAME_ANNOUNCED_BYTES, FRAME_SENT_BYTES = 20_000, 5_000
ANY_CODE: tuple[int, ...] = ()


class Ordered(Exception):
    """A victim's own failure, raised because it was ordered to."""


class Noticed(Enum):
    """By what a fate is noticed first."""

    EXIT = "exit"
    """The process ended: its parent is told by the kernel."""
    CALL = "call"
    """The process lives, but its call ended and its runtime said so."""
    SILENCE = "silence"
    """Nobody says anything: the lease lapses."""
    START = "start"
    """It never became ready: there was no lease that could lapse."""


@dataclass(frozen=True)
class Fate:
    """One way to end.

    Attributes
    ----------
    number
        Its number in the orders file, above 0.
    signal_number
        Dealt from outside if above 0, else met by the victim on order.
    noticed
        By what it is noticed.
    codes
        Exit codes of which one must be on record; none: any.
    reason
        Pattern that the recorded reason must hold.
    before_ready
        Met at the start of an incarnation whose predecessor is killed for it.
    """

    number: int
    name: str
    says: str
    noticed: Noticed
    codes: tuple[int, ...] = ANY_CODE
    reason: str = ""
    signal_number: int = 0
    before_ready: bool = False


HUNG = "hung|never ready"
KILLED = (-signal.SIGKILL,)

FATES: tuple[Fate, ...] = (
    Fate(1, "sigkill", "SIGKILL from outside", Noticed.EXIT, KILLED, signal_number=signal.SIGKILL),
    Fate(2, "sigterm", "SIGTERM from outside", Noticed.EXIT, (-signal.SIGTERM,),
         signal_number=signal.SIGTERM),
    Fate(3, "segfault", "SIGSEGV, faulthandler off", Noticed.EXIT, (-signal.SIGSEGV,)),
    Fate(4, "os_exit", "os._exit(3)", Noticed.EXIT, (EXIT_CODE,)),
    Fate(5, "cut_frame", "SIGKILL after a quarter of a frame", Noticed.EXIT, KILLED),
    Fate(6, "exception", "an exception in its call", Noticed.CALL, reason="Ordered"),
    Fate(7, "memory", "RLIMIT_AS, then an allocation", Noticed.CALL, reason="MemoryError"),
    Fate(8, "return", "its call returns", Noticed.CALL, reason="returned"),
    Fate(9, "return_lives", "its call returns, a thread keeps the process alive", Noticed.CALL,
         reason="returned"),
    Fate(10, "sys_exit", "sys.exit(4) in its call", Noticed.EXIT, (EXIT_CODE_BY_NAME,)),
    Fate(11, "sigint", "SIGINT from outside", Noticed.EXIT, (-signal.SIGINT,),
         signal_number=signal.SIGINT),
    Fate(12, "sigstop", "SIGSTOP from outside", Noticed.SILENCE, KILLED, HUNG,
         signal_number=signal.SIGSTOP),
    Fate(13, "blocked", "its loop blocked in time.sleep", Noticed.SILENCE, KILLED, HUNG),
    Fate(14, "gil_held", "a C call that never gives the interpreter back", Noticed.SILENCE, KILLED,
         HUNG),
    Fate(15, "exit_before_ready", "os._exit(3) before it is ready", Noticed.START, (EXIT_CODE,),
         before_ready=True),
    Fate(16, "fail_before_ready", "an exception before it is ready", Noticed.START,
         reason="Ordered", before_ready=True),
    Fate(17, "hang_before_ready", "blocked before it is ready", Noticed.START, KILLED, HUNG,
         before_ready=True),
)  # fmt: skip
BY_NUMBER = {fate.number: fate for fate in FATES}
BY_NAME = {fate.name: fate for fate in FATES}


def meet(fate: Fate) -> None:
    """Meet a fate that is not a signal; returns only where the call is then to return."""
    match fate.name:
        case "exception" | "fail_before_ready":
            raise Ordered(fate.says)
        case "memory":
            _exhaust_memory()
        case "segfault":
            _die_without_core()
        case "os_exit" | "exit_before_ready":
            os._exit(EXIT_CODE)
        case "cut_frame":
            _send_part_of_a_frame()
            os.kill(os.getpid(), signal.SIGKILL)
        case "sys_exit":
            sys.exit(EXIT_CODE_BY_NAME)
        case "blocked" | "hang_before_ready":
            # In the loop's own thread: nothing else of the runtime runs meanwhile.
            sleep_s(FOREVER_S)
        case "gil_held":
            # One call in C without end: no other thread of the process runs again, guards included.
            sum(itertools.repeat(0))
        case "return_lives":
            threading.Thread(target=sleep_s, args=(FOREVER_S,), name="clinger").start()


def _exhaust_memory() -> None:
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_LEFT_BYTES, resource.RLIM_INFINITY))
    bytearray(MEMORY_WANTED_BYTES)


def _die_without_core() -> None:
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def _send_part_of_a_frame() -> None:
    """Announce a frame on every TCP connection of this process and send a quarter of it."""
    cut = struct.pack("<I", FRAME_ANNOUNCED_BYTES) + b"x" * FRAME_SENT_BYTES
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            # Whatever is no connected socket refuses one of these steps.
            connection = socket.socket(fileno=os.dup(int(name)))
            with connection:
                if connection.family == socket.AF_INET and connection.getpeername():
                    connection.send(cut)
