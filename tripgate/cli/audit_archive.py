"""``tripgate audit archive``: a month of the log as Parquet, and the removal of archived months."""

import re
from pathlib import Path

from tripgate.audit.archive import archive_name, write_archive
from tripgate.audit.retention import prune_month, segments_of_month
from tripgate.audit.segments import list_segments
from tripgate.cli.audit import instance_with_log, progress
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.config.reader import parse_config
from tripgate.config.structs import Audit
from tripgate.errors import ConfigError, StateUnwritableError, UsageError
from tripgate.instance import state_folder


def archive(
    instance: str | None = None,
    *,
    month: str,
    output: Path,
    prune: bool = False,
    json: bool = False,
) -> int:
    """Write a month of a log as Parquet files, or remove a month that was archived.

    Parameters
    ----------
    instance
        Whose log; else the one running, else the only one or the one written last.
    month
        YYYY-MM.
    output
        Folder of the archives.
    prune
        Write nothing, but compare the month with its archives in the folder row by row and remove
        it from the log. Nothing is ever removed without this option.
    json
        Print one JSON object instead of text.
    """
    found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", month, re.ASCII)
    if found is None:
        raise UsageError(f"--month is written like 2026-01, was '{month}'")
    if not output.is_dir():
        raise UsageError(f"there is no folder {output}: make it first")
    name = instance_with_log(instance)
    place = int(found[1]), int(found[2])
    try:
        if prune:
            return _prune(name, place, output, as_json=json)
        return _archive(name, place, output, as_json=json)
    except OSError as error:
        raise StateUnwritableError(
            f"cannot write {error.filename or output}: {error.strerror}"
        ) from None


def _archive(name: str, month: tuple[int, int], output: Path, *, as_json: bool) -> int:
    folder = state_folder(name) / "audit"
    segments = segments_of_month(folder, *month)
    if segments[-1] == list_segments(folder)[-1]:
        write_message("this month may still grow: its archive holds what is there now")
    written = []
    for segment in segments:
        extent = write_archive(folder, segment, output, progress())
        written.append({
            "archive": str(output / archive_name(segment)), "file": extent.file,
            "rows": extent.rows, "sequence": extent.sequence, "head": extent.head.hex(),
        })  # fmt: skip
    if as_json:
        write_json({"log": name, "archives": written})
        return 0
    for one in written:
        write_line(f"{one['archive']}: {one['rows']} rows up to row {one['sequence']}, head "
                   f"{one['head']}")  # fmt: skip
    return 0


def _prune(name: str, month: tuple[int, int], archives: Path, *, as_json: bool) -> int:
    state = state_folder(name)
    removed = prune_month(state / "audit", archives, month, _keep_months(state), progress())
    if as_json:
        files = [{"file": one.file, "rows": one.rows, "kept": one.kept} for one in removed]
        write_json({"log": name, "removed": files})
        return 0
    for one in removed:
        write_line(f"{one.file}: removed, {one.rows} rows; {one.kept} of them stay in its marker")
    return 0


def _keep_months(state: Path) -> int:
    """Return what the config that the instance was started with says to keep."""
    path = state / "config.toml"
    try:
        return parse_config(path.read_text(encoding="utf-8"), str(path)).audit.keep_months
    except FileNotFoundError:
        return Audit().keep_months
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text: start the instance once with its config") from None
