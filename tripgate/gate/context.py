"""A handle's context: every address and number the check needs, in process-private memory.

Kernels take the context's address and three integers, so that the call stays cheap and the
compiled code holds no address and can be cached on disk. Behind the constants lie the words of the
last check and, from ``IMAGE`` on, its decision record as it will be copied into entry and ring.

``only_opens`` is 1 while the opening half of a split order is judged: it must never close.

Invariants: X1 ``usable`` is 1 only in the process that owns the slot, while its gate is open; X2
the image's words stand in the order of ``record.FIELDS``.
"""

import os
import weakref
from typing import Any

import numpy as np

from tripgate.gate.record import FIELDS, RECORD_BYTES
from tripgate.page.layout import (
    BOARD,
    CLAIM,
    CONTROL_HEADER,
    COUNTERS_HEADER,
    CURSOR,
    ENTRY,
    HOLDER,
    INSTRUMENT,
    KEY,
    LEASE,
    LIMIT,
    NODES_PER_ORDER,
    RATE,
    RING,
    ROLE,
    ROLE_SLOTS,
    SLOT,
    STRATEGY,
    SUM,
    THROTTLE,
    WATERMARK,
    offsets_tuple,
)
from tripgate.page.mapping import Page

_NODE_WORDS = ("sum", "limits", "node")
_CONSTANTS = (
    "usable", "only_opens",
    "header", "counters", "slot", "entries", "ring", "cursors", "holder", "watermark",
    "instrument", "board", "rate", "key", "claim", "strategy", "throttle", "leases", "roles",
    "sums", "epoch", "slot_number", "instrument_number", "strategy_number", "key_number",
    "scope_ids", "lease_count",
    *(f"lease{number}" for number in range(ROLE_SLOTS)),
    *(f"{name}{index}" for name in _NODE_WORDS for index in range(NODES_PER_ORDER)),
)  # fmt: skip
_RESULTS = ("reason", "entry", "scope", "flags", "level", "lease_role", "factor", "margin")
_START = 64 * -(-8 * len(_CONSTANTS + _RESULTS) // 64)

AT: Any = offsets_tuple({name: 8 * index for index, name in enumerate(_CONSTANTS + _RESULTS)})
"""Byte offset of each word of a context, as plain ints for the kernels."""

IMAGE: Any = offsets_tuple(
    {
        **{name: _START + 8 * index for index, name in enumerate(FIELDS)},
        "start": _START,
        "gross": _START + 8 * len(FIELDS),
        "side": _START + 8 * (len(FIELDS) + NODES_PER_ORDER),
    }
)
"""Byte offset of each word of the decision record that the context holds."""

Context = np.ndarray[tuple[int], np.dtype[np.int64]]

CONTEXT_WORDS = (_START + RECORD_BYTES) // 8
LINE_WORDS = 8


def order_nodes(page: Page, strategy: int, instrument: int) -> tuple[int, ...]:
    """Return the five nodes an order passes, narrow to wide."""
    name = page.names.instruments[instrument]
    scopes = (
        f"strategy:{page.names.strategies[strategy]}",
        name.scope,
        f"asset:{name.asset}",
        f"venue:{name.venue}",
        "portfolio",
    )
    return tuple(page.names.scope(scope) for scope in scopes)


def key_number(page: Page, strategy: int, instrument: int, side: int = 0) -> int:
    """Return the closable key of a strategy on an instrument and position side, or -1.

    Parameters
    ----------
    side
        0 net (one-way accounts), 1 long, -1 short (hedge mode).
    """
    sides = page.names.sides or (0,) * len(page.names.keys)
    for number, (pair, own) in enumerate(zip(page.names.keys, sides, strict=True)):
        if pair == (strategy, instrument) and own == side:
            return number
    return -1


_LIVING: "weakref.WeakValueDictionary[int, Context]" = weakref.WeakValueDictionary()
"""Every context of this process by its address, so that a forked child can disown them all."""


def disown(context: Context) -> None:
    """Make a context refuse every check from now on: its gate was closed."""
    context[AT.usable // 8] = 0


def _disown_all() -> None:
    """Disown the parent's contexts in a forked child: a slot has one process, and it is not us."""
    for context in list(_LIVING.values()):
        disown(context)


os.register_at_fork(after_in_child=_disown_all)


def _aligned_words(count: int) -> Context:
    """Return zeroed words that begin on a 64-byte line."""
    words = np.zeros(count + LINE_WORDS, dtype=np.int64)
    skip = -(words.ctypes.data // 8) % LINE_WORDS
    return words[skip : skip + count]


def build_context(page: Page, slot: int, key: int) -> Context:
    """Return the context of one handle (a closable key) for the owner of ``slot``."""
    strategy, instrument = page.names.keys[key]
    words = _aligned_words(CONTEXT_WORDS)
    values = {
        "usable": 1,
        "header": page.address(CONTROL_HEADER, 0),
        "counters": page.address(COUNTERS_HEADER, 0),
        "slot": page.address(SLOT, slot),
        "entries": page.address(ENTRY, page.slot_entries(slot)),
        "ring": page.address(RING, slot),
        "cursors": page.address(CURSOR, slot),
        "holder": page.address(HOLDER, slot),
        "watermark": page.address(WATERMARK, slot),
        "instrument": page.address(INSTRUMENT, instrument),
        "board": page.address(BOARD, instrument),
        "rate": page.address(RATE, int(page.rows(INSTRUMENT)["quote"][instrument])),
        "key": page.address(KEY, key),
        "claim": page.address(CLAIM, instrument),
        "strategy": page.address(STRATEGY, strategy),
        "throttle": page.address(THROTTLE, strategy),
        "leases": page.address(LEASE, 0),
        "roles": page.address(ROLE, 0),
        "sums": page.address(SUM, 0),
        "epoch": page.epoch,
        "slot_number": slot,
        "instrument_number": instrument,
        "strategy_number": strategy,
        "key_number": key,
        "scope_ids": strategy | (instrument << 32),
    }
    mask = int(page.rows(INSTRUMENT)["role_mask"][instrument])
    roles = [role for role in range(len(page.names.roles)) if mask >> role & 1]
    values["lease_count"] = len(roles)
    values |= {f"lease{n}": page.address(LEASE, role) for n, role in enumerate(roles)}
    for index, node in enumerate(order_nodes(page, strategy, instrument)):
        values[f"sum{index}"] = page.address(SUM, node)
        values[f"limits{index}"] = page.address(LIMIT, node)
        values[f"node{index}"] = node
    for name, value in values.items():
        words[getattr(AT, name) // 8] = value
    _LIVING[int(words.ctypes.data)] = words
    return words
