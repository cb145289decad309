"""The house rules, as tests: what a reviewer would otherwise have to remember.

They look at the files git tracks or would track. Rules about the product bind product code; tests
and examples may import and do what they need. Patterns of forbidden words are put together from
halves, because this file is read like any other.
"""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tripgate.reasons import DenyReason

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 400
FILE_LINES_MEDIAN_MAX = 200
FUNCTION_LINES_MAX = 60
BOXED = ("actors", "supervisors", "exchange_adapters", "models", "chaos", "benchmarks")
PRODUCT = ("tripgate", *BOXED)
TOP_LEVEL = {*PRODUCT, "tests", "docs", "examples", ".ci"}
UNWATCHED = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis"}

UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
SWITCH = re.compile("by" + "pass", re.IGNORECASE)
ELSEWHERE = re.compile(
    r"(?<![\w./~-])/(?:wo" + r"rk|ro" + r"ot)/\w|/tmp/" + r"w\b|/opt/" + r"(?:py" + r"pi|wheels)"
    r"|py" + r"pi\.org|python" + r"hosted\.org",
    re.IGNORECASE,
)
ABBREVIATIONS = {"px", "qty", "cfg", "mgr"}
TEST_NAME = re.compile(r"test_(?:[A-Z]\d+_\w+|[a-z0-9]\w*_when_\w+_then_\w+)")

IMPORTERS = {
    "tractor": ("actors/runtime.py",),
    "ccxt": ("exchange_adapters/",),
    "onnxruntime": ("models/forecast/onnx_runner.py",),
    "sqlite3": (
        "tripgate/audit/",
        "benchmarks/peer_sqlite.py",
        "benchmarks/audit_peers.py",
        "chaos/tampering/",
    ),
    "sqlite_utils": ("tripgate/audit/", "benchmarks/audit_peers.py"),
    "time": ("tripgate/clock.py", "tripgate/page/atomics.py"),
    "random": ("chaos/",),
}
"""Who may import what. The compiled clock of atomics.py has a plain twin for coverage; SQLite as a
peer of the gate is measured on tables of its own, and tampering takes what an attacker has."""

CLOCK_CALLS = {"now", "utcnow", "today", "current_time", "perf_counter", "monotonic"}
CLOCK_OWNERS = {"datetime", "date", "time", "trio"}


@cache
def all_files() -> tuple[str, ...]:
    """Return every file git tracks or would track, relative to the root."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        text = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        names = set(text.splitlines())
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive: take what lies there
        relative = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = {str(path) for path in relative if not UNWATCHED & set(path.parts)}
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def python_files(*tops: str) -> list[str]:
    """Return the Python files below the named top-level folders (all, if none is named)."""
    return [
        name
        for name in all_files()
        if name.endswith(".py") and (not tops or name.split("/")[0] in tops)
    ]


def text_of(name: str) -> str:
    """Return a file's text; binary files (models) come out empty."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def tree_of(name: str) -> ast.Module:
    """Return a Python file's syntax tree."""
    return ast.parse(text_of(name), filename=name)


def functions_of(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a file."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_of(name: str) -> Iterator[tuple[int, str]]:
    """Yield line and full module name of each import, those inside functions included."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def lines_matching(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    """Return ``file:line: text`` of each line that matches."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name in names
        for number, line in enumerate(text_of(name).splitlines(), 1)
        if pattern.search(line)
    ]


def defined_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything a module defines: names others gave are not its fault."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def test_layout_when_listed_then_top_level_folders_are_the_agreed_ones() -> None:
    found = {name.split("/")[0] for name in all_files() if "/" in name}
    assert found <= TOP_LEVEL


def test_file_when_measured_then_it_is_at_most_400_lines() -> None:
    lengths = {name: len(text_of(name).splitlines()) for name in python_files()}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES_MAX} == {}
    product = [lengths[name] for name in python_files(*PRODUCT) if lengths[name] > 1]
    assert statistics.median(product) <= FILE_LINES_MEDIAN_MAX


def test_function_when_measured_then_it_is_at_most_60_lines() -> None:
    long = [
        f"{name}:{function.lineno} {function.name} {length}"
        for name in python_files()
        for function in functions_of(name)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_source_when_read_then_nothing_is_left_unfinished() -> None:
    assert lines_matching(UNFINISHED, list(all_files())) == []


def test_source_when_read_then_no_switch_around_the_gate_is_named() -> None:
    code = [name for name in all_files() if not name.endswith((".md", ".lock"))]
    assert lines_matching(SWITCH, code) == []


def test_source_when_read_then_it_names_no_place_of_its_making() -> None:
    assert lines_matching(ELSEWHERE, list(all_files())) == []


def test_repository_when_listed_then_it_holds_no_uv_lock() -> None:
    assert "uv.lock" not in all_files()


@pytest.mark.parametrize("module", IMPORTERS)
def test_module_when_only_some_may_import_it_then_nobody_else_does(module: str) -> None:
    strangers = [
        f"{name}:{line}"
        for name in python_files(*PRODUCT)
        for line, imported in imports_of(name)
        if imported.split(".")[0] == module and not name.startswith(IMPORTERS[module])
    ]
    assert strangers == []


def test_clock_when_read_then_only_by_the_clock_module() -> None:
    calls = [
        f"{name}:{node.lineno}"
        for name in python_files(*PRODUCT)
        if name not in IMPORTERS["time"]
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Attribute) and node.attr in CLOCK_CALLS
        if CLOCK_OWNERS & {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    ]
    assert calls == []


def test_import_when_written_then_it_is_absolute() -> None:
    relative = [
        f"{name}:{line}"
        for name in python_files()
        for line, imported in imports_of(name)
        if imported.startswith(".")
    ]
    assert relative == []


def test_actor_when_something_fails_then_it_does_not_catch_everything() -> None:
    def catches_everything(handler: ast.ExceptHandler) -> bool:
        names = {
            node.id for node in ast.walk(handler.type or handler) if isinstance(node, ast.Name)
        }
        return handler.type is None or bool(names & {"Exception", "BaseException"})

    handlers = [
        f"{name}:{node.lineno}"
        for name in python_files("actors")
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    assert handlers == []


def test_deny_reason_when_defined_then_a_test_names_it() -> None:
    texts = [text_of(name) for name in python_files("tests")]
    unreached = [
        reason.name
        for reason in DenyReason
        if not any(re.search(rf"\bDenyReason\.{reason.name}\b", text) for text in texts)
    ]
    assert unreached == []


def test_module_when_public_then_its_docstring_says_what_it_is() -> None:
    silent = [
        name
        for name in python_files(*PRODUCT)
        if tree_of(name).body and ast.get_docstring(tree_of(name)) is None
    ]
    assert silent == []


def test_test_when_named_then_its_name_is_a_sentence() -> None:
    misnamed = [
        f"{name}:{function.lineno} {function.name}"
        for name in python_files("tests")
        for function in functions_of(name)
        if function.name.startswith("test_") and not TEST_NAME.fullmatch(function.name)
    ]
    assert misnamed == []


def test_identifier_when_defined_then_it_is_spelled_out() -> None:
    short = [
        f"{name}:{line} {identifier}"
        for name in python_files()
        for line, identifier in defined_names(tree_of(name))
        if ABBREVIATIONS & set(identifier.lower().split("_"))
    ]
    assert short == []


def test_limit_when_checked_then_never_by_an_assert() -> None:
    limits = [
        f"{name}:{node.lineno}"
        for name in python_files(*PRODUCT)
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Assert)
        for part in ast.walk(node.test)
        if isinstance(part, ast.Name | ast.Attribute)
        if re.search(r"limit|_max$", part.id if isinstance(part, ast.Name) else part.attr)
    ]
    assert limits == []
