"""The command line's frame: which commands there are, and how a run ends.

Commands are registered by import path and imported only when one is run, so that ``tripgate
status`` answers in a moment even where the engine's packages are slow, broken or missing. Every
expected failure is a ``TripgateError`` with its exit code; anything else is a bug and may crash.
"""

import importlib.metadata
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError

from tripgate.cli.output import write_message
from tripgate.errors import MissingPartError, TripgateError, UsageError
from tripgate.spelling import did_you_mean

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

EXIT_BROKEN_PIPE = 1

COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("init",): ("tripgate.cli.init:init", "Write a commented tripgate.toml."),
    ("paper",): ("tripgate.cli.paper:paper", "Run the engine on a simulated venue."),
    ("status",): ("tripgate.cli.status:status", "Show levels, leases and limits of an instance."),
    ("halt",): ("tripgate.cli.halt:halt", "Raise the breaker level of a scope by hand."),
    ("resume",): ("tripgate.cli.resume:resume", "Lower a latched level, in two steps."),
    ("orders", "list"): ("tripgate.cli.orders:list_orders", "List every order the gate counts."),
    ("orders", "resolve"): (
        "tripgate.cli.orders_resolve:resolve",
        "End an order of unknown fate, in two steps.",
    ),
    ("limits", "show"): ("tripgate.cli.limits:show", "Show limits in force and what is left."),
    ("limits", "set"): ("tripgate.cli.limits:set_limits", "Change the limits of a scope."),
    ("limits", "reload"): ("tripgate.cli.limits:reload", "Take the limits from a file."),
    ("doctor",): ("tripgate.cli.doctor:doctor", "Check this machine and installation."),
    ("bench",): ("tripgate.cli.bench:bench", "Measure how fast the parts are here."),
    ("audit", "verify"): ("tripgate.cli.audit:verify", "Verify the hash chain of a log."),
    ("audit", "replay"): ("tripgate.cli.audit_replay:replay", "Decide a log's decisions again."),
    ("audit", "query"): ("tripgate.cli.audit:query", "Print rows of a log."),
    ("audit", "export"): ("tripgate.cli.audit_export:export", "Write rows as JSON lines or CSV."),
    ("audit", "archive"): (
        "tripgate.cli.audit_archive:archive",
        "Archive a month as Parquet, or remove an archived one.",
    ),
    ("chaos", "run"): ("tripgate.cli.chaos:run", "Run fault plans and check the promises."),
    ("chaos", "storm"): ("tripgate.cli.chaos_storm:storm", "Kill real processes on one real page."),
    ("chaos", "powercut"): (
        "tripgate.cli.chaos_powercut:powercut",
        "Cut the power under the audit log.",
    ),
    ("chaos", "tampering"): (
        "tripgate.cli.chaos_tampering:tampering",
        "Tamper with an audit log in every way known.",
    ),
    ("chaos", "auditkills"): (
        "tripgate.cli.chaos_auditkills:auditkills",
        "Kill whoever records and whoever stores.",
    ),
    ("chaos", "deaths"): (
        "tripgate.cli.chaos_deaths:deaths",
        "Let real actors and roots die in every way.",
    ),
    ("chaos", "list"): ("tripgate.cli.chaos:list_plans", "List the fault plans."),
    ("chaos", "spin"): ("tripgate.cli.chaos:spin", "Check the models of the gate's protocols."),
    ("config", "check"): ("tripgate.cli.config:check", "Check a configuration file."),
    ("config", "schema"): ("tripgate.cli.config:schema", "Print the JSON schema of tripgate.toml."),
    ("config", "show"): ("tripgate.cli.config:show", "Print the configuration in effect."),
}
"""Each command's words, where it lives, and its line in the help."""

GROUPS = {
    "audit": "Read and verify the audit log.",
    "chaos": "Inject faults and check what must hold.",
    "orders": "List live orders and end those of unknown fate.",
    "config": "Check and show the configuration.",
    "limits": "Show and change limits while the gate runs.",
}

INSTALL_COMMANDS = {"tractor": "python -m pip install --no-deps tractor==0.1.0a5"}
"""Packages whose installation is not just their name."""


def _version() -> str:
    try:
        return importlib.metadata.version("tripgate")
    except importlib.metadata.PackageNotFoundError:
        return "not installed (running from a checkout)"


def build_app() -> App:
    """Return the command line application; no command's module is imported."""
    app = App(
        name="tripgate",
        help="A fail-safe risk engine for crypto trading: a gate that closes by itself.",
        version=_version,
        default_parameter=Parameter(negative=()),
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    groups = {name: App(name=name, help=line) for name, line in GROUPS.items()}
    for (*group, name), (path, line) in COMMANDS.items():
        parent = groups[group[0]] if group else app
        parent.command(path, name=name, help=line)
    for group_app in groups.values():
        app.command(group_app)
    return app


def _run(arguments: Sequence[str]) -> int:
    app = build_app()
    try:
        result = app(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        chain = tuple(error.command_chain or ())
        help_command = " ".join(["tripgate", *chain, "--help"])
        raise UsageError(f"{_usage_text(error, chain)}\nTry '{help_command}'.") from None
    return result if isinstance(result, int) else 0


def _usage_text(error: CycloptsError, chain: tuple[str, ...]) -> str:
    if not isinstance(error, UnknownCommandError):
        return " ".join(str(error).split())
    # Its own text would import every command's module to name them all.
    word = (error.unused_tokens or ("",))[0]
    known = {words[len(chain)] for words in COMMANDS if words[: len(chain)] == chain}
    return f"there is no command '{word}'{did_you_mean(word, known)}"


def _missing_package(error: ImportError) -> MissingPartError | None:
    # cyclopts wraps the import error of a command's module; the package's name is in the cause.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    name = (cause.name or "").partition(".")[0] if cause is not None else ""
    if not name or name == "tripgate":
        return None
    command = INSTALL_COMMANDS.get(name, f"python -m pip install {name}")
    return MissingPartError(f"the package '{name}' is not installed: run `{command}`")


def _report(error: TripgateError) -> int:
    lines = str(error).split("\n")
    problems = getattr(error, "problems", ())
    if len(problems) > 1:
        write_message(f"tripgate: {len(problems)} problems:")
    else:
        lines[0] = f"tripgate: {lines[0]}"
    for line in lines:
        write_message(line)
    return error.exit_code


def _leave_stdout() -> None:
    # The reader has gone. Python flushes stdout once more at its end and would complain then.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Parameters
    ----------
    arguments
        Words after ``tripgate``; default: the process's.
    """
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except TripgateError as error:
        return _report(error)
    except ImportError as error:
        missing = _missing_package(error)
        if missing is None:
            raise
        return _report(missing)
    except KeyboardInterrupt:
        write_message("tripgate: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return EXIT_BROKEN_PIPE
    return code
