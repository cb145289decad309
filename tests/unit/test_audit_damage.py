"""The damage corpus: whatever is done to a log, the verifier says so and never falls over."""

import contextlib
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import sqlite_utils

from tests.unit.audit_logs import (
    Folders,
    first_number,
    make_log,
    make_rows,
    unguarded,
)
from tripgate.audit.chain import next_hash
from tripgate.audit.reader import LogReader
from tripgate.audit.record import canonical
from tripgate.audit.verify import Verdict, verify_file
from tripgate.errors import ChainBrokenError

ROWS = 300
BIT_FLIPS = 250
PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A sound log of one file; tests damage copies of it."""
    return make_log(tmp_path_factory.mktemp("log") / "state", rows=ROWS)


@pytest.fixture
def folders(original: Folders, tmp_path: Path) -> Folders:
    """A copy of the sound log."""
    return original.copy_to(tmp_path / "state")


def change(folders: Folders, sql: str, *parameters: object) -> Verdict:
    """Return the verdict after a statement that no trigger refused."""
    with unguarded(folders.paths()[0]) as connection:
        connection.execute(sql, parameters)
    return folders.verify()


def test_verify_when_bits_flip_anywhere_then_they_are_found_or_harmless(
    original: Folders, tmp_path: Path
) -> None:
    random, found = Random(7), 0
    sound = original.paths()[0].read_bytes()
    rows = original.rows()
    for number in range(BIT_FLIPS):
        folders = Folders(tmp_path / str(number))
        folders.audit.mkdir(parents=True)
        shutil.copytree(original.heads, folders.heads)
        damaged = bytearray(sound)
        damaged[random.randrange(len(sound))] ^= 1 << random.randrange(8)
        path = folders.audit / original.paths()[0].name
        path.write_bytes(damaged)
        verdict = folders.verify()
        found += not verdict.verified
        if verdict.verified:
            assert folders.rows() == rows
        shutil.rmtree(folders.state)
    assert found > BIT_FLIPS / 2


def test_verify_when_a_page_is_zeroed_then_it_is_found(original: Folders, tmp_path: Path) -> None:
    sound = original.paths()[0].read_bytes()
    connection = sqlite3.connect(original.paths()[0])
    sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'probe'"
    (probe_page,) = connection.execute(sql).fetchone()
    connection.close()
    for page in range(len(sound) // PAGE_BYTES):
        folders = original.copy_to(tmp_path / str(page))
        start = page * PAGE_BYTES
        damaged = sound[:start] + bytes(PAGE_BYTES) + sound[start + PAGE_BYTES :]
        folders.paths()[0].write_bytes(damaged)
        verdict = folders.verify()
        # The page of table `probe` holds nothing that belongs to the log; pages of the index do,
        # because a writer reads in it which records are stored.
        assert not verdict.verified or page == probe_page - 1
        assert len(verdict.problems) < 100


def test_verify_when_two_pages_are_swapped_then_it_is_found(
    original: Folders, tmp_path: Path
) -> None:
    sound = original.paths()[0].read_bytes()
    pages = [sound[at : at + PAGE_BYTES] for at in range(0, len(sound), PAGE_BYTES)]
    for page in range(1, len(pages) - 1):
        folders = original.copy_to(tmp_path / str(page))
        swapped = [*pages[:page], pages[page + 1], pages[page], *pages[page + 2 :]]
        folders.paths()[0].write_bytes(b"".join(swapped))
        assert not folders.verify().verified


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_verify_when_the_file_is_something_else_then_it_is_found(
    folders: Folders, content: bytes
) -> None:
    folders.paths()[0].write_bytes(content)
    assert folders.verify().broken_sequence == 1
    with pytest.raises(ChainBrokenError):
        folders.rows()
    with pytest.raises(ChainBrokenError, match="tripgate audit verify"):
        folders.writer()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"CREATE TRIGGER log_no_update", b"CREATE TRIGGE\xd2 log_no_update"),
        (b"the audit log is", b"the audit log\xa0is"),
    ],
)
def test_verify_when_sqlite_quotes_damaged_text_then_it_is_found(
    folders: Folders, before: bytes, after: bytes
) -> None:
    # SQLite's own message then holds bytes that are no text, and cannot be read either.
    path = folders.paths()[0]
    sound = path.read_bytes()
    assert before in sound
    path.write_bytes(sound.replace(before, after))
    assert not folders.verify().verified
    assert not verify_file(path).verified
    with pytest.raises(ChainBrokenError):
        folders.writer()
    with contextlib.suppress(ChainBrokenError):
        folders.rows()


def test_verify_when_the_tail_is_deleted_then_the_heads_show_it(folders: Folders) -> None:
    verdict = change(folders, "DELETE FROM log WHERE seq > 290")
    assert verdict.broken_sequence == 291
    assert verdict.problems == [
        "the log ends at row 290, but heads.jsonl line 7 names row 300: the tail is missing"
    ]
    folders.heads_file.unlink()
    verdict = folders.verify()
    assert verdict.problems == ["heads.jsonl is missing: rows cut off at the end cannot be noticed"]


def test_verify_when_rows_younger_than_the_last_head_are_deleted_then_it_cannot_know(
    folders: Folders,
) -> None:
    kept = folders.heads_file.read_bytes()
    with folders.writer() as writer:
        writer.append(make_rows(5, epoch=2))
    folders.heads_file.write_bytes(kept)
    # This is the limit that the documentation names: only a head kept elsewhere shows such a loss.
    assert change(folders, "DELETE FROM log WHERE seq > 302").verified


def test_verify_when_the_write_ahead_log_is_lost_or_cut_then_the_heads_show_it(
    folders: Folders, tmp_path: Path
) -> None:
    with folders.writer() as writer:
        writer.append(make_rows(60, epoch=2))
        writer.checkpoint(None, 1, 1)
        hot = folders.copy_to(tmp_path / "hot")
    assert hot.verify().verified
    wal = hot.paths()[0].with_name(f"{hot.paths()[0].name}-wal")
    size = wal.stat().st_size
    for left in (size - 1, size // 2, 0):
        copy = hot.copy_to(tmp_path / str(left))
        with wal.open("r+b") as file:
            file.truncate(left)
        shutil.copy(wal, copy.paths()[0].with_name(wal.name))
        copy.paths()[0].with_name(f"{copy.paths()[0].name}-shm").unlink()
        assert "the tail is missing" in copy.verify().problems[-1]
        with pytest.raises(ChainBrokenError, match="was durable once"):
            copy.writer()


STATEMENTS = {
    "update": "UPDATE log SET kind = kind + 1 WHERE seq = 150",
    "update_body": "UPDATE log SET body = x'80' WHERE seq = 150",
    "update_hash": "UPDATE log SET hash = zeroblob(32) WHERE seq = 150",
    "delete": "DELETE FROM log WHERE seq = 150",
    "insert": "INSERT INTO log SELECT seq + 9, 9, 9, 1, 1, 1, 1, 1, 1, body, hash FROM log "
    "WHERE seq = 300",
    "insert_again": "INSERT INTO log SELECT 301, epoch, producer, producer_seq, utc_ns, host_ns, "
    "market_ms, kind, token, body, hash FROM log WHERE seq = 150",
    "replace": "INSERT OR REPLACE INTO log SELECT 150, 9, 9, 1, 1, 1, 1, 1, 1, body, hash FROM log "
    "WHERE seq = 150",
    "replace_by_producer": "INSERT OR REPLACE INTO log SELECT 301, epoch, producer, producer_seq, "
    "utc_ns, host_ns, market_ms, kind, token, body, hash FROM log WHERE seq = 150",
    "upsert": "INSERT INTO log SELECT * FROM log WHERE seq = 150 "
    "ON CONFLICT (seq) DO UPDATE SET kind = 99",
    "no_number": "INSERT INTO log SELECT NULL, 9, 9, 1, 1, 1, 1, 1, 1, body, hash FROM log "
    "WHERE seq = 150",
}


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_triggers_when_history_is_to_be_changed_then_they_refuse(
    folders: Folders, name: str, recursive: str
) -> None:
    connection = sqlite3.connect(folders.paths()[0], isolation_level=None)
    connection.execute(f"PRAGMA recursive_triggers={recursive}")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(STATEMENTS[name])
    connection.close()
    assert folders.verify().verified


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE meta SET previous_seq = 5",
        "DELETE FROM meta",
        "INSERT INTO meta SELECT 2, 1, 0, previous_hash, NULL FROM meta",
        "INSERT OR REPLACE INTO meta SELECT 1, 1, 0, zeroblob(32), NULL FROM meta",
    ],
)
def test_triggers_when_the_joint_is_to_be_changed_then_they_refuse(
    folders: Folders, sql: str
) -> None:
    connection = sqlite3.connect(folders.paths()[0], isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(sql)
    connection.close()
    assert change(folders, sql.replace("zeroblob(32)", "x'00'")).problems


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - {"insert_again", "upsert"}))
def test_verify_when_history_was_changed_without_triggers_then_it_is_found(
    folders: Folders, name: str
) -> None:
    verdict = change(folders, STATEMENTS[name])
    assert verdict.broken_sequence in (150, 301)
    assert first_number(verdict.problems[0]) in (150, 301)
    assert len(verdict.problems) <= 5


def test_verify_when_two_rows_are_swapped_then_it_is_found(folders: Folders) -> None:
    with unguarded(folders.paths()[0]) as connection:
        for old, new in ((100, -1), (200, 100), (-1, 200)):
            connection.execute("UPDATE log SET seq = ? WHERE seq = ?", (new, old))
    verdict = folders.verify()
    assert verdict.broken_sequence == 100
    assert verdict.problems[0] == "row 100 does not match its hash"


def test_verify_when_a_row_and_all_hashes_after_it_are_forged_then_the_heads_show_it(
    folders: Folders,
) -> None:
    rows = folders.rows()
    with unguarded(folders.paths()[0]) as connection:
        connection.execute("UPDATE log SET kind = 77 WHERE seq = 120")
        digest = rows[118].hash
        for stored in LogReader(folders.audit).rows(after=119):
            digest = next_hash(digest, canonical(stored.row, stored.sequence))
            sql = "UPDATE log SET hash = ? WHERE seq = ?"
            connection.execute(sql, (digest, stored.sequence))
    verdict = folders.verify()
    assert verdict.broken_sequence == 150
    assert verdict.problems[0].startswith("row 150 is not the row that heads.jsonl line")


def test_verify_when_a_forged_chain_skips_a_record_then_the_producers_numbers_show_it(
    folders: Folders,
) -> None:
    before, last = folders.rows()[-2:]
    forged = replace(last.row, producer_sequence=last.row.producer_sequence + 5)
    digest = next_hash(before.hash, canonical(forged, last.sequence))
    sql = "UPDATE log SET producer_seq = ?, hash = ? WHERE seq = 300"
    verdict = change(folders, sql, forged.producer_sequence, digest)
    assert verdict.problems[0] == "row 300: epoch 1, producer 1 is at record 155, expected 150"


SCHEMA_CHANGES = {
    "dropped trigger": "DROP TRIGGER log_no_update",
    "weakened trigger": "DROP TRIGGER log_no_update; CREATE TRIGGER log_no_update "
    "BEFORE UPDATE ON log WHEN NEW.seq > 10 BEGIN SELECT raise(ABORT, 'no'); END",
    "dropped index": "DROP INDEX log_producer",
    "own index": "CREATE INDEX mine ON log (kind)",
    "own table": "CREATE TABLE mine (x)",
    "own column": "ALTER TABLE log ADD COLUMN mine INTEGER",
    "own trigger": "CREATE TRIGGER mine AFTER INSERT ON log BEGIN DELETE FROM probe; END",
    "dropped meta": "DROP TABLE meta",
    "renamed log": "ALTER TABLE log RENAME TO history",
    "dropped log": "DROP TABLE log",
    "view": "ALTER TABLE log RENAME TO history; CREATE VIEW log AS SELECT * FROM history",
}


@pytest.mark.parametrize("name", SCHEMA_CHANGES)
def test_verify_when_the_schema_was_changed_then_it_is_found_and_not_written_on(
    folders: Folders, name: str
) -> None:
    connection = sqlite3.connect(folders.paths()[0])
    connection.executescript(SCHEMA_CHANGES[name])
    connection.close()
    verdict = folders.verify()
    assert any("the schema" in problem for problem in verdict.problems)
    with pytest.raises(ChainBrokenError, match="the schema"):
        folders.writer()


def test_verify_when_a_tool_rebuilt_the_table_then_it_is_found(folders: Folders) -> None:
    database = sqlite_utils.Database(folders.paths()[0])
    database.table("log").transform(drop={"token"})
    database.close()
    assert not folders.verify().verified


LOOSE_VALUES = [
    ("token", "''"),
    ("epoch", "NULL"),
    ("epoch", "1.0"),
    ("kind", "'1'"),
    ("kind", "9223372036854775807"),
    ("body", "NULL"),
    ("body", "CAST(body AS TEXT)"),
    ("body", "CAST(x'ff' AS TEXT)"),
    ("body", "zeroblob(200000)"),
    ("hash", "NULL"),
    ("hash", "'text'"),
    ("hash", "x'00'"),
    ("producer", "1e300"),
    ("producer_seq", "NULL"),
    ("utc_ns", "'x'"),
    ("seq", "'text'"),
    ("seq", "x'00'"),
    ("seq", "NULL"),
    ("seq", "150.5"),
    ("seq", "149"),
    ("seq", "9223372036854775807"),
]


def without_types(path: Path, sql: str) -> None:
    """Replace the table of rows by one that takes anything, and run a statement on it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "ALTER TABLE log RENAME TO old; CREATE TABLE log (seq, epoch, producer, producer_seq, "
        f"utc_ns, host_ns, market_ms, kind, token, body, hash); "
        f"INSERT INTO log SELECT * FROM old; DROP TABLE old; {sql}"
    )
    connection.close()


@pytest.mark.parametrize(("column", "value"), LOOSE_VALUES)
def test_verify_when_a_table_without_types_holds_anything_then_it_is_found(
    folders: Folders, column: str, value: str
) -> None:
    without_types(folders.paths()[0], f"UPDATE log SET {column} = {value} WHERE seq = 150")
    verdict = folders.verify()
    assert [problem for problem in verdict.problems if "the schema" not in problem]
    assert verdict.broken_sequence is not None
    assert verdict.broken_sequence <= 301
    # Readers either read or say that the log is broken, and nothing else.
    for read in (folders.rows, LogReader(folders.audit).count_by_kind, folders.writer):
        with contextlib.suppress(ChainBrokenError):
            read()


@pytest.mark.parametrize("token", [None, 0])
@pytest.mark.parametrize("value", ["NULL", "0", "0.0", "''", "x''", "'0'"])
def test_verify_when_a_token_becomes_another_nothing_then_it_is_found(
    tmp_path: Path, token: int | None, value: str
) -> None:
    folders = Folders(tmp_path / "state")
    with folders.writer() as writer:
        writer.append([replace(row, token=token) for row in make_rows(3)])
    without_types(folders.paths()[0], f"UPDATE log SET token = {value} WHERE seq = 2")
    is_unchanged = value == ("NULL" if token is None else "0")
    assert folders.verify().broken_sequence == (None if is_unchanged else 2)


def test_verify_when_everything_is_damaged_then_the_list_of_problems_ends(
    folders: Folders,
) -> None:
    verdict = change(folders, "UPDATE log SET kind = 9")
    assert len(verdict.problems) == 100
    assert verdict.broken_sequence == 1


def test_recovery_when_row_types_are_damaged_then_the_writer_refuses(folders: Folders) -> None:
    with unguarded(folders.paths()[0]) as connection:
        connection.execute("UPDATE log SET hash = x'00' WHERE seq = 300")
    with pytest.raises(ChainBrokenError, match="damaged at its end"):
        folders.writer()
