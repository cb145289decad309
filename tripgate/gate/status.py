"""The gate's state read from the page alone: what ``status`` and the live view show.

Needs no actor and no compiled code, so it still answers when every process of the tree is dead,
which is when it is needed most.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tripgate.clock import NS_PER_MS, host_ns
from tripgate.machines.breaker_types import Cause
from tripgate.page.layout import ACCOUNT, BOARD, CAUSE, KEY, LIMIT, NO_GRANT, SLOT, SUM
from tripgate.page.lease import LeaseState, lease_states
from tripgate.page.level import LevelWriter, node_level, writer_level
from tripgate.page.links import LinkState, link_states
from tripgate.page.mapping import Page
from tripgate.page.quote import read_quote
from tripgate.processes import is_alive
from tripgate.reasons import DenyReason, Level
from tripgate.units import INT_MAX, PPM, money_text


@dataclass(frozen=True)
class NodeState:
    """One node: its level with the writers that hold it there, and what is used of its limits."""

    scope: str
    level: Level
    held_by: tuple[str, ...]
    gross_money: int
    gross_max_money: int
    long_worst_money: int
    short_worst_money: int
    net_max_money: int


@dataclass(frozen=True)
class CauseState:
    """One cause of a level."""

    cause: str
    scope: str
    level: Level
    value: int
    latched: bool


@dataclass(frozen=True)
class AccountState:
    """Equity and drawdown of one scope, money units and ppm; None while unknown."""

    scope: str
    equity_money: int | None
    high_water_mark_money: int
    drawdown_ppm: int
    drawdown_max_ppm: int


@dataclass(frozen=True)
class BoardState:
    """One instrument's prices as plain decimal texts of its quote currency, and their ages.

    Attributes
    ----------
    mark, index, last, bid, ask
        None where there is none: nothing was published yet, the row is unreadable (its writer
        died in the middle), or the venue gives no such price.
    age_market_ms
        Market time since the tick; negative if it lies ahead.
    age_host_ms
        Host time since the feed published it.
    bars
        Bars that have closed since the page was made.
    """

    instrument: str
    mark: str | None
    index: str | None
    last: str | None
    bid: str | None
    ask: str | None
    age_market_ms: int | None
    age_host_ms: float | None
    bars: int


@dataclass(frozen=True)
class GateStatus:
    """Everything an onlooker may want to know of one instance."""

    instance: str
    epoch: int
    shadow: bool
    armed: bool
    closed: bool
    root_pid: int
    root_alive: bool
    step: int
    market_ms: int
    nodes: tuple[NodeState, ...]
    causes: tuple[CauseState, ...]
    leases: tuple[LeaseState, ...]
    links: tuple[LinkState, ...]
    accounts: tuple[AccountState, ...]
    board: tuple[BoardState, ...]
    positions: dict[str, int]
    approved: int
    denied: dict[str, int]
    overshoot_at_grant_max_money: int | None

    @property
    def level(self) -> Level:
        """The highest level of any node."""
        return max(node.level for node in self.nodes)

    @property
    def open_for_openings(self) -> bool:
        """Whether openings can be granted anywhere: armed, alive, all critical leases live."""
        live = all(lease.live for lease in self.leases if lease.critical)
        return self.armed and not self.closed and live and self.nodes[0].level < Level.MEDIUM

    def to_json(self) -> dict[str, Any]:
        """Return the status as one JSON-ready object (amounts as decimal texts)."""
        return {
            "schema": 1,
            "instance": self.instance,
            "epoch": self.epoch,
            "shadow": self.shadow,
            "armed": self.armed,
            "closed": self.closed,
            "root": {"pid": self.root_pid, "alive": self.root_alive},
            "step": self.step,
            "market_ms": self.market_ms,
            "level": self.level.name,
            "open_for_openings": self.open_for_openings,
            "nodes": {node.scope: _node_json(node) for node in self.nodes},
            "causes": [_cause_json(cause) for cause in self.causes],
            "leases": {lease.role: _lease_json(lease) for lease in self.leases},
            "links": {link.name: _link_json(link) for link in self.links},
            "accounts": {account.scope: _account_json(account) for account in self.accounts},
            "board": {row.instrument: _board_json(row) for row in self.board},
            "positions_lots": self.positions,
            "decisions": {"approved": self.approved, "denied": self.denied},
        }


def _node_json(node: NodeState) -> dict[str, Any]:
    return {
        "level": node.level.name,
        "held_by": list(node.held_by),
        "gross": money_text(node.gross_money),
        "gross_max": _limit_text(node.gross_max_money),
        "long_worst": money_text(node.long_worst_money),
        "short_worst": money_text(node.short_worst_money),
        "net_max": _limit_text(node.net_max_money),
    }


def _cause_json(cause: CauseState) -> dict[str, Any]:
    return {
        "cause": cause.cause,
        "scope": cause.scope,
        "level": cause.level.name,
        "value": cause.value,
        "latched": cause.latched,
    }


def _lease_json(lease: LeaseState) -> dict[str, Any]:
    return {
        "critical": lease.critical,
        "left_ms": round(lease.left_ms, 1),
        "live": lease.live,
        "stale": lease.stale,
        "pid": lease.pid,
        "incarnation": lease.incarnation,
        "restarts": lease.restarts,
    }


def _link_json(link: LinkState) -> dict[str, Any]:
    fields = asdict(link)
    del fields["name"]
    for name in ("heard_ms", "age_max_ms"):
        fields[name] = None if fields[name] is None else round(fields[name], 1)
    return fields


def _account_json(account: AccountState) -> dict[str, Any]:
    equity = account.equity_money
    return {
        "equity": None if equity is None else money_text(equity),
        "high_water_mark": money_text(account.high_water_mark_money),
        "drawdown": account.drawdown_ppm / PPM,
        "drawdown_max": account.drawdown_max_ppm / PPM,
    }


def _board_json(row: BoardState) -> dict[str, Any]:
    fields = asdict(row)
    del fields["instrument"]
    if row.age_host_ms is not None:
        fields["age_host_ms"] = round(row.age_host_ms, 1)
    return fields


def _limit_text(limit_money: int) -> str:
    return "none" if limit_money >= INT_MAX else money_text(limit_money)


def _nodes(page: Page) -> tuple[NodeState, ...]:
    limits, sums = page.rows(LIMIT), page.rows(SUM)
    states = []
    for number, scope in enumerate(page.names.scopes):
        held = tuple(w.name.lower() for w in LevelWriter if writer_level(page, number, w))
        limit, total = limits[number], sums[number]
        states.append(
            NodeState(
                scope,
                node_level(page, number),
                held,
                int(total["gross"]),
                int(limit["gross_max"]),
                int(total["long_worst"]),
                int(total["short_worst"]),
                int(limit["net_max"]),
            )
        )
    return tuple(states)


def _causes(page: Page) -> tuple[CauseState, ...]:
    return tuple(
        CauseState(
            Cause(int(row["cause"])).name.lower(),
            page.names.scopes[int(row["node"])],
            Level(int(row["level"])),
            int(row["value"]),
            bool(row["latched"]),
        )
        for row in page.rows(CAUSE)
        if row["used"]
    )


def _accounts(page: Page) -> tuple[AccountState, ...]:
    return tuple(
        AccountState(
            page.names.scopes[number],
            int(row["equity_mark"]) if row["known"] and not row["stale"] else None,
            int(row["high_water_mark"]),
            int(row["drawdown_ppm"]),
            int(row["drawdown_max_ppm"]),
        )
        for number, row in enumerate(page.rows(ACCOUNT)[: len(page.names.scopes)])
        if row["starting"]
    )


def _board(page: Page, now_ns: int) -> tuple[BoardState, ...]:
    return tuple(_board_row(page, number, now_ns) for number in range(len(page.names.instruments)))


def _board_row(page: Page, number: int, now_ns: int) -> BoardState:
    name, quote = page.names.instruments[number], read_quote(page, number)
    instrument, bars = f"{name.venue}/{name.symbol}", int(page.rows(BOARD)["bars"][number])
    if quote is None:
        return BoardState(instrument, None, None, None, None, None, None, None, bars)

    def text(ticks: int) -> str | None:
        return name.units.price_text(ticks) if ticks else None

    return BoardState(
        instrument,
        text(quote.mark),
        text(quote.index_price),
        text(quote.last),
        text(quote.bid),
        text(quote.ask),
        quote.age_ms(int(page.header["market_ms"])),
        (now_ns - quote.host_ns) / NS_PER_MS,
        bars,
    )


def decision_counts(page: Page) -> tuple[int, dict[str, int]]:
    """Return (approvals, denials by reason name) over all slots."""
    slots = page.rows(SLOT)
    denied = slots["denied"].sum(axis=0)
    return int(slots["approved"].sum()), {
        reason.name: int(denied[reason]) for reason in DenyReason if denied[reason]
    }


def read_status(page: Page) -> GateStatus:
    """Return the state of an instance from its page."""
    header, slots, keys = page.header, page.rows(SLOT), page.rows(KEY)
    approved, denied = decision_counts(page)
    overshoots = slots["overshoot_max"][slots["approved"] > 0]
    granting = overshoots[overshoots > NO_GRANT]
    positions = {}
    for number, (strategy, instrument) in enumerate(page.names.keys):
        lots = int(keys["closable"][number]) >> 32
        if lots:
            name = page.names.instruments[instrument]
            positions[f"{page.names.strategies[strategy]} {name.venue}/{name.symbol}"] = lots
    return GateStatus(
        instance=page.names.instance,
        epoch=page.epoch,
        shadow=bool(header["shadow"]),
        armed=bool(header["armed"]),
        closed=bool(header["closed"]),
        root_pid=int(header["owner_pid"]),
        root_alive=is_alive(int(header["owner_pid"]), int(header["owner_start"])),
        step=int(header["step"]),
        market_ms=int(header["market_ms"]),
        nodes=_nodes(page),
        causes=_causes(page),
        leases=tuple(lease_states(page, host_ns())),
        links=tuple(link_states(page, host_ns())),
        accounts=_accounts(page),
        board=_board(page, host_ns()),
        positions=positions,
        approved=approved,
        denied=denied,
        overshoot_at_grant_max_money=int(granting.max()) if len(granting) else None,
    )
