"""Checks that need more than one value of the configuration.

They run on the raw tables, not on the structs, so that they also speak when a value elsewhere is
wrong: the user gets every problem in one go. Each check therefore tolerates missing or malformed
neighbours, which the reader reports by itself.

Invariant: K1 a configuration that passes names every limit that the gate's hierarchy needs (the
portfolio's by the structs, each asset's, venue's, strategy's and instrument's by these checks).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tripgate.config import structs as config
from tripgate.config.lines import Path
from tripgate.config.shape import path_text
from tripgate.spelling import did_you_mean

ALERT_FIELDS = ("scope", "level", "cause")


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where, what, and the path whose line is shown (``at``)."""

    path: Path
    message: str
    at: Path


def _table(raw: object, *path: str) -> dict[str, Any]:
    for part in path:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw if isinstance(raw, dict) else {}


def _keys(raw: dict[str, Any]) -> dict[str, config.InstrumentKey]:
    result = {}
    for name in _table(raw, "instruments"):
        try:
            result[name] = config.instrument_key(name)
        except ValueError:
            continue  # The reader reports the name.
    return result


def _counts(raw: dict[str, Any]) -> Iterator[Problem]:
    for section, count_min, count_max in (
        ("venues", 1, config.VENUES_MAX),
        ("instruments", 1, config.INSTRUMENTS_MAX),
        ("strategies", 0, config.STRATEGIES_MAX),
    ):
        count = len(_table(raw, section))
        if section in raw and not count_min <= count <= count_max:
            expected = f"expected {count_min} to {count_max} tables [{section}.NAME], was {count}"
            yield Problem((section,), expected, (section,))


def _venues(raw: dict[str, Any]) -> Iterator[Problem]:
    for name in _table(raw, "venues"):
        at = ("venues", name)
        venue = _table(raw, *at)
        equity = (*at, "starting_equity_reporting")
        if venue.get("kind") == "simulated":
            if "starting_equity_reporting" not in venue:
                yield Problem(
                    equity, "missing, expected a positive amount (the venue is simulated)", at
                )
            if venue.get("position_mode") == "hedge":
                mode = (*at, "position_mode")
                yield Problem(mode, 'expected "one-way" for a simulated venue, was "hedge"', mode)
        elif venue.get("kind") == "live" and "starting_equity_reporting" in venue:
            yield Problem(equity, "only a simulated venue has it: a live one is asked", equity)


def _instruments(raw: dict[str, Any]) -> Iterator[Problem]:
    venues, currency = _table(raw, "venues"), raw.get("reporting_currency")
    for name, key in _keys(raw).items():
        path = ("instruments", name)
        if key.venue not in venues:
            hint = did_you_mean(key.venue, venues)
            yield Problem(path, f"there is no venue '{key.venue}'{hint}", path)
        if key.settle not in (key.quote, key.base):
            expected = "expected a contract that settles in its quote currency or its base coin"
            yield Problem(path, f"{expected}, was {key.symbol}", path)
        # Without a rate of its own another currency would be read as the reporting currency, and
        # every exposure stated wrongly.
        if isinstance(currency, str) and key.quote not in {currency, *_table(raw, "quotes")}:
            needed = path_text(("quotes", key.quote))
            message = f"is quoted in {key.quote}, not in {currency}: it needs the table [{needed}]"
            yield Problem(path, message, path)
        yield from _instrument_values(raw, name, key)


def _instrument_values(
    raw: dict[str, Any], name: str, key: config.InstrumentKey
) -> Iterator[Problem]:
    path, table = ("instruments", name), _table(raw, "instruments", name)
    collar, exit_collar = table.get("collar_bps_max"), table.get("exit_collar_bps_max")
    # An exit that may go less far than an opening could be the one that does not fill.
    if isinstance(collar, int) and isinstance(exit_collar, int) and exit_collar < collar:
        at = (*path, "exit_collar_bps_max")
        yield Problem(at, f"expected at least collar_bps_max ({collar}), was {exit_collar}", at)
    is_live = _table(raw, "venues", key.venue).get("kind") == "live"
    if is_live and "initial_margin_rate" not in table:
        at = (*path, "initial_margin_rate")
        message = "missing, expected a number above 0 and at most 1 (the venue is live)"
        yield Problem(at, message, path)


def _quotes(raw: dict[str, Any]) -> Iterator[Problem]:
    used = {key.quote for key in _keys(raw).values()}
    for name in _table(raw, "quotes"):
        path = ("quotes", name)
        if name == raw.get("reporting_currency"):
            yield Problem(path, "is the reporting currency: its worth is always 1", path)
        elif name not in used:
            yield Problem(path, f"no instrument is quoted in it{did_you_mean(name, used)}", path)


def _is_shared(instruments: dict[str, Any], name: str) -> bool:
    return _table(instruments, name).get("shared_instruments") is True


def _strategies(raw: dict[str, Any]) -> Iterator[Problem]:
    instruments = _table(raw, "instruments")
    holder: dict[str, str] = {}
    for name in _table(raw, "strategies"):
        if name == config.RESERVED_STRATEGY:
            at = ("strategies", name)
            yield Problem(at, "the name is reserved for foreign orders and positions", at)
        path = ("strategies", name, "instruments")
        listed = _table(raw, "strategies", name).get("instruments")
        seen: set[str] = set()
        for instrument in listed if isinstance(listed, list) else []:
            if not isinstance(instrument, str):
                continue  # The reader reports it.
            if instrument in seen:
                yield Problem(path, f"'{instrument}' is listed twice", path)
            elif instrument not in instruments:
                hint = did_you_mean(instrument, instruments)
                yield Problem(path, f"there is no instrument '{instrument}'{hint}", path)
            elif instrument in holder and not _is_shared(instruments, instrument):
                message = (
                    f"'{instrument}' belongs to strategy '{holder[instrument]}' already: "
                    f"write shared_instruments = true in [{path_text(('instruments', instrument))}]"
                )
                yield Problem(path, message, path)
            else:
                holder.setdefault(instrument, name)
            seen.add(instrument)


def _limits(raw: dict[str, Any]) -> Iterator[Problem]:
    needs: dict[str, dict[str, Path]] = {
        "assets": {key.base: ("instruments", name) for name, key in _keys(raw).items()},
        "venues": {name: ("venues", name) for name in _table(raw, "venues")},
        "strategies": {name: ("strategies", name) for name in _table(raw, "strategies")},
    }
    for section, needed in needs.items():
        given = _table(raw, "limits", section)
        for name, user in needed.items():
            if name not in given:
                path = ("limits", section, name)
                message = f"missing, {path_text(user)} needs the table [{path_text(path)}]"
                yield Problem(path, message, user)
        for name in given:
            if name not in needed:
                path = ("limits", section, name)
                hint = did_you_mean(name, needed)
                yield Problem(path, f"nothing in this file has this name{hint}", path)


def _alerts(raw: dict[str, Any]) -> Iterator[Problem]:
    path = ("alerts", "on_level_command")
    command = _table(raw, "alerts").get("on_level_command")
    for word in command if isinstance(command, list) else []:
        for name in re.findall(r"\{([^{}]*)\}", word) if isinstance(word, str) else []:
            if name not in ALERT_FIELDS:
                hint = did_you_mean(name, ALERT_FIELDS)
                yield Problem(path, f"there is no placeholder '{{{name}}}'{hint}", path)


def _audit(raw: dict[str, Any]) -> Iterator[Problem]:
    path = ("audit", "heads_copies")
    copies = _table(raw, "audit").get("heads_copies")
    named = [text for text in copies if isinstance(text, str)] if isinstance(copies, list) else []
    if len(named) > config.HEADS_COPIES_MAX:
        yield Problem(path, f"expected at most {config.HEADS_COPIES_MAX} files", path)
    for place, text in enumerate(named):
        if not text.startswith("/") or text.endswith("/"):
            yield Problem(path, f"'{text}' is no absolute path of a file", path)
        elif text in named[:place]:
            yield Problem(path, f"'{text}' is listed twice", path)


def cross_checks(raw: dict[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong between the tables of a raw configuration."""
    for check in (_counts, _venues, _instruments, _quotes, _strategies, _limits, _alerts, _audit):
        yield from check(raw)
