"""The trading machine with everything moving that can move beside trading.

Marks, the quote's rate, levels, factors, leases, the clock, freezes and repairs; one instrument is
an inverse contract, and every guard of a strategy's pace is on.
"""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from tests.gate_fixtures import KEEPER, MARKS, ROLES, SCOPES
from tests.property.gate_machine import PAIR, SCOPE, Trading
from tests.property.gate_model import Pair
from tripgate.clock import NS_PER_S, host_ns
from tripgate.gate.repair import Truth, freeze, rebuild, thaw
from tripgate.page.layout import INSTRUMENT, LEASE, LIMIT, RATE, STRATEGY
from tripgate.page.lease import zero_lease
from tripgate.page.level import LevelWriter, node_level, set_effective_limits, set_level
from tripgate.reasons import Level
from tripgate.units import PPM


class Weather(Trading):
    """Trading while everything else moves too."""

    is_still = False

    def __init__(self) -> None:
        super().__init__()
        model, plans = self.model, self.page.rows(STRATEGY)
        model.inverse = frozenset({1})
        # An inverse contract of a fifth of a unit of money, whatever its price.
        specs = self.page.rows(INSTRUMENT)
        specs["inverse"][1] = 1
        model.orders_per_second, model.attempts_per_second = 4, 9
        model.duplicate_ms, model.repeats_max, model.repeat_ms = 400, 2, 2_500
        plans["orders_per_second_max"], plans["attempts_per_second_max"] = 4, 9
        plans["duplicate_window_ms"], plans["repeats_max"] = 400, 2
        plans["repeat_window_ms"] = 2_500

    @rule(
        pair=PAIR, size=st.integers(1, 6), buys=st.booleans(), times=st.integers(2, 12),
        step=st.sampled_from([0, 1]), stop_percent=st.sampled_from([98, 98, 0]),
    )  # fmt: skip
    def insist(
        self, pair: Pair, size: int, buys: bool, times: int, step: int, stop_percent: int
    ) -> None:
        """Ask again and again: the very same, or a size three times at other prices, then more."""
        for number in range(times):
            self.ask(
                pair, size + step * (number // 3), buys, step * number, stop_percent, market=False
            )

    @rule(elapsed_ms=st.sampled_from([1, 100, 399, 400, 1_000, 2_001]))
    def let_time_pass(self, elapsed_ms: int) -> None:
        """Move the market's clock; marks and paces age by it."""
        self.model.market_ms += elapsed_ms
        self.page.header["market_ms"] = self.model.market_ms

    @rule(instrument=st.integers(0, 2), change_ppm=st.integers(-40_000, 40_000))
    def tick(self, instrument: int, change_ppm: int) -> None:
        """Publish a mark; positions are re-marked by another rule."""
        ticks = max(1, MARKS[instrument] * (PPM + change_ppm) // PPM)
        self.model.marks[instrument] = ticks, self.model.market_ms
        self.bench.mark(instrument, ticks, self.model.market_ms)

    @rule()
    def tick_all(self) -> None:
        """Publish every mark anew at its standing price."""
        for instrument, (ticks, _) in enumerate(self.model.marks):
            self.model.marks[instrument] = ticks, self.model.market_ms
            self.bench.mark(instrument, ticks, self.model.market_ms)

    @rule(rate_ppm=st.sampled_from([PPM, PPM + 1, 1_020_000, 980_000]))
    def move_rate(self, rate_ppm: int) -> None:
        """Move the quote currency; below par it counts at par."""
        self.model.rate_ppm = rate_ppm
        self.page.rows(RATE)["rate_ppm"] = rate_ppm

    @rule(scope=SCOPE, writer=st.sampled_from(LevelWriter), level=st.sampled_from(Level))
    def set_level(self, scope: str, writer: LevelWriter, level: Level) -> None:
        """Let one writer raise or lower a node's level; tightening trips (P5)."""
        node, generation = self.page.names.scope(scope), self.generation()
        before = self.model.levels.get((scope, writer), Level.NORMAL)
        set_level(self.page, node, writer, level)
        self.model.levels[scope, writer] = level
        assert self.generation() == generation + (level > before)

    @rule()
    def calm_down(self) -> None:
        """Let every writer lower every level, every lease live again and factors be whole."""
        for scope, writer in self.model.levels:
            set_level(self.page, self.page.names.scope(scope), LevelWriter(writer), Level.NORMAL)
        self.model.levels.clear()
        self.page.rows(LEASE)["deadline_ns"] = host_ns() + 3_600 * NS_PER_S
        self.model.lapsed.clear()
        for scope in SCOPES:
            self.set_factor(scope, PPM)

    @rule(scope=SCOPE, factor_ppm=st.sampled_from([1, 400_000, 700_001, PPM]))
    def set_factor(self, scope: str, factor_ppm: int) -> None:
        """Let the breaker move a node's factor; tightening trips (P5)."""
        generation, before = self.generation(), self.model.factors[scope]
        set_effective_limits(self.page, self.page.names.scope(scope), factor_ppm)
        self.model.factors[scope] = factor_ppm
        assert self.generation() == generation + (factor_ppm < before)

    @rule(role=st.integers(0, len(ROLES) - 1))
    def lapse(self, role: int) -> None:
        """Let a role die: the supervisor zeroes its lease."""
        zero_lease(self.page, role)
        self.model.lapsed.add(role)

    @rule()
    def freeze(self) -> None:
        """Let a repair begin; exits go on unposted until they are posted after it."""
        if self.model.frozen:
            return
        freeze(self.page, KEEPER)
        self.model.frozen = True

    @rule()
    def repair(self) -> None:
        """Rebuild the page from what the model knows; not one word may differ after it."""
        freeze(self.page, KEEPER)
        positions = {self.bench.key(i, s): held for (s, i), held in self.model.positions.items()}
        rebuild(
            self.page,
            Truth(
                {key: held.lots for key, held in positions.items()},
                {key: held.charged for key, held in positions.items()},
                {o.token: abs(o.lots) - o.remaining for o in self.model.orders},
            ),
        )
        thaw(self.page)
        self.model.frozen = False

    @invariant()
    def limits_are_never_wider_than_configured(self) -> None:
        """P5: effective limits are configured × factor, levels the tightest of their writers."""
        rows = self.page.rows(LIMIT)
        for node, scope in enumerate(SCOPES):
            assert int(rows["gross_max"][node]) == self.model.limit(scope, "gross")
            assert int(rows["net_max"][node]) == self.model.limit(scope, "net")
            assert int(rows["gross_configured"][node]) == self.model.gross[scope]
            assert node_level(self.page, node) == self.model.level(scope)
