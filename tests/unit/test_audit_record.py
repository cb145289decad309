"""Rows, bodies, the chain: what a hash covers and what a body may hold."""

import hashlib
import math
import struct
from dataclasses import replace
from decimal import Decimal

import msgpack
import pytest

from tests.unit.audit_logs import make_rows
from tripgate.audit.chain import GENESIS, next_hash
from tripgate.audit.record import (
    BODY_BYTES_MAX,
    BODY_DEPTH_MAX,
    RecordError,
    canonical,
    pack_body,
    unpack_body,
)

ROW = make_rows(1, utc_ns=10**18)[0]


def test_canonical_when_packed_then_the_format_is_the_written_one() -> None:
    row = replace(ROW, token=77, body=b"\x80")
    fixed = (9, 1, 0, 1, 10**18 + 1, 10**12 + 1, 1_700_000_000_001, 1, 1, 77, 1)
    assert canonical(row, 9) == b"tripgate.audit.row.1\n" + struct.pack("<11q", *fixed) + b"\x80"


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"producer": 1},
        {"producer_sequence": 2},
        {"utc_ns": 1},
        {"host_ns": 1},
        {"market_ms": 1},
        {"kind": 4},
        {"token": 0},
        {"token": 1},
        {"body": b"\x81\x01\x02"},
    ],
)
def test_canonical_when_one_field_differs_then_the_bytes_differ(change: dict[str, int]) -> None:
    row = replace(ROW, token=None)
    assert canonical(row, 1) != canonical(replace(row, **change), 1)  # type: ignore[arg-type]
    assert canonical(row, 1) != canonical(row, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2**63},
        {"token": -(2**63) - 1},
        {"kind": 1.5},
        {"body": "text"},
        {"body": None},
        {"body": bytes(BODY_BYTES_MAX + 1)},
        {"utc_ns": -1},
    ],
)
def test_canonical_when_a_field_cannot_be_stored_then_a_record_error_says_so(
    change: dict[str, object],
) -> None:
    with pytest.raises(RecordError, match="cannot be stored"):
        canonical(replace(ROW, **change), 1)  # type: ignore[arg-type]


def test_next_hash_when_computed_then_any_sha256_tool_agrees() -> None:
    assert next_hash(GENESIS, b"row") == hashlib.sha256(GENESIS + b"row").digest()
    assert len(GENESIS) == 32


def test_body_when_unpacked_then_it_is_what_was_packed() -> None:
    body: dict[str | int, object] = {
        "a": 1,
        2: [None, True, -(2**63), 2**64 - 1, 1.5, b"\xff"],
        "m": {"x": {"y": "é"}},
    }
    assert unpack_body(pack_body(body)) == body


def nested(depth: int) -> dict[str, object]:
    body: dict[str, object] = {}
    for _ in range(depth):
        body = {"x": body}
    return body


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**64,
        -(2**63) - 1,
        Decimal(1),
        object(),
        {1.5: 1},
        {True: 1},
        {None: 1},
        [math.nan],
        nested(BODY_DEPTH_MAX),
        "x" * BODY_BYTES_MAX,
        "\ud800",
    ],
)
def test_body_when_a_value_has_no_place_in_a_log_then_it_is_refused(value: object) -> None:
    with pytest.raises(RecordError):
        pack_body({"value": value})


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x01",
        b"\x90",
        b"\xc1",
        b"\x81",
        b"\x80\x80",
        b"\x81\xa1\xff\x01",
        b"\x81\x90\x01",
        b"\x81\x80\x01",
        b"\x81\x01" + msgpack.packb(math.nan),
        b"\x81\x01" + msgpack.packb(msgpack.Timestamp(1)),
        b"\x81\x01" + msgpack.packb(msgpack.ExtType(5, b"x")),
        b"\x81\x01" * 600 + b"\x80",
        b"\x81\x01\xdd\xff\xff\xff\xff",
        bytes(BODY_BYTES_MAX + 1),
        "text",
        None,
    ],
)
def test_body_when_it_is_garbage_then_a_record_error_is_raised(packed: bytes) -> None:
    with pytest.raises(RecordError):
        unpack_body(packed)
