"""P2: whatever happens in whatever order, the page agrees with an exact model in plain Python.

The model knows nothing of words, swaps or slots: it has positions, orders and limits, and adds
everything up anew each time. After every step each word of the page must equal its sum, and each
answer of the gate must be the one the model gives, reason and scope included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.gate_fixtures import (
    INSTRUMENTS,
    MARKS,
    SCOPES,
    STRATEGIES,
    scopes_of,
    unlinked_bench,
)
from tripgate.gate.commit import commit, find_reserved, take_back
from tripgate.gate.words import closable_parts
from tripgate.page.layout import CLAIM, ENTRY, INSTRUMENT, KEY, SLOT
from tripgate.reasons import DenyReason

pytestmark = pytest.mark.kernels

UNIT = 6_000_000
"""About ten lots of bitcoin: the measure in which the limits below are written."""
GROSS = {"portfolio": 14, "venue:alpha": 10, "asset:BTC": 9, "strategy:trend": 8}
NET = {"portfolio": 7, "strategy:hedge": 4, "asset:ETH": 3}
ORDER_MAX = 5 * UNIT


STRATEGY_NUMBER, INSTRUMENT_NUMBER = st.integers(0, 1), st.integers(0, 2)
PICK = st.integers(0, 1_000)
LONG_RUN_STEPS = 800


@dataclass
class Order:
    """One order of the model."""

    token: int
    strategy: int
    instrument: int
    lots: int
    reserved: int
    remaining: int
    opens: bool
    state: str = "reserved"

    @property
    def charged(self) -> int:
        """What it holds at its nodes: its worth in proportion to what is left, rounded up."""
        return -(-self.reserved * self.remaining // abs(self.lots))

    @property
    def pair(self) -> tuple[int, int]:
        """Strategy and instrument."""
        return self.strategy, self.instrument


def value_of(instrument: int) -> Fraction:
    return INSTRUMENTS[instrument].units.value_fraction()


def worth(instrument: int, lots: int, ticks: int) -> int:
    """Return money units, rounded up."""
    exact = abs(lots) * ticks * value_of(instrument)
    return -(-exact.numerator // exact.denominator)


class Book:
    """Positions, live orders, limits; everything else is added up from them."""

    def __init__(self) -> None:
        self.positions = {(s, i): 0 for s in range(len(STRATEGIES)) for i in range(len(MARKS))}
        self.orders: list[Order] = []
        self.gross_max = {scope: GROSS.get(scope, 50) * UNIT for scope in SCOPES}
        self.net_max = {scope: NET.get(scope, 50) * UNIT for scope in SCOPES}

    def signed_worth(self, strategy: int, instrument: int) -> int:
        lots = self.positions[strategy, instrument]
        amount = worth(instrument, lots, MARKS[instrument])
        return amount if lots > 0 else -amount

    def sums(self) -> dict[str, tuple[int, int, int]]:
        """Return (gross, long worst, short worst) of every scope."""
        totals = {scope: [0, 0, 0] for scope in SCOPES}
        for strategy, instrument in self.positions:
            signed = self.signed_worth(strategy, instrument)
            for scope in scopes_of(strategy, INSTRUMENTS[instrument]):
                totals[scope][0] += abs(signed)
                totals[scope][1] += signed
                totals[scope][2] -= signed
        for order in self.orders:
            for scope in scopes_of(order.strategy, INSTRUMENTS[order.instrument]):
                totals[scope][0] += order.charged if order.opens else 0
                totals[scope][1 if order.lots > 0 else 2] += order.charged
        return {scope: (g, long, short) for scope, (g, long, short) in totals.items()}

    def pending(self, pair: tuple[int, int]) -> int:
        return sum(o.remaining for o in self.orders if o.pair == pair and not o.opens)

    def claim(self, instrument: int) -> int:
        held = sum(lots for (_, i), lots in self.positions.items() if i == instrument)
        opening = (o for o in self.orders if o.instrument == instrument and o.opens)
        return held + sum(o.remaining if o.lots > 0 else -o.remaining for o in opening)

    def judge(self, pair: tuple[int, int], lots: int, price: int) -> tuple[Any, str, int]:
        """Return (reason, scope, worth) as GATE.md section 3 and 4 want them."""
        strategy, instrument = pair
        position, own = self.positions[pair], INSTRUMENTS[instrument].scope
        if position and (position > 0) != (lots > 0):
            if abs(lots) > abs(position):
                return DenyReason.MIXED, own, 0
            if abs(lots) + self.pending(pair) > abs(position):
                return DenyReason.EXIT_PENDING, own, 0
            return None, "", worth(instrument, lots, max(price, MARKS[instrument]))
        amount = worth(instrument, lots, max(price, MARKS[instrument]))
        if amount > ORDER_MAX:
            return DenyReason.ORDER_NOTIONAL, own, amount
        if not position and self.pending(pair):
            return DenyReason.EXIT_PENDING, own, amount
        if self.claim(instrument) * lots < 0:
            return DenyReason.OPPOSED_POSITION, own, amount
        sums, side = self.sums(), 1 if lots > 0 else 2
        for scope in scopes_of(strategy, INSTRUMENTS[instrument]):
            if sums[scope][0] + amount > self.gross_max[scope]:
                return DenyReason.GROSS_LIMIT, scope, amount
            if sums[scope][side] + amount > self.net_max[scope]:
                return DenyReason.NET_LIMIT, scope, amount
        return None, "", amount


class GateMachine(RuleBasedStateMachine):
    """Random orders, fills and ends on a real page beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = unlinked_bench()
        self.book = Book()
        self.answers: set[tuple[DenyReason | None, bool]] = set()
        for scope in SCOPES:
            self.bench.limit(scope, gross=self.book.gross_max[scope], net=self.book.net_max[scope])
        self.bench.page.rows(INSTRUMENT)["order_money_max"][:] = ORDER_MAX

    @rule(
        strategy=STRATEGY_NUMBER,
        instrument=INSTRUMENT_NUMBER,
        size=st.integers(1, 60),
        buys=st.booleans(),
        offset=st.integers(-50, 50),
    )
    def ask(self, strategy: int, instrument: int, size: int, buys: bool, offset: int) -> None:
        """Check an order, near the mark, of up to six units."""
        lots = size if buys else -size
        price = MARKS[instrument] + offset
        stop = MARKS[instrument] * (98 if buys else 102) // 100
        reason, scope, amount = self.book.judge((strategy, instrument), lots, price)
        opens = self.book.positions[strategy, instrument] * lots >= 0
        self.answers.add((reason, opens))
        handle = self.bench.handle(instrument, strategy)
        answer = handle.check_raw(lots, price, stop)
        assert answer > 0 if reason is None else answer == -reason
        if reason is not None:
            record = self.bench.records(self.bench.slots[strategy])[-1]
            assert (record.reason, SCOPES[record.values["scope"]]) == (reason, scope)
            return
        order = Order(answer, strategy, instrument, lots, amount, abs(lots), opens)
        self.book.orders.append(order)
        if opens:
            self.check_the_grant(order)

    def check_the_grant(self, order: Order) -> None:
        """P2 itself: right after a grant no total of its nodes is above its limit."""
        sums, side = self.bench.sums(), 1 if order.lots > 0 else 2
        for scope in scopes_of(order.strategy, INSTRUMENTS[order.instrument]):
            assert sums[scope][0] <= self.book.gross_max[scope]
            assert sums[scope][side] <= self.book.net_max[scope]

    @rule(strategy=STRATEGY_NUMBER, instrument=INSTRUMENT_NUMBER, share=st.integers(1, 110))
    def ask_to_close(self, strategy: int, instrument: int, share: int) -> None:
        """Check a close of a share of a position, now and then of more than there is."""
        position = self.book.positions[strategy, instrument]
        if position:
            self.ask(strategy, instrument, -(-abs(position) * share // 100), position < 0, 0)

    def some_order(self, pick: int, state: str) -> Order | None:
        """Return one of the orders in a state, or None if there is none."""
        fitting = [order for order in self.book.orders if order.state == state]
        return fitting[pick % len(fitting)] if fitting else None

    @precondition(lambda self: self.book.orders)
    @rule(pick=PICK)
    def send(self, pick: int) -> None:
        """Let the router commit an order."""
        if order := self.some_order(pick, "reserved"):
            slot = self.bench.slots[order.strategy]
            found = find_reserved(self.bench.page, order.token, slot)
            assert found is not None
            assert commit(self.bench.page, found)
            order.state = "committed"

    @precondition(lambda self: self.book.orders)
    @rule(pick=PICK)
    def fail_to_send(self, pick: int) -> None:
        """Let the router commit an order and take it back."""
        if order := self.some_order(pick, "reserved"):
            slot = self.bench.slots[order.strategy]
            found = find_reserved(self.bench.page, order.token, slot)
            assert found is not None
            assert commit(self.bench.page, found)
            take_back(self.bench.page, found)
            assert self.bench.settlement.release(order.token)
            self.book.orders.remove(order)

    @precondition(lambda self: self.book.orders)
    @rule(pick=PICK, share=st.integers(1, 100))
    def fill(self, pick: int, share: int) -> None:
        """Fill a part of an order; a close fills reduce-only, as the venue enforces it."""
        order = self.some_order(pick, "committed")
        if order is None:
            return
        most = order.remaining
        if not order.opens:
            most = min(most, abs(self.book.positions[order.pair]))
        lots = -(-most * share // 100)
        if lots == 0:
            return
        signed = lots if order.lots > 0 else -lots
        self.book.positions[order.pair] += signed
        order.remaining -= lots
        key = self.bench.key(order.instrument, order.strategy)
        entry = self.bench.settlement.find(order.token)
        after = self.book.signed_worth(*order.pair)
        self.bench.settlement.fill(key, entry, signed, after)

    @precondition(lambda self: self.book.orders)
    @rule(pick=PICK)
    def end(self, pick: int) -> None:
        """Observe an order's terminal record."""
        if order := self.some_order(pick, "committed"):
            assert self.bench.settlement.release(order.token)
            self.book.orders.remove(order)

    @rule(pair=st.tuples(st.integers(0, 1), st.integers(0, 2)), share=st.integers(1, 100))
    def stop_out(self, pair: tuple[int, int], share: int) -> None:
        """Let a protective stop or a liquidation take a part of a position."""
        position = self.book.positions[pair]
        lots = -(-abs(position) * share // 100)
        if lots:
            signed = -lots if position > 0 else lots
            self.book.positions[pair] += signed
            key, after = self.bench.key(pair[1], pair[0]), self.book.signed_worth(*pair)
            self.bench.settlement.fill(key, None, signed, after)

    @rule()
    def reap(self) -> None:
        """Let every reservation expire that was not sent."""
        expired = {order.token for order in self.book.orders if order.state == "reserved"}
        assert set(self.bench.settlement.reap(1 << 62)) == expired
        self.book.orders = [o for o in self.book.orders if o.token not in expired]

    @rule()
    def log(self) -> None:
        """Let audit_writer and keeper tidy up."""
        self.bench.make_durable()
        self.bench.settlement.free_durable()

    @rule()
    def mark(self) -> None:
        """Mark every position at the standing price."""
        for strategy, instrument in self.book.positions:
            signed = self.book.signed_worth(strategy, instrument)
            self.bench.settlement.mark(self.bench.key(instrument, strategy), signed)

    @invariant()
    def words_are_sums(self) -> None:
        """Every word equals what the model adds up."""
        assert self.bench.sums() == self.book.sums()
        claims = self.bench.page.rows(CLAIM)["lots"]
        assert [int(lots) for lots in claims] == [self.book.claim(i) for i in range(len(MARKS))]
        for (strategy, instrument), lots in self.book.positions.items():
            word = int(self.bench.page.rows(KEY)["closable"][self.bench.key(instrument, strategy)])
            assert closable_parts(word) == (lots, self.book.pending((strategy, instrument)))

    @invariant()
    def gross_is_within_its_limits(self) -> None:
        """At standing marks gross never passes a limit, but for what rounding up adds."""
        broken = sum(1 for o in self.book.orders if value_of(o.instrument).denominator > 1)
        for scope, (gross, _, _) in self.bench.sums().items():
            assert gross <= self.book.gross_max[scope] + broken + len(STRATEGIES)

    @invariant()
    def no_quantity_is_negative(self) -> None:
        """Nothing open or held is below zero, every process is outside its section."""
        entries = self.bench.page.rows(ENTRY)
        assert (entries["remaining"] >= 0).all()
        assert (entries["charged"] >= 0).all()
        assert all(gross >= 0 for gross, _, _ in self.bench.sums().values())
        assert not (self.bench.page.rows(SLOT)["section"] & 1).any()

    @invariant()
    def no_grant_was_over(self) -> None:
        """The gate's own measure agrees."""
        for slot in self.bench.slots.values():
            row = self.bench.page.rows(SLOT)[slot]
            assert int(row["overshoot_max"]) <= 0


def test_P2_gate_when_anything_happens_in_any_order_then_page_and_model_agree() -> None:
    run_state_machine_as_test(
        GateMachine, settings=settings(max_examples=40, stateful_step_count=40)
    )


def long_run(machine: GateMachine, draw: np.random.Generator) -> None:
    """Do one random thing, orders and fills more often than the rest."""
    pair = int(draw.integers(2)), int(draw.integers(3))
    share, pick = int(draw.integers(1, 101)), int(draw.integers(1_000))
    size = int(draw.integers(1, 60))
    moves: list[tuple[int, Callable[[], None]]] = [
        (8, lambda: machine.ask(*pair, size, bool(pick % 2), share - 50)),
        (6, lambda: machine.ask_to_close(*pair, share)),
        (6, lambda: machine.send(pick)),
        (6, lambda: machine.fill(pick, share)),
        (2, lambda: machine.end(pick)),
        (1, lambda: machine.fail_to_send(pick)),
        (1, lambda: machine.stop_out(pair, share)),
        (1, machine.reap),
        (1, machine.log),
        (1, machine.mark),
    ]
    weights = np.array([weight for weight, _ in moves], dtype=float)
    moves[int(draw.choice(len(moves), p=weights / weights.sum()))][1]()


@pytest.mark.parametrize("seed", range(8))
def test_P2_gate_when_it_trades_for_long_then_page_and_model_agree(seed: int) -> None:
    machine, draw = GateMachine(), np.random.default_rng(seed)
    for _ in range(LONG_RUN_STEPS):
        long_run(machine, draw)
        machine.words_are_sums()
        machine.gross_is_within_its_limits()
        machine.no_quantity_is_negative()
        machine.no_grant_was_over()
    reached = {reason for reason, _ in machine.answers}
    assert {None, DenyReason.GROSS_LIMIT, DenyReason.NET_LIMIT} <= reached
    assert {False, True} == {opens for reason, opens in machine.answers if reason is None}
