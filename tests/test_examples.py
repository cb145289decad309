"""Every example runs as a user would run it, and prints what it is there to show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
LINES_MAX = 60
C_LINES_MAX = 210
"""C has no msgpack of its own: an example in it brings the reader and writer along."""
RUN_BOUND_S = 300.0
SHOWN = {
    "gate_only.py": (
        r"0\.2 approved, token \d+\n"
        r"0\.2 denied NET_LIMIT: .*strategy:trend.*\n"
        r"0\.3 denied \w+: .*\n"
        r"-0\.2 approved, token \d+\n"
        r"position 0 lots\n"
    ),
    "two_processes_one_limit.py": (
        r"left \d+ denied \w+: .*\nright \d+ denied \w+: .*\n"
        r"granted together: 10000 of 10000 USDT\n"
    ),
    "compiled_strategy.py": r"asked \d+, approved 8\ndenied GROSS_LIMIT\n",
}
STRATEGIES = {"socket_python.py", "socket_client.c"}
"""These need a tree around them: tests/tree/test_socket_examples.py lets them trade."""


def test_examples_when_listed_then_each_is_run() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {*SHOWN, *STRATEGIES}
    runner = (ROOT / "tests" / "tree" / "test_socket_examples.py").read_text()
    assert all(f'"{name}"' in runner for name in STRATEGIES)


@pytest.mark.parametrize("name", [*SHOWN, *sorted(STRATEGIES)])
def test_example_when_measured_then_it_can_be_read_in_one_go(name: str) -> None:
    lines_max = C_LINES_MAX if name.endswith(".c") else LINES_MAX
    assert len((EXAMPLES / name).read_text().splitlines()) < lines_max


@pytest.mark.jit_only
@pytest.mark.parametrize("name", SHOWN)
def test_example_when_run_then_it_shows_what_it_is_for(name: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_BOUND_S,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert re.fullmatch(SHOWN[name], finished.stdout), finished.stdout
