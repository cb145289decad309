"""What stands where in the page, and who alone writes it.

Every field is one aligned 64-bit integer, so that any single store is atomic on x86-64 and arm64
and no process ever sees half a value. Tables have a fixed number of rows; the places of tables
depend on the capacities alone and stand in the header's directory. The layout hash covers names,
places and capacities: a client built for another layout is refused instead of misreading money.

Two files, because clients write one of them: ``control`` belongs to the tree and is mapped
read-only by clients, so that a wild store of theirs faults; ``counters`` is written by all.

Invariants: L1 each field has one writer (named beside its table) or is changed by atomic
instructions only; L2 words that many processes write do not share a 64-byte line with words that
the check merely reads.
"""

import hashlib
from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LAYOUT_VERSION = 3
MAGIC = 0x7472_6970_6761_7465
HEADER_BYTES = 4096
WORD_BYTES = 8
LINE_BYTES = 64

ENTRIES_PER_SLOT = 64
CLOSING_ENTRIES = 8
"""The last entries of a slot are kept for closings: openings can never use up an exit's place."""
RING_BYTES = 1 << 18
RING_EXIT_RESERVE = RING_BYTES // 4
"""Ring space that only exits may use: a full ring stops openings, never exits."""
ROLE_SLOTS = 16
"""Slot r belongs to role r (role 0 is the supervisor); strategies attach from here on."""
EXIT_SLOT = 255
STOP_SLOT = 254
"""Token slots of merged exits and protective stops: their entries belong to the closable keys."""
NODES_PER_ORDER = 5
LEVEL_WRITERS = 8
REASON_COUNT = 48
RECORD_WORDS = 32
CONSUMERS = 4
BARS_KEPT = 2048
"""Closed bars of each instrument that the page keeps, so that models start warm."""
NO_GRANT = -(1 << 62)
"""A slot's overshoot while no opening has been granted in it."""


def offsets_tuple(offsets: Mapping[str, int]) -> Any:
    """Return a named tuple of plain ints: the one form of a table that compiled kernels read."""
    return namedtuple("Offsets", list(offsets))(**offsets)


@dataclass(frozen=True)
class Table:
    """One table of equal rows of 64-bit fields.

    Attributes
    ----------
    name, file
        ``file`` is ``control`` or ``counters``.
    fields
        Field names in order; ``name*n`` is an array of n words.
    row_bytes
        Size of a row: its fields rounded up to a whole number of lines, except word tables.
    """

    name: str
    file: str
    fields: tuple[str, ...]
    row_bytes: int
    offsets: dict[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        position = 0
        for name, words in self._spans():
            self.offsets[name] = position
            position += words * WORD_BYTES
        if position > self.row_bytes:
            raise AssertionError(f"{self.name}: {position} bytes do not fit {self.row_bytes}")

    def _spans(self) -> Iterator[tuple[str, int]]:
        for text in self.fields:
            name, _, words = text.partition("*")
            yield name, int(words or 1)

    @property
    def at(self) -> Any:
        """Byte offsets of the fields as a named tuple of ints: what compiled kernels can read."""
        return offsets_tuple(self.offsets)

    def offset(self, name: str) -> int:
        """Return the byte offset of a field in its row."""
        return self.offsets[name]

    @property
    def dtype(self) -> "np.dtype[np.void]":
        """The numpy dtype of a row (int64 fields; arrays for ``name*n``)."""
        formats = [np.dtype((np.int64, (n,))) if n > 1 else np.dtype(np.int64)
                   for _, n in self._spans()]  # fmt: skip
        return np.dtype(
            {
                "names": [name for name, _ in self._spans()],
                "formats": formats,
                "offsets": list(self.offsets.values()),
                "itemsize": self.row_bytes,
            }
        )


CONTROL_HEADER = Table(
    "control_header",
    "control",
    (
        "magic", "layout_version", "layout_hash", "epoch", "shadow", "owner_pid", "owner_start",
        "closed",  # 1 before arming and after the end; root
        "generation*8",  # own line; atomic add by whoever tightens
        "market_ms", "step", "step_ms", "replay", "age_floor_ms", "feed_finished", "ended", "pad",
        "limits_version", "operator_sequence", "armed", "coarse_resolution_ns", "freeze",
        "names_offset", "names_bytes", "starting_ms",
        "directory*64",
    ),
    HEADER_BYTES,
)  # fmt: skip
NAMES_BYTES = 1 << 16
LEASE = Table("lease", "control", ("deadline_ns",), 8)  # the role's own process; supervisor zeroes
ROLE = Table(
    "role",
    "control",
    (
        "present", "lease_ns", "scope_node", "stale", "pid", "start_time", "incarnation",
        "renewals", "lapsed_since_ns", "restarts", "step", "account_flat", "account_ms",
        "account_reads", "events_step", "last_trade", "operator_read",
    ),
    192,
)  # supervisor: present to restarts; the role itself: stale, renewals, step, account_*  # fmt: skip
LIMIT = Table(
    "limit",
    "control",
    (
        "gross_max", "net_max", "level", "factor_ppm",
        "gross_configured", "net_configured",
        "margin_max",  # venues only: what initial margin may reach; position_keeper
        "margin_terms",  # venues only: haircut and buffer, packed by page.limits; root, breaker
    ),
    64,
)  # root: configured; breaker: effective, factor; level: one byte per writer  # fmt: skip
INSTRUMENT = Table(
    "instrument",
    "control",
    (
        "tradable", "venue", "asset", "node", "value_numerator", "value_denominator",
        "order_money_max", "order_lots_max", "collar_ppm", "exit_collar_ppm", "stop_distance_ppm",
        "age_max_ms", "role_mask", "inverse", "quote", "margin_ppm", "shared", "resting_max",
        "pad*6",
    ),
    192,
)  # root  # fmt: skip
RATE = Table("rate", "control", ("rate_ppm", "par_ppm", "market_ms", "pad*5"), 64)
"""Worth of one unit of each quote currency in the reporting currency. par: root; rest: keeper."""
BAR = Table(
    "bar",
    "control",
    ("opened_ms", "open", "high", "low", "close", "ticks", "number", "pad"),
    64,
)  # market_feed of the venue; row = instrument × BARS_KEPT + number % BARS_KEPT
BOARD = Table(
    "board",
    "control",
    (
        "sequence", "mark", "last", "bid", "ask", "index_price", "market_ms", "host_ns", "step",
        "ticks", "bars", "pad*5",
    ),
    128,
)  # market_feed of the venue, by seqlock  # fmt: skip
STRATEGY = Table(
    "strategy",
    "control",
    (
        "node", "orders_per_second_max", "order", "dropped", "attempts_per_second_max",
        "duplicate_window_ms", "repeats_max", "repeat_window_ms",
    ),
    64,
)  # root  # fmt: skip
ACCOUNT = Table(
    "account",
    "control",
    (
        "known", "equity_mark", "equity_last", "starting", "high_water_mark", "drawdown_ppm",
        "drawdown_last_ppm", "drawdown_max_ppm", "realised", "unrealised", "fees", "market_ms",
        "step", "rebase_sequence", "stale", "flow",
    ),
    128,
)  # position_keeper, one row per node that has an equity  # fmt: skip
CAUSE = Table(
    "cause",
    "control",
    (
        "used", "cause", "node", "level", "value", "latched", "since_ms", "verdict", "blind",
        "fresh_since_ms", "pending_hard_ms", "pending_emergency_ms", "below_since_ms*4",
    ),
    128,
)  # breaker  # fmt: skip
WATERMARK = Table("watermark", "control", ("sequence",), 8)  # audit_writer: durable, per slot
CURSOR = Table("cursor", "control", ("audit", "keeper", "breaker", "spare"), 32)  # each consumer
HOLDER = Table("holder", "control", ("mask",), 8)  # root: which cursors hold a slot's ring back
PROTECTION = Table(
    "protection",
    "control",
    ("open_since_ms", "unprotected_ms_max", "stop_lots", "stop_ticks", "stop_token", "pad*3"),
    64,
)  # router of the venue, one row per closable key
LINK = Table(
    "link",
    "control",
    (
        "sent", "overflowed", "sent_ns", "incarnation", "pad*4",  # the direction's sender
        "fault", "argument", "pad_fault*6",  # chaos tools; 0 is a sound link
        "received", "stale", "replayed", "reordered", "foreign", "forged", "unreadable",
        "wrong_schema", "unknown_kind", "gap", "dropped", "age_max_ns", "heard_ns", "silent",
        "silences", "turns", "lag_us", "rss_kib", "age_ns", "pad_receiver*5",  # its receiver
    ),
    320,
)  # one row per direction of a link (page.links)  # fmt: skip

COUNTERS_HEADER = Table(
    "counters_header",
    "counters",
    (
        "magic",
        "layout_version",
        "layout_hash",
        "epoch",
        "exit_sequence",
        "stop_sequence",
        "pad*2",
        "unposted*8",
    ),  # own line: exits taken during a freeze that no sum holds yet
    HEADER_BYTES,
)
SUM = Table("sum", "counters", ("gross", "long_worst", "short_worst", "margin", "pad*4"), 64)
THROTTLE = Table("throttle", "counters", ("window", "attempts", "pad*6"), 64)  # one per strategy
CLAIM = Table("claim", "counters", ("lots", "pad*7"), 64)  # one per instrument
SLOT = Table(
    "slot",
    "counters",
    (
        "pid", "start_time", "strategy", "section", "token_sequence", "record_sequence",
        "ring_head", "entry_hint", "participating", "step", "approved", "overshoot_max",
        "timespec*2", "role", "incarnation",
        "exit_section",  # odd while an exit changes words during a freeze
        "merged_key", "merged_count", "merged_first_ms", "merged_last_ms", "merged_sequence",
        "pad*2", "denied*48",
    ),
    576,
)  # the process that owns the slot  # fmt: skip
ENTRY = Table(
    "entry",
    "counters",
    (
        "word", "token", "strategy", "instrument", "key", "flags", "lots", "price", "stop",
        "t_signed_ms", "deadline_ns", "reserved", "charged", "remaining", "checksum",
        "record_sequence", "margin_reserved", "margin_charged", "pad*14", "record*32",
    ),
    512,
)  # fmt: skip
KEY = Table(
    "key",
    "counters",
    (
        "closable", "strategy", "instrument", "venue", "node*5", "charged", "exit_claim",
        "exit_lots", "exit_ms", "exit_cause", "stop_ticks", "cash_lot_ticks", "fees",
        "basis_lot_ticks",
        "side",  # 0 net, 1 long, -1 short; root
        "margin_ppm",  # of its instrument; root
        "margin_charged", "last_order", "repeats", "resting",
        "exit_count", "exit_first_ms", "pad*6",
    ),
    256,
)  # fmt: skip
RING = Table("ring", "counters", (f"bytes*{RING_BYTES // WORD_BYTES}",), RING_BYTES)

HEADERS = (CONTROL_HEADER, COUNTERS_HEADER)
TABLES = (
    LEASE, ROLE, LIMIT, INSTRUMENT, BOARD, STRATEGY, ACCOUNT, CAUSE, WATERMARK, CURSOR, HOLDER,
    PROTECTION, SUM, THROTTLE, CLAIM, SLOT, ENTRY, KEY, RING, RATE, BAR, LINK,
)  # fmt: skip
"""All tables; a table's place in the directory is its index here."""


@dataclass(frozen=True)
class Capacities:
    """How many rows each table has. Fixed for the life of a page; part of the layout hash."""

    nodes: int
    instruments: int
    strategies: int
    keys: int
    slots: int = 32
    roles: int = 15
    causes: int = 64
    quotes: int = 1
    links: int = 34

    def rows(self, table: Table) -> int:
        """Return the number of rows of a table."""
        entries = self.slots * ENTRIES_PER_SLOT + 2 * self.keys
        counts = {
            "lease": self.roles, "role": self.roles, "limit": self.nodes,
            "instrument": self.instruments, "board": self.instruments,
            "strategy": self.strategies, "account": self.nodes, "cause": self.causes,
            "watermark": self.slots, "cursor": self.slots, "holder": self.slots,
            "protection": self.keys, "sum": self.nodes, "throttle": self.strategies,
            "claim": self.instruments, "slot": self.slots, "entry": entries, "key": self.keys,
            "ring": self.slots, "rate": self.quotes, "bar": self.instruments * BARS_KEPT,
            "link": self.links,
        }  # fmt: skip
        return counts[table.name]


@dataclass(frozen=True)
class Layout:
    """Byte offsets of all tables in their files for given capacities."""

    capacities: Capacities
    offsets: dict[str, int]
    names_offset: int
    control_bytes: int
    counters_bytes: int
    hash: int


def layout_of(capacities: Capacities) -> Layout:
    """Return the layout for capacities: tables in order, each on a page of 64-byte lines."""
    ends = {"control": HEADER_BYTES, "counters": HEADER_BYTES}
    offsets: dict[str, int] = {}
    for table in TABLES:
        offsets[table.name] = ends[table.file]
        size = table.row_bytes * capacities.rows(table)
        ends[table.file] += -(-size // LINE_BYTES) * LINE_BYTES
    names_offset = ends["control"]
    text = repr((LAYOUT_VERSION, capacities, offsets, [t.fields for t in HEADERS + TABLES]))
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return Layout(
        capacities, offsets, names_offset, names_offset + NAMES_BYTES, ends["counters"], digest
    )


def exit_entry(capacities: Capacities, key: int) -> int:
    """Return the entry index of a closable key's preallocated merged exit."""
    return capacities.slots * ENTRIES_PER_SLOT + key


def stop_entry(capacities: Capacities, key: int) -> int:
    """Return the entry index of a closable key's protective stop."""
    return capacities.slots * ENTRIES_PER_SLOT + capacities.keys + key
