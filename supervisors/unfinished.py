"""Orders that a lost run left without an end: what a new page must hold as of unknown fate.

A page that is lost (a reboot, another layout) takes its entries with it, and the log alone knows
what was approved. Every approved order without a terminal record may stand at its venue or may have
filled, whether or not it was ever sent: the record of its sending may have been lost with the page.
So each becomes a COMMITTED entry again, counted in full, until its router has asked about it.

The tree's own exits and stops reserve nothing and are not restored: their router adopts what stands
at the venue.
"""

from pathlib import Path
from typing import Any

from tripgate.audit.numbers import Numbers
from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.errors import TripgateError
from tripgate.gate.record import FLAG_SHADOW, DecisionRecord, unpack_record
from tripgate.gate.words import (
    COMMITTED,
    FREE,
    STATE_MASK,
    entry_checksum,
    entry_word,
    token_slot,
)
from tripgate.messages import EventKind
from tripgate.page.layout import ENTRIES_PER_SLOT, ENTRY, KEY, ROLE_SLOTS
from tripgate.page.mapping import Page
from tripgate.units import PPM

DURABLE = -1
"""Record sequence of a restored entry: its record stands in the log of an earlier run already."""

_KINDS = (
    EventKind.DECISION, EventKind.ORDER_DONE, EventKind.ORDER_RESOLVED,
    EventKind.RESERVATION_EXPIRED,
)  # fmt: skip
_OUTCOME, _REASON_MASK, _FLAGS_SHIFT = slice(8, 16), 0xFFFF, 16


def unfinished(audit_folder: Path) -> list[tuple[DecisionRecord, bytes]]:
    """Return the approved orders of clients that no record ends, oldest first, record and bytes.

    Records of several producers come in any order, so an end may stand before its beginning.
    """
    begun: dict[int, bytes] = {}
    ended: set[int] = set()
    for stored in LogReader(audit_folder).rows(kinds=[int(kind) for kind in _KINDS]):
        row = stored.row
        if row.kind == EventKind.DECISION:
            outcome = int.from_bytes(row.body[_OUTCOME], "little")
            shadow = (outcome >> _FLAGS_SHIFT) & FLAG_SHADOW
            if row.token and not outcome & _REASON_MASK and not shadow:
                begun[row.token] = row.body
                # Nothing is asked about a token after its end, so both may be forgotten.
                if row.token in ended:
                    ended.discard(row.token)
                    del begun[row.token]
            continue
        body = unpack_body(row.body)
        if "refused" in body:
            continue
        token = int(str(body["token"]))
        if begun.pop(token, None) is None:
            ended.add(token)
    records = ((unpack_record(body), body) for body in begun.values())
    return [pair for pair in records if _is_clients(pair[0])]


def _is_clients(record: DecisionRecord) -> bool:
    return token_slot(record.token) >= ROLE_SLOTS


def restore_orders(page: Page, audit_folder: Path) -> list[int]:
    """Write unfinished orders into a new page as COMMITTED entries and return their tokens.

    The sums are the keeper's to make: it rebuilds them from entries and fills before it is ready.

    Raises
    ------
    TripgateError
        There are more of them than the page has entries for.
    """
    restored, numbers = [], Numbers(audit_folder, page.names)
    for record, body in unfinished(audit_folder):
        slot = token_slot(record.token)
        if slot >= page.layout.capacities.slots:
            continue  # an exit or a stop of the tree
        pair = numbers.pair(record.epoch, record.strategy, record.instrument)
        if pair is None:
            # Its fills, should there be any, close the gate: see actors.keeper_unplaced.
            continue
        _write(page, _free_row(page, slot), page.names.keys.index(pair), record, body)
        restored.append(record.token)
    return restored


def _free_row(page: Page, slot: int) -> int:
    first = page.slot_entries(slot)
    words = page.rows(ENTRY)["word"][first : first + ENTRIES_PER_SLOT]
    free = ((words & STATE_MASK) == FREE).nonzero()[0]
    if not len(free):
        raise TripgateError(
            f"over {ENTRIES_PER_SLOT} orders of one process have no end on record: see that none "
            "of them stands at its venue, then begin a new instance"
        )
    return first + int(free[0])


def _write(page: Page, row: int, key: int, record: DecisionRecord, body: bytes) -> None:
    entry: Any = page.rows(ENTRY)[row]
    values, charge = record.values, record.values["notional"]
    margin = -(-charge * int(page.rows(KEY)["margin_ppm"][key]) // PPM)
    fields = {
        "token": record.token, "strategy": page.names.keys[key][0],
        "instrument": page.names.keys[key][1], "key": key, "flags": record.flags,
        "lots": values["lots"], "price": values["price"],
        "stop": values["stop"], "t_signed_ms": values["t_signed_ms"], "deadline_ns": 0,
        "reserved": charge, "charged": charge, "remaining": abs(values["lots"]),
        "margin_reserved": margin, "margin_charged": margin, "record_sequence": DURABLE,
    }  # fmt: skip
    for name, value in fields.items():
        entry[name] = value
    address = page.address(ENTRY, row)
    entry["checksum"] = entry_checksum(address)
    place = page.bytes_of(ENTRY, row)
    start = ENTRY.offset("record")
    place[start : start + len(body)] = body
    entry["word"] = entry_word(record.token, COMMITTED)
