"""A snapshot compared with what the records up to it add up to.

The keeper names in each snapshot which records it had applied and which its sums hold, so there is
nothing to guess: exactly those are added up, and positions, equity, results and sums must be equal
to the last unit. Prices are taken as recorded; what a position counts is recomputed from them where
its instrument ticked in that step and is quoted in the reporting currency.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tripgate.machines import book
from tripgate.machines.book_types import Key
from tripgate.page.terms import INSTRUMENT_FIELDS
from tripgate.replay.amounts import part_up, share_up
from tripgate.replay.holdings import Holdings, Problem
from tripgate.replay.terms import Terms
from tripgate.units import PPM

SUM_NAMES = ("gross", "long", "short", "margin")


def keyed(holdings: Holdings, number: object) -> Key:
    """Return the key of a key's number in a snapshot. Raises ``LookupError``."""
    strategy, instrument, _ = holdings.names.keys[int(str(number))]
    return Key(strategy, instrument)


def book_problems(holdings: Holdings, body: Mapping[Any, Any]) -> Iterator[Problem]:
    """Yield where positions and results of a snapshot are not those of the fills."""
    recorded = {keyed(holdings, n): tuple(words) for n, words in body["positions"].items()}
    rebuilt = {
        key: (p.lots, p.cash_lot_ticks, p.fees_money, p.basis_lot_ticks)
        for key, p in holdings.book.positions.items()
    }
    nothing = (0, 0, 0, 0)
    for key in sorted({*recorded, *rebuilt}):
        was, must = recorded.get(key, nothing), rebuilt.get(key, nothing)
        if was != must:
            yield (f"position of {key_text(holdings, key)} (lots, cash, fees, basis)",
                   str(was), str(must))  # fmt: skip
    yield from _equity_problems(holdings, body)
    yield from _result_problems(holdings, body)


def _equity_problems(holdings: Holdings, body: Mapping[Any, Any]) -> Iterator[Problem]:
    for scope, account in body["accounts"].items():
        kind, _, name = scope.partition(":")
        if not account["known"]:
            continue
        strategy = holdings.names.strategies.index(name) if kind == "strategy" else None
        equity = book.equity(holdings.book, strategy).on_mark_money
        if equity != account["equity"]:
            yield (f"equity of {scope}", str(account["equity"]), str(equity))
        mark = account["high_water_mark"]
        if mark < account["equity"]:
            yield (f"high-water mark of {scope}", str(mark), f"at least {account['equity']}")
        drawdown = drawdown_ppm(mark, account["equity"])
        if drawdown != account["drawdown_ppm"]:
            yield (f"drawdown of {scope}", str(account["drawdown_ppm"]), str(drawdown))


def drawdown_ppm(mark: int, equity: int) -> int:
    """Return (mark − equity) ÷ mark in ppm, rounded up, within 0 and 1,000,000."""
    if equity <= 0:
        return PPM
    return part_up(max(0, mark - equity), PPM, mark)


def _result_problems(holdings: Holdings, body: Mapping[Any, Any]) -> Iterator[Problem]:
    parts = [book.split_money(holdings.book, key) for key in holdings.book.positions]
    rebuilt = {
        "realised": sum(done for done, _ in parts),
        "unrealised": sum(still_open or 0 for _, still_open in parts),
        "fees": sum(position.fees_money for position in holdings.book.positions.values()),
    }
    for name, amount in rebuilt.items():
        if body[name] != amount:
            yield (f"{name} result", str(body[name]), str(amount))


def charged_of(holdings: Holdings, body: Mapping[Any, Any]) -> dict[Key, tuple[int, int]]:
    """Return what each position counts and its margin, as recorded."""
    return {
        keyed(holdings, number): (int(words[0]), int(words[1]))
        for number, words in body["charged"].items()
    }


def charge_problems(holdings: Holdings, terms: Terms, body: Mapping[Any, Any]) -> Iterator[Problem]:
    """Yield where what a position counts cannot be what it is worth."""
    ticked = {int(number) for number in body["ticked"]}
    for key, (charged, margin) in charged_of(holdings, body).items():
        lots = holdings.book.positions[key].lots if key in holdings.book.positions else 0
        spec = dict(zip(INSTRUMENT_FIELDS, terms.instruments[key.instrument], strict=True))
        what = f"worth of {key_text(holdings, key)}"
        if (charged > 0) - (charged < 0) != (lots > 0) - (lots < 0):
            yield (what, str(charged), f"of the sign of {lots} lots")
        elif key.instrument in ticked and not spec["quote"]:
            unit = 1 if spec["inverse"] else holdings.book.mark_ticks[key.instrument]
            size = abs(lots) * spec["value_numerator"]
            worth = part_up(size, unit, spec["value_denominator"])
            if abs(charged) != worth:
                yield (what, str(charged), str(worth if lots > 0 else -worth))
            # A rate that an operator has changed reaches a position with its next mark.
            elif margin != share_up(worth, spec["margin_ppm"]) and terms.since_ns == 0:
                yield (f"margin of {key_text(holdings, key)}", str(margin),
                       str(share_up(worth, spec["margin_ppm"])))  # fmt: skip


def sum_problems(holdings: Holdings, body: Mapping[Any, Any]) -> Iterator[Problem]:
    """Yield where the nodes' sums are not those of positions and reservations."""
    rebuilt = holdings.sums(charged_of(holdings, body))
    for scope, node in body["nodes"].items():
        amounts = rebuilt[holdings.names.number[scope]]
        for name, amount in zip(SUM_NAMES, amounts, strict=True):
            if node[name] != amount:
                yield (f"{name} sum of {scope}", str(node[name]), str(amount))


def key_text(holdings: Holdings, key: Key) -> str:
    """Return a key as people read it."""
    names = holdings.names
    return f"{names.strategies[key.strategy]} {names.instruments[key.instrument]}"
