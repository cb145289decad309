"""The wheel holds what it should, the lock and the pins agree, and a wrong start is refused.

The wheel is built by the locked hatchling, without a network, and then run from an unpacked copy
in a folder that holds foreign packages with our names: the situation the box is for.
"""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tripgate import __version__, launch
from tripgate.cli import engine
from tripgate.errors import ConfigError, MissingPartError

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-build.lock")
ENTRY = re.compile(r"([a-z0-9.-]+==[^ ;\\]+) \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
BOUND_S = 120.0


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> set[str]:
    """Return the ``name==version`` pins of a lock file."""
    return {pin for pin, _ in ENTRY.findall((ROOT / name).read_text())}


def run_python(
    *arguments: str,
    cwd: Path,
    path: Path = ROOT,
    measured: bool = True,
    variables: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run this Python on a path; without measuring where the code run is not the checkout's."""
    environment = {**os.environ, "PYTHONPATH": str(path), **(variables or {})}
    if not measured:
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BOUND_S
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built offline from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    finished = run_python(*build, cwd=ROOT, measured=False)
    assert finished.returncode == 0, finished.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_when_built_then_only_tripgate_lies_at_its_top(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"tripgate", f"tripgate-{project()['project']['version']}.dist-info"}


def test_wheel_when_built_then_every_part_is_boxed_with_its_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *launch.BOXED]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {f"tripgate/_app/{name}" for name in listed.splitlines() if (ROOT / name).is_file()}
    assert wanted
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_wheel_when_run_among_foreign_packages_then_its_own_parts_are_used(
    wheel: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    hostile = tmp_path / "hostile"
    for name in launch.BOXED:
        (hostile / name).mkdir(parents=True)
        (hostile / name / "__init__.py").write_text("raise SystemExit('a foreign package ran')")
    code = (
        "import sys; sys.path.insert(0, '');"
        "from tripgate.launch import enter; print(enter());"
        "import actors, chaos, models, supervisors; print(actors.__file__);"
        "import subprocess; subprocess.run([sys.executable, '-m', 'chaos.plan'], check=True)"
    )
    finished = run_python("-c", code, cwd=hostile, path=installed, measured=False)
    assert finished.returncode == 0, finished.stderr
    box = installed / "tripgate" / "_app"
    assert finished.stdout.split() == [str(box), str(box / "actors" / "__init__.py")]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_when_read_then_it_holds_only_names_versions_and_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text
    assert ENTRY.sub("", text) == ""


def test_lock_when_compared_with_the_constraints_then_they_agree() -> None:
    settings = project()["tool"]["uv"]
    assert set(settings["constraint-dependencies"]) == locked("requirements.lock")
    assert set(settings["build-constraint-dependencies"]) <= locked("requirements-build.lock")
    assert locked("requirements-build.lock") <= locked("requirements.lock")


def test_dependency_when_declared_then_it_is_pinned_as_locked() -> None:
    whole = project()
    groups = whole["dependency-groups"].values()
    direct = set(whole["project"]["dependencies"]).union(*groups)
    assert direct <= locked("requirements.lock")
    assert engine.ENGINE in whole["dependency-groups"]["engine"]
    assert set(whole["tool"]["uv"]["override-dependencies"]) <= direct


def test_version_when_compared_with_the_package_then_they_agree() -> None:
    assert project()["project"]["version"] == __version__


def test_makefile_when_read_then_help_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    (targets,) = re.findall(r"^\.PHONY: help (.*)$", text, re.MULTILINE)
    helped = re.findall(r'^\t@echo "make (\w+) ', text, re.MULTILINE)
    assert helped == targets.split()


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        pytest.param(["-O"], {}, "PYTHONOPTIMIZE", id="optimised"),
        pytest.param([], {"PYTHONOPTIMIZE": "2"}, "PYTHONOPTIMIZE", id="optimised-by-environment"),
        pytest.param([], {"NUMBA_DISABLE_JIT": "1"}, "unset NUMBA_DISABLE_JIT", id="interpreted"),
    ],
)
def test_start_when_unsafe_then_one_line_says_what_to_run(
    arguments: list[str], variables: dict[str, str], says: str, tmp_path: Path
) -> None:
    finished = run_python(*arguments, "-m", "tripgate", "status", cwd=tmp_path, variables=variables)
    assert finished.returncode == ConfigError.exit_code
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("tripgate: ")
    assert says in line


@pytest.mark.parametrize(
    ("version", "asserts_run", "environment", "missing", "says"),
    [
        pytest.param((3, 10), True, {}, "", "python3.12", id="python-too-old"),
        pytest.param((3, 13), True, {}, "", "this is 3.13", id="python-too-new"),
        pytest.param((3, 11), False, {}, "", "without -O", id="no-asserts"),
        pytest.param((3, 12), True, {"NUMBA_DISABLE_JIT": "1"}, "", "unset", id="interpreted"),
        pytest.param((3, 12), True, {}, "numpy", "not installed: numpy", id="part-missing"),
        pytest.param((3, 11), True, {}, "", None, id="sound-3.11"),
        pytest.param((3, 12), True, {"NUMBA_DISABLE_JIT": "0"}, "", None, id="sound-3.12"),
    ],
)
def test_refusal_when_looked_for_then_it_names_the_first_fault(
    version: tuple[int, int],
    asserts_run: bool,
    environment: dict[str, str],
    missing: str,
    says: str | None,
) -> None:
    refusal = launch.find_refusal(version, asserts_run, environment, lambda name: name != missing)
    assert (refusal is None) if says is None else (refusal is not None and says in refusal)
    assert refusal is None or "\n" not in refusal


def test_engine_when_missing_then_the_exact_command_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tractor", None)
    with pytest.raises(MissingPartError, match=r"-m pip install --no-deps tractor==0\.1\.0a5$"):
        engine.require_engine()


def test_engine_when_installed_then_it_is_accepted() -> None:
    engine.require_engine()


@pytest.mark.parametrize("name", launch.BOXED)
def test_box_when_a_name_resolves_elsewhere_then_the_start_is_refused(
    name: str, tmp_path: Path
) -> None:
    # A stranger that was imported first wins over any path: this is what the check is for.
    (tmp_path / f"{name}.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {name};"
        "sys.argv[1:] = ['status']; from tripgate.launch import main; main()"
    )
    finished = run_python("-c", code, cwd=tmp_path)
    assert finished.returncode == ConfigError.exit_code
    assert finished.stderr == (
        f"tripgate: {name!r} is not ours but {tmp_path / name}.py: remove it from the path\n"
    )


def test_child_when_started_after_entering_then_it_inherits_the_box(tmp_path: Path) -> None:
    code = (
        "import os; from tripgate.launch import enter; box = enter();"
        "assert os.environ['PYTHONPATH'].split(os.pathsep)[0] == str(box);"
        "print(os.environ['PYTHONSAFEPATH'], os.environ['OMP_NUM_THREADS'])"
    )
    finished = run_python("-c", code, cwd=tmp_path, variables={"OMP_NUM_THREADS": "3"})
    assert finished.stdout == "1 3\n", finished.stderr


def test_part_when_gone_then_the_start_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("PYTHONPATH", "PYTHONSAFEPATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(launch, "BOXED", ("no_such_part",))
    monkeypatch.setattr(launch, "find_box", lambda: tmp_path)
    with pytest.raises(ConfigError, match="'no_such_part' is missing from"):
        launch.enter()
