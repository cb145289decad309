"""The gate as plain Python integers: what each check must answer and what each word must be.

The model knows nothing of words, swaps, slots or sections. It has positions, orders, limits,
levels, leases, paces and wishes, adds everything up anew each time, and judges in the order of
GATE.md sections 2 to 4. Whatever the compiled gate does must equal this, to the unit.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from tests.gate_fixtures import (
    AGE_MAX_MS,
    COLLAR_PPM,
    EXIT_COLLAR_PPM,
    INSTRUMENTS,
    MARKET_MS,
    MARKS,
    RATE_MAX,
    RESTING_MAX,
    ROLES,
    SCOPES,
    STOP_DISTANCE_PPM,
    STRATEGIES,
    scopes_of,
)
from tripgate.reasons import DenyReason, Level
from tripgate.units import LOTS_MAX, PPM

Pair = tuple[int, int]
"""Strategy and instrument."""
PAIRS: tuple[Pair, ...] = tuple(
    (s, i) for s in range(len(STRATEGIES)) for i in range(len(INSTRUMENTS))
)


def ceil_share(amount: int, part: int, whole: int) -> int:
    """Return ceil(amount × part / whole)."""
    return -(-amount * part // whole)


@dataclass
class Order:
    """One order: an opening, a close, or the merged exit of a key.

    ``unposted`` closes were taken during a freeze and stand in no sum yet.
    """

    token: int
    pair: Pair
    lots: int
    reserved: int
    margin: int
    remaining: int
    kind: str
    state: str = "reserved"
    unposted: bool = False

    @property
    def opens(self) -> bool:
        """Whether it adds risk."""
        return self.kind == "open"

    @property
    def charged(self) -> int:
        """What it holds at its nodes: its worth in proportion to what is left, rounded up."""
        return ceil_share(self.reserved, self.remaining, abs(self.lots))

    @property
    def margin_charged(self) -> int:
        """What it holds of its venue's margin."""
        return ceil_share(self.margin, self.remaining, abs(self.lots))


@dataclass
class Position:
    """A strategy's own position, its worth as last marked, and the margin of that."""

    lots: int = 0
    charged: int = 0
    margin: int = 0


@dataclass
class Wish:
    """What the merged exit of a key is wanted for; ``claimed`` turns openings away."""

    claimed: bool = False
    lots: int = 0
    count: int = 0
    first_ms: int = 0
    last_ms: int = 0


@dataclass
class Pace:
    """What one strategy has used of a market second: second and count."""

    opened: tuple[int, int] = (0, 0)
    denied: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Answer:
    """What the gate must say; ``price`` and amounts are those the entry must hold."""

    reason: DenyReason | None
    scope: str = ""
    reserved: int = 0
    margin: int = 0
    price: int = 0
    kind: str = "open"


def _scopes(value: int) -> dict[str, int]:
    return dict.fromkeys(SCOPES, value)


@dataclass
class Model:
    """Everything that decides."""

    gross: dict[str, int]
    net: dict[str, int]
    margin_max: dict[str, int]
    order_max: int
    margin_ppm: int = 0
    inverse: frozenset[int] = frozenset()
    orders_per_second: int = RATE_MAX
    attempts_per_second: int = RATE_MAX
    duplicate_ms: int = 0
    repeats_max: int = 0
    repeat_ms: int = 0
    market_ms: int = MARKET_MS
    rate_ppm: int = PPM
    frozen: bool = False
    marks: list[tuple[int, int]] = field(default_factory=lambda: [(m, MARKET_MS) for m in MARKS])
    levels: dict[tuple[str, int], Level] = field(default_factory=dict)
    factors: dict[str, int] = field(default_factory=lambda: _scopes(PPM))
    lapsed: set[int] = field(default_factory=set)
    positions: dict[Pair, Position] = field(
        default_factory=lambda: {pair: Position() for pair in PAIRS}
    )
    wishes: dict[Pair, Wish] = field(default_factory=lambda: {pair: Wish() for pair in PAIRS})
    paces: list[Pace] = field(default_factory=lambda: [Pace() for _ in STRATEGIES])
    last_order: dict[Pair, tuple[int, int, int, int]] = field(default_factory=dict)
    run: dict[Pair, tuple[int, int, int]] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)

    def worth(self, instrument: int, lots: int, ticks: int) -> int:
        """Return money units, rounded up: linear by price, inverse by contract value alone."""
        value: Fraction = INSTRUMENTS[instrument].units.value_fraction()
        unit = 1 if instrument in self.inverse else ticks
        amount = ceil_share(abs(lots) * unit, value.numerator, value.denominator)
        return ceil_share(amount, max(self.rate_ppm, PPM), PPM)

    def position_worth(self, pair: Pair, lots: int) -> int:
        """Return the signed worth of a position at the standing mark."""
        amount = self.worth(pair[1], lots, self.marks[pair[1]][0])
        return amount if lots > 0 else -amount

    def move(self, pair: Pair, lots: int) -> None:
        """Let a position become ``lots``, marked at the standing price."""
        charged = self.position_worth(pair, lots)
        margin = ceil_share(abs(charged), self.margin_ppm, PPM)
        self.positions[pair] = Position(lots, charged, margin)

    def sums(self) -> dict[str, tuple[int, int, int, int]]:
        """Return (gross, long worst, short worst, margin) of every scope."""
        totals = {scope: [0, 0, 0, 0] for scope in SCOPES}
        for (strategy, instrument), held in self.positions.items():
            for scope in scopes_of(strategy, INSTRUMENTS[instrument]):
                totals[scope][0] += abs(held.charged)
                totals[scope][1] += held.charged
                totals[scope][2] -= held.charged
            totals[f"venue:{INSTRUMENTS[instrument].venue}"][3] += held.margin
        for order in self.orders:
            if order.unposted:
                continue
            strategy, instrument = order.pair
            for scope in scopes_of(strategy, INSTRUMENTS[instrument]):
                totals[scope][0] += order.charged if order.opens else 0
                totals[scope][1 if order.lots > 0 else 2] += order.charged
            if order.opens:
                totals[f"venue:{INSTRUMENTS[instrument].venue}"][3] += order.margin_charged
        return {scope: (t[0], t[1], t[2], t[3]) for scope, t in totals.items()}

    def pending(self, pair: Pair) -> int:
        """Return the lots that closes of a key hold."""
        return sum(o.remaining for o in self.orders if o.pair == pair and o.kind == "close")

    def resting(self, pair: Pair) -> int:
        """Return how many closes of a key are live."""
        return sum(o.pair == pair and o.kind == "close" for o in self.orders)

    def unposted(self) -> int:
        """Return how many exits stand in no sum yet."""
        return sum(order.unposted for order in self.orders)

    def claim(self, instrument: int) -> int:
        """Return the signed lots that a one-way instrument is held and opened for."""
        held = sum(p.lots for (_, i), p in self.positions.items() if i == instrument)
        opening = (o for o in self.orders if o.pair[1] == instrument and o.opens)
        return held + sum(o.remaining if o.lots > 0 else -o.remaining for o in opening)

    def judge(self, pair: Pair, lots: int, price: int, stop: int) -> Answer:
        """Return what the gate must answer, and charge what an answer charges."""
        position, own = self.positions[pair].lots, INSTRUMENTS[pair[1]].scope
        if position and (position > 0) != (lots > 0):
            if abs(lots) > abs(position):
                return Answer(DenyReason.MIXED, own)
            return self._close(pair, lots, price, own)
        answer = self._open(pair, lots, price, stop, own)
        if answer.reason not in (None, DenyReason.ATTEMPT_RATE):
            self._charge_attempt(pair[0])
        return answer

    def is_fresh(self, instrument: int) -> bool:
        """Whether the mark is young enough, in either direction of time."""
        return abs(self.market_ms - self.marks[instrument][1]) <= AGE_MAX_MS

    def _close(self, pair: Pair, lots: int, price: int, own: str) -> Answer:
        mark, fresh = self.marks[pair[1]][0], self.is_fresh(pair[1])
        if price and fresh:
            reach = mark * EXIT_COLLAR_PPM // PPM
            price = max(price, mark - reach) if lots < 0 else min(price, mark + reach)
        wish, room = self.wishes[pair], abs(self.positions[pair].lots) - self.pending(pair)
        fits = not wish.claimed and self.resting(pair) < RESTING_MAX and abs(lots) <= room
        if fits:
            amount = self.worth(pair[1], lots, max(price, mark))
            return Answer(None, "", amount, 0, price, "close")
        if price and fresh and (price > mark if lots < 0 else price < mark):
            claimed = DenyReason.EXIT_IN_PROGRESS
            return Answer(claimed if wish.claimed else DenyReason.EXIT_PENDING, own)
        wish.lots, wish.count = max(wish.lots, abs(lots)), wish.count + 1
        wish.first_ms, wish.last_ms = wish.first_ms or self.market_ms, self.market_ms
        wish.claimed = True
        return Answer(DenyReason.EXIT_IN_PROGRESS, own)

    def _used(self, word: tuple[int, int]) -> int:
        return word[1] if word[0] == self.market_ms // 1000 else 0

    def _charge_attempt(self, strategy: int) -> None:
        pace = self.paces[strategy]
        pace.denied = self.market_ms // 1000, self._used(pace.denied) + 1

    def _open(self, pair: Pair, lots: int, price: int, stop: int, own: str) -> Answer:
        strategy, instrument = pair
        mine = f"strategy:{STRATEGIES[strategy]}"
        if self._used(self.paces[strategy].denied) >= self.attempts_per_second:
            return Answer(DenyReason.ATTEMPT_RATE, mine)
        scopes = scopes_of(strategy, INSTRUMENTS[instrument])
        level = max(self.level(scope) for scope in scopes)
        if level >= Level.MEDIUM:
            tightest = next(scope for scope in scopes if self.level(scope) == level)
            return Answer(DenyReason.LEVEL, tightest)
        if needed := self._lapsed(instrument):
            return Answer(DenyReason.LEASE_LAPSED, f"lease:{ROLES[min(needed)].text}")
        if not self.is_fresh(instrument):
            return Answer(DenyReason.MARK_STALE, own)
        mark = self.marks[instrument][0]
        bound, base = self._bound(mark, lots, price)
        if price and abs(price - mark) * PPM > COLLAR_PPM * mark:
            return Answer(DenyReason.PRICE_COLLAR, own)
        if reason := self._stop_reason(mark, base, lots, stop):
            return Answer(reason, own)
        amount = self.worth(instrument, lots, max(bound, mark))
        factor = min(self.factors[scope] for scope in scopes)
        if amount > self.order_max * factor // PPM:
            return Answer(DenyReason.ORDER_NOTIONAL, own)
        if self._used(self.paces[strategy].opened) >= self.orders_per_second:
            return Answer(DenyReason.ORDER_RATE, mine)
        order = lots, bound, stop
        if reason := self._guard_reason(pair, order):
            return Answer(reason, own)
        margin = ceil_share(amount, self.margin_ppm, PPM)
        refused = self._reserve_reason(pair, lots, amount, margin)
        if refused is not None:
            return refused
        self._charge(pair, order)
        return Answer(None, "", amount, margin, bound)

    def level(self, scope: str) -> Level:
        """Return a node's level: the tightest of its writers'."""
        return max((v for (s, _), v in self.levels.items() if s == scope), default=Level.NORMAL)

    def limit(self, scope: str, kind: str) -> int:
        """Return a node's effective ``gross`` or ``net`` limit."""
        configured = self.gross[scope] if kind == "gross" else self.net[scope]
        return configured * self.factors[scope] // PPM

    def _lapsed(self, instrument: int) -> set[int]:
        venue = INSTRUMENTS[instrument].venue
        return {
            role
            for role in self.lapsed
            if ROLES[role].critical and ROLES[role].venue in ("", venue)
        }

    def _bound(self, mark: int, lots: int, price: int) -> tuple[int, int]:
        """Return the price that binds an opening and the one its stop is measured from."""
        if price:
            return price, price
        reach = mark * COLLAR_PPM // PPM
        return (mark + reach if lots > 0 else mark - reach), mark

    def _stop_reason(self, mark: int, base: int, lots: int, stop: int) -> DenyReason | None:
        if stop == 0:
            return DenyReason.STOP_MISSING
        if stop >= min(base, mark) if lots > 0 else stop <= max(base, mark):
            return DenyReason.STOP_WRONG_SIDE
        far = abs(base - stop) * PPM > STOP_DISTANCE_PPM * base
        return DenyReason.STOP_TOO_FAR if far else None

    def _guard_reason(self, pair: Pair, order: tuple[int, int, int]) -> DenyReason | None:
        *last, last_ms = self.last_order.get(pair, (0, 0, 0, 0))
        if tuple(last) == order and self.market_ms - last_ms < self.duplicate_ms:
            return DenyReason.DUPLICATE_ORDER
        if self.repeats_max and self._run(pair, order[0]) >= self.repeats_max:
            return DenyReason.REPEATED_ORDER
        return None

    def _run(self, pair: Pair, lots: int) -> int:
        size, count, first_ms = self.run.get(pair, (0, 0, 0))
        return count if size == lots and self.market_ms - first_ms < self.repeat_ms else 0

    def _charge(self, pair: Pair, order: tuple[int, int, int]) -> None:
        pace = self.paces[pair[0]]
        pace.opened = self.market_ms // 1000, self._used(pace.opened) + 1
        if self.duplicate_ms:
            self.last_order[pair] = (*order, self.market_ms)
        if self.repeats_max:
            count = self._run(pair, order[0])
            first_ms = self.run[pair][2] if count else self.market_ms
            self.run[pair] = order[0], count + 1, first_ms

    def _reserve_reason(self, pair: Pair, lots: int, amount: int, margin: int) -> Answer | None:
        strategy, instrument = pair
        own, position = INSTRUMENTS[instrument].scope, self.positions[pair].lots
        if self.frozen or self.unposted():
            return Answer(DenyReason.FROZEN, "portfolio")
        if self.wishes[pair].claimed:
            return Answer(DenyReason.EXIT_IN_PROGRESS, own)
        if not position and self.pending(pair):
            return Answer(DenyReason.EXIT_PENDING, own)
        claim = self.claim(instrument)
        if claim * lots < 0:
            return Answer(DenyReason.OPPOSED_POSITION, own)
        if abs(claim + lots) > LOTS_MAX:
            return Answer(DenyReason.AMOUNT_OVERFLOW, own)
        sums, side = self.sums(), 1 if lots > 0 else 2
        for scope in scopes_of(strategy, INSTRUMENTS[instrument]):
            if sums[scope][0] + amount > self.limit(scope, "gross"):
                return Answer(DenyReason.GROSS_LIMIT, scope)
            if sums[scope][side] + amount > self.limit(scope, "net"):
                return Answer(DenyReason.NET_LIMIT, scope)
        venue = f"venue:{INSTRUMENTS[instrument].venue}"
        if margin and sums[venue][3] + margin > self.margin_max[venue]:
            return Answer(DenyReason.MARGIN, venue)
        return None
