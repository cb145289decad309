"""``tripgate paper``: run the engine on a simulated venue, fed by a generator or a recording."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

from cyclopts import Parameter

from tripgate.cli.engine import require_engine
from tripgate.cli.live_view import LiveView
from tripgate.cli.output import write_json, write_line, write_message
from tripgate.cli.paper_plan import PaperOptions, make_plan
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import ChainBrokenError, PageError, TripgateError
from tripgate.instance import page_folder
from tripgate.page.kernel_cache import is_compiled
from tripgate.page.mapping import Page, open_page

POLL_S = 0.1
SHADOW_NOTE = (
    "SHADOW: this gate denies nothing and closes nothing; what it would have done is on record"
)


def paper(options: Annotated[PaperOptions | None, Parameter(name="*")] = None) -> int:
    """Run the engine on a simulated venue. No account, no key and no network are needed."""
    began_ns = host_ns()
    from supervisors.launcher import PaperRun

    require_engine()
    options = options or PaperOptions()
    plan = make_plan(options)
    run = PaperRun(plan)
    if run.found_venue:
        write_message(f"found the venue of instance {plan.instance!r} standing: its market goes on")
    write_message(f"instance {plan.instance}: {plan.feed}, state in {run.state}")
    if plan.shadow:
        write_message(SHADOW_NOTE)
    if not is_compiled():
        write_message("compiling kernels (first run only) …")
    with _ended_in_order(run):
        try:
            run.start()
        except TripgateError:
            # A venue that was found standing keeps its socket there, the old page its levels.
            if not run.found_venue:
                _clear_away(plan.instance)
            raise
        armed_s, page = _watch(run, began_ns, quiet=options.json)
    code = run.poll() or 0
    try:
        run.finish(code)
    finally:
        if page is not None:
            _conclude(page, armed_s, as_json=options.json)
        if not run.keeps_venue(code):
            _clear_away(plan.instance)
    return code


@contextmanager
def _ended_in_order(run: Any) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into an orderly end, from before the venue is started."""

    def stop(number: int, frame: FrameType | None) -> None:
        write_message("ending in order …")
        run.stop()

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear_away(instance: str) -> None:
    """Remove the page of a run that is over; after a death it stays, for the take-over."""
    shutil.rmtree(page_folder(instance), ignore_errors=True)


def _watch(run: Any, began_ns: int, *, quiet: bool) -> tuple[float | None, Page | None]:
    """Show the run until the root ends; return seconds to the armed gate and the page."""
    armed_s: float | None = None
    page: Page | None = None
    with LiveView(enabled=not quiet) as view:
        while run.poll() is None:
            page = page or _try_open(run.plan.instance, run.root_pid)
            if page is not None:
                if armed_s is None and page.header["armed"]:
                    armed_s = (host_ns() - began_ns) / NS_PER_S
                    view.note(f"armed after {armed_s:.1f} s")
                    _tell_kept_limits(page, run.plan.config_text)
                view.show(page)
            sleep_s(POLL_S)
    return armed_s, page


def _tell_kept_limits(page: Page, config_text: str) -> None:
    """Say which limits an operator left tighter than the configuration writes them."""
    from tripgate.config.reader import load_text
    from tripgate.page.limits import LIMIT_KEYS, configured_values, is_tighter, read_limit

    written = configured_values(load_text(config_text, "config", {}).config, page.names)
    for (scope, key), value in written.items():
        held = read_limit(page, scope, key)
        if is_tighter(key, held, value):
            text = LIMIT_KEYS[key].text
            write_message(
                f"{scope} {key} stays at {text(held)}, as an operator left it; the configuration "
                f"says {text(value)}: 'tripgate limits reload' loosens it"
            )


def _try_open(instance: str, root_pid: int) -> Page | None:
    try:
        page = open_page(page_folder(instance), writable=False)
    except PageError:
        return None
    # An earlier run's page may still lie there until our root replaces it.
    return page if int(page.header["owner_pid"]) == root_pid else None


def _conclude(page: Page, armed_s: float | None, *, as_json: bool) -> None:
    from supervisors.summary import summarise

    summary = summarise(page, None if armed_s is None else round(armed_s, 2))
    if as_json:
        write_json(summary)
    else:
        _write_lines(summary)
    # A run that was never armed may have no log yet, and has an error of its own to tell.
    if armed_s is not None and not summary["audit"]["verified"]:
        raise ChainBrokenError("the audit log does not verify: run 'tripgate audit verify'")


def _write_lines(summary: dict[str, Any]) -> None:
    for name, value in summary.items():
        if name == "levels":
            write_line("levels:")
            for market_ms, scope, level, cause in value:
                write_line(f"  {_time_text(market_ms)}  {scope}  {level}  {cause}")
        else:
            write_line(f"{name}: {value}")


def _time_text(market_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(market_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
