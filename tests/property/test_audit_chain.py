"""The log holds what was given to it, once and in order, and any change of it is found."""

import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.audit_logs import Folders, make_log, unguarded
from tripgate.audit.chain import GENESIS, next_hash
from tripgate.audit.heads import Checkpoint, parse_line
from tripgate.audit.record import (
    BODY_BYTES_MAX,
    RecordError,
    Row,
    canonical,
    pack_body,
    unpack_body,
)
from tripgate.audit.schema import LOG_COLUMNS

INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.builds(
    Row,
    epoch=INT64,
    producer=INT64,
    producer_sequence=INT64,
    utc_ns=st.integers(0, 2**63 - 1),
    host_ns=INT64,
    market_ms=INT64,
    kind=INT64,
    token=st.none() | INT64,
    body=st.binary(max_size=40),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
KEYS = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**63), 2**64 - 1)
BODIES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=6,
)


@given(ROWS, ROWS, st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_P6_canonical_bytes_are_equal_only_for_equal_rows_in_the_same_place(
    one: Row, other: Row, place: int, other_place: int
) -> None:
    are_equal = (one, place) == (other, other_place)
    assert (canonical(one, place) == canonical(other, other_place)) == are_equal
    changed = replace(one, kind=one.kind ^ 1)
    assert canonical(one, place) != canonical(changed, place)
    moved = canonical(one, place ^ 1 or 2)
    assert next_hash(GENESIS, canonical(one, place)) != next_hash(GENESIS, moved)


@given(BODIES)
def test_P6_a_body_comes_back_as_it_was_packed(body: dict[str | int, object]) -> None:
    packed = pack_body(body)
    assert unpack_body(packed) == body
    assert pack_body(unpack_body(packed)) == packed


@given(st.binary(max_size=200) | st.binary(min_size=1, max_size=60).map(lambda b: b"\x81\x01" + b))
def test_P8_a_body_of_garbage_is_a_map_or_a_record_error(packed: bytes) -> None:
    try:
        body = unpack_body(packed)
    except RecordError:
        return
    assert len(pack_body(body)) <= BODY_BYTES_MAX


@given(
    INT64,
    st.binary(min_size=32, max_size=32),
    INT64,
    st.none() | st.dictionaries(st.text(max_size=9), st.integers(), max_size=4),
)
def test_P6_a_checkpoint_comes_back_as_it_was_written(
    number: int, head: bytes, count: int, sums: dict[str, int] | None
) -> None:
    checkpoint = Checkpoint(number, head, count, 1, 2, sums)
    line = checkpoint.line()
    assert line.count(b"\n") == 1
    assert parse_line(line) == checkpoint


@given(st.binary(max_size=300))
def test_P8_a_line_of_garbage_is_no_checkpoint_and_no_crash(line: bytes) -> None:
    checkpoint = parse_line(line)
    assert checkpoint is None or isinstance(checkpoint.sequence, int)


@pytest.fixture(scope="module")
def original() -> Iterator[Folders]:
    with tempfile.TemporaryDirectory() as folder:
        yield make_log(Path(folder) / "state", rows=60, batch=20)


@settings(max_examples=40)
@given(
    column=st.sampled_from(LOG_COLUMNS[1:]),
    sequence=st.integers(1, 60),
    number=INT64,
    data=st.binary(min_size=32, max_size=32),
)
def test_P6_any_change_of_any_value_is_found_at_its_row(
    original: Folders, column: str, sequence: int, number: int, data: bytes
) -> None:
    value = data if column in ("body", "hash") else number
    with tempfile.TemporaryDirectory() as folder:
        copy = original.copy_to(Path(folder) / "state")
        with unguarded(copy.paths()[0]) as connection:
            sql = f"SELECT {column} FROM log WHERE seq = ?"
            (before,) = connection.execute(sql, (sequence,)).fetchone()
            try:
                sql = f"UPDATE log SET {column} = ? WHERE seq = ?"
                connection.execute(sql, (value, sequence))
            except sqlite3.IntegrityError:
                return
        verdict = copy.verify()
        assert verdict.verified == (before == value)
        assert verdict.broken_sequence == (None if before == value else sequence)
