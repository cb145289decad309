"""The verdict table of links, row by row, and each fault of their switch."""

import math

import msgspec
import pytest

from tripgate.errors import InvariantBroken
from tripgate.machines.link import (
    FRAME_BYTES_MAX,
    RULES,
    SCHEMA,
    SEEN_WINDOW,
    Envelope,
    Receiver,
    Terms,
    _mac,
    judge,
    open_frame,
    reconciled,
    seal,
)
from tripgate.machines.link_faults import HELD_MAX, Switch, next_due_ns, pass_frame, release
from tripgate.messages import LINK_KINDS, Heartbeat, LinkFault, LinkVerdict, Stop

SECRET = b"k" * 32
NOW_NS = 10_000
TERMS = Terms(3, "router(sim)", "supervisor", 1_000)
GOOD = Envelope(SCHEMA, 3, "router(sim)", 2, "supervisor", 5, NOW_NS, 9, Heartbeat(1, 2, 3))
KNOWN = Receiver(incarnation=2, newest=4, seen=0b1101)
"""Sequences 4, 2 and 1 of incarnation 2 were seen; 3 was not."""


def change(**fields: object) -> Envelope:
    return msgspec.structs.replace(GOOD, **fields)


@pytest.mark.parametrize(
    ("envelope", "verdict"),
    [
        (GOOD, LinkVerdict.FRESH),
        (change(sequence=900), LinkVerdict.FRESH),
        (change(incarnation=3, sequence=1), LinkVerdict.FRESH),
        (change(host_ns=NOW_NS - 1_000), LinkVerdict.FRESH),
        (change(host_ns=NOW_NS - 1_001), LinkVerdict.STALE),
        (change(sequence=4), LinkVerdict.REPLAYED),
        (change(sequence=2), LinkVerdict.REPLAYED),
        (change(sequence=3), LinkVerdict.REORDERED),
        (change(epoch=2), LinkVerdict.FOREIGN),
        (change(epoch=4), LinkVerdict.FOREIGN),
        (change(sender="breaker"), LinkVerdict.FOREIGN),
        (change(receiver="router(sim)"), LinkVerdict.FOREIGN),
        (change(incarnation=1, sequence=99), LinkVerdict.FOREIGN),
        (change(host_ns=NOW_NS + 1), LinkVerdict.FOREIGN),
    ],
)
def test_judge_when_an_envelope_arrives_then_the_first_rule_that_objects_names_the_verdict(
    envelope: Envelope, verdict: LinkVerdict
) -> None:
    assert judge(TERMS, KNOWN, envelope, NOW_NS)[1] is verdict


def test_judge_when_the_table_is_read_then_every_verdict_has_one_place() -> None:
    unopened = {LinkVerdict.FORGED, LinkVerdict.UNREADABLE, LinkVerdict.WRONG_SCHEMA}
    judged = [verdict for verdict, _ in RULES]
    assert len(judged) == len(set(judged))
    others = unopened | {LinkVerdict.UNKNOWN_KIND, LinkVerdict.FRESH}
    assert set(judged) | others == set(LinkVerdict)


def test_judge_when_an_envelope_was_stale_or_behind_then_its_copy_is_a_replay() -> None:
    for envelope in (change(host_ns=0), change(sequence=3)):
        state, _ = judge(TERMS, KNOWN, envelope, NOW_NS)
        assert judge(TERMS, state, envelope, NOW_NS) == (state, LinkVerdict.REPLAYED)


def test_judge_when_a_new_incarnation_was_heard_then_the_old_one_never_comes_back() -> None:
    state, verdict = judge(TERMS, KNOWN, change(incarnation=3, sequence=1), NOW_NS)
    assert (state.incarnation, state.newest, verdict) == (3, 1, LinkVerdict.FRESH)
    for sequence in (1, 5, 2**62):
        old = change(sequence=sequence)
        assert judge(TERMS, state, old, NOW_NS) == (state, LinkVerdict.FOREIGN)


def test_judge_when_a_stranger_claims_a_higher_incarnation_then_nothing_is_forgotten() -> None:
    stranger = change(sender="breaker", incarnation=9)
    assert judge(TERMS, KNOWN, stranger, NOW_NS) == (KNOWN, LinkVerdict.FOREIGN)


def test_judge_when_the_sequence_leaps_then_the_window_stays_bounded() -> None:
    state, _ = judge(TERMS, KNOWN, change(sequence=2**62), NOW_NS)
    assert (state.newest, state.seen) == (2**62, 1)
    below = change(sequence=2**62 - SEEN_WINDOW)
    assert judge(TERMS, state, below, NOW_NS)[1] is LinkVerdict.REPLAYED
    assert judge(TERMS, state, change(sequence=2**62 - 1), NOW_NS)[1] is LinkVerdict.REORDERED


def test_judge_when_a_lossless_link_misses_one_then_it_stays_a_gap_until_reconciled() -> None:
    terms = Terms(3, "router(sim)", "supervisor", 1_000, lossless=True)
    start = Receiver(incarnation=2)
    for _ in range(2):
        assert judge(terms, start, GOOD, NOW_NS) == (start, LinkVerdict.GAP)
    state = reconciled(start, 4)
    assert judge(terms, state, change(sequence=4), NOW_NS)[1] is LinkVerdict.REPLAYED
    assert judge(terms, state, GOOD, NOW_NS)[1] is LinkVerdict.FRESH
    assert judge(terms, start, change(incarnation=3, sequence=2), NOW_NS)[1] is LinkVerdict.GAP


def authentic(payload: bytes) -> bytes:
    return _mac(SECRET, payload) + payload


def fields(**changed: object) -> list[object]:
    raw = {
        "schema": SCHEMA, "epoch": 3, "sender": "a", "incarnation": 1, "receiver": "b",
        "sequence": 1, "host_ns": 1, "market_ms": 1, "body": {"type": "stop", "grace_s": 1.0},
    }  # fmt: skip
    return list((raw | changed).values())


@pytest.mark.parametrize(
    ("payload", "verdict"),
    [
        (fields(schema=2), LinkVerdict.WRONG_SCHEMA),
        ([2, "another", "shape"], LinkVerdict.WRONG_SCHEMA),
        (fields(body={"type": "loosen", "factor": 9}), LinkVerdict.UNKNOWN_KIND),
        (fields(body={"type": "stop", "grace_s": math.nan}), LinkVerdict.UNREADABLE),
        (fields(body={"type": "stop", "grace_s": math.inf}), LinkVerdict.UNREADABLE),
        (fields(body={"type": "stop", "grace_s": -1.0}), LinkVerdict.UNREADABLE),
        (fields(body={"type": "stop"}), LinkVerdict.UNREADABLE),
        (fields(body={"type": "stop", "grace_s": 1.0, "more": 1}), LinkVerdict.UNREADABLE),
        (fields(body=None), LinkVerdict.UNREADABLE),
        (fields(sequence=0), LinkVerdict.UNREADABLE),
        (fields(sequence=2**63), LinkVerdict.UNREADABLE),
        (fields(epoch=-1), LinkVerdict.UNREADABLE),
        (fields(sender="x" * 65), LinkVerdict.UNREADABLE),
        ([*fields(), "more"], LinkVerdict.UNREADABLE),
        (fields()[:-1], LinkVerdict.UNREADABLE),
        ({"schema": 1}, LinkVerdict.UNREADABLE),
        (7, LinkVerdict.UNREADABLE),
    ],
)
def test_open_frame_when_an_authentic_payload_is_wrong_then_it_is_named(
    payload: object, verdict: LinkVerdict
) -> None:
    assert open_frame(authentic(msgspec.msgpack.encode(payload)), SECRET) is verdict


def test_open_frame_when_an_authentic_payload_is_no_msgpack_then_it_is_unreadable() -> None:
    for payload in (b"\xc1", b"\x99" * 5, b"\x91" * 5_000, b"\xdd\xff\xff\xff\xff"):
        assert open_frame(authentic(payload), SECRET) is LinkVerdict.UNREADABLE
    assert open_frame(authentic(b"x" * FRAME_BYTES_MAX), SECRET) is LinkVerdict.UNREADABLE


def test_seal_when_our_own_code_is_at_fault_then_it_crashes() -> None:
    with pytest.raises(InvariantBroken, match="secret has at least"):
        seal(GOOD, b"short")
    with pytest.raises(InvariantBroken, match="at most 60000 bytes"):
        seal(change(sender="x" * FRAME_BYTES_MAX), SECRET)


def test_messages_when_listed_then_their_tags_are_the_kinds() -> None:
    tags = tuple(kind.__struct_config__.tag for kind in (Heartbeat, Stop))
    assert tags == LINK_KINDS


def through(fault: LinkFault, argument: int, frames: int = 6) -> tuple[Switch, list[bytes]]:
    switch, out = Switch(), list[bytes]()
    for number in range(1, frames + 1):
        switch, passed = pass_frame(switch, fault, argument, bytes([number]), NOW_NS)
        out += passed
    return switch, out


@pytest.mark.parametrize(
    ("fault", "argument", "expected"),
    [
        (LinkFault.NONE, 0, [1, 2, 3, 4, 5, 6]),
        (LinkFault.DROP, 0, []),
        (LinkFault.DROP, 3, [1, 2, 4, 5]),
        (LinkFault.DUPLICATE, 4, [1, 2, 3, 4, 4, 5, 6]),
        (LinkFault.REORDER, 3, [3, 2, 1, 6, 5, 4]),
        (LinkFault.PARTITION, 0, []),
        (LinkFault.HOLD, 0, []),
        (LinkFault.DELAY, 5, []),
    ],
)
def test_switch_when_a_fault_is_set_then_frames_fare_as_it_says(
    fault: LinkFault, argument: int, expected: list[int]
) -> None:
    _, out = through(fault, argument)
    assert [frame[0] for frame in out] == expected


def test_switch_when_it_corrupts_then_each_nth_frame_has_one_bit_changed() -> None:
    _, out = through(LinkFault.CORRUPT, 2)
    changed = [(got[0] ^ number).bit_count() for number, got in enumerate(out, 1)]
    assert changed == [0, 1, 0, 1, 0, 1]
    assert pass_frame(Switch(), LinkFault.CORRUPT, 0, b"", 0)[1] == (b"",)


def test_switch_when_a_delay_has_passed_then_frames_go_in_order_and_not_before() -> None:
    switch, _ = through(LinkFault.DELAY, 5, frames=2)
    due_ns = NOW_NS + 5_000_000
    assert next_due_ns(switch, LinkFault.DELAY) == due_ns
    assert next_due_ns(switch, LinkFault.HOLD) is None
    assert release(switch, LinkFault.DELAY, due_ns - 1) == (switch, ())
    assert release(switch, LinkFault.DELAY, due_ns)[1] == (b"\x01", b"\x02")


def test_switch_when_a_hold_is_lifted_then_all_comes_in_a_burst_the_oldest_lost_first() -> None:
    switch = Switch()
    for number in range(HELD_MAX + 3):
        frame = number.to_bytes(2, "big")
        switch, _ = pass_frame(switch, LinkFault.HOLD, 0, frame, NOW_NS)
    assert release(switch, LinkFault.HOLD, NOW_NS)[1] == ()
    assert release(switch, LinkFault.PARTITION, NOW_NS) == (Switch(HELD_MAX + 3), ())
    switch, burst = release(switch, LinkFault.NONE, NOW_NS)
    assert [int.from_bytes(frame, "big") for frame in burst] == list(range(3, HELD_MAX + 3))
    assert not switch.held
