"""``tripgate limits``: show, set and reload the limits of an instance while it runs.

``show`` reads the page alone. ``set`` changes the two limits of one scope, ``reload`` takes every
limit from a configuration file and refuses a file that changes anything else. Both judge all of
their input before anything is touched.
"""

import json as json_text
from pathlib import Path

from tripgate.cli.halt import Target, check_reason, find_scope, open_target
from tripgate.cli.limits_change import Order, change_limits
from tripgate.cli.output import write_json, write_line, write_message, write_table
from tripgate.config.reader import LoadedConfig, load_config, load_text
from tripgate.config.rules import LIMIT as LIMIT_RULE
from tripgate.config.shape import leaves, path_text
from tripgate.config.structs import Config, limit_money, stress_gross
from tripgate.errors import ConfigError, UsageError
from tripgate.gate.limit_orders import COMMAND
from tripgate.instance import page_folder, pick_instance
from tripgate.operator_file import read_records
from tripgate.page.layout import LIMIT, SUM
from tripgate.page.limits import LIMIT_KEYS, Values, configured_values, read_limit
from tripgate.page.mapping import Page, open_page
from tripgate.units import INT_MAX, PPM, money_text

CONFIG_NAME = "config.toml"
PORTFOLIO, GROSS, NET = "portfolio", "gross_reporting_max", "net_reporting_max"
STRESS_FIELD = "stress_gross_max"


def show(*, instance: str | None = None, json: bool = False) -> int:
    """Show every scope's limits: configured, in force now, used, and what is left.

    Reads shared memory alone, so it works when every process of the instance is dead.

    Parameters
    ----------
    instance
        Whose limits; else $TRIPGATE_INSTANCE, else the only one running.
    json
        Print one JSON object instead of text.
    """
    page = open_page(page_folder(pick_instance(instance)), writable=False)
    nodes = {scope: _node(page, node) for node, scope in enumerate(page.names.scopes)}
    version = int(page.header["limits_version"])
    if json:
        shown = {
            scope: {name: _shown(name, value) for name, value in node.items()}
            for scope, node in nodes.items()
        }
        write_json(
            {"instance": page.names.instance, "limits_version": version, "nodes": shown,
             "other": _others(page)}
        )  # fmt: skip
        return 0
    write_line(f"instance {page.names.instance}, limits version {version}")
    head = (
        "scope", "gross", "limit", "configured", "left", "long", "short", "net limit",
        "configured", "left", "factor", "margin", "limit",
    )  # fmt: skip
    order = (
        "gross", "gross_max", "gross_configured", "gross_left", "long_worst", "short_worst",
        "net_max", "net_configured", "net_left", "factor", "margin", "margin_max",
    )  # fmt: skip
    write_table(
        head,
        [(scope, *(str(_shown(k, node[k])) for k in order)) for scope, node in nodes.items()],
    )
    write_line()
    others = _others(page).items()
    rows = [(scope, key, text) for scope, keys in others for key, text in keys.items()]
    write_table(("scope", "limit", "value"), rows)
    return 0


def _node(page: Page, node: int) -> dict[str, int | None]:
    limit, total = page.rows(LIMIT)[node], page.rows(SUM)[node]
    sides = int(total["long_worst"]), int(total["short_worst"])
    is_venue = page.names.scopes[node].startswith("venue:")
    return {
        "gross": int(total["gross"]), "gross_max": int(limit["gross_max"]),
        "gross_configured": int(limit["gross_configured"]),
        "gross_left": _left(int(limit["gross_max"]), int(total["gross"])),
        "long_worst": sides[0], "short_worst": sides[1], "net_max": int(limit["net_max"]),
        "net_configured": int(limit["net_configured"]),
        "net_left": _left(int(limit["net_max"]), max(sides)),
        "factor": int(limit["factor_ppm"]),
        "margin": int(total["margin"]) if is_venue else None,
        "margin_max": int(limit["margin_max"]) if is_venue else None,
        "margin_left": _left(int(limit["margin_max"]), int(total["margin"])) if is_venue else None,
    }  # fmt: skip


def _left(limit: int, used: int) -> int:
    return INT_MAX if limit >= INT_MAX else max(0, limit - used)


def _shown(name: str, value: int | None) -> str | float | None:
    if value is None:
        return "-"
    if name == "factor":
        return value / PPM
    return "none" if value >= INT_MAX else money_text(value)


def _others(page: Page) -> dict[str, dict[str, str]]:
    """Return every limit beside gross and net, as text, by scope."""
    found: dict[str, dict[str, str]] = {}
    for scope in page.names.scopes:
        kind = scope.partition(":")[0]
        texts = {
            key: rule.text(read_limit(page, scope, key))
            for key, rule in LIMIT_KEYS.items()
            if rule.kind == kind
        }
        if texts:
            found[scope] = texts
    return found


def set_limits(
    *,
    scope: str,
    reason: str,
    gross: str | None = None,
    net: str | None = None,
    confirm: str | None = None,
    operator: str | None = None,
    instance: str | None = None,
    json: bool = False,
) -> int:
    """Change the gross or net limit of a scope: tighter at once, looser only on a code.

    What is tighter is in force when the command ends, with a live tree or a dead one, and a
    restart keeps it. What is looser is only offered, with a code for --confirm; it is refused
    while a breaker holds the scope, or one that shares orders with it, and it needs a live tree.

    Parameters
    ----------
    scope
        portfolio, venue:V, asset:A, strategy:S or instrument:V/SYMBOL.
    reason
        Why, for the record.
    gross
        New gross limit in the reporting currency, or none.
    net
        New net limit in the reporting currency, or none.
    confirm
        The code of the first step, at most 60 seconds old.
    operator
        Who orders it, beside the user of this process.
    instance
        Whose gate; else $TRIPGATE_INSTANCE, else the only one running.
    json
        Print one JSON object instead of text.

    Returns
    -------
    int
        0; 1 if a loosening is refused; 2 if the code is refused; 3 if it needs a live tree; 5 if
        the breaker has not acted within 5 seconds.
    """
    why = check_reason(reason)
    given = {GROSS: _amount("--gross", gross), NET: _amount("--net", net)}
    wanted = {(scope, key): value for key, value in given.items() if value is not None}
    if not wanted:
        raise UsageError("name what to change: --gross X, --net X, or both (X may be none)")
    target = open_target(instance)
    find_scope(target.page.names, scope)
    started = started_config(target)
    problems = [*_margin_problems(target.page, started, wanted), *_stress_problems(target, wanted)]
    if problems:
        raise UsageError("\n".join(problems))
    order = Order("set", wanted, why, operator, {})
    return change_limits(target, order, confirm=confirm, named=wanted, as_json=json)


def _amount(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return limit_money(LIMIT_RULE.read(text))
    except ValueError as error:
        expected = str(error) or "a positive amount or none"
        raise UsageError(f"{option} is {expected}, was {text!r}") from None


def reload(
    *,
    reason: str,
    config: Path | None = None,
    confirm: str | None = None,
    operator: str | None = None,
    instance: str | None = None,
    json: bool = False,
) -> int:
    """Take every limit from a configuration file: tighter at once, looser only on a code.

    The file may differ from the one the run was started with in its limits alone: order caps,
    collars, stop distances, rates, guards and margin terms included. Anything else is refused and
    needs a restart. See 'limits set' for what happens to tighter and to looser values.

    Parameters
    ----------
    reason
        Why, for the record.
    config
        The file; default: the one that the run was started with.
    confirm
        The code of the first step, at most 60 seconds old.
    operator
        Who orders it, beside the user of this process.
    instance
        Whose gate; else $TRIPGATE_INSTANCE, else the only one running.
    json
        Print one JSON object instead of text.
    """
    why = check_reason(reason)
    target = open_target(instance)
    started = started_config(target)
    loaded = load_config(config or _started_file(target))
    problems = restart_problems(started, loaded)
    if problems:
        raise ConfigError(*problems)
    wanted = configured_values(loaded.config, target.page.names)
    problems = [f"{loaded.name}: {text}" for text in _margin_problems(target.page, started, wanted)]
    if problems:
        raise ConfigError(*problems)
    stress = stress_gross(loaded.config.limits.portfolio)
    fields = {"config_sha256": loaded.config_sha256, STRESS_FIELD: stress}
    # A tighter stress loss counts for later commands even where no word moves with it.
    held = {(PORTFOLIO, GROSS): read_limit(target.page, PORTFOLIO, GROSS)}
    named = held if stress < _stress_bound(target) else {}
    order = Order("reload", wanted, why, operator, fields)
    if not json:
        write_message(f"{loaded.name}: configuration {loaded.config_sha256[:12]}")
    return change_limits(target, order, confirm=confirm, named=named, as_json=json)


def started_config(target: Target) -> Config:
    """Return the configuration that the instance's last run was started with.

    Raises
    ------
    ConfigError
        The state folder does not hold it any more.
    """
    path = target.state / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"{path} cannot be read: it says what the run was started with; start it again"
        ) from None
    return load_text(text, str(path), {}).config


def _started_file(target: Target) -> Path:
    try:
        name = json_text.loads((target.state / "run.json").read_bytes())["config_name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = ""
    if not name or not Path(name).is_file():
        raise UsageError(
            "the run was not started with a file that still stands: name one, --config"
        )
    return Path(name)


def restart_problems(started: Config, loaded: LoadedConfig) -> list[str]:
    """Return one line per value that a reload may not change."""
    before = {path_text(path): value for path, _, value in leaves(started)}
    after = {path_text(path): value for path, _, value in leaves(loaded.config)}
    problems = []
    for path in dict.fromkeys([*before, *after]):
        if path in before and path in after and before[path] == after[path]:
            continue
        key = path.rpartition(".")[2]
        both = path in before and path in after
        if key == "initial_margin_rate" and both and None in (before[path], after[path]):
            problems.append(f"{loaded.name}: {path}: a rate comes or goes only with a restart")
        elif not both or (key not in LIMIT_KEYS and key != "stress_loss_reporting_max"):
            problems.append(f"{loaded.name}: {path}: differs from the running one: needs a restart")
    return problems


def _margin_problems(page: Page, started: Config, wanted: Values) -> list[str]:
    """Return where a gross limit would pass what the venue's own margin bracket was read for."""
    problems = []
    for (scope, key), value in wanted.items():
        kind, _, name = scope.partition(":")
        if kind != "instrument" or key != GROSS:
            continue
        table = started.instruments[name]
        bound = limit_money(table.gross_reporting_max)
        is_looser = value > read_limit(page, scope, GROSS)
        if table.initial_margin_rate is None and is_looser and value > bound:
            problems.append(
                f"{scope}: its initial margin rate was read for a gross limit of at most "
                f"{_shown(key, bound)}: write initial_margin_rate and restart to go beyond it"
            )
    return problems


def _stress_problems(target: Target, wanted: Values) -> list[str]:
    """Return whether the portfolio's gross limit would pass its stress loss."""
    value = wanted.get((PORTFOLIO, GROSS))
    if value is None or value <= read_limit(target.page, PORTFOLIO, GROSS):
        return []
    bound = _stress_bound(target)
    if value <= bound:
        return []
    return [
        f"portfolio: stress_loss_reporting_max bounds its gross limit at {_shown(GROSS, bound)}: "
        "change both in the file and use 'limits reload'"
    ]


def _stress_bound(target: Target) -> int:
    """Return the tightest gross limit that any stress loss in force has set."""
    bounds = [stress_gross(started_config(target).limits.portfolio)]
    bounds += [
        int(record[STRESS_FIELD])
        for record in read_records(target.state, 0)
        if record.get("command") == COMMAND and STRESS_FIELD in record
    ]
    return min(bounds)
