"""``tripgate doctor`` on kernel, limits, clocks, disks, SQLite and private files."""

import errno
import json
import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tripgate.audit import fitness
from tripgate.cli import doctor_kernel as kernel
from tripgate.cli import doctor_keys as keys
from tripgate.cli import doctor_machine as machine
from tripgate.cli import doctor_packages as packages
from tripgate.cli.app import main
from tripgate.cli.doctor_check import Verdict
from tripgate.instance import state_root

UNLIMITED = {"file size": -1, "address space": -1, "processes": -1, "core dump": 0}


def refuse() -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_kernel_when_every_feature_works_then_it_is_ok_and_names_them() -> None:
    check = kernel.check_kernel()
    assert check.verdict is Verdict.OK
    assert all(name in check.found for name in kernel.FEATURES)


@pytest.mark.parametrize("name", kernel.FEATURES)
def test_kernel_when_one_feature_is_missing_then_it_fails_and_names_it(name: str) -> None:
    check = kernel.judge_kernel("4.1", "x86_64", {**kernel.FEATURES, name: refuse})
    assert check.verdict is Verdict.FAIL
    assert f"{name} (Function not implemented)" in check.found
    assert "5.4" in check.advice


def test_kernel_when_pidfd_is_not_known_to_python_then_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("os.pidfd_open")
    assert "pidfd" in kernel.check_kernel().found
    assert kernel.check_kernel().verdict is Verdict.FAIL


def test_kernel_when_the_processor_is_foreign_then_it_fails() -> None:
    assert kernel.judge_kernel("6.1", "riscv64", {}).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("status", "source", "verdict"),
    [
        (0, "tsc", Verdict.OK),
        (0x2001, "kvm-clock", Verdict.OK),
        (kernel.STA_UNSYNC, "tsc", Verdict.WARN),
        (None, "tsc", Verdict.WARN),
        (0, "hpet", Verdict.WARN),
    ],
)
def test_wall_clock_when_judged_then_an_unkept_or_slow_one_warns(
    status: int | None, source: str, verdict: Verdict
) -> None:
    check = kernel.judge_wall_clock(status, source)
    assert check.verdict is verdict
    assert bool(check.advice) == (verdict is not Verdict.OK)


def test_wall_clock_when_looked_at_here_then_the_kernel_answers() -> None:
    assert "does not tell" not in kernel.check_wall_clock().found


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"file size": 1 << 20}, "ulimit -f unlimited"),
        ({"address space": 1 << 30}, "ulimit -v unlimited"),
        ({"processes": 30}, "ulimit -u 256"),
        ({"core dump": -1}, "ulimit -c 0"),
    ],
)
def test_limits_when_one_is_too_tight_then_the_check_names_the_command(
    change: dict[str, int], advice: str
) -> None:
    assert kernel.judge_limits(UNLIMITED, "max", 2).verdict is Verdict.OK
    check = kernel.judge_limits(UNLIMITED | change, "max", 2)
    assert (check.verdict, check.advice) == (Verdict.WARN, advice)


def test_limits_when_memory_or_cores_are_few_then_it_warns() -> None:
    assert "memory ends at 512 MiB" in kernel.judge_limits(UNLIMITED, str(512 << 20), 2).found
    assert "1 core" in kernel.judge_limits(UNLIMITED, "max", 1).found
    assert kernel.judge_limits(UNLIMITED, str(8 << 30), 4).verdict is Verdict.OK


def test_limits_when_looked_at_here_then_the_real_ones_are_read() -> None:
    dumps = resource.getrlimit(resource.RLIMIT_CORE)[0] != 0
    assert ("a crash may write keys" in kernel.check_limits().found) == dumps


MOUNTS = """22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:25 / /dev/shm rw shared:2 - tmpfs tmpfs rw
31 22 0:30 / /mnt/far\\040away rw shared:3 - nfs4 host:/x rw
"""


def test_disk_when_state_lies_in_memory_or_far_away_then_it_says_so() -> None:
    assert machine.filesystem_of(Path("/usr"), MOUNTS) == "ext4"
    assert machine.filesystem_of(Path("/dev/shm/x"), MOUNTS) == "tmpfs"
    assert machine.filesystem_of(Path("/mnt/far away/state"), MOUNTS) == "nfs4"
    assert machine.judge_disk(Path("/x"), "ext4").verdict is Verdict.OK
    assert machine.judge_disk(Path("/x"), "tmpfs").verdict is Verdict.WARN
    assert machine.judge_disk(Path("/x"), "nfs4").verdict is Verdict.FAIL
    assert machine.check_disk().name == "disk"


def test_sqlite_when_tried_in_a_folder_then_it_is_fit_and_leaves_nothing(tmp_path: Path) -> None:
    assert fitness.try_sqlite(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_sqlite_when_it_lacks_what_the_log_needs_then_the_trial_says_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        text = connection.execute("PRAGMA compile_options").fetchall()[0][0]
    monkeypatch.setattr(fitness, "FORBIDDEN_OPTIONS", (text,))
    monkeypatch.setattr(fitness, "SYNCHRONOUS_FULL", 9)
    problems = fitness.try_sqlite(tmp_path)
    assert any(text in problem for problem in problems)
    assert any("synchronous" in problem for problem in problems)
    assert packages.judge_sqlite("3.53.0", problems).verdict is Verdict.FAIL


def test_sqlite_when_no_file_can_be_made_then_the_check_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: Path) -> list[str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fitness, "try_sqlite", full)
    check = packages.check_sqlite()
    assert check.verdict is Verdict.FAIL
    assert "No space left" in check.found


def test_keys_when_a_file_is_open_to_others_then_it_fails_and_tells_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "binance-key"
    key.write_text("not printed")
    key.chmod(0o600)
    assert keys.judge_keys({"venues.a.api_key": f"file:{key}"}).verdict is Verdict.OK
    key.chmod(0o640)
    check = keys.judge_keys({"venues.a.api_key": f"file:{key}"})
    assert check.verdict is Verdict.FAIL
    assert check.found == "venues.a.api_key: others can open its file (mode 0640)"
    monkeypatch.setattr("os.getuid", lambda: 4242)
    assert "another user" in keys.judge_keys({"k": f"file:{key}"}).found


def test_keys_when_a_reference_leads_nowhere_then_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TG_NO_SUCH", raising=False)
    assert "variable is not set" in keys.judge_keys({"a": "env:TG_NO_SUCH"}).found
    monkeypatch.setenv("TG_NO_SUCH", "x")
    assert keys.judge_keys({"a": "env:TG_NO_SUCH"}).verdict is Verdict.OK
    assert "no such command" in keys.judge_keys({"a": "cmd:no-such-program --get"}).found
    assert keys.judge_keys({"a": "cmd:sh -c true"}).verdict is Verdict.OK
    assert "cannot be read" in keys.judge_keys({"a": "file:/no/such/key"}).found


def test_doctor_when_a_configuration_is_named_then_its_keys_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TG_NO_SUCH", raising=False)
    assert main(["init"]) == 0
    text = Path("tripgate.toml").read_text()
    place = text.index("# api_key")
    end = text.index("\n", place)
    Path("own.toml").write_text(f'{text[:place]}api_key = "env:TG_NO_SUCH"{text[end:]}')
    capsys.readouterr()
    assert main(["doctor", "--config", "own.toml", "--json"]) == 4
    checks = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "api_key: its variable is not set" in checks["keys"]["found"]
    Path("own.toml").write_text("schema = 9\n")
    assert main(["doctor", "--config", "own.toml", "--json"]) == 4
    checks = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "config check" in checks["keys"]["advice"]


def test_private_state_when_others_may_open_it_then_it_warns() -> None:
    root = state_root()
    (root / "paper-1").mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    assert keys.check_private().verdict is Verdict.OK
    (root / "paper-1" / "config.toml").touch(mode=0o600)
    os.chmod(root / "paper-1" / "config.toml", 0o644)
    check = keys.check_private()
    assert check.verdict is Verdict.WARN
    assert "config.toml" in check.found
