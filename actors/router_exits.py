"""Merged exits: how the router carries out the wish on a claimed key.

One live exit per key, for the smaller of wish and position. Resting closes of the key are cancelled
newest first as far as the exit needs their lots; where the venue enforces reduce-only the exit
leaves at once beside them, elsewhere it gets what each observed cancel gives back, so that the
orders of a key never add up to more than its position. Fills lower the wish; an exit that ends
without one is tried again a second later by the venue's next order kind.

Reads: claims, wishes, closable words, marks. Sends: nothing; it says what is to be sent.
State after restart: the page's. A wish is lowered before its fill is told, so that no wish raised
after the fill was booked can be lowered by it. A router killed between the two lowers it twice:
then a part of one wish is left, which its strategy sees; what the breaker wants, it wishes again.
"""

from dataclasses import dataclass, field

from actors.router_orders import Live, Orders
from actors.service import Service
from exchange_adapters.venue_port import Capabilities, OrderKind
from tripgate.clock import NS_PER_S
from tripgate.gate.commit import Approved, read_entry
from tripgate.gate.exits import drop_exit, issue_exit
from tripgate.gate.words import closable_parts
from tripgate.messages import EventKind
from tripgate.page import atomics
from tripgate.page.board import read_quote
from tripgate.page.layout import INSTRUMENT, KEY, exit_entry
from tripgate.page.ring import RingReader
from tripgate.units import PPM

RETRY_MS = 1_000
"""Time between an exit that achieved nothing, or whose fate is unknown, and the next."""
VOID_MS = 1_000
"""Time after which a claim without wish and without order is no claim."""
STEP_WAIT_NS = 10 * NS_PER_S
"""How long a replay's step waits for the cancels that an exit needs."""
TOKENS_MAX = 16
"""Sends that the record of one exit names; beyond them only their number grows."""


@dataclass
class Course:
    """What the router remembers of one claim: since when, and its sends so far."""

    since_ms: int
    tokens: list[int] = field(default_factory=list)
    sends: int = 0
    last_token: int = 0
    sent_ms: int = 0
    failures: int = 0


class Exits:
    """Decides from the page which exits to send, and which closes must make way for them."""

    def __init__(
        self, service: Service, orders: Orders, keys: list[int], capabilities: Capabilities
    ) -> None:
        self._service = service
        self._page = service.page
        self._orders = orders
        self._keys = keys
        self._rows = service.page.rows(KEY)
        self._specs = service.page.rows(INSTRUMENT)
        self._capabilities = capabilities
        self._keeper = RingReader(service.page, "keeper")
        self._courses: dict[int, Course] = {}
        self._waiting: dict[int, int] = {}

    def turn(self, now_ns: int, *, acted: bool, overdue: bool) -> tuple[list[Approved], list[Live]]:
        """Plan, if it is time to.

        In a replay strategies act first (``acted``): what they wish in a step is then part of its
        exit, and no claim ends while they are being answered. An actor that is ``overdue`` is
        waited for no longer.
        """
        if self._service.header["replay"] and not acted and not overdue:
            return [], []
        told = not self._service.events.pending
        settled = told and not self._keeper.backlog(self._service.slot)
        return self.plan(now_ns, settled=settled, overdue=overdue)

    def plan(
        self, now_ns: int, *, settled: bool, overdue: bool = False
    ) -> tuple[list[Approved], list[Live]]:
        """Return exits to send and closes to cancel now.

        Parameters
        ----------
        settled
            Whether positions in the page hold everything that was told: until then a claim is
            neither ended nor an exit repeated, for the old position would be closed again.
        overdue
            Whether whoever books has been silent beyond its grace: an exit that cannot turn the
            position does not wait for it any longer.
        """
        send: list[Approved] = []
        cancel: list[Live] = []
        for key in self._keys:
            waits_ns = self._waiting.pop(key, now_ns)
            if not atomics.load(self._page.address(KEY, key, "exit_claim")):
                self._courses.pop(key, None)
                continue
            course = self._courses.setdefault(key, Course(self._service.pace_ms))
            if not settled and not (overdue and self._is_enforced(key)):
                self._waiting[key] = waits_ns
            elif self._is_clear(key, course) and self._work(key, course, send, cancel):
                self._waiting[key] = waits_ns
        return send, cancel

    def holds_up(self, now_ns: int) -> bool:
        """Whether a step must not end yet: an exit waits for cancels that have been sent."""
        return any(now_ns - since_ns < STEP_WAIT_NS for since_ns in self._waiting.values())

    def is_crowded(self, order: Approved) -> bool:
        """Whether a close that has not left yet no longer fits beside the exit of its key.

        Only claims that were planned for count: one that its strategy has just set may be seen
        before or after the close's turn, and a replay's run must not depend on that.
        """
        if order.opens or order.is_exit or order.is_stop:
            return False
        position, pending = self._parts(order.key)
        if pending > position and not self._is_enforced(order.key):
            # Held against a position that an exit has taken meanwhile: it would take others' lots.
            return True
        if order.key not in self._courses:
            return False
        return pending + min(int(self._rows["exit_lots"][order.key]), position) > position

    def _is_clear(self, key: int, course: Course) -> bool:
        """Whether no exit of the key is under way, as far as another one may join it."""
        live = [o for o in self._orders.live.values() if o.key == key and o.is_exit]
        if not live:
            return True
        if not all(order.unknown for order in live):
            return False
        # It may fill yet. Where neither can turn the position, and all of it is to go, the wait
        # for its fate would only cost time.
        position, _ = self._parts(key)
        whole = 0 < position <= int(self._rows["exit_lots"][key])
        return whole and self._is_enforced(key) and self._is_due(course)

    def _work(self, key: int, course: Course, send: list[Approved], cancel: list[Live]) -> bool:
        """Add what is to be done for a key; return whether its exit waits for cancels."""
        position, pending = self._parts(key)
        wish = atomics.load(self._page.address(KEY, key, "exit_lots"))
        if position == 0:
            self._end(key, course, wish, "flat")
            return False
        if wish == 0:
            if course.sends:
                self._end(key, course, wish, "filled")
            elif self._service.pace_ms - course.since_ms >= VOID_MS:
                self._end(key, course, wish, "void")
            return False
        wanted, room = min(wish, position), max(0, position - pending)
        if wanted > room:
            cancel.extend(self._newest_closes(key, wanted - room))
        lots = wanted if self._is_enforced(key) else min(wanted, room)
        if lots and self._may_repeat(key, course):
            send.extend(self._issue(key, course, lots))
        return lots < wanted

    def _issue(self, key: int, course: Course, lots: int) -> list[Approved]:
        token = issue_exit(
            self._page, self._service.ring, key, self._service.market_ms, lots_max=lots,
            price_ticks=self._price(key, course),
        )  # fmt: skip
        if not token:
            return []
        course.sends += 1
        course.sent_ms = self._service.pace_ms
        course.tokens = [*course.tokens, token][:TOKENS_MAX]
        course.last_token = token
        order = read_entry(self._page, exit_entry(self._page.layout.capacities, key), token)
        if order is None:
            raise AssertionError(f"the entry just issued for token {token} is not there")
        return [order]

    def _may_repeat(self, key: int, course: Course) -> bool:
        """Whether to send again: at once after a fill, else a second later and by another kind."""
        last = self._orders.exits.get(key)
        if not course.sends or last is None or last.order.token != course.last_token:
            return not course.sends or self._is_due(course)
        if last.order.filled_lots:
            course.failures = 0
            return True
        if not self._is_due(course):
            return False
        course.failures += last.ended
        return True

    def _is_due(self, course: Course) -> bool:
        return self._service.pace_ms - course.sent_ms >= RETRY_MS

    def _price(self, key: int, course: Course) -> int:
        """Return the limit of the order kind whose turn it is; 0 is a market order."""
        kinds = self._capabilities.exit_kinds
        instrument = self._service.names.keys[key][1]
        quote = read_quote(self._page, instrument)
        if kinds[course.failures % len(kinds)] is OrderKind.MARKET or quote is None:
            return 0
        collar = -(-quote.mark * int(self._specs["exit_collar_ppm"][instrument]) // PPM)
        buys = atomics.load(self._page.address(KEY, key, "closable")) < 0
        return quote.mark + collar if buys else max(1, quote.mark - collar)

    def _newest_closes(self, key: int, lots: int) -> list[Live]:
        """Return the resting closes to cancel so that ``lots`` come free, newest first."""
        closes = [
            order for order in self._orders.live.values()
            if order.key == key and order.is_close and order.approved and not order.ended
        ]  # fmt: skip
        found = []
        for live in sorted(closes, key=_age, reverse=True):
            if lots <= 0:
                break
            lots -= live.order.lots - live.order.filled_lots
            if self._orders.ask_cancel(live):
                found.append(live)
        return found

    def _end(self, key: int, course: Course, wish: int, why: str) -> None:
        row = self._rows[key]
        strategy, instrument = self._service.names.keys[key]
        body = {
            "strategy": self._service.names.strategies[strategy],
            "instrument": self._service.names.instruments[instrument].scope,
            "why": why, "left": wish, "cause": int(row["exit_cause"]),
            "count": int(row["exit_count"]), "first_ms": int(row["exit_first_ms"]),
            "last_ms": int(row["exit_ms"]), "sends": course.sends, "tokens": course.tokens,
        }  # fmt: skip
        self._courses.pop(key)
        if drop_exit(self._page, key, wish):
            self._service.emit(EventKind.EXIT_ENDED, body)

    def _is_enforced(self, key: int) -> bool:
        """Whether no order of the key can turn it: the venue says so, and nobody shares it."""
        shared = self._specs["shared"][self._service.names.keys[key][1]]
        return self._capabilities.enforces_reduce_only and not shared

    def _parts(self, key: int) -> tuple[int, int]:
        """Return (lots held, lots of pending closes) of a key, both unsigned."""
        word = atomics.load(self._page.address(KEY, key, "closable"))
        position, pending = closable_parts(word)
        return abs(position), pending


def _age(live: Live) -> tuple[int, int]:
    return (live.approved.t_signed_ms if live.approved else 0, live.order.token)
