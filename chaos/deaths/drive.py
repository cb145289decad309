"""The driver: deals deaths to victims that live, and watches each until it has been handled.

It acts on the tree only by signals and by the orders file. In every turn it asks the gate about
each victim that is dying, and about one that is not: a bystander that is denied is counted, and one
that dies uninvited is a violation, as is an approval that comes too late, a death that is told
wrongly or not at all, and a successor that does not come.
"""

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chaos.deaths.case import Case
from chaos.deaths.drill import Drill, Event
from chaos.deaths.fates import HUNG, Fate
from chaos.deaths.ground import Word
from chaos.deaths.witness import Witness
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.messages import EventKind

REST_S = 0.0001
CASE_BOUND_NS = 300 * NS_PER_S
"""A death that has not been handled by then is a violation, and ends the drill; so does an
approval that comes too late."""
SETTLED_NS = 300 * NS_PER_MS
"""How long a victim must have lived before it is dealt a death: its first leases count too."""

Dealer = Callable[[Sequence[int]], Sequence[tuple[int, Fate]]]
"""Given the roles that live, returns who meets what now."""


@dataclass
class Driver:
    """Runs cases on one drill.

    Attributes
    ----------
    over
        Cases that are over, in the order in which they ended.
    false_denials
        Denials of bystanders: the machine, not a death, kept their lease from being renewed.
    slow_starts
        Incarnations that were killed because they were not ready in time: the machine's fault.
    gaps_ns
        Time between two turns: how finely everything here is seen.
    """

    drill: Drill
    witness: Witness
    over: list[Case] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    escalated: list[Event] = field(default_factory=list)
    false_denials: int = 0
    slow_starts: int = 0
    asked: int = 0
    gaps_ns: list[int] = field(default_factory=list)
    active: dict[int, Case] = field(default_factory=dict)
    excused: set[int] = field(default_factory=set)
    """Roles that the driver neither deals deaths to nor accuses (the brittle)."""
    _since_ns: dict[int, int] = field(default_factory=dict)
    _started: set[tuple[str, int]] = field(default_factory=set)
    _killed_for: set[tuple[str, int]] = field(default_factory=set)
    _bystander: int = 0
    _turned_ns: int = 0

    def turn(self) -> None:
        """Look at everything once."""
        now_ns = host_ns()
        if self._turned_ns:
            self.gaps_ns.append(now_ns - self._turned_ns)
        self._turned_ns = now_ns
        for event in self.drill.events():
            self._take(event)
        for case in list(self.active.values()):
            self._look_at(case)
        self._look_at_bystander()
        if not self.drill.root_lives:
            self.violations.append(f"the root died: {self.drill.last_words[-300:]}")
        sleep_s(REST_S)

    def idle(self) -> list[int]:
        """Return the roles that live, have lived for a moment, and are dealt nothing yet."""
        now_ns, found = host_ns(), []
        for role in self.drill.roles:
            if role in self.active or role in self.excused:
                continue
            if self.drill.deadline_ns(role) <= now_ns:
                self._since_ns.pop(role, None)
            elif now_ns - self._since_ns.setdefault(role, now_ns) > SETTLED_NS:
                found.append(role)
        return found

    def deal(self, role: int, fate: Fate) -> None:
        """Deal a death to a victim that lives."""
        row, actor = self.drill.row(role), self.drill.page.names.roles[role].text
        case = Case(fate, role, actor, int(row["incarnation"]), int(row["pid"]), host_ns())
        if fate.before_ready:
            self._killed_for.add((actor, case.incarnation))
            case.incarnation += 1
            self.drill.order(role, Word.NEXT_FATE, fate.number)
            self.drill.signal(role, signal.SIGKILL)
        elif fate.signal_number:
            self.drill.orders[role][Word.EVENT_NS] = 0
            case.event_ns = host_ns()
            self.drill.signal(role, fate.signal_number)
        else:
            self.drill.order(role, Word.FATE, fate.number)
        case.dealt_ns = host_ns()
        self._since_ns.pop(role, None)
        self.active[role] = case

    def run(self, dealer: Dealer, is_done: Callable[[], bool]) -> None:
        """Deal and watch until ``is_done`` and every death dealt is over, or one never is."""
        while not (is_done() and not self.active):
            if not is_done():
                for role, fate in dealer(self.idle()):
                    self.deal(role, fate)
            self.turn()
            if self._is_stuck():
                break
        for case in self.active.values():
            self.violations += case.faults()

    def _is_stuck(self) -> bool:
        now_ns = host_ns()
        waits = any(
            case.is_late or now_ns - case.dealt_ns > CASE_BOUND_NS for case in self.active.values()
        )
        return waits or not self.drill.root_lives

    def _look_at(self, case: Case) -> None:
        role = case.role
        if not case.event_ns:
            case.event_ns = int(self.drill.orders[role][Word.EVENT_NS])
        before_ns = host_ns()
        denial = self.witness.ask(role)
        after_ns = host_ns()
        case.see_answer(before_ns, after_ns, denial, int(self.drill.row(role)["incarnation"]))
        case.see_lease(host_ns(), self.drill.deadline_ns(role))
        if case.is_over:
            del self.active[role]
            self.over.append(case)
            self.violations += case.faults()

    def _look_at_bystander(self) -> None:
        roles = [r for r in self._since_ns if r not in self.active]
        if roles:
            self._bystander += 1
            self.asked += 1
            self.false_denials += bool(self.witness.ask(roles[self._bystander % len(roles)]))

    def _take(self, event: Event) -> None:
        if event.kind is EventKind.ESCALATED:
            self.escalated.append(event)
            return
        if event.kind not in (EventKind.ACTOR_STARTED, EventKind.ACTOR_DOWN):
            return
        actor = str(event.body["actor"])
        life = (actor, int(str(event.body["incarnation"])))
        if event.kind is EventKind.ACTOR_STARTED:
            if life in self._started:
                self.violations.append(f"{actor}#{life[1]} was started twice")
            self._started.add(life)
            return
        for case in self.active.values():
            if (case.actor, case.incarnation) == life and not case.recorded_ns:
                case.see_down(event.host_ns, event.body)
                return
        role = [name.text for name in self.drill.page.names.roles].index(actor)
        if life not in self._started and re.search(HUNG, str(event.body["reason"])):
            self.slow_starts += 1
        elif life not in self._killed_for and role not in self.excused:
            self.violations.append(f"{actor}#{life[1]} died uninvited: {event.body}")
