"""A row of the audit log and the bytes that its hash covers.

The hash covers a fixed structure followed by the body exactly as it is stored, so that a verifier
needs no msgpack, no schema and no opinion on how a map ought to be encoded. The structure starts
with a prefix that names this format: the same bytes can never be taken for another kind of hashed
thing, nor for rows of a later format.

Invariants: A1 two rows that differ in any field differ in canonical bytes (every part has a fixed
length or is preceded by it); A2 a body that ``pack_body`` made comes back from ``unpack_body``
unchanged; A3 ``unpack_body`` returns a map or raises ``RecordError``, whatever it is given.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

import msgpack

from tripgate.errors import TripgateError

CANONICAL_PREFIX = b"tripgate.audit.row.1\n"
BODY_BYTES_MAX = 65_536
"""Twice the largest payload a ring takes, so that a drained record always fits."""

BODY_DEPTH_MAX = 16
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
UINT64_MAX = 2**64 - 1

_PACK_FIXED = struct.Struct("<11q").pack

BodyKey = str | int
Body = dict[BodyKey, object]


class RecordError(TripgateError):
    """A row or body is malformed. Gate effect: none by itself; the row is not stored."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it goes into the log; its place in the chain is given when it is stored.

    Attributes
    ----------
    epoch, producer
        Run of the instance (1…32767) and slot number of the process that wrote the record.
    producer_sequence
        Gap-free per (epoch, producer), from 1.
    utc_ns
        Wall clock, ns since 1970, not negative: it chooses the monthly file.
    host_ns, market_ms
        Host time, ns, and market time, ms since 1970 as the venue stamps it.
    kind
        Event kind code.
    token
        The order token that the event is about, or None.
    body
        A msgpack map (``pack_body``) or a raw decision record; at most ``BODY_BYTES_MAX`` bytes.
    """

    epoch: int
    producer: int
    producer_sequence: int
    utc_ns: int
    host_ns: int
    market_ms: int
    kind: int
    token: int | None
    body: bytes


def canonical_fields(
    sequence: int,
    epoch: int,
    producer: int,
    producer_sequence: int,
    utc_ns: int,
    host_ns: int,
    market_ms: int,
    kind: int,
    token: int | None,
    body: bytes,
) -> bytes:
    """Return the bytes that the row's hash covers, from fields as they are stored.

    The verifier calls this with whatever a damaged file holds, so errors are left as they come.

    Raises
    ------
    struct.error, TypeError
        A field is no 64-bit integer, or the body is not bytes.
    """
    # An absent token is marked apart: no number, and no other value of column `token`, means None.
    fixed = _PACK_FIXED(
        sequence,
        epoch,
        producer,
        producer_sequence,
        utc_ns,
        host_ns,
        market_ms,
        kind,
        token is not None,
        0 if token is None else token,
        len(body),
    )
    return CANONICAL_PREFIX + fixed + body


def canonical(row: Row, sequence: int) -> bytes:
    """Return the bytes that the hash of ``row`` at place ``sequence`` of the log covers.

    Raises
    ------
    RecordError
        A field is out of the range of a signed 64-bit integer, or the body is no bytes or too long.
    """
    try:
        if len(row.body) > BODY_BYTES_MAX or row.utc_ns < 0:
            raise RecordError(
                f"row {row.epoch}/{row.producer}/{row.producer_sequence} cannot be stored: its "
                f"body may have {BODY_BYTES_MAX} bytes and its UTC stamp may not be negative"
            )
        return canonical_fields(
            sequence,
            row.epoch,
            row.producer,
            row.producer_sequence,
            row.utc_ns,
            row.host_ns,
            row.market_ms,
            row.kind,
            row.token,
            row.body,
        )
    except (struct.error, TypeError) as error:
        raise RecordError(f"row cannot be stored, a field has a wrong type: {error}") from None


def _check_scalar(value: object) -> None:
    if value is None or isinstance(value, bool | str | bytes):
        return
    if isinstance(value, float):
        if math.isfinite(value):
            return
        raise RecordError("a body may not hold NaN or an infinity: leave the field out")
    if isinstance(value, int):
        if INT64_MIN <= value <= UINT64_MAX:
            return
        raise RecordError(f"a body may not hold {value}: write integers past 64 bits as text")
    raise RecordError(f"a body may not hold a {type(value).__name__}: write it as text or bytes")


def _check_value(value: object, depth: int) -> None:
    if depth > BODY_DEPTH_MAX:
        raise RecordError(f"a body may be nested {BODY_DEPTH_MAX} deep: flatten it")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise RecordError(f"a key is a text or an integer, was {type(key).__name__}")
            _check_scalar(key)
            _check_value(inner, depth + 1)
    elif type(value) in (list, tuple):
        # Exactly these: msgpack's own extension type is a tuple too.
        for inner in cast(Sequence[object], value):
            _check_value(inner, depth + 1)
    else:
        _check_scalar(value)


def pack_body(
    fields: Mapping[str, object] | Mapping[int, object] | Mapping[BodyKey, object],
) -> bytes:
    """Return ``fields`` as a msgpack map, in their order.

    Values are None, bool, 64-bit int, finite float, str, bytes, and lists and maps of these;
    amounts of money are integers or text, so that a log never depends on float formatting.

    Raises
    ------
    RecordError
        A value or key is of another type, not finite, nested too deep, or the body is too long.
    """
    _check_value(fields, 0)
    try:
        packed: bytes = msgpack.packb(fields, use_bin_type=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"the body cannot be packed: {error}") from None
    if len(packed) > BODY_BYTES_MAX:
        raise RecordError(f"the body has {len(packed)} bytes of at most {BODY_BYTES_MAX}: shorten")
    return packed


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} ({len(data)} bytes) is not used here")


def unpack_body(packed: bytes) -> Body:
    """Return the map in ``packed``. Total: garbage of any kind raises ``RecordError``."""
    if not isinstance(packed, bytes) or len(packed) > BODY_BYTES_MAX:
        raise RecordError("the body is no bytes, or too long: it was not written by tripgate")
    try:
        fields: object = msgpack.unpackb(
            packed, raw=False, strict_map_key=False, ext_hook=_refuse_extension
        )
    # The library's own error classes are not all ValueErrors, and a bad key is a TypeError.
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise RecordError(f"the body is no msgpack map: {reason}") from None
    if not isinstance(fields, dict):
        raise RecordError(f"the body is no msgpack map but a {type(fields).__name__}")
    _check_value(fields, 0)
    return fields
