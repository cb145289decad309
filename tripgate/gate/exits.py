"""Exits and protective stops: orders the tree itself sends, from preallocated entries.

Each closable key owns one entry for its merged exit and one for its stop, so that an exit never
lacks a place. An exit is a *claim* on the key with a *wish* (lots, cause): a strategy's check, the
breaker or an operator sets it, the router executes it even if whoever set it dies meanwhile, and
clears it once it is filled or the position is observed flat. Their tokens come from slots of their
own, so they too stand in the log as decisions of the gate (P1).

Invariants: E1 a wish is raised before its claim is set, and a claim is cleared before a wish is
looked at for the last time, so that no wish is ever left without a claim; E2 lots of a wish change
by compare-and-swap alone; E3 a larger wish and a higher cause win.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from tripgate.clock import host_ns
from tripgate.errors import InvariantBroken
from tripgate.gate.record import (
    FLAG_EXIT,
    FLAG_MARKET,
    FLAG_STOP,
    RECORD_BYTES,
    pack_record,
)
from tripgate.gate.reserve import charge_side, part_up
from tripgate.gate.words import (
    COMMITTED,
    FREE,
    STATE_MASK,
    UNPOSTED,
    entry_checksum,
    entry_word,
    make_token,
)
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.layout import (
    CONTROL_HEADER,
    COUNTERS_HEADER,
    ENTRY,
    EXIT_SLOT,
    KEY,
    SLOT,
    STOP_SLOT,
    SUM,
    exit_entry,
    stop_entry,
)
from tripgate.page.mapping import Page
from tripgate.page.ring import RingWriter

SWAP_TRIES = 10_000
"""Bound of each compare-and-swap loop; a try fails only because somebody else's succeeded."""


def wish_exit(page: Page, key: int, cause: int, market_ms: int) -> bool:
    """Claim a key for flattening (breaker or operator); return whether the claim is new.

    A strategy's wish that is under way becomes one for the whole position, and its cause the level
    given.
    """
    position = atomics.load(page.address(KEY, key, "closable")) >> 32
    _change(page.address(KEY, key, "exit_lots"), lambda lots: max(lots, abs(position)))
    _change(page.address(KEY, key, "exit_cause"), lambda before: max(before, cause))
    atomics.store(page.address(KEY, key, "exit_ms"), market_ms)
    atomics.fetch_add(page.address(KEY, key, "exit_count"), 1)
    atomics.compare_exchange(page.address(KEY, key, "exit_first_ms"), 0, market_ms)
    return atomics.compare_exchange(page.address(KEY, key, "exit_claim"), 0, 1) == 0


def lower_wish(page: Page, key: int, lots: int) -> None:
    """Take what an exit has filled off its key's wish (router only)."""
    _change(page.address(KEY, key, "exit_lots"), lambda before: max(0, before - lots))


def drop_exit(page: Page, key: int, seen_lots: int | None = None) -> bool:
    """Clear a key's wish and claim: it was filled, or its position observed flat (router only).

    Parameters
    ----------
    seen_lots
        The wish that was judged; by default the present one. One that was raised since stands.

    Returns
    -------
    bool
        Whether the key is free; False if a new wish has come meanwhile.
    """
    wish = page.address(KEY, key, "exit_lots")
    seen = atomics.load(wish) if seen_lots is None else seen_lots
    atomics.compare_exchange(wish, seen, 0)
    for name in ("exit_ms", "exit_cause", "exit_count", "exit_first_ms"):
        atomics.store(page.address(KEY, key, name), 0)
    claim = page.address(KEY, key, "exit_claim")
    atomics.exchange(claim, 0)
    if atomics.load(wish) == 0:
        return True
    # Whoever raised it may have found the claim still set and relied on it.
    atomics.compare_exchange(claim, 0, 1)
    return False


def issue_exit(
    page: Page, ring: RingWriter, key: int, market_ms: int, *, lots_max: int | None = None,
    price_ticks: int = 0,
) -> int:  # fmt: skip
    """Write the key's exit entry and return its token; 0 if there is nothing to close.

    Parameters
    ----------
    lots_max
        How much of the position to close at most, lots; by default all of it.
    price_ticks
        Limit of an immediate order; 0 is a market order.
    """
    position = int(page.rows(KEY)["closable"][key]) >> 32
    amount = abs(position) if lots_max is None else min(abs(position), lots_max)
    if amount == 0:
        return 0
    lots = -amount if position > 0 else amount
    row = exit_entry(page.layout.capacities, key)
    flags = FLAG_EXIT | (0 if price_ticks else FLAG_MARKET)
    return _issue(
        page, ring, row, key, EXIT_SLOT, "exit_sequence", lots, price_ticks, 0, flags, market_ms
    )


def issue_stop(page: Page, ring: RingWriter, key: int, stop_ticks: int, market_ms: int) -> int:
    """Write the key's stop entry for its whole position and return its token; 0 if it is flat."""
    lots = -(int(page.rows(KEY)["closable"][key]) >> 32)
    if lots == 0:
        return 0
    row = stop_entry(page.layout.capacities, key)
    return _issue(
        page, ring, row, key, STOP_SLOT, "stop_sequence", lots, 0, stop_ticks, FLAG_STOP, market_ms
    )


def _change(address: int, following: Any) -> None:
    """Set a word to what follows from it, by compare-and-swap."""
    for _ in range(SWAP_TRIES):
        before = atomics.load(address)
        after = following(before)
        if after == before or atomics.compare_exchange(address, before, after) == before:
            return
    raise InvariantBroken("a word of a closable key is never still")


def _issue(
    page: Page, ring: RingWriter, row: int, key: int, slot: int, counter: str, lots: int,
    price_ticks: int, stop_ticks: int, flags: int, market_ms: int,
) -> int:  # fmt: skip
    sequence = atomics.fetch_add(page.address(COUNTERS_HEADER, 0, counter), 1) + 1
    token = make_token(page.epoch, slot, sequence)
    strategy, instrument = page.names.keys[key]
    amount = _exit_worth(page, key, lots) if flags & FLAG_EXIT else 0
    record = pack_record(
        token=token, flags=flags, strategy=strategy, instrument=instrument, lots=lots,
        stop=stop_ticks, t_signed_ms=market_ms, host_ns=host_ns(), epoch=page.epoch,
        position=int(page.rows(KEY)["closable"][key]), price=price_ticks, notional=amount,
    )  # fmt: skip
    with _section(page, ring.slot) as posted:
        _clear(page, row)
        entry: Any = page.rows(ENTRY)[row]
        values = {
            "token": token, "strategy": strategy, "instrument": instrument, "key": key,
            "flags": flags, "lots": lots, "price": price_ticks, "stop": stop_ticks,
            "t_signed_ms": market_ms, "deadline_ns": 0, "reserved": amount, "charged": amount,
            "margin_reserved": 0, "margin_charged": 0, "remaining": abs(lots),
        }  # fmt: skip
        for name, value in values.items():
            entry[name] = value
        address = page.address(ENTRY, row)
        entry["checksum"] = entry_checksum(address)
        place = page.bytes_of(ENTRY, row)
        place[ENTRY.offset("record") : ENTRY.offset("record") + RECORD_BYTES] = record
        if posted:
            charge_side(page.address(KEY, key), page.address(SUM, 0), lots, amount)
        elif amount:
            atomics.fetch_add(page.address(COUNTERS_HEADER, 0, "unposted"), 1)
        mark = UNPOSTED if amount and not posted else 0
        atomics.store(address, entry_word(token, COMMITTED) | mark)
        # Inside the section: sums that hold the exit are never read without its record.
        sequence_posted = ring.append(int(EventKind.DECISION), record, host_ns(), market_ms)
        # A full ring never holds an exit back: the entry carries the record until there is room.
        entry["record_sequence"] = sequence_posted or 0
    return token


@contextlib.contextmanager
def _section(page: Page, slot: int) -> Iterator[bool]:
    """Be inside the own section; yield False if a repair runs and sums must be left alone."""
    section = page.address(SLOT, slot, "section")
    atomics.fetch_add(section, 1)
    posted = atomics.load(page.address(CONTROL_HEADER, 0, "freeze")) == 0
    if not posted:
        atomics.fetch_add(section, 1)
        section = page.address(SLOT, slot, "exit_section")
        atomics.fetch_add(section, 1)
    try:
        yield posted
    finally:
        atomics.fetch_add(section, 1)


def _clear(page: Page, row: int) -> None:
    """Take what an earlier order in this place still holds out of the sums, and free the place.

    It is one of unknown fate beside which another is sent, or a stop that is being replaced.
    """
    entry, address = page.rows(ENTRY)[row], page.address(ENTRY, row)
    word, charged = atomics.load(address), int(entry["charged"])
    live = word & STATE_MASK != FREE
    atomics.store(address, word & ~(STATE_MASK | UNPOSTED) | FREE)
    if live and word & UNPOSTED:
        atomics.fetch_add(page.address(COUNTERS_HEADER, 0, "unposted"), -1)
    elif live and charged:
        key = page.address(KEY, int(entry["key"]))
        charge_side(key, page.address(SUM, 0), int(entry["lots"]), -charged)


def _exit_worth(page: Page, key: int, lots: int) -> int:
    """Return what an exit counts at its side: its part of the position's charged worth (money).

    An exit in flight must make no room: without it, |net| would look smaller than it will be once
    the exit has filled, and an opening elsewhere could use the difference.
    """
    row = page.rows(KEY)[key]
    position = abs(int(row["closable"]) >> 32)
    return part_up(abs(int(row["charged"])), min(abs(lots), position), position) if position else 0
