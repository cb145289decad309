"""Every limit of the page that may change while it runs: its place, its direction, its changes.

One table says for each configuration key where its value stands and which way is tighter, so that
the page's making, ``limits set|reload``, the breaker and a restart cannot disagree. Two parties
change these words at once: an operator's command only ever tightens, the breaker alone loosens,
and only from the very value that the operator was shown. Both do it by compare-and-swap, so
neither can undo the other.

Invariants: M1 ``tighten`` never leaves a word looser than it was; M2 ``replace`` changes nothing
unless the word still is what it was; M3 an effective limit is configured × factor or tighter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from tripgate.config.structs import (
    BPS_MAX,
    EXIT_COLLAR_MULTIPLE,
    Config,
    effective_gross,
    limit_money,
)
from tripgate.errors import InvariantBroken
from tripgate.page.layout import CONTROL_HEADER, INSTRUMENT, LIMIT, STRATEGY, Table
from tripgate.page.level import fit_effective_limits
from tripgate.page.mapping import Page
from tripgate.page.names import PageNames
from tripgate.units import INT_MAX, LOTS_MAX, PPM, charge_money, money_text

PPM_PER_BPS = 100
MS_PER_S = 1_000
HAIRCUT_SCALE = 10_000
HAIRCUT_BITS = 14
MARGIN_TERMS = "margin_terms"
"""Field of a venue's LIMIT row: margin buffer (money, 48 bits) above the haircut (1e-4, 14 bits).

One word, so that the keeper never reads the one without the other.
"""
SWAP_TRIES = 10_000

MONEY, BPS, RATE, HAIRCUT, COUNT, MS, SECONDS = (
    "money", "bps", "rate", "haircut", "count", "ms", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class LimitKey:
    """One configuration key that has a word in the page.

    Attributes
    ----------
    kind
        Kind of scope whose row holds it; ``node`` is any scope.
    unit
        How the word is written for people.
    low_is_tight
        A smaller value denies more; else a larger one does.
    zero_is_off
        0 stands for no bound at all, the loosest value.
    shift, bits
        Where in its word the value stands.
    """

    kind: str
    table: Table
    field: str
    unit: str
    low_is_tight: bool = True
    zero_is_off: bool = False
    shift: int = 0
    bits: int = 63

    def looseness(self, value: int) -> int:
        """Return a number that is larger the looser ``value`` is."""
        if self.zero_is_off and value == 0:
            return INT_MAX
        return value if self.low_is_tight else -value

    def text(self, value: int) -> str:
        """Return a word's value as the configuration would write it."""
        if self.unit == MONEY:
            return "none" if value >= INT_MAX else money_text(value)
        scales = {BPS: PPM_PER_BPS, RATE: PPM, HAIRCUT: HAIRCUT_SCALE, SECONDS: MS_PER_S}
        text = format((Decimal(value) / scales.get(self.unit, 1)).normalize(), "f")
        return "none" if self.field == "order_lots_max" and value >= LOTS_MAX else text


LIMIT_KEYS: dict[str, LimitKey] = {
    "gross_reporting_max": LimitKey("node", LIMIT, "gross_configured", MONEY),
    "net_reporting_max": LimitKey("node", LIMIT, "net_configured", MONEY),
    "margin_buffer_reporting": LimitKey(
        "venue", LIMIT, MARGIN_TERMS, MONEY, low_is_tight=False, shift=HAIRCUT_BITS, bits=48
    ),
    "margin_haircut": LimitKey("venue", LIMIT, MARGIN_TERMS, HAIRCUT, bits=HAIRCUT_BITS),
    "order_reporting_max": LimitKey("instrument", INSTRUMENT, "order_money_max", MONEY),
    "order_lots_max": LimitKey("instrument", INSTRUMENT, "order_lots_max", COUNT),
    "collar_bps_max": LimitKey("instrument", INSTRUMENT, "collar_ppm", BPS),
    "exit_collar_bps_max": LimitKey("instrument", INSTRUMENT, "exit_collar_ppm", BPS),
    "stop_distance_bps_max": LimitKey("instrument", INSTRUMENT, "stop_distance_ppm", BPS),
    "resting_closes_max": LimitKey("instrument", INSTRUMENT, "resting_max", COUNT),
    "initial_margin_rate": LimitKey(
        "instrument", INSTRUMENT, "margin_ppm", RATE, low_is_tight=False
    ),
    "orders_per_second_max": LimitKey("strategy", STRATEGY, "orders_per_second_max", COUNT),
    "attempts_per_second_max": LimitKey("strategy", STRATEGY, "attempts_per_second_max", COUNT),
    "duplicate_window_ms": LimitKey(
        "strategy", STRATEGY, "duplicate_window_ms", MS, low_is_tight=False
    ),
    "repeated_orders_max": LimitKey("strategy", STRATEGY, "repeats_max", COUNT, zero_is_off=True),
    "repeated_window_s": LimitKey(
        "strategy", STRATEGY, "repeat_window_ms", SECONDS, low_is_tight=False
    ),
}

Values = dict[tuple[str, str], int]
"""Value, as the page holds it, by scope name and configuration key."""


def is_tighter(key: str, value: int, than: int) -> bool:
    """Return whether one value of a key denies more than another."""
    rule = LIMIT_KEYS[key]
    return rule.looseness(value) < rule.looseness(than)


def keys_of(scope: str) -> tuple[str, ...]:
    """Return the configuration keys that a scope has."""
    kind = scope.partition(":")[0]
    return tuple(key for key, rule in LIMIT_KEYS.items() if rule.kind in ("node", kind))


def _row(names: PageNames, scope: str, rule: LimitKey) -> int:
    if rule.table is LIMIT:
        return names.scope(scope)
    if rule.table is STRATEGY:
        return names.strategy(scope.partition(":")[2])
    return next(n for n, name in enumerate(names.instruments) if name.scope == scope)


def read_limit(page: Page, scope: str, key: str) -> int:
    """Return the value of a key as it stands in the page."""
    rule = LIMIT_KEYS[key]
    return _part(rule, int(page.rows(rule.table)[rule.field][_row(page.names, scope, rule)]))


def read_limits(page: Page) -> Values:
    """Return every limit of a page."""
    return {
        (scope, key): read_limit(page, scope, key)
        for scope in page.names.scopes
        for key in keys_of(scope)
    }


def write_limits(page: Page, values: Mapping[tuple[str, str], int]) -> None:
    """Store limits, in force at factor 1, in a page that nobody else has opened yet."""
    for (scope, key), value in values.items():
        rule = LIMIT_KEYS[key]
        words = page.rows(rule.table)[rule.field]
        row = _row(page.names, scope, rule)
        words[row] = _with_part(rule, int(words[row]), value)
    limits = page.rows(LIMIT)
    limits["factor_ppm"] = PPM
    limits["gross_max"], limits["net_max"] = limits["gross_configured"], limits["net_configured"]


def tighten(page: Page, scope: str, key: str, value: int) -> tuple[int, int]:
    """Make a limit at least as tight as ``value``; return it before and after.

    The effective limit follows, downwards only. The caller adds 1 to the trip generation.
    """
    from tripgate.page import atomics

    rule = LIMIT_KEYS[key]
    row = _row(page.names, scope, rule)
    address = page.address(rule.table, row, rule.field)
    for _ in range(SWAP_TRIES):
        word = atomics.load(address)
        before = _part(rule, word)
        after = value if is_tighter(key, value, before) else before
        changed = _with_part(rule, word, after)
        if changed == word or atomics.compare_exchange(address, word, changed) == word:
            if rule.kind == "node":
                fit_effective_limits(page, row, may_raise=False)
            return before, after
    raise InvariantBroken(f"{scope} {key}: its word never stood still")


def replace(page: Page, scope: str, key: str, old: int, new: int) -> bool:
    """Store ``new`` if the limit still is ``old`` (the breaker only); return whether it is ``new``.

    A word that is ``new`` already counts as done: the breaker may have died after its store.
    """
    from tripgate.page import atomics

    rule = LIMIT_KEYS[key]
    row = _row(page.names, scope, rule)
    address = page.address(rule.table, row, rule.field)
    for _ in range(SWAP_TRIES):
        word = atomics.load(address)
        if _part(rule, word) != old:
            return _part(rule, word) == new
        if atomics.compare_exchange(address, word, _with_part(rule, word, new)) == word:
            if rule.kind == "node":
                fit_effective_limits(page, row, may_raise=True)
            return True
    raise InvariantBroken(f"{scope} {key}: its word never stood still")


def count_change(page: Page) -> int:
    """Add 1 to the version of the limits; return the new one."""
    from tripgate.page import atomics

    return atomics.fetch_add(page.address(CONTROL_HEADER, 0, "limits_version"), 1) + 1


def margin_terms(page: Page, node: int) -> tuple[int, int]:
    """Return a venue's margin buffer (money) and haircut (1e-4), read as one word."""
    word = int(page.rows(LIMIT)[MARGIN_TERMS][node])
    buffer, haircut = (LIMIT_KEYS[key] for key in ("margin_buffer_reporting", "margin_haircut"))
    return _part(buffer, word), _part(haircut, word)


def related_nodes(names: PageNames, node: int) -> set[int]:
    """Return every node that some order passes together with ``node``, itself and node 0 too."""
    groups = [
        {0, *map(names.scope, (name.scope, f"asset:{name.asset}", f"venue:{name.venue}"))}
        for name in names.instruments
    ]
    for strategy, instrument in names.keys:
        own = names.scope(f"strategy:{names.strategies[strategy]}")
        groups.append(groups[instrument] | {own})
    return {0, node}.union(*(group for group in groups if node in group))


def configured_values(config: Config, names: PageNames) -> Values:
    """Return every limit that a configuration writes, as the page holds it, never wider.

    An initial margin rate that is not written is left out: only the venue's brackets tell it.
    """
    values: Values = {}
    for scope in names.scopes:
        kind, _, name = scope.partition(":")
        for key, value in _scope_values(config, kind, name).items():
            values[scope, key] = value
    return values


def _scope_values(config: Config, kind: str, name: str) -> dict[str, int]:
    limits: Any = config.limits
    if kind == "portfolio":
        gross, net = effective_gross(limits.portfolio), limits.portfolio.net_reporting_max
        return {"gross_reporting_max": gross, "net_reporting_max": limit_money(net)}
    tables = {"venue": limits.venues, "asset": limits.assets, "strategy": limits.strategies}
    table = config.instruments[name] if kind == "instrument" else tables[kind][name]
    values = {
        "gross_reporting_max": limit_money(table.gross_reporting_max),
        "net_reporting_max": limit_money(table.net_reporting_max),
    }
    if kind == "venue":
        venue = config.venues[name]
        values["margin_buffer_reporting"] = charge_money(venue.margin_buffer_reporting)
        haircut = venue.margin_haircut * HAIRCUT_SCALE
        values["margin_haircut"] = int(haircut.to_integral_value(rounding=ROUND_FLOOR))
    elif kind == "strategy":
        values |= _strategy_values(config, name)
    elif kind == "instrument":
        values |= _instrument_values(config, name)
    return values


def _strategy_values(config: Config, name: str) -> dict[str, int]:
    strategy = config.strategies[name]
    return {
        "orders_per_second_max": strategy.orders_per_second_max,
        "attempts_per_second_max": strategy.attempts_per_second_max,
        "duplicate_window_ms": strategy.duplicate_window_ms,
        "repeated_orders_max": strategy.repeated_orders_max,
        "repeated_window_s": strategy.repeated_window_s * MS_PER_S,
    }


def _instrument_values(config: Config, name: str) -> dict[str, int]:
    table = config.instruments[name]
    exit_bps = table.exit_collar_bps_max
    if exit_bps is None:
        exit_bps = min(BPS_MAX, EXIT_COLLAR_MULTIPLE * table.collar_bps_max)
    values = {
        "order_reporting_max": limit_money(table.order_reporting_max),
        "order_lots_max": LOTS_MAX if table.order_lots_max is None else table.order_lots_max,
        "collar_bps_max": table.collar_bps_max * PPM_PER_BPS,
        "exit_collar_bps_max": exit_bps * PPM_PER_BPS,
        "stop_distance_bps_max": table.stop_distance_bps_max * PPM_PER_BPS,
        "resting_closes_max": table.resting_closes_max,
    }
    if table.initial_margin_rate is not None:
        rate = table.initial_margin_rate * PPM
        values["initial_margin_rate"] = int(rate.to_integral_value(rounding=ROUND_CEILING))
    return values


def _part(rule: LimitKey, word: int) -> int:
    return word if rule.bits == 63 else (word >> rule.shift) & ((1 << rule.bits) - 1)


def _with_part(rule: LimitKey, word: int, value: int) -> int:
    if rule.bits == 63:
        return value
    mask = (1 << rule.bits) - 1
    return (word & ~(mask << rule.shift)) | ((value & mask) << rule.shift)
