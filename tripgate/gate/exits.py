"""Exits and protective stops: orders the tree itself sends, from preallocated entries.

Each closable key owns one entry for its merged exit and one for its stop, so that an exit never
lacks a place. A flatten is a *claim* on the key with a *wish* (lots, cause): the breaker sets it,
the router executes it even if the breaker dies meanwhile, and clears it once the position is
observed flat. Their tokens come from slots of their own, so they too stand in the log as decisions
of the gate (P1).
"""

from typing import Any

from tripgate.clock import host_ns
from tripgate.gate.record import (
    FLAG_EXIT,
    FLAG_MARKET,
    FLAG_STOP,
    RECORD_BYTES,
    pack_record,
)
from tripgate.gate.words import COMMITTED, entry_checksum, entry_word, make_token
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.layout import (
    COUNTERS_HEADER,
    ENTRY,
    EXIT_SLOT,
    KEY,
    STOP_SLOT,
    exit_entry,
    stop_entry,
)
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter


def wish_exit(page: Page, key: int, cause: int, market_ms: int) -> bool:
    """Claim a key for flattening (breaker or operator); return whether the claim is new."""
    row = page.rows(KEY)[key]
    row["exit_lots"] = abs(int(row["closable"]) >> 32)
    row["exit_ms"] = market_ms
    row["exit_cause"] = cause
    return atomics.compare_exchange(page.address(KEY, key, "exit_claim"), 0, 1) == 0


def drop_exit(page: Page, key: int) -> None:
    """Clear a key's exit claim: its position was observed flat (router only)."""
    atomics.store(page.address(KEY, key, "exit_claim"), 0)


def issue_exit(page: Page, ring: RingWriter, key: int, market_ms: int) -> int:
    """Write the key's exit entry for its whole position and return its token; 0 if it is flat."""
    lots = -(int(page.rows(KEY)["closable"][key]) >> 32)
    if lots == 0:
        return 0
    row = exit_entry(page.layout.capacities, key)
    flags = FLAG_EXIT | FLAG_MARKET
    return _issue(page, ring, row, key, EXIT_SLOT, "exit_sequence", lots, 0, flags, market_ms)


def issue_stop(page: Page, ring: RingWriter, key: int, stop_ticks: int, market_ms: int) -> int:
    """Write the key's stop entry for its whole position and return its token; 0 if it is flat."""
    lots = -(int(page.rows(KEY)["closable"][key]) >> 32)
    if lots == 0:
        return 0
    row = stop_entry(page.layout.capacities, key)
    return _issue(
        page, ring, row, key, STOP_SLOT, "stop_sequence", lots, stop_ticks, FLAG_STOP, market_ms
    )


def _issue(
    page: Page, ring: RingWriter, row: int, key: int, slot: int, counter: str, lots: int,
    stop_ticks: int, flags: int, market_ms: int,
) -> int:  # fmt: skip
    sequence = atomics.fetch_add(page.address(COUNTERS_HEADER, 0, counter), 1) + 1
    token = make_token(page.epoch, slot, sequence)
    strategy, instrument = page.names.keys[key]
    entry: Any = page.rows(ENTRY)[row]
    values = {
        "token": token, "strategy": strategy, "instrument": instrument, "key": key,
        "flags": flags, "lots": lots, "price": 0, "stop": stop_ticks, "t_signed_ms": market_ms,
        "deadline_ns": 0, "reserved": 0, "charged": 0, "remaining": abs(lots),
    }  # fmt: skip
    for name, value in values.items():
        entry[name] = value
    address = page.address(ENTRY, row)
    entry["checksum"] = entry_checksum(address)
    record = pack_record(
        token=token, flags=flags, strategy=strategy, instrument=instrument, lots=lots,
        stop=stop_ticks, t_signed_ms=market_ms, host_ns=host_ns(), epoch=page.epoch,
        position=int(page.rows(KEY)["closable"][key]),
    )  # fmt: skip
    place = page.bytes_of(ENTRY, row)
    place[ENTRY.offset("record") : ENTRY.offset("record") + RECORD_BYTES] = record
    atomics.store(address, entry_word(token, COMMITTED))
    posted = ring.append(int(EventKind.DECISION), record, host_ns(), market_ms)
    # A full ring never holds an exit back: the entry carries the record until there is room.
    entry["record_sequence"] = posted or 0
    return token
