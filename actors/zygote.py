"""The zygote: imports once what every actor needs, then forks each actor from itself.

``python -m actors.zygote``, started by the root with a socket as standard input, never by hand. It
has one thread for its whole life: forking a process with threads copies the locks they hold but not
the threads that would let go of them. So nothing here watches the root from a thread; the loop
waits for the root's socket and for the root's end at once.

Each child is forked by a helper that ends at once, so that the child becomes the *root's*: only a
parent can reap, and as long as it has not, the child's pid names nobody else.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import threading
from typing import Final

import msgspec

from actors import runtime
from actors.spawner import KERNEL_MODULES, PACKET_BYTES_MAX, Forked, Hello, Order, Ready, Refused
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.processes import ORPHAN_EXIT_CODE, end_even_if_stopped, exit_with

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
ADOPTION_WAIT_NS = 5 * NS_PER_S
POLL_S = 0.0005
PID: Final = struct.Struct("<q")


def preload(modules: list[str] | None) -> None:
    """Import every actor and every compiled kernel, and put it all beyond the collector's reach.

    A collection writes into every object it visits, which would copy the shared pages.
    """
    if modules is None:
        actors = importlib.import_module(runtime.ENTRY_MODULE).ACTORS
        modules = [*KERNEL_MODULES, *(f"actors.{actor}" for actor in actors)]
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def set_process_name(name: str) -> None:
    """Let ``ps`` and ``top`` show a name; the kernel keeps its first 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def end_with_parent(end_signal: int) -> None:
    """Be sent a signal when the thread that started us ends; 0 withdraws it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, end_signal, 0, 0, 0)


def fork_child() -> int:
    """Fork a child that is our parent's; return its pid here and 0 in the child.

    Raises
    ------
    OSError
        The kernel has no room for another process.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise OSError(f"the zygote has {threads} threads: a copy of it might hang")
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(reader)
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            os.close(writer)
            return 0
        os.write(writer, PID.pack(pid))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as told:
        answer = told.read(PID.size)
    # Once the helper has been reaped, its child has been handed on to the root.
    os.waitpid(helper, 0)
    if len(answer) != PID.size:
        raise OSError("the helper that forks died")
    (pid,) = PID.unpack(answer)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return int(pid)


def serve_orders(orders: socket.socket, root: int) -> Order | None:
    """Fork what the root orders; return None at the end, and in a child the order it is for."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(orders)
        try:
            root_end = os.pidfd_open(root)
        except ProcessLookupError:
            return None
        stack.callback(os.close, root_end)
        poller = select.poll()
        poller.register(orders, select.POLLIN)
        poller.register(root_end, select.POLLIN)
        while root_end not in (ready := [number for number, _ in poller.poll()]):
            assert ready == [orders.fileno()], "nothing else is watched"
            packet = orders.recv(PACKET_BYTES_MAX)
            if not packet:
                return None
            order = msgspec.msgpack.decode(packet, type=Order)
            answer: Forked | Refused
            try:
                pid = fork_child()
                if pid == 0:
                    return order
                answer = Forked(pid)
            except OSError as error:
                answer = Refused(str(error))
            orders.send(msgspec.msgpack.encode(answer))
        return None


def await_adoption(root: int) -> None:
    """Wait until the root is our parent; end this process if it does not become that."""
    give_up_ns = host_ns() + ADOPTION_WAIT_NS
    while os.getppid() != root:
        if host_ns() > give_up_ns:
            os._exit(ORPHAN_EXIT_CODE)
        sleep_s(POLL_S)


def run_child(order: Order, hello: Hello) -> None:
    """Become the actor that was ordered and run until it ends."""
    # It ends the process, as every signal does: an exception would end the loop and leave the rest.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    set_process_name(order.name[0])
    await_adoption(hello.root)
    # From here on the root may die at any time; the actor's own guard follows much later.
    exit_with(hello.root)
    await_adoption(hello.root)
    runtime.run_child(order, hello.secret)


def main() -> int:
    """Entry point of the zygote, and the way out of every child."""
    # Whatever the root's starter left open is none of ours, and none of the children's.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    orders = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    end_even_if_stopped()
    # The root ends us; a Ctrl-C at its terminal is for the root alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    packet = orders.recv(PACKET_BYTES_MAX)
    if not packet:
        return 0
    hello = msgspec.msgpack.decode(packet, type=Hello)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != hello.root:
        return ORPHAN_EXIT_CODE
    sys.path[:] = hello.path
    set_process_name("zygote")
    preload(hello.preload)
    assert threading.active_count() == 1, "an import started a thread"
    # The signal hangs on the thread that started us; the loop below watches the process.
    end_with_parent(0)
    orders.send(msgspec.msgpack.encode(Ready(os.getpid())))
    order = serve_orders(orders, hello.root)
    if order is not None:
        run_child(order, hello)
    return 0


if __name__ == "__main__":
    sys.exit(main())
