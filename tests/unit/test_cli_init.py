"""The command line's frame, and the commands that need no engine: init and config."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tripgate.cli import app, output
from tripgate.cli.app import COMMANDS, main
from tripgate.cli.init import TEMPLATE
from tripgate.errors import (
    AlreadyRunningError,
    ChainBrokenError,
    ConfigError,
    NotRunningError,
    StateUnwritableError,
    TripgateError,
)

ROOT = Path(__file__).parents[2]
HEAVY = ("numba", "numpy", "ccxt", "onnxruntime", "tractor", "trio", "sqlite_utils")

FIVE_ERRORS = (
    TEMPLATE.replace("gross_reporting_max = 50000      #", "gros_reporting_max = 50000      #")
    .replace("collar_bps_max = 200             #", 'collar_bps_max = "2 %"             #')
    .replace('["binance-main/BTC/USDT:USDT", ', '["binance-main/BTX/USDT:USDT", ')
    .replace('"one-way"', '"oneway"')
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one command line in this process: code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return a function that puts a given function in the place of ``tripgate doctor``."""

    def install(function: Callable[[], object]) -> None:
        module = ModuleType("tripgate.cli.stand_in")
        module.stand_in = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tripgate.cli.stand_in", module)
        monkeypatch.setitem(COMMANDS, ("doctor",), ("tripgate.cli.stand_in:stand_in", "x"))

    return install


def test_init_when_the_folder_is_empty_then_the_written_file_passes_its_check(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "tripgate.toml"
    code, out, err = run("init", file)
    assert (code, err) == (0, "")
    assert out.startswith(f"wrote {file}")
    assert file.read_text() == TEMPLATE
    assert json.loads((tmp_path / "tripgate.schema.json").read_text())["title"] == "tripgate.toml"
    code, out, err = run("config", "check", file)
    assert (code, err) == (0, "")
    assert "1 venue, 2 instruments, 1 strategy" in out


def test_init_when_the_file_exists_then_only_force_replaces_it(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tripgate.toml"
    file.write_text("mine\n")
    code, out, err = run("init", file)
    assert (code, out) == (2, "")
    assert err == f"tripgate: {file} exists already: --force replaces it\n"
    assert file.read_text() == "mine\n"
    code, out, _ = run("init", file, "--force", "--json")
    assert code == 0
    assert json.loads(out) == {
        "schema": 1,
        "files": [str(file), f"{tmp_path}/tripgate.schema.json"],
    }
    assert file.read_text() == TEMPLATE


def test_init_when_only_the_same_schema_file_is_there_then_it_does_not_matter(
    run: Run, tmp_path: Path
) -> None:
    assert run("init", tmp_path / "one.toml")[0] == 0
    assert run("init", tmp_path / "two.toml")[0] == 0


def test_init_when_another_schema_file_is_there_then_nothing_is_written(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "tripgate.schema.json").write_text("{}")
    assert run("init", tmp_path / "tripgate.toml")[0] == 2
    assert not (tmp_path / "tripgate.toml").exists()
    assert (tmp_path / "tripgate.schema.json").read_text() == "{}"


def test_init_when_there_is_no_such_place_then_it_says_so(run: Run, tmp_path: Path) -> None:
    code, _, err = run("init", tmp_path / "gone" / "tripgate.toml")
    assert (code, err) == (2, f"tripgate: there is no folder {tmp_path}/gone: make it, or write "
                              "elsewhere\n")  # fmt: skip
    assert run("init", tmp_path, "--force")[0] == 7


def test_check_when_five_things_are_wrong_then_all_five_are_printed_with_exit_4(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(FIVE_ERRORS)
    code, out, err = run("config", "check", file)
    assert (code, out) == (4, "")
    lines = err.splitlines()
    assert lines[0] == "tripgate: 5 problems:"
    assert len(lines) == 6
    expected = [
        "limits.portfolio.gross_reporting_max: missing",
        "limits.portfolio.gros_reporting_max: unknown key, did you mean 'gross_reporting_max'?",
        'venues.binance-main.position_mode: expected "one-way" or "hedge", was "oneway"',
        '.collar_bps_max: expected a whole number from 1 to 10000, was "2 %"',
        "'binance-main/BTX/USDT:USDT', did you mean 'binance-main/BTC/USDT:USDT'?",
    ]
    texts = FIVE_ERRORS.splitlines()
    marks = ("[limits.portfolio]", "gros_rep", '"oneway"', '"2 %"', "BTX")
    for line, text, mark in zip(lines[1:], expected, marks, strict=True):
        number = next(index for index, source in enumerate(texts, 1) if mark in source)
        assert line.startswith(f"{file}:{number}: ")
        assert text in line
    code, out, err = run("config", "check", file, "--json")
    assert (code, err) == (4, "")
    result = json.loads(out)
    assert (result["schema"], result["ok"]) == (1, False)
    assert result["problems"] == lines[1:]


def test_check_when_the_file_is_correct_then_json_tells_its_hashes(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "t.toml").write_text(TEMPLATE)
    code, out, _ = run("config", "check", tmp_path / "t.toml", "--json")
    result = json.loads(out)
    assert (code, result["ok"], result["problems"]) == (0, True, [])
    assert len(result["text_sha256"]) == len(result["config_sha256"]) == 64


def test_check_when_no_file_is_named_then_the_one_here_is_meant(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("config", "check")
    assert (code, err) == (
        4,
        "tripgate: tripgate.toml: does not exist; `tripgate init` writes one\n",
    )
    assert run("init")[0] == 0
    assert run("config", "check")[0] == 0


def test_show_when_origins_are_asked_for_then_each_value_has_one_and_secrets_are_hidden(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(TEMPLATE.replace("# api_key", "api_key"))
    monkeypatch.setenv("TRIPGATE_LIMITS__PORTFOLIO__NET_REPORTING_MAX", "none")
    code, out, err = run("config", "show", file, "--origin")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["key"] == ["value", "origin"]
    assert rows["limits.portfolio.net_reporting_max"] == ["none", "env"]
    assert rows["limits.portfolio.gross_reporting_max"] == ["50000", "file"]
    assert rows['instruments."binance-main/BTC/USDT:USDT".shared_instruments'] == [
        "false",
        "default",
    ]
    assert rows["venues.binance-main.api_key"] == ["***", "file"]
    assert rows["alerts.on_level_command"] == ["(empty)", "file"]
    assert "BINANCE_KEY" not in out
    plain_out = run("config", "show", file)[1]
    assert "env" not in plain_out.split()
    code, out, _ = run("config", "show", file, "--json", "--origin")
    result = json.loads(out)
    assert result["config"]["limits"]["portfolio"]["net_reporting_max"] == "none"
    assert result["config"]["venues"]["binance-main"]["api_key"] == "***"
    assert result["origins"]["limits.portfolio.net_reporting_max"] == "env"
    assert "BINANCE_KEY" not in out
    assert "origins" not in json.loads(run("config", "show", file, "--json")[1])


def test_show_when_a_key_is_absent_then_it_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(TEMPLATE)
    out = run("config", "show", tmp_path / "t.toml")[1]
    assert "(absent)" in next(line for line in out.splitlines() if ".api_key" in line)


def test_schema_when_printed_then_it_is_the_shipped_file(run: Run) -> None:
    code, out, _ = run("config", "schema")
    assert code == 0
    assert out == (ROOT / "tripgate" / "tripgate.schema.json").read_text()


@pytest.mark.parametrize(
    ("words", "message", "help_line"),
    [
        (["statsu"], "there is no command 'statsu', did you mean 'status'?", "tripgate --help"),
        (["config", "chek"], "did you mean 'check'?", "tripgate config --help"),
        (["config", "check", "--jsn"], "--jsn", "tripgate config check --help"),
        (["config", "check", "a", "b"], "b", "tripgate config check --help"),
        (["config", "check", "--file"], "--file", "tripgate config check --help"),
        (["zzzzzz"], "there is no command 'zzzzzz'\n", "tripgate --help"),
    ],
)
def test_usage_when_the_command_line_is_wrong_then_exit_2_with_a_hint(
    run: Run, words: list[str], message: str, help_line: str
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("tripgate: ")
    assert message in err
    assert err.endswith(f"Try '{help_line}'.\n")


@pytest.mark.parametrize("words", [["--help"], [], ["config"], ["config", "check", "--help"]])
def test_help_when_asked_for_then_it_goes_to_stdout_with_exit_0(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "Usage: tripgate" in out


def test_help_when_printed_then_every_command_is_in_it(run: Run) -> None:
    out = run("--help")[1]
    for words in COMMANDS:
        assert words[0] in out
    assert run("--version")[0] == 0


@pytest.mark.parametrize("words", [["--help"], ["config", "check", "tripgate.toml"], ["statsu"]])
def test_start_when_a_light_command_runs_then_nothing_heavy_is_imported(words: list[str]) -> None:
    code = (
        "import sys; from tripgate.cli.app import main; main(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_command_when_it_is_registered_then_its_function_exists(words: tuple[str, ...]) -> None:
    module, _, name = COMMANDS[words][0].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotRunningError("x"), 3),
        (ConfigError("x"), 4),
        (AlreadyRunningError("x"), 6),
        (StateUnwritableError("x"), 7),
        (ChainBrokenError("x"), 30),
        (TripgateError("x"), 1),
    ],
)
def test_main_when_a_command_fails_as_foreseen_then_its_code_is_returned(
    run: Run,
    command: Callable[[Callable[[], object]], None],
    error: TripgateError,
    code: int,
) -> None:
    def fail() -> int:
        raise error

    command(fail)
    assert run("doctor") == (code, "", "tripgate: x\n")


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (12, 12)])
def test_main_when_a_command_returns_then_its_result_is_the_code(
    run: Run,
    command: Callable[[Callable[[], object]], None],
    result: int | None,
    code: int,
) -> None:
    command(lambda: result)
    assert run("doctor") == (code, "", "")


def test_main_when_a_command_has_a_bug_then_it_is_not_hidden(
    command: Callable[[Callable[[], object]], None],
) -> None:
    empty: dict[str, int] = {}
    command(lambda: empty["gone"])
    with pytest.raises(KeyError):
        main(["doctor"])


@pytest.mark.parametrize(
    ("package", "advice"),
    [
        ("tractor", "python -m pip install --no-deps tractor==0.1.0a5"),
        ("onnxruntime.capi", "python -m pip install onnxruntime"),
    ],
)
def test_main_when_a_package_is_missing_then_the_command_that_installs_it_is_named(
    run: Run,
    command: Callable[[Callable[[], object]], None],
    package: str,
    advice: str,
) -> None:
    def fail() -> int:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    command(fail)
    code, _, err = run("doctor")
    assert code == 4
    assert err.endswith(f"is not installed: run `{advice}`\n")


def test_main_when_one_of_our_own_modules_is_missing_then_it_is_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(COMMANDS, ("doctor",), ("tripgate.cli.not_there:x", "x"))
    with pytest.raises(ImportError):
        main(["doctor"])


def test_main_when_it_is_interrupted_then_the_code_is_130(
    run: Run, command: Callable[[Callable[[], object]], None]
) -> None:
    command(lambda: signal.raise_signal(signal.SIGINT))
    assert run("doctor") == (130, "", "tripgate: interrupted\n")


def test_main_when_the_reader_of_stdout_is_gone_then_it_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from tripgate.cli.app import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", code, "config", "schema"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_output_when_a_number_is_not_finite_then_json_refuses_it() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        output.write_json({"value": float("nan")})


def test_output_when_no_terminal_or_no_color_then_nothing_is_colored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.is_colored(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.is_colored(Terminal())  # type: ignore[arg-type]
    assert not output.is_colored(sys.stdout)
    output.console(sys.stdout).print("[red]plain[/red]")
    assert capsys.readouterr().out == "plain\n"


def test_app_when_built_then_no_command_module_is_loaded() -> None:
    code = (
        "import sys; from tripgate.cli.app import build_app; build_app();"
        "print(sorted(name for name in sys.modules if name.startswith('tripgate.cli.')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout == "['tripgate.cli.app', 'tripgate.cli.output']\n"
    assert app.EXIT_INTERRUPTED == 128 + signal.SIGINT
