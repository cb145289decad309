"""A handle's context: every address and number the check needs, in process-private memory.

Kernels take the context's address and three integers, so that the call stays cheap and the
compiled code holds no address and can be cached on disk. The last words are the result block: why,
where and by how much the last check of this handle was denied.
"""

from typing import Any

import numpy as np

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
    RING,
    ROLE,
    SLOT,
    STRATEGY,
    SUM,
    THROTTLE,
    WATERMARK,
    offsets_tuple,
)
from tripgate.page.mapping import Page

_NAMES = (
    "header", "counters", "slot", "entries", "ring", "cursors", "holder", "watermark",
    "instrument", "board", "key", "claim", "strategy", "throttle", "leases", "roles", "role_count",
    "sums", "epoch", "slot_number", "instrument_number", "strategy_number", "key_number",
    "sum0", "sum1", "sum2", "sum3", "sum4", "limit0", "limit1", "limit2", "limit3", "limit4",
    "node0", "node1", "node2", "node3", "node4",
    "reason", "token", "entry", "scope", "limit", "used", "requested",
    "notional", "mark", "mark_sequence", "mark_ms", "lease_left", "lease_role", "level",
    "now_ns", "t_signed", "generation", "flags", "throttle_before", "position_before",
    "scratch0", "scratch1", "scratch2", "scratch3", "scratch4", "scratch5",
    "gross0", "gross1", "gross2", "gross3", "gross4",
    "side0", "side1", "side2", "side3", "side4",
)  # fmt: skip
AT: Any = offsets_tuple({name: 8 * index for index, name in enumerate(_NAMES)})
"""Byte offset of each word of a context, as plain ints for the kernels."""

CONTEXT_WORDS = len(_NAMES)


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


def key_number(page: Page, strategy: int, instrument: int) -> int:
    """Return the closable key of a strategy on an instrument, or -1 if it may not trade it."""
    pair = (strategy, instrument)
    return page.names.keys.index(pair) if pair in page.names.keys else -1


def build_context(page: Page, slot: int, key: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the context of one (strategy, instrument) handle for the owner of ``slot``."""
    strategy, instrument = page.names.keys[key]
    words = np.zeros(CONTEXT_WORDS, dtype=np.int64)
    values = {
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
        "key": page.address(KEY, key),
        "claim": page.address(CLAIM, instrument),
        "strategy": page.address(STRATEGY, strategy),
        "throttle": page.address(THROTTLE, strategy),
        "leases": page.address(LEASE, 0),
        "roles": page.address(ROLE, 0),
        "role_count": len(page.names.roles),
        "sums": page.address(SUM, 0),
        "epoch": page.epoch,
        "slot_number": slot,
        "instrument_number": instrument,
        "strategy_number": strategy,
        "key_number": key,
    }
    nodes = order_nodes(page, strategy, instrument)
    for index in range(NODES_PER_ORDER):
        values[f"sum{index}"] = page.address(SUM, nodes[index])
        values[f"limit{index}"] = page.address(LIMIT, nodes[index])
        values[f"node{index}"] = nodes[index]
    for name, value in values.items():
        words[getattr(AT, name) // 8] = value
    return words
