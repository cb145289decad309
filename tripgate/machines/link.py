"""A message layer's rules: what a frame is, and which frames a receiver takes.

A frame is an HMAC-SHA256 and a msgpack array (``Envelope``). Who has the tree's secret may speak;
what it says is then judged by one table, first match wins: an envelope is fresh only if it belongs
to this epoch, this sender and this receiver, was never seen, is not below the newest (*latest*) or
leaves no hole (*lossless*), and is young enough. So a healed partition's burst of old messages, a
dead incarnation that speaks again and a copy of yesterday's bytes are all worth nothing.

Pure: no I/O, no clock. ``open_frame`` is total: any bytes give an envelope or a verdict.

Invariants: K1 each envelope is FRESH at most once; K2 on a latest link no envelope is FRESH after a
newer one of its incarnation; K3 after an incarnation was heard no lower one is ever FRESH again.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

import msgspec

from tripgate.errors import InvariantBroken
from tripgate.messages import LINK_KINDS, LinkMessage, LinkVerdict

SCHEMA = 1
FRAME_BYTES_MAX = 60_000
"""Longest frame: the transport is slow and fragile above 64 kB."""
MAC_BYTES = 32
SECRET_BYTES_MIN = 16
SEEN_WINDOW = 256
"""How far below the newest sequence a receiver still knows what it has seen."""
_LABEL = b"tripgate link 1\0"
_MASK = (1 << SEEN_WINDOW) - 1

Word: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message with all that its receiver needs to judge it.

    Attributes
    ----------
    epoch, sender, incarnation, receiver
        Whose tree, which role in it and its how manieth life, and the role that is meant.
    sequence
        From 1 in each incarnation, one higher per frame.
    host_ns, market_ms
        The sender's clock when it sealed the frame (one host: one clock), and market time.
    body
        The message; its kind is the tag in it.
    """

    schema: Word
    epoch: Word
    sender: Name
    incarnation: Word
    receiver: Name
    sequence: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
    host_ns: Word
    market_ms: int
    body: LinkMessage


class _Kind(msgspec.Struct):
    type: str


class _Loose(msgspec.Struct, array_like=True):
    schema: int
    epoch: msgspec.Raw
    sender: msgspec.Raw
    incarnation: msgspec.Raw
    receiver: msgspec.Raw
    sequence: msgspec.Raw
    host_ns: msgspec.Raw
    market_ms: msgspec.Raw
    body: _Kind


class _Schema(msgspec.Struct, array_like=True):
    schema: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Envelope)


def _mac(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, _LABEL + payload, "sha256")


def seal(envelope: Envelope, secret: bytes) -> bytes:
    """Return an envelope as a frame. Raises ``InvariantBroken`` where our own code is at fault."""
    if len(secret) < SECRET_BYTES_MIN:
        raise InvariantBroken(f"a link's secret has at least {SECRET_BYTES_MIN} bytes")
    payload = _ENCODER.encode(envelope)
    if MAC_BYTES + len(payload) > FRAME_BYTES_MAX:
        raise InvariantBroken(f"a link's frame has at most {FRAME_BYTES_MAX} bytes")
    return _mac(secret, payload) + payload


def open_frame(frame: object, secret: bytes) -> Envelope | LinkVerdict:
    """Return the envelope of a frame, or why there is none. Total: never raises on any input."""
    if not isinstance(frame, bytes) or not MAC_BYTES < len(frame) <= FRAME_BYTES_MAX:
        return LinkVerdict.UNREADABLE
    payload = frame[MAC_BYTES:]
    if not hmac.compare_digest(frame[:MAC_BYTES], _mac(secret, payload)):
        return LinkVerdict.FORGED
    try:
        envelope = _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _why_unreadable(payload)
    return envelope if envelope.schema == SCHEMA else LinkVerdict.WRONG_SCHEMA


def _why_unreadable(payload: bytes) -> LinkVerdict:
    """Name what is wrong with an authentic payload: another release's, or an unknown kind."""
    try:
        if msgspec.msgpack.decode(payload, type=_Schema).schema != SCHEMA:
            return LinkVerdict.WRONG_SCHEMA
        kind = msgspec.msgpack.decode(payload, type=_Loose).body.type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return LinkVerdict.UNREADABLE
    return LinkVerdict.UNREADABLE if kind in LINK_KINDS else LinkVerdict.UNKNOWN_KIND


@dataclass(frozen=True)
class Terms:
    """What a receiver was set up for: whom it hears, and how old a message may be."""

    epoch: int
    sender: str
    receiver: str
    age_ns_max: int
    lossless: bool = False


@dataclass(frozen=True)
class Receiver:
    """What a receiver remembers: incarnation and newest sequence heard, and what was seen below.

    Attributes
    ----------
    seen
        Bit n: sequence ``newest`` − n was seen.
    """

    incarnation: int = 0
    newest: int = 0
    seen: int = 0


Rule: TypeAlias = Callable[[Terms, Receiver, Envelope, int], bool]


def _is_foreign(terms: Terms, state: Receiver, envelope: Envelope, now_ns: int) -> bool:
    ours = (terms.epoch, terms.sender, terms.receiver)
    meant = (envelope.epoch, envelope.sender, envelope.receiver)
    # A stamp of the future was made by another clock: another host's, or one before a reboot.
    return meant != ours or envelope.incarnation < state.incarnation or envelope.host_ns > now_ns


def _was_seen(_terms: Terms, state: Receiver, envelope: Envelope, _now_ns: int) -> bool:
    back = state.newest - envelope.sequence
    # What lies below the window counts as seen: nobody can tell, and nobody needs it.
    return back >= SEEN_WINDOW or (back >= 0 and bool(state.seen >> back & 1))


def _is_behind(_terms: Terms, state: Receiver, envelope: Envelope, _now_ns: int) -> bool:
    return envelope.sequence < state.newest


def _leaves_gap(terms: Terms, state: Receiver, envelope: Envelope, _now_ns: int) -> bool:
    return terms.lossless and envelope.sequence != state.newest + 1


def _is_old(terms: Terms, _state: Receiver, envelope: Envelope, now_ns: int) -> bool:
    return now_ns - envelope.host_ns > terms.age_ns_max


RULES: tuple[tuple[LinkVerdict, Rule], ...] = (
    (LinkVerdict.FOREIGN, _is_foreign),
    (LinkVerdict.REPLAYED, _was_seen),
    (LinkVerdict.REORDERED, _is_behind),
    (LinkVerdict.GAP, _leaves_gap),
    (LinkVerdict.STALE, _is_old),
)
"""Asked in this order of each authentic envelope; what no rule objects to is FRESH."""
REMEMBERED = (LinkVerdict.FRESH, LinkVerdict.STALE, LinkVerdict.REORDERED)
"""Verdicts after which a sequence counts as seen: a gap stays one until it is reconciled."""


def judge(
    terms: Terms, state: Receiver, envelope: Envelope, now_ns: int
) -> tuple[Receiver, LinkVerdict]:
    """Return what a receiver knows after an authentic envelope, and its verdict on it.

    A higher incarnation begins at sequence 1 with nothing seen.
    """
    if not _is_foreign(terms, state, envelope, now_ns) and envelope.incarnation > state.incarnation:
        state = Receiver(envelope.incarnation)
    rules = (verdict for verdict, rule in RULES if rule(terms, state, envelope, now_ns))
    verdict = next(rules, LinkVerdict.FRESH)
    return (_remember(state, envelope.sequence) if verdict in REMEMBERED else state), verdict


def _remember(state: Receiver, sequence: int) -> Receiver:
    ahead = sequence - state.newest
    if ahead <= 0:
        return replace(state, seen=state.seen | 1 << -ahead)
    # A jump beyond the window leaves nothing of it; shifting by it would take memory at will.
    kept = (state.seen << ahead) & _MASK if ahead < SEEN_WINDOW else 0
    return replace(state, newest=sequence, seen=kept | 1)


def reconciled(state: Receiver, sequence: int) -> Receiver:
    """Return a lossless receiver's state after everything up to ``sequence`` was got elsewhere."""
    return replace(state, newest=max(state.newest, sequence), seen=_MASK)
