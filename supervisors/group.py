"""One supervisor task per group: it carries out what ``supervisors.strategy`` decides.

The task owns the group's state and its mailbox. What happens to processes is told to it by those
who hold them; what it orders is done by the same. It waits for nothing but its mailbox, so that no
child, however stuck, can keep it from the next decision.
"""

import os
from collections.abc import Callable
from typing import Protocol

import trio

from supervisors.child_spec import ChildSpec, GroupSpec
from supervisors.group_types import (
    CloseScope,
    Died,
    Effect,
    Group,
    GroupDown,
    GroupRestarted,
    Kill,
    LeftDown,
    Message,
    Ready,
    ScopeBusy,
    ScopeIdle,
    Start,
    StartAll,
    Stop,
    StopAll,
    Timer,
    TimerDue,
)
from supervisors.strategy import step
from tripgate.clock import NS_PER_S, host_ns

MESSAGES_MAX = 1_024
"""Each child has one word of readiness, one death and one timer under way at most: far fewer."""
_RANDOM_BYTES = 4

Post = Callable[[Message], None]


class Holder(Protocol):
    """Whoever holds the processes of a group and the page that they write."""

    def start(self, spec: ChildSpec, incarnation: int, post: Post) -> None:
        """Begin an incarnation; post ``Ready`` once it is, and ``Died`` once its exit was seen."""

    def stop(self, spec: ChildSpec) -> None:
        """Ask the present incarnation to end, without waiting for it."""

    def kill(self, spec: ChildSpec, reason: str) -> None:
        """End the present incarnation at once, for a reason that goes on record."""

    def left_down(self, spec: ChildSpec, effect: LeftDown) -> None:
        """Note that a child will not be started again."""

    def group_restarted(self, group: str, effect: GroupRestarted) -> None:
        """Note that members are restarted because of another."""

    def close_scope(self, scope: str, reason: str) -> None:
        """Close the gate for a scope, now."""


class GroupTask:
    """One group's task.

    Attributes
    ----------
    ready
        Set once every member has been ready or is left down.
    down
        Set once the group has ended.
    """

    def __init__(
        self, spec: GroupSpec, holder: Holder, incarnations: dict[str, int] | None = None
    ) -> None:
        self.spec = spec
        self.ready = trio.Event()
        self.down = trio.Event()
        self._specs = {child.name: child for child in spec.children}
        self._group = Group.of(spec, incarnations)
        self._holder = holder
        self._send, self._receive = trio.open_memory_channel[Message](MESSAGES_MAX)
        self._unready = {child.name: "starting" for child in spec.children}
        self._scopes: dict[str, trio.CancelScope] = {}

    def post(self, message: Message) -> None:
        """Put a message into the mailbox."""
        self._send.send_nowait(message)

    def stop(self) -> None:
        """Ask the whole group to end; ``down`` says when it has."""
        self.post(StopAll())

    def tell_busy(self, busy: bool) -> None:
        """Say whether anything is open in the group's scope."""
        if busy != self.is_busy:
            self.post(ScopeBusy() if busy else ScopeIdle())

    @property
    def is_busy(self) -> bool:
        """Whether anything is open in the group's scope, as it was told."""
        return self._group.is_busy

    def unready(self) -> dict[str, str]:
        """Return why each member that never was ready is not: what ended it last."""
        return dict(self._unready)

    async def run(self) -> None:
        """Keep the group until it is down."""
        async with trio.open_nursery() as nursery:
            self.post(StartAll())
            async for message in self._receive:
                self._note(message)
                self._group, effects = step(self._group, message, host_ns() / NS_PER_S)
                for effect in effects:
                    self._carry_out(effect, nursery)
                if not self._unready:
                    self.ready.set()
                if self._group.is_down:
                    break
            nursery.cancel_scope.cancel()
        self.down.set()

    def _note(self, message: Message) -> None:
        if isinstance(message, Ready):
            self._unready.pop(message.child, None)
        elif isinstance(message, Died) and message.child in self._unready:
            self._unready[message.child] = message.reason

    def _carry_out(self, effect: Effect, nursery: trio.Nursery) -> None:
        match effect:
            case CloseScope():
                self._holder.close_scope(effect.scope, effect.reason)
            case Start():
                spec = self._specs[effect.child]
                self._holder.start(spec, effect.incarnation, self.post)
            case Stop():
                self._holder.stop(self._specs[effect.child])
            case Kill():
                self._holder.kill(self._specs[effect.child], effect.reason)
            case Timer():
                self._set_timer(effect, nursery)
            case LeftDown():
                self._unready.pop(effect.child, None)
                self._holder.left_down(self._specs[effect.child], effect)
            case GroupRestarted():
                self._holder.group_restarted(self.spec.name, effect)
            case GroupDown():
                pass

    def _set_timer(self, timer: Timer, nursery: trio.Nursery) -> None:
        if before := self._scopes.get(timer.child):
            before.cancel()
        scope = self._scopes[timer.child] = trio.CancelScope()
        nursery.start_soon(self._tell_later, timer, scope)

    async def _tell_later(self, timer: Timer, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(timer.delay_s)
            self.post(TimerDue(timer.child, timer.timer))


def draw() -> float:
    """Return a number in [0, 1) that nobody can foresee: two trees must not back off in step."""
    return int.from_bytes(os.urandom(_RANDOM_BYTES), "big") / float(1 << 8 * _RANDOM_BYTES)
