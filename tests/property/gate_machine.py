"""A state machine that does random things to a real page and to the model, and compares.

``Trading`` keeps marks and limits still, so that gross may never pass a limit; ``gate_weather``
moves them too. Orders are asked for in the client's own terms, so conversions are on the way.
"""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.gate_fixtures import (
    INSTRUMENTS,
    KEEPER,
    MARKS,
    SCOPES,
    STRATEGIES,
    scopes_of,
    unlinked_bench,
)
from tests.property.gate_model import PAIRS, Answer, Model, Order, Pair
from tripgate.gate.commit import commit, find_reserved, take_back
from tripgate.gate.exits import drop_exit, issue_exit, wish_exit
from tripgate.gate.words import closable_parts
from tripgate.page import atomics
from tripgate.page.layout import (
    CLAIM,
    CONTROL_HEADER,
    COUNTERS_HEADER,
    ENTRY,
    INSTRUMENT,
    KEY,
    LIMIT,
    SLOT,
    SUM,
)
from tripgate.page.ring import RingWriter
from tripgate.reasons import DenyReason, Level
from tripgate.units import PPM

UNIT = 6_000_000
"""About ten lots of bitcoin: the measure in which the limits below are written."""
GROSS = {"portfolio": 14, "venue:alpha": 10, "asset:BTC": 7, "strategy:trend": 5}
NET = {"portfolio": 7, "strategy:hedge": 4, "asset:ETH": 3}
MARGIN = {"venue:alpha": 9, "venue:beta": 3}
ELSEWHERE = 50
MARGIN_PPM = 130_000
PRICE_STEP = 100
"""Offsets from the mark are multiples of it: smaller ones could give two orders one hash."""
PLACES_KEPT = 8
"""The model knows no full table of entries: the log tidies up before there is one."""

PAIR = st.sampled_from(PAIRS)
PICK = st.integers(0, 1_000)
SHARE = st.integers(1, 100)
SCOPE = st.sampled_from(SCOPES)


class Trading(RuleBasedStateMachine):
    """Random orders, fills and ends on a real page beside the model."""

    is_still = True
    """Whether marks and limits stay what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = unlinked_bench()
        self.page = self.bench.page
        self.ring = RingWriter(self.page, KEEPER)
        self.answers: set[tuple[DenyReason | None, str]] = set()
        self.model = Model(
            gross={scope: GROSS.get(scope, ELSEWHERE) * UNIT for scope in SCOPES},
            net={scope: NET.get(scope, ELSEWHERE) * UNIT for scope in SCOPES},
            margin_max={
                scope: MARGIN.get(scope, ELSEWHERE) * UNIT * MARGIN_PPM // PPM for scope in SCOPES
            },
            order_max=5 * UNIT,
            margin_ppm=MARGIN_PPM,
        )
        self.write_limits()

    def write_limits(self) -> None:
        """Write the model's constants into the page."""
        for scope in SCOPES:
            self.bench.limit(scope, gross=self.model.gross[scope], net=self.model.net[scope])
            node = self.page.names.scope(scope)
            self.page.rows(LIMIT)["margin_max"][node] = self.model.margin_max[scope]
        self.page.rows(INSTRUMENT)["order_money_max"][:] = self.model.order_max
        for table in (INSTRUMENT, KEY):
            self.page.rows(table)["margin_ppm"][:] = self.model.margin_ppm

    @rule(
        pair=PAIR, size=st.integers(1, 60), buys=st.booleans(), offset=st.integers(-60, 60),
        stop_percent=st.sampled_from([98, 98, 98, 98, 98, 85, 100, 0]),
        market=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def ask(
        self, pair: Pair, size: int, buys: bool, offset: int, stop_percent: int, market: bool
    ) -> None:
        """Check an order near the mark, of up to six units, mostly with a proper stop."""
        mark = self.model.marks[pair[1]][0]
        price = 0 if market else mark + offset * PRICE_STEP
        stop = mark * (stop_percent if buys else 200 - stop_percent) // 100 if stop_percent else 0
        self.check(pair, size if buys else -size, price, stop)

    @rule(
        pair=PAIR, share=st.integers(1, 110), offset=st.sampled_from([-200, -3, 0, 0, 3, 200]),
        market=st.booleans(),
    )  # fmt: skip
    def ask_to_close(self, pair: Pair, share: int, offset: int, market: bool) -> None:
        """Check a close of a share of a position, now and then of more than there is."""
        position = self.model.positions[pair].lots
        if position:
            lots = -(-abs(position) * share // 100)
            price = 0 if market else self.model.marks[pair[1]][0] + offset * PRICE_STEP
            self.check(pair, -lots if position > 0 else lots, price, 0)

    def check(self, pair: Pair, lots: int, price: int, stop: int) -> None:
        """Ask the gate and the model; they must agree in reason and scope, and in what is held."""
        self.make_places(pair[0])
        handle, units = self.bench.handle(pair[1], pair[0]), INSTRUMENTS[pair[1]].units
        position, generation = self.model.positions[pair].lots, self.generation()
        answer = self.model.judge(pair, lots, price, stop)
        decision = handle.check(
            units.lot * lots,
            units.tick * price if price else None,
            Decimal(units.price_text(stop)) if stop else None,
        )
        assert (decision.reason, decision.scope) == (answer.reason, answer.scope)
        self.answers.add((answer.reason, answer.kind))
        assert self.generation() == generation
        if decision.approved:
            self.expect_entry(decision.token, pair, lots, answer)
        if position * lots < 0 and abs(lots) <= abs(position):
            self.expect_exit(answer, lots, price, pair)

    def expect_entry(self, token: int, pair: Pair, lots: int, answer: Answer) -> None:
        """Compare the entry with the answer; P2: no total of an opening's nodes is over."""
        order = Order(
            token, pair, lots, answer.reserved, answer.margin, abs(lots), answer.kind,
            unposted=self.model.frozen,
        )  # fmt: skip
        self.model.orders.append(order)
        entry = self.bench.settlement.find(token)
        assert entry is not None
        row = self.page.rows(ENTRY)[entry.row]
        assert (int(row["price"]), int(row["reserved"])) == (answer.price, answer.reserved)
        assert int(row["margin_reserved"]) == answer.margin
        if not order.opens:
            return
        sums, side = self.bench.sums(), 1 if lots > 0 else 2
        for scope in scopes_of(pair[0], INSTRUMENTS[pair[1]]):
            assert sums[scope][0] <= self.model.limit(scope, "gross")
            assert sums[scope][side] <= self.model.limit(scope, "net")

    def expect_exit(self, answer: Answer, lots: int, price: int, pair: Pair) -> None:
        """P4: a close of the own position is granted or merged; only a passive one may wait."""
        mark = self.model.marks[pair[1]][0]
        is_passive = price and (price > mark if lots < 0 else price < mark)
        allowed = {None, DenyReason.EXIT_IN_PROGRESS}
        assert answer.reason in allowed | ({DenyReason.EXIT_PENDING} if is_passive else set())

    def make_places(self, strategy: int) -> None:
        """Tidy up when a client's table of entries is nearly full."""
        slot = self.bench.slots.get(strategy)
        if slot is None:
            return
        first = self.page.slot_entries(slot)
        words = self.page.rows(ENTRY)["word"][first : first + 64] & 0x7F
        if (words != 0).sum() > 56 - PLACES_KEPT:
            self.log()

    def generation(self) -> int:
        """Return the trip generation."""
        return atomics.load(self.page.address(CONTROL_HEADER, 0, "generation"))

    def some_order(self, pick: int, state: str) -> Order | None:
        """Return one of the orders in a state, or None if there is none."""
        fitting = [order for order in self.model.orders if order.state == state]
        return fitting[pick % len(fitting)] if fitting and not self.model.frozen else None

    def reserved_row(self, order: Order) -> Any:
        """Return the router's view of a reserved order, once it is posted."""
        self.post()
        found = find_reserved(self.page, order.token, self.bench.slots[order.pair[0]])
        assert found is not None
        return found

    @precondition(lambda self: self.model.orders)
    @rule(pick=PICK)
    def send(self, pick: int) -> None:
        """Let the router commit an order."""
        if order := self.some_order(pick, "reserved"):
            assert commit(self.page, self.reserved_row(order))
            order.state = "committed"

    @precondition(lambda self: self.model.orders)
    @rule(pick=PICK)
    def fail_to_send(self, pick: int) -> None:
        """Let the router commit an order and take it back."""
        if order := self.some_order(pick, "reserved"):
            found = self.reserved_row(order)
            assert commit(self.page, found)
            take_back(self.page, found)
            assert self.bench.settlement.release(order.token)
            self.model.orders.remove(order)

    @precondition(lambda self: self.model.orders)
    @rule(pick=PICK, share=SHARE)
    def fill(self, pick: int, share: int) -> None:
        """Fill a part of an order; what closes fills reduce-only, as the venue enforces it."""
        order = self.some_order(pick, "committed")
        if order is None:
            return
        held = self.model.positions[order.pair].lots
        most = order.remaining if order.opens else min(order.remaining, abs(held))
        lots = -(-most * share // 100)
        if lots == 0 or (not order.opens and held * order.lots > 0):
            return
        signed = lots if order.lots > 0 else -lots
        entry = self.bench.settlement.find(order.token)
        order.remaining -= lots
        self.move(order.pair, held + signed, entry, signed)

    def move(self, pair: Pair, lots: int, entry: Any, signed: int) -> None:
        """Book a fill in the page and in the model."""
        self.model.move(pair, lots)
        key = self.bench.key(pair[1], pair[0])
        self.bench.settlement.fill(key, entry, signed, self.model.positions[pair].charged)

    @precondition(lambda self: self.model.orders)
    @rule(pick=PICK)
    def end(self, pick: int) -> None:
        """Observe an order's terminal record."""
        if order := self.some_order(pick, "committed"):
            assert self.bench.settlement.release(order.token)
            self.model.orders.remove(order)

    @rule(pair=PAIR, share=SHARE)
    def stop_out(self, pair: Pair, share: int) -> None:
        """Let a protective stop or a liquidation take a part of a position."""
        if self.model.frozen:
            return
        position = self.model.positions[pair].lots
        if lots := -(-abs(position) * share // 100):
            signed = -lots if position > 0 else lots
            self.move(pair, position + signed, None, signed)

    @rule(pair=PAIR)
    def flatten(self, pair: Pair) -> None:
        """Let the breaker claim a key for its whole position."""
        position, key = self.model.positions[pair].lots, self.bench.key(pair[1], pair[0])
        if position == 0:
            return
        wish, row = self.model.wishes[pair], self.page.rows(KEY)[key]
        assert wish_exit(self.page, key, int(Level.HARD), self.model.market_ms) != wish.claimed
        assert int(row["exit_lots"]) >= abs(position)
        wish.claimed, wish.lots, wish.count = True, int(row["exit_lots"]), int(row["exit_count"])
        wish.first_ms, wish.last_ms = int(row["exit_first_ms"]), int(row["exit_ms"])

    @rule(pair=PAIR)
    def work_exit(self, pair: Pair) -> None:
        """Let the router carry out a wish: one live exit, and the claim dropped once flat.

        An exit counts at its side as much as the position does; one sent during a freeze does so
        once it is posted.
        """
        wish, key = self.model.wishes[pair], self.bench.key(pair[1], pair[0])
        live = any(o.pair == pair and o.kind == "exit" for o in self.model.orders)
        if live or not wish.claimed:
            return
        if not self.model.frozen:
            self.bench.settlement.free_durable()
        held = self.model.positions[pair]
        if token := issue_exit(self.page, self.ring, key, self.model.market_ms):
            order = Order(
                token, pair, -held.lots, abs(held.charged), 0, abs(held.lots), "exit", "committed",
                unposted=self.model.frozen,
            )  # fmt: skip
            self.model.orders.append(order)
            return
        drop_exit(self.page, key)
        row = self.page.rows(KEY)[key]
        wish.claimed, wish.lots, wish.count = False, int(row["exit_lots"]), int(row["exit_count"])
        wish.first_ms, wish.last_ms = int(row["exit_first_ms"]), int(row["exit_ms"])

    @rule()
    def reap(self) -> None:
        """Let every reservation expire that was not sent."""
        if self.model.frozen:
            return
        expired = {order.token for order in self.model.orders if order.state == "reserved"}
        assert set(self.bench.settlement.reap(1 << 62)) == expired
        self.model.orders = [o for o in self.model.orders if o.token not in expired]

    @rule()
    def log(self) -> None:
        """Let audit_writer and keeper tidy up."""
        self.bench.make_durable()
        self.bench.settlement.free_durable()

    @rule()
    def post(self) -> None:
        """Let the keeper post exits that were taken during a freeze."""
        if self.model.frozen:
            return
        unposted = [order for order in self.model.orders if order.unposted]
        assert self.bench.settlement.post_exits() == len(unposted)
        for order in unposted:
            order.unposted = False

    @rule()
    def mark_positions(self) -> None:
        """Mark every position at the standing price."""
        if self.model.frozen:
            return
        for pair, held in self.model.positions.items():
            self.model.move(pair, held.lots)
            key = self.bench.key(pair[1], pair[0])
            self.bench.settlement.mark(key, self.model.positions[pair].charged)

    @invariant()
    def words_are_sums(self) -> None:
        """Every word equals what the model adds up."""
        expected, margins = self.model.sums(), self.page.rows(SUM)["margin"]
        found = {
            scope: (*sums, int(margin))
            for (scope, sums), margin in zip(self.bench.sums().items(), margins, strict=True)
        }
        assert found == expected
        claims = [int(lots) for lots in self.page.rows(CLAIM)["lots"]]
        assert claims == [self.model.claim(i) for i in range(len(MARKS))]
        for pair, held in self.model.positions.items():
            row = self.page.rows(KEY)[self.bench.key(pair[1], pair[0])]
            assert closable_parts(int(row["closable"])) == (held.lots, self.model.pending(pair))
            assert int(row["resting"]) == self.model.resting(pair)
            wish = self.model.wishes[pair]
            assert (bool(row["exit_claim"]), int(row["exit_lots"])) == (wish.claimed, wish.lots)
            assert int(row["exit_count"]) == wish.count
            assert (int(row["exit_first_ms"]), int(row["exit_ms"])) == (wish.first_ms, wish.last_ms)
        unposted = atomics.load(self.page.address(COUNTERS_HEADER, 0, "unposted"))
        assert unposted == self.model.unposted()

    @invariant()
    def gross_is_within_its_limits(self) -> None:
        """At standing marks and limits gross never passes one, but for what rounding up adds."""
        if not self.is_still:
            return
        broken = sum(
            INSTRUMENTS[o.pair[1]].units.value_fraction().denominator > 1 for o in self.model.orders
        )
        for scope, (gross, _, _) in self.bench.sums().items():
            assert gross <= self.model.gross[scope] + broken + len(STRATEGIES)

    @invariant()
    def no_quantity_is_negative(self) -> None:
        """Nothing open or held is below zero, every process is outside its sections."""
        entries, slots = self.page.rows(ENTRY), self.page.rows(SLOT)
        assert (entries["remaining"] >= 0).all()
        assert (entries["charged"] >= 0).all()
        assert (entries["margin_charged"] >= 0).all()
        assert (self.page.rows(SUM)["gross"] >= 0).all()
        assert not ((slots["section"] | slots["exit_section"]) & 1).any()

    @invariant()
    def no_grant_was_over(self) -> None:
        """The gate's own measure agrees."""
        for slot in self.bench.slots.values():
            assert int(self.page.rows(SLOT)[slot]["overshoot_max"]) <= 0
