"""How fast the audit log takes rows here, and how soon one of them is durable.

Everything is written with synchronous=FULL on the disk where logs lie, beside what the disk and
SQLite do alone on the same rows (``audit_peers``). What a commit costs is mostly the disk's sync,
which differs by a factor of a hundred between machines; the ratios tell more than the figures.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import audit_path, audit_peers
from benchmarks.gate import describe_machine
from tripgate.audit.archive import write_archive
from tripgate.audit.export import Choice, export_lines
from tripgate.audit.reader import LogReader
from tripgate.audit.record import Row
from tripgate.audit.segments import list_segments
from tripgate.audit.store import LogWriter
from tripgate.audit.verify import verify
from tripgate.clock import NS_PER_S, host_ns, utc_ns
from tripgate.errors import InvariantBroken, MissingPartError
from tripgate.gate.record import RECORD_BYTES
from tripgate.instance import state_root
from tripgate.messages import EventKind

BATCHES = (1, 100, 1_000)
COMMITS = {1: 500, 100: 200, 1_000: 60}
READ_ROWS = 60_000
PATH_ROWS = 40_000
LATENCY_SAMPLES = 300
LOADS = ("alone", f"beside_{audit_path.LOAD_PER_S}_per_s")
SYNCS = 300
STILL_WORDS, WALKING_WORDS = 16, 15
FULL_GOAL_PER_S = 10_000
VERIFY_GOAL_PER_S = 250_000


def decision_rows(count: int, first: int = 1) -> list[Row]:
    """Return rows of one producer whose bodies are like decision records.

    Most words of a record hardly change from one to the next, some walk, and times run on: what an
    archive of them takes depends on that.
    """
    generator = np.random.default_rng(first)
    words = np.zeros((count, RECORD_BYTES // 8), dtype=np.int64)
    words[:, :STILL_WORDS] = 1_000_000 + np.arange(STILL_WORDS)
    steps = generator.integers(-1_000, 1_001, size=(count, WALKING_WORDS))
    words[:, STILL_WORDS:][:, :WALKING_WORDS] = 10**9 + np.cumsum(steps, axis=0)
    times_ns = utc_ns() + np.cumsum(generator.integers(50_000, 2_000_000, size=count))
    words[:, -1] = times_ns
    return [
        Row(1, 16, n, int(utc), int(utc), n, int(EventKind.DECISION), n, body.tobytes())
        for n, utc, body in zip(range(first, first + count), times_ns, words, strict=True)
    ]


def run_audit(
    *, scale: float = 1.0, producers: Sequence[int] = (1, 4), loads: Sequence[str] = LOADS
) -> dict[str, Any]:
    """Measure the log and return one JSON-ready object.

    Parameters
    ----------
    scale, producers, loads
        Share of the usual effort, numbers of producers, and what a lone opening waits beside; tests
        ask for less.
    """
    with disk_folder() as folder:
        result = {
            "benchmark": "audit",
            "machine": describe_machine(),
            "load_average": round(os.getloadavg()[0], 2),
            "disk": file_system_of(folder),
            "references": _references(folder, scale),
            "writer": {str(n): _append(folder, n, scale) for n in BATCHES},
            "path": {str(n): _path(folder, n, scale) for n in producers},
            "submit_to_durable": _latency(folder, scale, loads),
            **_reading(folder, scale),
        }
    return {**result, "goals": _goals(result)}


@contextmanager
def disk_folder() -> Iterator[Path]:
    """Make a folder on the disk where logs lie, and remove it afterwards."""
    root = state_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that a folder lies on."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, name, *_ = line.split(" ")
        if folder.is_relative_to(place) and len(place) > len(best):
            best, kind = place, name
    return kind


def spread_ms(samples_ns: Sequence[int]) -> dict[str, float]:
    """Return p50, p99 and the largest of some times, ms."""
    p50, p99 = np.percentile(np.asarray(samples_ns), (50, 99), method="higher") / 1e6
    return {
        "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3),
        "max_ms": round(max(samples_ns) / 1e6, 3), "samples": len(samples_ns),
    }  # fmt: skip


def _scaled(count: int, scale: float) -> int:
    return max(2, int(count * scale))


def _references(folder: Path, scale: float) -> dict[str, Any]:
    batch, count = BATCHES[-1], _scaled(COMMITS[BATCHES[-1]], scale)
    batches: list[list[audit_peers.Values]] = [
        [
            (place * batch + n, 1, 16, n, n, n, n, 3, n, bytes(RECORD_BYTES), bytes(32))
            for n in range(batch)
        ]
        for place in range(count)
    ]
    return {
        "append_fdatasync_4k": spread_ms(
            audit_peers.append_and_sync(folder, _scaled(SYNCS, scale))
        ),
        "plain_executemany": {"rows_per_s": round(audit_peers.plain_rows_per_s(folder, batches))},
        "sqlite_utils_insert_all": {
            "rows_per_s": round(audit_peers.sqlite_utils_rows_per_s(folder, batches))
        },
    }


def _append(folder: Path, batch: int, scale: float) -> dict[str, Any]:
    state, took = folder / f"writer-{batch}", []
    commits = _scaled(COMMITS[batch], scale)
    batches = [decision_rows(batch, first=1 + place * batch) for place in range(commits)]
    with LogWriter(state / "audit", state / "heads") as writer:
        for rows in batches:
            began = host_ns()
            writer.append(rows)
            took.append(host_ns() - began)
    return {"rows_per_s": round(batch * commits * NS_PER_S / sum(took)), **spread_ms(took)}


def _path(folder: Path, producers: int, scale: float) -> dict[str, Any]:
    state = folder / f"path-{producers}"
    state.mkdir()
    rows_each = _scaled(PATH_ROWS, scale) // producers
    rows_per_s, took = audit_path.drain_rings(state, producers, rows_each)
    _require_rows(state, producers * rows_each)
    return {"rows_per_s": round(rows_per_s), "commit": spread_ms(took),
            "rows_per_commit": round(producers * rows_each / len(took), 1)}  # fmt: skip


def _require_rows(state: Path, wanted: int) -> None:
    """Check what was timed: a log that lacks a row or does not verify is an error."""
    verdict = verify(state / "audit", state / "heads")
    if not verdict.verified or verdict.rows != wanted:
        raise InvariantBroken(f"the benchmark's log holds {verdict.rows} rows of {wanted}")


def _latency(folder: Path, scale: float, loads: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name in loads:
        loaded = name != LOADS[0]
        state = folder / f"latency-{name}"
        state.mkdir()
        samples = audit_path.wait_durable(state, _scaled(LATENCY_SAMPLES, scale), loaded=loaded)
        found[name] = spread_ms(samples)
    return found


def _reading(folder: Path, scale: float) -> dict[str, Any]:
    """Measure what reads a log, on one log."""
    state, count = folder / "read", _scaled(READ_ROWS, scale)
    with LogWriter(state / "audit", state / "heads") as writer:
        for first in range(1, count + 1, BATCHES[-1]):
            rows = min(BATCHES[-1], count + 1 - first)
            writer.append(decision_rows(rows, first=first))
    size = sum(path.stat().st_size for path in (state / "audit").glob("audit-*"))
    began = host_ns()
    _require_rows(state, count)
    verified = host_ns() - began
    began = host_ns()
    choice = Choice()
    lines = export_lines(LogReader(state / "audit"), choice, "jsonl", _plain_fields)
    written = sum(1 for _ in lines) - 1
    exported = host_ns() - began
    return {
        "verify": {"rows_per_s": round(count * NS_PER_S / verified), "rows": count},
        "bytes_per_row": round(size / count, 1),
        "export_jsonl": {"rows_per_s": round(written * NS_PER_S / exported)},
        "archive": _archive(folder, state, count),
    }


def _plain_fields(stored: Any) -> dict[str, object]:
    row = stored.row
    return {
        "sequence": stored.sequence, "epoch": row.epoch, "producer": row.producer,
        "producer_sequence": row.producer_sequence, "utc_ns": row.utc_ns, "kind": row.kind,
        "token": row.token, "body": row.body.hex(), "hash": stored.hash.hex(),
    }  # fmt: skip


def _archive(folder: Path, state: Path, count: int) -> dict[str, Any]:
    (segment,) = list_segments(state / "audit")
    began = host_ns()
    try:
        write_archive(state / "audit", segment, folder, lambda _: None)
    except MissingPartError as error:
        return {"skipped": str(error)}
    took = host_ns() - began
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    return {"rows_per_s": round(count * NS_PER_S / took), "bytes_per_row": round(size / count, 1)}


def _goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    full = result["writer"][str(BATCHES[-1])]["rows_per_s"]
    path = {name: row["rows_per_s"] for name, row in result["path"].items()}
    checked = result["verify"]["rows_per_s"]
    return [
        {
            "goal": f"sustained rows with FULL sync: ≥ {FULL_GOAL_PER_S:,}/s",
            "reached": min(full, *path.values()) >= FULL_GOAL_PER_S,
            "figures": f"writer {full:,}/s, ring to log "
            + ", ".join(f"{rate:,}/s from {name}" for name, rate in path.items()),
        },
        {
            "goal": f"verify: ≥ {VERIFY_GOAL_PER_S:,} rows/s",
            "reached": checked >= VERIFY_GOAL_PER_S,
            "figures": f"{checked:,} rows/s",
        },
    ]
