"""P6 under power cuts: what was acknowledged is there, whatever the disk kept of the rest."""

import json
import os
from pathlib import Path
from random import Random

import pytest

from chaos.powercut.disk import Act, Choice, Disk, Operation
from chaos.powercut.record import compile_shim, record
from chaos.powercut.run import CONTROLS, Tally, Verdict, run_cuts
from chaos.powercut.workload import FAITHFUL, relax
from tests.unit.audit_logs import Folders, make_log
from tripgate.cli import chaos_powercut as command
from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.clock import utc_ns
from tripgate.errors import MissingPartError, TripgateError, UsageError

STATES = 75


def test_P6_log_when_the_power_is_cut_at_any_moment_then_nothing_acknowledged_is_lost() -> None:
    verdict = run_cuts(states=STATES, seed=1)
    assert verdict.campaign.violations == []
    assert verdict.campaign.states == STATES
    # Most states must really have lost something, or nothing was shown.
    assert verdict.campaign.lossy > STATES / 2
    found = {tally.name: tally.failed_states for tally in verdict.controls}
    assert sorted(found) == sorted(control.name for control in CONTROLS)
    assert all(found.values()), found
    assert verdict.is_exercised


def operate(disk: Disk, *steps: tuple[Act, int, int, str, bytes]) -> None:
    for step in steps:
        disk.step(Operation(*step))


@pytest.fixture
def disk() -> Disk:
    """A disk with a durable file ``a`` of three sectors and a change of it that is not synced."""
    disk = Disk()
    operate(
        disk,
        (Act.OPEN, 3, 0, "", b""),
        (Act.OPEN, 4, 1, "a", b""),
        (Act.WRITE, 4, 0, "", b"x" * 1536),
        (Act.SYNC, 4, 0, "", b""),
        (Act.SYNC, 3, 0, "", b""),
        (Act.WRITE, 4, 0, "", b"y" * 1536),
        (Act.WRITE, 4, 1536, "", b"z"),
    )
    return disk


def images(disk: Disk, data: Choice, entries: Choice) -> set[tuple[tuple[str, bytes], ...]]:
    return {tuple(sorted(disk.image(data, entries, Random(n)).items())) for n in range(60)}


def test_disk_when_writes_are_not_synced_then_each_choice_keeps_what_it_says(disk: Disk) -> None:
    old, new = b"x" * 1536, b"y" * 1536
    assert images(disk, Choice.NONE, Choice.NONE) == {(("a", old),)}
    assert images(disk, Choice.ALL, Choice.ALL) == {(("a", new + b"z"),)}
    prefixes = {old, new, new + b"z"}
    assert {image[0][1] for image in images(disk, Choice.PREFIX, Choice.ALL)} == prefixes
    subsets = {image[0][1] for image in images(disk, Choice.SUBSET, Choice.ALL)}
    assert subsets == prefixes | {old + b"z"}
    torn = {image[0][1] for image in images(disk, Choice.TORN, Choice.ALL)}
    assert b"x" * 512 + b"y" * 512 + b"x" * 512 in torn


def test_disk_when_a_sync_fails_then_a_later_one_does_not_make_it_good(disk: Disk) -> None:
    operate(disk, (Act.SYNC_FAILED, 4, 0, "", b""), (Act.WRITE, 4, 1537, "", b"!"))
    operate(disk, (Act.SYNC, 4, 0, "", b""))
    assert images(disk, Choice.NONE, Choice.NONE) == {(("a", b"x" * 1536 + b"\0!"),)}


def test_disk_when_a_name_is_not_synced_then_it_may_be_the_old_one_and_never_both(
    disk: Disk,
) -> None:
    operate(
        disk,
        (Act.SYNC, 4, 0, "", b""),
        (Act.RENAME, -1, 0, "a", b"b"),
        (Act.FOLDER, -1, 0, "inner", b""),
        (Act.OPEN, 5, 1, "inner/c", b""),
        (Act.SYNC, 5, 0, "", b""),
    )
    names = {tuple(dict(image)) for image in images(disk, Choice.ALL, Choice.SUBSET)}
    assert names == {("a",), ("b",), ("a", "inner/c"), ("b", "inner/c")}
    operate(disk, (Act.SYNC, 3, 0, "", b""), (Act.UNLINK, -1, 0, "b", b""))
    names = {tuple(dict(image)) for image in images(disk, Choice.ALL, Choice.PREFIX)}
    assert names == {("b",), (), ("b", "inner/c"), ("inner/c",)}


@pytest.mark.parametrize(
    "step",
    [
        (Act.OPEN, 9, 0, "nothing", b""),
        (Act.OPEN, 9, 1, "nowhere/c", b""),
        (Act.RENAME, -1, 0, "nothing", b"b"),
        (Act.WRITE, 3, 0, "", b"x"),
        (Act.UNSEEN, 4, 0, "a", b""),
    ],
)
def test_disk_when_the_trace_does_not_fit_then_it_is_refused(
    disk: Disk, step: tuple[Act, int, int, str, bytes]
) -> None:
    with pytest.raises(ValueError, match=r"trace|folder|followed|unseen"):
        operate(disk, step)


def test_heads_when_a_power_cut_tore_the_last_line_then_the_next_writer_cuts_it_off(
    tmp_path: Path,
) -> None:
    folders = make_log(tmp_path / "state", rows=20, batch=10)
    sound = folders.heads_file.read_bytes()
    for torn in (b'{"version":1', bytes(40) + b'"x"}\n', b'{"version":1,\r\0\0"x"}\n', b"\r"):
        folders.heads_file.write_bytes(sound + torn)
        assert folders.verify().problems == []
        copy = folders.copy_to(tmp_path / torn.hex())
        copy.writer().close()
        lines = copy.heads_file.read_bytes()
        assert lines.startswith(sound + b'{"version"')
        assert copy.verify().problems == []
    # In the middle such a line is no power cut's doing.
    folders.heads_file.write_bytes(sound + bytes(40) + b'"x"}\n' + sound.splitlines(True)[-1])
    assert "is no checkpoint" in folders.verify().problems[0]


def test_file_when_it_was_just_made_then_nothing_lies_beside_it_that_needs_a_rollback(
    tmp_path: Path,
) -> None:
    folders = Folders(tmp_path / "state")
    writer = folders.writer()
    # Byte 18 and 19 of an SQLite file: it is read and written through a write-ahead log.
    assert writer.path.read_bytes()[18:20] == b"\x02\x02"
    assert [path.name for path in folders.audit.glob("*journal*")] == []
    writer.close()


def test_drill_when_it_cannot_be_run_then_it_says_why(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TripgateError, match="this drill is stale"):
        relax("no_such_setting", "1")
    shim = compile_shim(isolated_folders)
    with pytest.raises(TripgateError, match="the writing process failed"):
        record(shim, isolated_folders, -(10**30), FAITHFUL, [])
    monkeypatch.setenv("PATH", os.fspath(isolated_folders))
    with pytest.raises(MissingPartError, match="apt-get install gcc"):
        compile_shim(isolated_folders)
    compiler = isolated_folders / "cc"
    compiler.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    compiler.chmod(0o700)
    with pytest.raises(MissingPartError, match="cannot compile the shim: no"):
        compile_shim(isolated_folders)


def test_shim_when_a_change_escapes_it_then_the_trace_is_not_believed(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = compile_shim(isolated_folders)
    (isolated_folders / "sitecustomize.py").write_text(
        "import os\nroot = os.environ.get('TRIPGATE_TRACE_ROOT')\n"
        "if root and not os.path.lexists(root + '/link'):\n    os.symlink('/etc/hostname', "
        "root + '/link')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.fspath(isolated_folders))
    with pytest.raises(TripgateError, match="the shim missed changes of"):
        record(shim, isolated_folders, utc_ns(), FAITHFUL, [])


@pytest.mark.parametrize(
    ("failed", "found", "code"), [(0, 3, 0), (1, 3, EXIT_VIOLATED), (0, 0, EXIT_NOT_EXERCISED)]
)
@pytest.mark.parametrize("as_json", [True, False])
def test_powercut_command_when_it_has_a_verdict_then_its_output_and_code_say_so(
    failed: int, found: int, code: int, as_json: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # A verdict made by hand: a real campaign is judged above.
    campaign = Tally("tripgate", "the writer as it is", states=9, failed_states=failed, lossy=5)
    campaign.violations = ["rows: 3 acknowledged rows are gone"] * failed
    control = Tally("synchronous-off", "SQLite syncs nothing", 3, found, {"rows": found})
    verdict = Verdict(4, 100, 50, campaign, [control], 1.5)
    monkeypatch.setattr("chaos.powercut.run.run_cuts", lambda **_: verdict)
    assert command.powercut(states=9, json=as_json) == code
    out = capsys.readouterr().out
    if as_json:
        answer = json.loads(out)
        assert answer["exercised"] == (found > 0)
        assert answer["controls"][0]["broken"] == {"rows": found}
    else:
        assert "100 operations" in out
        assert f"rows {found}" in out
        assert ("rows are gone" in out) == (failed > 0)


@pytest.mark.parametrize(("states", "seed"), [(0, 0), (10**7, 0), (1, -1)])
def test_powercut_command_when_a_number_is_out_of_range_then_nothing_is_started(
    states: int, seed: int
) -> None:
    with pytest.raises(UsageError, match="expected"):
        command.powercut(states=states, seed=seed)
