"""What ``tripgate paper`` was asked to run: its options, judged and turned into a plan.

Whatever can be wrong is found here, before a process is started: options, configuration, data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tripgate.cli.output import write_message
from tripgate.config.reader import LoadedConfig, load_config, load_text
from tripgate.config.structs import Config
from tripgate.errors import ConfigError, UsageError
from tripgate.instance import check_instance_name, fresh_instance_name

if TYPE_CHECKING:
    from supervisors.launcher import PaperPlan

DEFAULT_PANEL = "binance_spot_5m_2021-02_2021-07"
DEFAULT_WINDOW = ("2021-05-19", "2021-05-20")
DEFAULT_SCENARIO = "generator:crash"
DEFAULT_SPEED = {"replay": 1_200.0, "generator": 240.0}
"""Market seconds per second: a crash day, or the scripted crash, in about a minute."""


@dataclass(frozen=True, kw_only=True)
class PaperOptions:
    """Options of ``tripgate paper``.

    Attributes
    ----------
    config
        A tripgate.toml; without one the run gets a configuration of its own, every limit spelled
        out, which is stored with its state.
    venues
        Name of the simulated venue (one in this release).
    feed
        generator:NAME or replay:DIR.
    replay
        Folder of a recorded panel, or a panel's bare name; short for --feed replay:DIR.
    start
        First instant of the replay, ISO 8601, UTC.
    stop
        First instant left out.
    strategy
        Demo strategies, comma-separated: trend, hold, pulse.
    gross
        What each strategy holds in all, as a multiple of starting equity.
    speed
        Market seconds per second, or max.
    duration
        Seconds after which the run ends in order.
    seed
        Seed of the generator.
    instance
        Name of the instance; its books, latches and log persist. Default: a fresh one.
    shadow
        Deny nothing: record what the gate would have denied. Fixed for the instance's life.
    json
        Print one JSON object at the end and nothing else on stdout.
    """

    config: Path | None = None
    venues: str | None = None
    feed: str | None = None
    replay: str | None = None
    start: Annotated[str | None, Parameter(name="--from")] = None
    stop: Annotated[str | None, Parameter(name="--to")] = None
    strategy: str = "hold,pulse"
    gross: str = "1.0"
    speed: str | None = None
    duration: float | None = None
    seed: int = 0
    instance: str | None = None
    shadow: bool = False
    json: bool = False


def _one_venue(venues: str | None) -> str:
    names = [name.strip() for name in (venues or "sim").split(",") if name.strip()]
    if len(names) != 1:
        raise UsageError("one simulated venue per instance in this release: name one with --venues")
    return check_instance_name(names[0])


def _choose_feed(options: PaperOptions) -> tuple[str, str | None, str | None]:
    """Return the feed and its window; without a choice the recorded crash if it is here."""
    from exchange_adapters.market.replay import find_panel, panels_folder

    feed, start, stop = options.feed, options.start, options.stop
    if feed and options.replay:
        raise UsageError(
            "--feed and --replay exclude each other: --replay DIR is --feed replay:DIR"
        )
    if options.replay:
        feed = f"replay:{options.replay}"
    if feed:
        return feed, start, stop
    folder = panels_folder()
    if folder is not None and (folder / DEFAULT_PANEL).is_dir():
        window = (start, stop) if start or stop else DEFAULT_WINDOW
        return f"replay:{find_panel(DEFAULT_PANEL)}", *window
    return DEFAULT_SCENARIO, start, stop


def _speed(text: str | None, feed: str) -> float:
    """Return market seconds per second; 0 stands for no pause at all."""
    if text is None:
        return DEFAULT_SPEED[feed.partition(":")[0]]
    if text == "max":
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1e9:
        raise UsageError(f"--speed is a number above zero, or max; was {text!r}")
    return value


def _gross(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 < value <= 100:
        raise UsageError(f"--gross is a multiple of equity above 0 and at most 100, was {text!r}")
    return value


def make_plan(options: PaperOptions) -> "PaperPlan":
    """Return what to run; everything that is wrong with it is said before anything starts.

    Raises
    ------
    UsageError, ConfigError, DataError
        An option, the configuration or the market data is wrong.
    """
    from supervisors.launcher import PaperPlan, feed_symbols

    venue = _one_venue(options.venues)
    feed, start, stop = _choose_feed(options)
    if options.duration is not None and not 0 < options.duration < 1e9:
        raise UsageError(f"--duration is a number of seconds above zero, was {options.duration}")
    symbols = feed_symbols(feed, options.seed, start, stop)
    speed = _speed(options.speed, feed)
    if options.config is None:
        loaded = _rendered(options, symbols, venue)
    else:
        loaded = load_config(options.config)
        venue = _simulated_venue(loaded.config, loaded)
    if loaded.config.alerts.on_level_command:
        write_message("alerts.on_level_command is not run by this release: watch the levels")
    equity = loaded.config.venues[venue].starting_equity_reporting
    if equity is None:
        raise ConfigError(f"{loaded.name}: venues.{venue}: starting_equity_reporting is missing")
    # The name last: a fresh one is taken on disk at once.
    name = check_instance_name(options.instance) if options.instance else fresh_instance_name()
    return PaperPlan(
        name, venue, feed, start, stop, options.seed, equity, loaded.text, loaded.name,
        loaded.config_sha256, speed, options.duration or 0.0, options.shadow,
    )  # fmt: skip


def _rendered(options: PaperOptions, symbols: Sequence[str], venue: str) -> LoadedConfig:
    from supervisors.paper_config import STRATEGIES, render_paper_config

    given = (name.strip() for name in options.strategy.split(","))
    names = tuple(dict.fromkeys(name for name in given if name))
    if not names or not set(names) <= set(STRATEGIES):
        known = ", ".join(STRATEGIES)
        raise UsageError(f"--strategy names some of {known}; was {options.strategy!r}")
    if len(symbols) < len(names):
        raise UsageError(
            f"the feed has {len(symbols)} symbols, too few for {len(names)} strategies"
        )
    text = render_paper_config(symbols, names, _gross(options.gross), venue)
    return load_text(text, "paper (rendered)", {})


def _simulated_venue(config: Config, loaded: LoadedConfig) -> str:
    names = list(config.venues)
    if len(names) != 1 or config.venues[names[0]].kind != "simulated":
        raise ConfigError(f"{loaded.name}: 'paper' runs exactly one venue, of kind \"simulated\"")
    return names[0]
