"""Several checks in one call from Python: the crossing is paid once, each order is judged alone."""

from typing import Any

import numpy as np

from tripgate.errors import UsageError
from tripgate.gate.check import BATCH_MAX, check_batch

Int64Array = np.ndarray[Any, np.dtype[np.int64]]


def check_orders(address: int, orders: object) -> Int64Array:
    """Judge rows of (lots, price ticks, stop ticks) through the context at ``address``.

    Raises
    ------
    UsageError
        Not rows of three 64-bit integers, or more than ``BATCH_MAX``; nothing has been judged.
    """
    try:
        given = np.asarray(orders)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"a batch is rows of (lots, price, stop): {error}") from None
    if given.ndim != 2 or given.shape[1] != 3 or given.dtype.kind not in "iu":
        raise UsageError("a batch is rows of three integers: lots, price ticks, stop ticks")
    if given.dtype.kind == "u" and given.size and int(given.max()) > np.iinfo(np.int64).max:
        raise UsageError("a batch holds 64-bit signed integers; one number is too large")
    if len(given) > BATCH_MAX:
        raise UsageError(f"a batch has at most {BATCH_MAX} orders, was {len(given)}")
    rows = np.ascontiguousarray(given, dtype=np.int64)
    answers = np.zeros(len(rows), dtype=np.int64)
    check_batch(address, int(rows.ctypes.data), len(rows), int(answers.ctypes.data))
    return answers
