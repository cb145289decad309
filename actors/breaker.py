"""breaker: evaluates every cause and holds the levels, the factors and the flatten claims.

Reads: equity and drawdown (ACCOUNT), leases, the operator's file.
Sends: rings every bell when a step is judged; records LEVEL_CHANGED, LIMITS_CHANGED,
LIMITS_IN_FORCE, RESUMED, FLAT.
Sole writer of: the breaker byte of each level word, effective limits and factors, loosened
limits, CAUSE rows.
Lease: 250 ms; while it is lapsed, openings are denied everywhere.
State after restart: causes and latches from the page; nothing is withdrawn before every cause has
been evaluated afresh.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.service import Service
from tripgate.clock import NS_PER_S
from tripgate.config.reader import parse_config
from tripgate.config.structs import limit_money
from tripgate.gate.cause_rows import load_causes, store_causes
from tripgate.gate.exits import wish_exit
from tripgate.gate.limit_orders import (
    COMMAND,
    LOOSEN,
    carry_out_loosening,
    carry_out_tightening,
    ordered,
)
from tripgate.machines import breaker as machine
from tripgate.machines.breaker_types import (
    DRAWDOWN_THRESHOLDS,
    KEEPER_FAULT_THRESHOLDS,
    LEASE_LAPSED_THRESHOLDS,
    BreakerSpec,
    Cause,
    CauseKey,
    Effect,
    Evaluate,
    Halt,
    Message,
    Reading,
    Restore,
    Resume,
    Resumed,
    ResumeRefused,
    SetFactor,
    SetLevel,
    Verdict,
    total_loss_thresholds,
)
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.layout import ACCOUNT, KEY, LEASE, LIMIT, ROLE
from tripgate.page.level import (
    LevelWriter,
    node_level,
    set_effective_limits,
    set_level,
    writer_level,
)
from tripgate.page.terms import ROWS_PER_BODY, changed_rows, rows_of_scope
from tripgate.reasons import Level
from tripgate.units import INT_MAX

PORTFOLIO = 0
FLAT_READS_APART_MS = 1_000
SEEN_FLAT = -1
LIMITS_RECORD_FIELDS = (
    "scope", "direction", "changes", "reason", "operator", "os_user", "config_sha256",
)  # fmt: skip


def make_spec(service: Service) -> BreakerSpec:
    """Return what this instance's breaker watches: drawdowns, the total loss, leases, faults."""
    config = parse_config(service.settings["config_text"], service.settings["config_name"])
    accounts = service.page.rows(ACCOUNT)
    causes = {
        CauseKey(Cause.DRAWDOWN, node): DRAWDOWN_THRESHOLDS
        for node in range(len(service.names.scopes))
        if accounts["starting"][node]
    }
    causes[CauseKey(Cause.LEASE_LAPSED, PORTFOLIO)] = LEASE_LAPSED_THRESHOLDS
    causes[CauseKey(Cause.KEEPER_FAULT, PORTFOLIO)] = KEEPER_FAULT_THRESHOLDS
    loss_max = limit_money(config.limits.portfolio.loss_reporting_max)
    if loss_max < INT_MAX:
        causes[CauseKey(Cause.TOTAL_LOSS, PORTFOLIO)] = total_loss_thresholds(loss_max)
    return BreakerSpec(causes, config.risk.soft_factor_ppm)


class Shell:
    """The breaker's hands: readings in, effects out."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = service.page
        self.state = machine.new_breaker(make_spec(service))
        self._role = service.page.rows(ROLE)[service.role]
        self._flat_since_ms: dict[int, int] = {}
        self._shadow = bool(service.header["shadow"])
        self._wished: dict[int, Level] = {}
        found = {
            node: writer_level(self._page, node, LevelWriter.BREAKER)
            for node in range(len(service.names.scopes))
        }
        known = {
            key: state
            for key, state in load_causes(self._page).items()
            if key in self.state.spec.causes or key.cause in (Cause.OPERATOR, Cause.RECOVERED)
        }
        self.apply(Restore(known, found))
        if service.incarnation > 1:
            # The predecessor may have died between a store and its record.
            self._tell_all_nodes()

    def readings(self, now_ns: int) -> Evaluate:
        """Return a reading, or STALE, for every cause of the spec."""
        values: dict[CauseKey, Reading | Verdict] = {}
        accounts = self._page.rows(ACCOUNT)
        for key in self.state.spec.causes:
            row = accounts[key.scope]
            if key.cause is Cause.LEASE_LAPSED:
                values[key] = Reading(self._lapsed_s(now_ns))
            elif key.cause is Cause.KEEPER_FAULT:
                held = writer_level(self._page, key.scope, LevelWriter.KEEPER)
                values[key] = Reading(int(held >= Level.MEDIUM))
            elif not row["known"] or row["stale"]:
                values[key] = Verdict.STALE
            elif key.cause is Cause.DRAWDOWN:
                values[key] = Reading(int(row["drawdown_ppm"]), int(row["drawdown_last_ppm"]))
            else:
                start = int(row["starting"])
                lost = (start - int(row[name]) for name in ("equity_mark", "equity_last"))
                values[key] = Reading(*(max(0, loss) for loss in lost))
        return Evaluate(values)

    def _lapsed_s(self, now_ns: int) -> int:
        if not self._service.header["armed"]:
            # The tree is starting, and the gate closed by that: a slow start is no fault.
            return 0
        deadlines, roles = self._page.rows(LEASE)["deadline_ns"], self._page.rows(ROLE)
        lapsed = [0]
        for number, name in enumerate(self._service.names.roles):
            since = int(roles["lapsed_since_ns"][number])
            if name.critical and number != self._service.role and since:
                if int(deadlines[number]) < now_ns:
                    lapsed.append((now_ns - since) // NS_PER_S)
        return max(lapsed)

    def take_operator_records(self) -> None:
        """Act on what operators have ordered since the last look.

        Nothing is taken before every cause has been evaluated afresh: a resume would be refused.
        What a halt orders stands in the page already.
        """
        if self.state.locked:
            return
        if int(self._service.header["operator_sequence"]) <= int(self._role["operator_read"]):
            return
        folder = Path(self._service.names.state_folder)
        for record in read_records(folder, int(self._role["operator_read"])):
            # A scope that a changed config no longer has is nobody's any more.
            if record["scope"] in self._service.names.scopes and not self._take_record(record):
                return
            self._role["operator_read"] = record["id"]

    def _take_record(self, record: dict[str, Any]) -> bool:
        """Act on one record; False if the keeper must first restart the high-water mark."""
        scope = self._service.names.scope(record["scope"])
        rebased = int(self._page.rows(ACCOUNT)["rebase_sequence"][scope])
        if record.get("rebase") and rebased < record["id"]:
            return False
        if record["command"] == "halt":
            self.apply(Halt(scope, Level[record["level"]], record["id"]))
        elif record["command"] == COMMAND:
            self._change_limits(record)
        elif record["command"] == "resume":
            rebase = bool(record["rebase"])
            self.apply(Resume(scope, rebase, record["operator"], record["id"]))
        return True

    def _change_limits(self, record: dict[str, Any]) -> None:
        """Carry out an order to change limits, and put on record what became of it.

        A tightening stands in the page already if the command lived long enough; done twice it is
        done once.
        """
        since_ns = self._service.now_ns()
        changes, refused = ordered(record, self._page), {}
        if record["direction"] == LOOSEN:
            refused = carry_out_loosening(self._page, record, changes)
        else:
            carry_out_tightening(self._page, changes)
        self._tell_terms(since_ns, rows_of_scope(self._page, str(record["scope"])))
        body = {name: record.get(name) for name in LIMITS_RECORD_FIELDS}
        self._service.emit(EventKind.LIMITS_CHANGED, {
            **body, "record": record["id"], "refused": refused,
            "version": int(self._service.header["limits_version"]),
        })  # fmt: skip

    def apply(self, message: Message) -> None:
        """Run one step and carry out its effects."""
        before = self.state
        self.state, effects = machine.step(before, message, self._service.market_ms)
        # Written before and after: a breaker killed in between must never leave a level in the
        # page that its causes do not explain.
        store_causes(self._page, machine.persisted_first(before, self.state))
        for effect in effects:
            self._carry_out(effect)
        store_causes(self._page, self.state.causes)

    def _carry_out(self, effect: Effect) -> None:
        names = self._service.names
        match effect:
            case SetLevel(scope, level, cause):
                before = writer_level(self._page, scope, LevelWriter.BREAKER)
                set_level(self._page, scope, LevelWriter.BREAKER, level)
                if level is not before:
                    self._service.emit(EventKind.LEVEL_CHANGED, {
                        "scope": names.scopes[scope], "level": level.name, "before": before.name,
                        "cause": cause.name.lower() if cause else "",
                    })  # fmt: skip
            case SetFactor(scope, ppm):
                self._set_factor(scope, ppm)
            case Resumed(key, before, after, operator, record_id):
                self._service.emit(EventKind.RESUMED, {
                    "scope": names.scopes[key.scope], "cause": key.cause.name.lower(),
                    "before": before.name, "after": after.name, "operator": operator,
                    "record": record_id,
                })  # fmt: skip
            case ResumeRefused(key, reason, record_id):
                self._service.emit(EventKind.RESUMED, {
                    "scope": names.scopes[key.scope], "cause": key.cause.name.lower(),
                    "refused": reason, "record": record_id,
                })  # fmt: skip
            case _:
                pass  # Flatten, CancelEntries and Stop are driven by the level, every turn.

    def _set_factor(self, scope: int, ppm: int) -> None:
        since_ns = self._service.now_ns()
        before = int(self._page.rows(LIMIT)["factor_ppm"][scope])
        set_effective_limits(self._page, scope, ppm)
        if ppm != before:
            self._tell_terms(since_ns, {"nodes": [scope]})

    def _tell_all_nodes(self) -> None:
        nodes, now_ns = list(range(len(self._service.names.scopes))), self._service.now_ns()
        for first in range(0, len(nodes), ROWS_PER_BODY):
            self._tell_terms(now_ns, {"nodes": nodes[first : first + ROWS_PER_BODY]})

    def _tell_terms(self, since_ns: int, rows: Mapping[str, list[int]]) -> None:
        body = changed_rows(self._page, since_ns, rows)
        self._service.emit(EventKind.LIMITS_IN_FORCE, body)

    def drive_exits(self) -> None:
        """Claim every open position whose scope is at HARD or above, until it is flat.

        What a strategy is closing already becomes an exit of the whole position at that level. On
        a shadow page nothing is claimed: that it would have been is put on record.
        """
        keys = self._page.rows(KEY)
        for number in range(len(self._service.names.keys)):
            lots = int(keys["closable"][number]) >> 32
            level = max(node_level(self._page, int(node)) for node in keys["node"][number])
            claimed = bool(keys["exit_claim"][number])
            if not lots or level < Level.HARD or not (claimed or self._shadow):
                self._wished.pop(number, None)
            if not lots or level < Level.HARD:
                continue
            if not self._shadow:
                known = int(keys["exit_cause"][number]) >= level
                if claimed and known and keys["exit_lots"][number] >= abs(lots):
                    continue
                wish_exit(self._page, number, int(level), self._service.market_ms)
            if self._wished.get(number, -1) < level:
                self._wished[number] = level
                self._record_wish(number, lots, level)

    def _record_wish(self, key: int, lots: int, level: Level) -> None:
        strategy, instrument = self._service.names.keys[key]
        body: dict[str, Any] = {
            "strategy": self._service.names.strategies[strategy],
            "instrument": self._service.names.instruments[instrument].scope,
            "lots": lots, "level": level.name,
        }  # fmt: skip
        if self._shadow:
            body["shadow"] = True
        self._service.emit(EventKind.EXIT_WISHED, body)

    def observe_flat(self) -> None:
        """Record FLAT once a scope at HARD or above was seen flat twice, a second apart."""
        for scope, name in enumerate(self._service.names.scopes):
            if node_level(self._page, scope) < Level.HARD or not self._is_flat(scope):
                self._flat_since_ms.pop(scope, None)
                continue
            read_ms = self._account_ms()
            since_ms = self._flat_since_ms.setdefault(scope, read_ms)
            if since_ms != SEEN_FLAT and read_ms - since_ms >= FLAT_READS_APART_MS:
                self._flat_since_ms[scope] = SEEN_FLAT
                self._service.emit(EventKind.FLAT, {"scope": name})

    def _is_flat(self, scope: int) -> bool:
        keys = self._page.rows(KEY)
        inside = [key for key in range(len(self._service.names.keys))
                  if scope in keys["node"][key]]  # fmt: skip
        held = any(int(keys["closable"][key]) >> 32 for key in inside)
        routers = self._page.rows(ROLE)[self._routers()]
        return not held and bool(routers["account_flat"].all())

    def _account_ms(self) -> int:
        return int(self._page.rows(ROLE)["account_ms"][self._routers()].min())

    def _routers(self) -> list[int]:
        return [n for n, role in enumerate(self._service.names.roles) if role.actor == "router"]


async def run(service: Service) -> None:
    """Evaluate every turn, and once per market step when the keeper has marked it."""
    shell = Shell(service)
    await service.ready()
    done = -1
    while not service.stopping.is_set():
        await service.turn()
        now_ns = service.now_ns()
        step = service.step_of("position_keeper")
        if step < 0:
            continue
        shell.take_operator_records()
        shell.apply(shell.readings(now_ns))
        shell.drive_exits()
        shell.observe_flat()
        if step > done:
            done = step
            service.finish_step(step)
        if machine.is_evaluated(shell.state):
            service.lease.renew(now_ns)
