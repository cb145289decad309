"""Atomic loads, stores and exchanges on raw 64-bit words, and the compiled clock.

Python has none of these, and a lock could be left taken by a killed process, so they are numba
intrinsics on an integer address: they inline into the gate's kernels and cache on disk. Plain
loads would be hoisted out of loops by the compiler; every word that another process writes goes
through here.

With ``NUMBA_DISABLE_JIT=1`` (coverage and debugging only: ``launch`` refuses a product run) the
same names are plain ctypes accesses, right for one process at a time.

The clock is the compiled twin of ``tripgate.clock``: the check may not call back into Python.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from tripgate.page.kernel_cache import kernel_cache

vars(numba.config)["CACHE_DIR"] = str(kernel_cache())
Function = TypeVar("Function", bound=Callable[..., Any])
CLOCK_MONOTONIC = 1
CLOCK_MONOTONIC_COARSE = 6
INTERPRETED = bool(getattr(numba.config, "DISABLE_JIT", False))


def kernel(signature: str) -> Callable[[Function], Function]:
    """Compile a function eagerly for one signature of int64s; never on the order path.

    The GIL stays held: it is what makes a slot single-writer in a process with several threads.
    """
    compiled = numba.njit(
        signature, nogil=False, boundscheck=False, error_model="numpy", cache=True
    )
    return cast(Callable[[Function], Function], compiled)


if INTERPRETED:
    _WORD = ctypes.c_int64

    def load(address: int) -> int:
        """Return the word at ``address`` (acquire)."""
        return _WORD.from_address(address).value

    def store(address: int, value: int) -> None:
        """Store a word (release)."""
        _WORD.from_address(address).value = value

    def exchange(address: int, value: int) -> int:
        """Store a word with a full barrier and return the old one."""
        old = _WORD.from_address(address).value
        _WORD.from_address(address).value = value
        return old

    def fetch_add(address: int, value: int) -> int:
        """Add to a word and return what stood there before."""
        return exchange(address, load(address) + value)

    def compare_exchange(address: int, expected: int, value: int) -> int:
        """Store ``value`` if the word is ``expected``; return what stood there before."""
        old = load(address)
        if old == expected:
            store(address, value)
        return old

    def read_clock(clock: int, timespec: int) -> int:
        """Return a POSIX clock in ns; ``timespec`` is a scratch buffer of two words."""
        import time

        now = time.clock_gettime_ns(clock)
        store(timespec, now)
        return now

else:  # pragma: no cover - compiled: the coverage tool cannot see inside; tests run both forms
    # What numba's decorators return is callable in compiled code only, which types cannot say.
    _intrinsic: Callable[[Function], Any] = intrinsic

    def _pointer(builder: Any, address: Any) -> Any:
        return builder.inttoptr(address, ir.IntType(64).as_pointer())

    @_intrinsic
    def _load(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.load_atomic(_pointer(builder, arguments[0]), "acquire", 8)

        return types.int64(types.int64), generate

    @_intrinsic
    def _store(typingctx: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "release", 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @_intrinsic
    def _exchange(typingctx: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _pointer(builder, arguments[0])
            return builder.atomic_rmw("xchg", pointer, arguments[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    @_intrinsic
    def _fetch_add(typingctx: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _pointer(builder, arguments[0])
            return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    @_intrinsic
    def _compare_exchange(typingctx: Any, address: Any, expected: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _pointer(builder, arguments[0])
            pair = builder.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "acquire")
            return builder.extract_value(pair, 0)

        return types.int64(types.int64, types.int64, types.int64), generate

    _INT32: Any = numba.int32
    _clock_gettime: Any = types.ExternalFunction(
        "clock_gettime", types.int32(types.int32, types.int64)
    )

    @kernel("int64(int64)")
    def load(address: int) -> int:
        """Return the word at ``address`` (acquire)."""
        word: int = _load(address)
        return word

    @kernel("void(int64, int64)")
    def store(address: int, value: int) -> None:
        """Store a word (release)."""
        _store(address, value)

    @kernel("int64(int64, int64)")
    def exchange(address: int, value: int) -> int:
        """Store a word with a full barrier and return the old one."""
        old: int = _exchange(address, value)
        return old

    @kernel("int64(int64, int64)")
    def fetch_add(address: int, value: int) -> int:
        """Add to a word and return what stood there before."""
        old: int = _fetch_add(address, value)
        return old

    @kernel("int64(int64, int64, int64)")
    def compare_exchange(address: int, expected: int, value: int) -> int:
        """Store ``value`` if the word is ``expected``; return what stood there before."""
        old: int = _compare_exchange(address, expected, value)
        return old

    @kernel("int64(int64, int64)")
    def read_clock(clock: int, timespec: int) -> int:
        """Return a POSIX clock in ns; ``timespec`` is a scratch buffer of two words."""
        _clock_gettime(_INT32(clock), timespec)
        now: int = _load(timespec) * 1_000_000_000 + _load(timespec + 8)
        return now
