"""What the documentation shows is run, and every relative link in it leads somewhere.

A fenced block that begins with ```` ```console run ```` is a session in an empty folder with a
state folder of its own. Each line ``$ tripgate ...`` is executed; ``# exit 3`` at its end names an
exit code other than 0. The other lines are output: each must appear, in that order, and ``...``
stands for anything. Blocks tagged plainly ``console`` are not run (they need a network, or hours).
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SESSION = re.compile(r"^```console run\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
COMMAND = re.compile(r"^\$ tripgate (?P<arguments>.*?)(?:\s+# exit (?P<code>\d+))?$")
COMMAND_BOUND_S = 300.0


@dataclass
class Step:
    """One command of a session: what it is given, how it ends, what it prints."""

    arguments: list[str]
    exit_code: int
    output: list[str]


def sessions() -> Iterator[tuple[str, str]]:
    """Yield a name and the text of each runnable block."""
    for page in PAGES:
        for number, block in enumerate(SESSION.finditer(page.read_text()), 1):
            yield f"{page.relative_to(ROOT)}-{number}", block["body"]


def steps_of(body: str) -> list[Step]:
    """Return the commands of a block with the output shown below each."""
    steps: list[Step] = []
    for line in body.splitlines():
        if found := COMMAND.match(line):
            steps.append(Step(shlex.split(found["arguments"]), int(found["code"] or 0), []))
        elif line.strip():
            assert not line.startswith("$"), f"not a tripgate command: {line}"
            assert steps, f"output before any command: {line}"
            steps[-1].output.append(line.strip())
    return steps


def missing_line(shown: list[str], printed: str) -> str | None:
    """Return the first shown line that is not in what was printed, in order; else None."""
    position = 0
    for line in shown:
        pattern = ".*".join(re.escape(part.strip()) for part in line.split("..."))
        found = re.compile(r"\s*".join(pattern.split(r"\ "))).search(printed, position)
        if found is None:
            return line
        position = found.end()
    return None


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that the page's headings make, as a forge renders them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in sessions()])
def test_session_when_executed_then_it_prints_what_the_page_shows(
    body: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    for step in steps_of(body):
        finished = subprocess.run(
            [sys.executable, "-m", "tripgate", *step.arguments],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_BOUND_S,
        )
        assert finished.returncode == step.exit_code, finished.stdout
        assert missing_line(step.output, finished.stdout) is None, finished.stdout


def test_readme_when_read_then_it_has_a_session_to_run() -> None:
    assert any(name.startswith("README.md") for name, _ in sessions())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_when_relative_then_it_leads_somewhere(page: Path) -> None:
    broken = []
    for target in (link["target"] for link in LINK.finditer(FENCED.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        if not aim.exists() or (anchor and aim.suffix == ".md" and anchor not in anchors_of(aim)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        pytest.param(["level NORMAL"], "x\nlevel   NORMAL\n", None, id="blanks-do-not-count"),
        pytest.param(["equity ... USDT"], "equity 99.5 USDT", None, id="dots-stand-for-anything"),
        pytest.param(["b", "a"], "a\nb\n", "a", id="order-counts"),
        pytest.param(["denied 3"], "denied 4", "denied 3", id="other-figure"),
    ],
)
def test_output_when_compared_then_only_what_was_printed_passes(
    shown: list[str], printed: str, missing: str | None
) -> None:
    assert missing_line(shown, printed) == missing
