"""The check as a builtin: how Python calls the compiled kernel without numba's dispatcher.

A dispatcher looks at the type of every argument before it calls; for three integers that costs
more than the check itself. A CPython builtin (METH_FASTCALL) gets a pointer to its arguments, and
both the builtin's definition and the C function behind it can be made at run time: the function is
a numba ``cfunc`` of integers, the definition a ctypes structure. No C compiler is needed.

The function finds its handle through ``self``, a ``bytes`` object whose payload is a few addresses:
compiled code then holds no address of its own and can be cached on disk. ``self`` also owns the
context and the page, so a builtin that outlives its handle still points at living memory.

Invariants: F1 nothing shared is touched before every argument has been converted; F2 zero (NULL)
is returned only with an exception set; F3 the builtin is used only where ``self_test`` found that
it answers as the dispatcher does. Otherwise the dispatcher's entry point or the dispatcher serves.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from typing import Any, SupportsIndex

import numba
import numpy as np
from numba.core import types

from tripgate.gate.check import check_raw
from tripgate.gate.context import CONTEXT_WORDS, Context
from tripgate.page import atomics

CheckRaw = Callable[[SupportsIndex, SupportsIndex, SupportsIndex], int]
"""(signed lots, price ticks, stop ticks) to a token or −``DenyReason``."""

ARGUMENTS = 3
_METH_FASTCALL = 0x0080
_PAYLOAD = bytes.__basicsize__ - 1
"""Offset of a bytes object's characters: its struct ends with one character and no padding."""
_MESSAGE = ctypes.create_string_buffer(b"check_raw takes three integers: lots, price, stop")


class _Carrier(bytes):
    """``self`` of a builtin: addresses as payload, and what they point at kept alive."""

    context: Any
    page: Any


class _MethodDefinition(ctypes.Structure):
    """CPython's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _define() -> Any:
    """Compile the C function behind the builtin (or load it from the cache)."""
    as_int64: Any = types.ExternalFunction("PyLong_AsLongLong", types.int64(types.intp))
    from_int64: Any = types.ExternalFunction("PyLong_FromLongLong", types.intp(types.int64))
    occurred: Any = types.ExternalFunction("PyErr_Occurred", types.intp())
    set_error: Any = types.ExternalFunction("PyErr_SetString", types.void(types.intp, types.intp))

    def call_check(carrier: int, arguments: int, count: int) -> int:
        payload = carrier + _PAYLOAD
        if count != ARGUMENTS:
            set_error(atomics.peek(payload + 8), atomics.peek(payload + 16))
            return 0
        lots = as_int64(atomics.peek(arguments))
        if lots == -1 and occurred() != 0:
            return 0
        price = as_int64(atomics.peek(arguments + 8))
        if price == -1 and occurred() != 0:
            return 0
        stop = as_int64(atomics.peek(arguments + 16))
        if stop == -1 and occurred() != 0:
            return 0
        answer: int = from_int64(check_raw(atomics.peek(payload), lots, price, stop))
        return answer

    compiled: Any = numba.cfunc("intp(intp, intp, intp)", cache=True, error_model="numpy")
    return compiled(call_check)


_LASTING: list[Any] = []
"""Function and definition of the builtin: CPython keeps bare pointers to both, for good."""


def _definition() -> _MethodDefinition:
    if not _LASTING:
        function = _define()
        definition = _MethodDefinition(
            b"check_raw", function.address, _METH_FASTCALL, _MESSAGE.value
        )
        _LASTING.extend((function, definition))
    found: _MethodDefinition = _LASTING[1]
    return found


def make_builtin(context: Context, page: object = None) -> CheckRaw:
    """Return the builtin that checks through a context; it keeps context and page alive."""
    words = (int(context.ctypes.data), id(TypeError), ctypes.addressof(_MESSAGE))
    carrier = _Carrier(np.array(words, dtype=np.int64).tobytes())
    carrier.context, carrier.page = context, page
    # A prototype of our own: changing pythonapi's would change it for the whole process.
    create = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p
    )(("PyCFunction_NewEx", ctypes.pythonapi))
    builtin: CheckRaw = create(ctypes.addressof(_definition()), carrier, None)
    return builtin


def _is_possible() -> bool:
    """Return whether this interpreter is one that the builtin was made for."""
    return (
        platform.python_implementation() == "CPython"
        and ctypes.sizeof(ctypes.c_void_p) == 8
        and not atomics.INTERPRETED
        # A free-threaded build has no lock that makes a slot's owner one thread at a time.
        and getattr(sys, "_is_gil_enabled", lambda: True)()
    )


def _outcome(call: CheckRaw, arguments: tuple[Any, ...]) -> object:
    """Return what a call answers: its value, or the type of its exception."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error)


def self_test() -> bool:
    """Return whether the builtin answers as it must, tried on a context that refuses everything.

    Good calls must give what the dispatcher gives; a wrong count or type a TypeError; a number
    beyond 64 bits an OverflowError. Nothing of any page is touched.
    """
    if not _is_possible():
        return False
    context = np.zeros(CONTEXT_WORDS, dtype=np.int64)
    address = int(context.ctypes.data)
    probe = _Carrier(np.array([address], dtype=np.int64).tobytes())
    if atomics.peek(id(probe) + _PAYLOAD) != address:
        return False
    builtin = make_builtin(context)
    expected = check_raw(address, 1, 2, 3)
    trials: tuple[tuple[tuple[Any, ...], object], ...] = (
        ((1, 2, 3), expected), ((-1, -1, -1), expected), ((np.int64(4), 5, 6), expected),
        ((), TypeError), ((1, 2), TypeError), ((1, 2, 3, 4), TypeError),
        (("1", 2, 3), TypeError), ((1, 2.0, 3), TypeError), ((1, 2, None), TypeError),
        ((2**70, 2, 3), OverflowError), ((1, -(2**63) - 1, 3), OverflowError),
    )  # fmt: skip
    return all(_outcome(builtin, arguments) == answer for arguments, answer in trials)


def _entry_point() -> Callable[..., int] | None:
    """Return the compiled check's own C entry, which skips the dispatcher's look at the types."""
    overloads = getattr(check_raw, "overloads", {})
    points = [getattr(overload, "entry_point", None) for overload in overloads.values()]
    return points[0] if points else None


_ROUTE: list[str] = []


def route() -> str:
    """Return how this process calls the check: fastcall, entry_point or dispatcher."""
    if not _ROUTE:
        other = "dispatcher" if _entry_point() is None else "entry_point"
        _ROUTE.append("fastcall" if self_test() else other)
    return _ROUTE[0]


def bind(context: Context, page: object = None, *, by: str | None = None) -> CheckRaw:
    """Return the fastest right way to check through a context, or the one that ``by`` names."""
    way = by or route()
    if way == "fastcall":
        return make_builtin(context, page)
    address = int(context.ctypes.data)
    entry = _entry_point() if way == "entry_point" else None
    call: Callable[..., int] = check_raw if entry is None else entry

    def checked(lots: SupportsIndex, price_ticks: SupportsIndex, stop_ticks: SupportsIndex) -> int:
        # The closure keeps context and page alive, as the builtin's carrier does.
        return call(address, lots, price_ticks, stop_ticks) if kept else 0

    kept = (context, page)
    return checked
