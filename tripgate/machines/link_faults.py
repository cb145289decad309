"""The fault switch of one direction of a link: what becomes of a frame on its way.

Pure, and without randomness: a fault with argument n meets every n-th frame, so that a run can be
repeated; who wants chance changes the words from outside. The vocabulary is toxiproxy's where it
has a word (docs/links.md). What is held back is bounded: the oldest of it is lost first.
"""

from dataclasses import dataclass, replace

from tripgate.clock import NS_PER_MS
from tripgate.messages import LinkFault

HELD_MAX = 256
"""Frames that one direction holds back at most."""


@dataclass(frozen=True)
class Switch:
    """What is under way: frames met by a fault so far, and frames held with the time to go."""

    count: int = 0
    held: tuple[tuple[int, bytes], ...] = ()


def pass_frame(
    switch: Switch, fault: LinkFault, argument: int, frame: bytes, now_ns: int
) -> tuple[Switch, tuple[bytes, ...]]:
    """Return the switch after a frame was put in, and what comes out of it now, in order.

    Call ``release`` first: what the fault no longer holds goes before.
    """
    if fault is LinkFault.NONE:
        return replace(switch, count=0), (frame,)
    switch = replace(switch, count=switch.count + 1)
    met = switch.count % max(1, argument) == 0
    match fault:
        case LinkFault.PARTITION:
            return switch, ()
        case LinkFault.DROP:
            return switch, () if met else (frame,)
        case LinkFault.DUPLICATE:
            return switch, (frame, frame) if met else (frame,)
        case LinkFault.CORRUPT:
            return switch, (_corrupted(frame, switch.count) if met else frame,)
        case LinkFault.REORDER:
            waiting = (*switch.held, (0, frame))
            if len(waiting) < max(2, argument):
                return _hold(switch, 0, frame), ()
            return replace(switch, held=()), tuple(f for _, f in reversed(waiting))
        case LinkFault.DELAY:
            return _hold(switch, now_ns + argument * NS_PER_MS, frame), ()
        case _:
            return _hold(switch, 0, frame), ()


def release(switch: Switch, fault: LinkFault, now_ns: int) -> tuple[Switch, tuple[bytes, ...]]:
    """Return the switch and the frames that are held no longer, in the order they came."""
    if not switch.held or fault in (LinkFault.HOLD, LinkFault.REORDER):
        return switch, ()
    if fault is LinkFault.PARTITION:
        return replace(switch, held=()), ()
    if fault is LinkFault.DELAY:
        due = tuple(frame for at_ns, frame in switch.held if at_ns <= now_ns)
        later = tuple(pair for pair in switch.held if pair[0] > now_ns)
        return replace(switch, held=later), due
    return replace(switch, held=()), tuple(frame for _, frame in switch.held)


def next_due_ns(switch: Switch, fault: LinkFault) -> int | None:
    """Return when the next held frame goes by itself, host time, or None."""
    if fault is not LinkFault.DELAY or not switch.held:
        return None
    return min(at_ns for at_ns, _ in switch.held)


def _hold(switch: Switch, at_ns: int, frame: bytes) -> Switch:
    return replace(switch, held=(*switch.held, (at_ns, frame))[-HELD_MAX:])


def _corrupted(frame: bytes, count: int) -> bytes:
    if not frame:
        return frame
    place = count % len(frame)
    return frame[:place] + bytes((frame[place] ^ 1 << count % 8,)) + frame[place + 1 :]
