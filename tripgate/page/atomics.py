"""Atomic loads, stores and exchanges on raw 64-bit words, and the compiled clock.

Python has none of these, and a lock could be left taken by a killed process, so they are numba
intrinsics on an integer address: they inline into the gate's kernels and cache on disk. Plain
loads would be hoisted out of loops by the compiler; every word that another process writes goes
through here.

With ``NUMBA_DISABLE_JIT=1`` (coverage and debugging only: ``launch`` refuses a product run) the
same names are plain ctypes accesses, right for one process at a time.

``peek`` and ``poke`` are for memory that no other process reads or writes meanwhile (a handle's
context, a record before it is published): the compiler may keep such words in registers.

The clock is the compiled twin of ``tripgate.clock``: the check may not call back into Python.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tripgate.page.kernel_cache import kernel_cache

vars(numba.config)["CACHE_DIR"] = str(kernel_cache())
Function = TypeVar("Function", bound=Callable[..., Any])
CLOCK_MONOTONIC = 1
CLOCK_MONOTONIC_COARSE = 6
INTERPRETED = bool(getattr(numba.config, "DISABLE_JIT", False))


RECORD_BYTES = 256
"""Size of the block that ``copy_record`` and ``clear_record`` move: one decision record."""


def kernel(
    signature: str, *, inline: bool = False, from_python: bool = False
) -> Callable[[Function], Function]:
    """Compile a function eagerly for one signature of int64s; never on the order path.

    The GIL stays held: it is what makes a slot single-writer in a process with several threads.

    Parameters
    ----------
    inline
        Put the function into each of its callers: for steps of the check, where the calls
        themselves would be a fifth of the time.
    from_python
        An inlined function that Python calls as well, so that it too must be ready.
    """
    # Without a signature numba compiles or loads a function when it is first wanted. An inlined one
    # is wanted by its callers' compilation only: a process that finds those in the cache saves it.
    compiled = numba.njit(
        None if inline and not from_python else signature,
        nogil=False,
        boundscheck=False,
        error_model="numpy",
        cache=True,
        forceinline=inline,
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

    def peek(address: int) -> int:
        """Return a word of this process's own memory (no ordering)."""
        return _WORD.from_address(address).value

    def poke(address: int, value: int) -> None:
        """Store a word in this process's own memory (no ordering)."""
        _WORD.from_address(address).value = value

    def copy_record(target: int, source: int) -> None:
        """Copy one record's bytes (no ordering: publish the target afterwards)."""
        ctypes.memmove(target, source, RECORD_BYTES)

    def clear_record(target: int) -> None:
        """Zero one record's bytes (no ordering)."""
        ctypes.memset(target, 0, RECORD_BYTES)

    def prefetch(address: int) -> None:
        """Ask for a line that will be written soon; a hint without effect here."""

    def wrap64(value: int) -> int:
        """Return a sum or product as a signed 64-bit word, the way compiled code wraps it."""
        return _WORD(value).value

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
    def _peek(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.load(_pointer(builder, arguments[0]), align=8)

        return types.int64(types.int64), generate

    @_intrinsic
    def _poke(typingctx: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.store(arguments[1], _pointer(builder, arguments[0]), align=8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    def _block(builder: Any, address: Any) -> Any:
        block = ir.VectorType(ir.IntType(64), RECORD_BYTES // 8)
        return builder.inttoptr(address, block.as_pointer()), block

    @_intrinsic
    def _copy_record(typingctx: Any, target: Any, source: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            words = builder.load(_block(builder, arguments[1])[0], align=8)
            builder.store(words, _block(builder, arguments[0])[0], align=8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @_intrinsic
    def _clear_record(typingctx: Any, target: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer, block = _block(builder, arguments[0])
            builder.store(ir.Constant(block, None), pointer, align=8)
            return context.get_dummy_value()

        return types.void(types.int64), generate

    @_intrinsic
    def _prefetch(typingctx: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
            insert: Any = cgutils.get_or_insert_function
            ask = insert(builder.module, kind, "llvm.prefetch.p0")
            # For writing, to be kept, data.
            flags = [ir.Constant(flag, number) for number in (1, 3, 1)]
            builder.call(ask, [builder.inttoptr(arguments[0], byte), *flags])
            return context.get_dummy_value()

        return types.void(types.int64), generate

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

    @kernel("int64(int64)", inline=True, from_python=True)
    def load(address: int) -> int:
        """Return the word at ``address`` (acquire)."""
        word: int = _load(address)
        return word

    @kernel("void(int64, int64)", inline=True, from_python=True)
    def store(address: int, value: int) -> None:
        """Store a word (release)."""
        _store(address, value)

    @kernel("int64(int64, int64)", inline=True, from_python=True)
    def exchange(address: int, value: int) -> int:
        """Store a word with a full barrier and return the old one."""
        old: int = _exchange(address, value)
        return old

    @kernel("int64(int64, int64)", inline=True, from_python=True)
    def fetch_add(address: int, value: int) -> int:
        """Add to a word and return what stood there before."""
        old: int = _fetch_add(address, value)
        return old

    @kernel("int64(int64, int64, int64)", inline=True, from_python=True)
    def compare_exchange(address: int, expected: int, value: int) -> int:
        """Store ``value`` if the word is ``expected``; return what stood there before."""
        old: int = _compare_exchange(address, expected, value)
        return old

    @kernel("int64(int64)", inline=True)
    def peek(address: int) -> int:
        """Return a word of this process's own memory (no ordering)."""
        word: int = _peek(address)
        return word

    @kernel("void(int64, int64)", inline=True)
    def poke(address: int, value: int) -> None:
        """Store a word in this process's own memory (no ordering)."""
        _poke(address, value)

    @kernel("void(int64, int64)", inline=True)
    def copy_record(target: int, source: int) -> None:
        """Copy one record's bytes (no ordering: publish the target afterwards)."""
        _copy_record(target, source)

    @kernel("void(int64)", inline=True)
    def clear_record(target: int) -> None:
        """Zero one record's bytes (no ordering)."""
        _clear_record(target)

    @kernel("void(int64)", inline=True)
    def prefetch(address: int) -> None:
        """Ask for a line that will be written soon."""
        _prefetch(address)

    @kernel("int64(int64)", inline=True)
    def wrap64(value: int) -> int:
        """Return a sum or product as a signed 64-bit word: compiled code wraps by itself."""
        return value

    @kernel("int64(int64, int64)")
    def read_clock(clock: int, timespec: int) -> int:
        """Return a POSIX clock in ns; ``timespec`` is a scratch buffer of two words."""
        _clock_gettime(_INT32(clock), timespec)
        now: int = _load(timespec) * 1_000_000_000 + _load(timespec + 8)
        return now
