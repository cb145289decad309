"""``tripgate doctor``: exit codes, the judgement of each check, no heavy import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli_pages import make_instance
from tripgate.cli import doctor as doctor_module
from tripgate.cli import doctor_machine as machine
from tripgate.cli import doctor_packages as packages
from tripgate.cli.app import main
from tripgate.cli.doctor_check import Check, Verdict, fail
from tripgate.instance import page_folder, state_root

ROOT = Path(__file__).resolve().parents[2]


def test_doctor_when_run_here_then_nothing_fails_and_every_check_has_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("Python", "packages", "engine", "SQLite", "kernel cache", "kernel", "limits",
                 "wall clock", "shared memory", "coarse clock", "clocks", "descriptors", "loopback",
                 "disk", "state", "private state", "leftovers", "panels", "keys"):  # fmt: skip
        assert f"\n{name} " in out


def test_doctor_when_json_is_asked_for_then_one_object_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == 1
    assert printed["passed"] is True
    assert len(printed["checks"]) == len(doctor_module.CHECKS) + 1
    assert {check["verdict"] for check in printed["checks"]} <= {"ok", "warn"}
    assert all(check["advice"] for check in printed["checks"] if check["verdict"] != "ok")


def test_doctor_when_a_check_fails_then_it_exits_4_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "CHECKS", (lambda: fail("disk", "gone", "plug it in"),))
    assert main(["doctor"]) == 4
    captured = capsys.readouterr()
    assert "disk: plug it in" in captured.out
    assert "1 of 2 checks failed" in captured.err
    assert main(["doctor", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_doctor_when_run_then_no_heavy_package_is_imported() -> None:
    program = (
        "import sys; from tripgate.cli.app import main; code = main(['doctor', '--json']); "
        "heavy = {'numba', 'llvmlite', 'trio', 'tractor', 'ccxt', 'onnxruntime', 'sqlite_utils'}; "
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules)))); sys.exit(code)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0


def test_packages_when_one_is_missing_then_the_command_names_its_pin() -> None:
    check = packages.judge_packages({"trio": ("0.23.2", None), "rich": ("15.0.0", "15.0.0")})
    assert check.verdict is Verdict.FAIL
    assert check.advice.endswith("-m pip install trio==0.23.2")
    unpinned = packages.judge_packages({"trio": (None, None)})
    assert unpinned.advice.endswith("-m pip install trio")


def test_packages_when_one_has_another_version_then_it_warns() -> None:
    check = packages.judge_packages({"trio": ("0.23.2", "0.30.0"), "rich": (None, "1")})
    assert (check.verdict, check.found) == (Verdict.WARN, "trio 0.30.0 (tested: 0.23.2)")


def test_packages_when_tripgate_is_installed_then_its_own_pins_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requirements = ["trio==0.23.2", "numba>=0.60", "rich==15.0.0"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: requirements)
    assert packages.wanted_packages() == {"trio": "0.23.2", "rich": "15.0.0"}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [(None, Verdict.FAIL), ("0.1.0a4", Verdict.WARN), ("0.1.0a5", Verdict.OK)],
)
def test_engine_when_looked_for_then_only_the_tested_version_is_ok(
    found: str | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "installed_version", lambda name: found)
    check = packages.check_tractor()
    assert check.verdict is verdict
    assert ("--no-deps tractor==0.1.0a5" in check.advice) is (verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("3.40.1", Verdict.WARN), ("3.44.5", Verdict.WARN), ("3.44.6", Verdict.OK),
        ("3.50.6", Verdict.WARN), ("3.50.7", Verdict.OK), ("3.51.2", Verdict.WARN),
        ("3.51.3", Verdict.OK), ("3.53.0", Verdict.OK),
    ],
)  # fmt: skip
def test_sqlite_when_its_write_ahead_log_could_be_corrupted_then_it_warns(
    version: str, verdict: Verdict
) -> None:
    assert packages.judge_sqlite(version).verdict is verdict


@pytest.mark.parametrize(
    ("info", "optimize", "verdict"),
    [
        ((3, 10, 9), 0, Verdict.FAIL), ((3, 11, 0), 0, Verdict.OK), ((3, 12, 4), 0, Verdict.OK),
        ((3, 13, 0), 0, Verdict.FAIL), ((3, 11, 7), 1, Verdict.FAIL),
    ],
)  # fmt: skip
def test_python_when_it_is_another_or_optimised_then_it_fails(
    info: tuple[int, ...], optimize: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = type("Flags", (), {"optimize": optimize})
    monkeypatch.setattr("sys.version_info", info)
    monkeypatch.setattr("sys.flags", flags)
    check = packages.check_python()
    monkeypatch.undo()
    assert check.verdict is verdict


def missing_place(check: Check) -> bool:
    return check.verdict in (Verdict.FAIL, Verdict.WARN) and bool(check.advice)


def test_folders_when_they_cannot_be_written_then_the_checks_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    assert machine.judge_shared_memory(tmp_path / "none").verdict is Verdict.FAIL
    assert machine.judge_shared_memory(file).verdict is Verdict.FAIL
    assert machine.judge_state(file).verdict is Verdict.FAIL
    assert machine.judge_state(tmp_path / "not" / "yet").verdict is not Verdict.FAIL
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file))
    assert missing_place(packages.check_kernel_cache())


def test_leftovers_when_a_page_has_no_live_owner_then_it_is_named() -> None:
    make_instance("paper-1", alive=False)
    make_instance("paper-2", alive=True)
    page_folder("paper-3").mkdir()
    stranger = page_folder("paper-1").parent / f"tripgate-{os.getuid()}-Not.Ours"
    stranger.mkdir()
    found = machine.leftovers(machine.shared_root())
    assert [folder.name.rpartition("-")[2] for folder in found] == ["1", "3"]
    check = machine.check_leftovers()
    assert check.verdict is Verdict.WARN
    assert "2 without a live owner" in check.found
    assert "status --page" in check.advice


def test_panels_when_the_variable_names_no_folder_then_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPGATE_PANELS", str(tmp_path / "none"))
    assert machine.check_panels().verdict is Verdict.FAIL
    monkeypatch.setenv("TRIPGATE_PANELS", str(tmp_path))
    assert machine.check_panels().verdict is Verdict.WARN
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "bars.npz").touch()
    assert machine.check_panels().verdict is Verdict.OK


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("coarse_resolution_ns", 16_000_000, machine.check_coarse_clock),
        ("utc_ns", 10**18, machine.check_clocks),
        ("boot_ns", 10**19, machine.check_clocks),
        ("host_ns", 5, machine.check_clocks),
    ],
)
def test_clocks_when_one_is_unfit_then_the_check_says_what_to_do(
    name: str, value: int, check: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, name, lambda: value)
    assert callable(check)
    assert missing_place(check())


def test_descriptors_when_few_may_be_open_then_it_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 4096))
    check = machine.check_descriptors()
    assert (check.verdict, check.advice) == (Verdict.WARN, "raise it: ulimit -n 1024")


def test_state_when_the_disk_is_slow_or_nearly_full_then_it_warns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "STATE_BYTES", 1 << 60)
    assert machine.judge_state(state_root()).verdict is Verdict.WARN
    monkeypatch.setattr(machine, "SYNC_SLOW_NS", -1)
    assert "faster disk" in machine.judge_state(state_root()).advice
    monkeypatch.setattr(machine, "PAGE_BYTES", 1 << 60)
    assert machine.check_shared_memory().verdict is Verdict.FAIL
