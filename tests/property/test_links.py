"""Links under any weather: no byte may change, and no message is taken twice or behind a newer."""

from hypothesis import given
from hypothesis import strategies as st

from tripgate.machines.link import (
    SCHEMA,
    Envelope,
    Receiver,
    Terms,
    judge,
    open_frame,
    seal,
)
from tripgate.machines.link_faults import HELD_MAX, Switch, pass_frame, release
from tripgate.messages import GRACE_S_MAX, Heartbeat, LinkFault, LinkVerdict, Stop

SECRET, OTHER = b"s" * 32, b"t" * 32
AGE_NS_MAX = 1_000
TERMS = Terms(epoch=7, sender="breaker", receiver="supervisor", age_ns_max=AGE_NS_MAX)
WORDS = st.integers(0, 2**63 - 1)
BODIES = st.one_of(
    st.builds(Heartbeat, WORDS, WORDS, WORDS),
    st.builds(Stop, st.floats(0, GRACE_S_MAX, allow_nan=False)),
)


def envelope(sequence: int, *, incarnation: int = 1, host_ns: int = 0) -> Envelope:
    return Envelope(
        SCHEMA, 7, "breaker", incarnation, "supervisor", sequence, host_ns, 0, Heartbeat(0, 0, 0)
    )


ENVELOPES = st.builds(
    Envelope, st.just(SCHEMA), WORDS, st.text(max_size=20), WORDS, st.text(max_size=20),
    st.integers(1, 2**63 - 1), WORDS, st.integers(-(2**63), 2**63 - 1), BODIES,
)  # fmt: skip


@given(ENVELOPES)
def test_frame_when_sealed_and_opened_then_it_is_the_same_envelope(sent: Envelope) -> None:
    assert open_frame(seal(sent, SECRET), SECRET) == sent
    assert open_frame(seal(sent, SECRET), OTHER) is LinkVerdict.FORGED


@given(ENVELOPES, st.data())
def test_frame_when_any_bit_is_changed_then_it_is_refused(
    sent: Envelope, data: st.DataObject
) -> None:
    frame = bytearray(seal(sent, SECRET))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= 1 << data.draw(st.integers(0, 7))
    assert open_frame(bytes(frame), SECRET) is LinkVerdict.FORGED


@given(ENVELOPES, st.data())
def test_frame_when_cut_or_lengthened_then_it_is_refused(
    sent: Envelope, data: st.DataObject
) -> None:
    frame = seal(sent, SECRET)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert isinstance(open_frame(frame[:cut], SECRET), LinkVerdict)
    assert isinstance(open_frame(frame[cut:] if cut else b"", SECRET), LinkVerdict)
    assert isinstance(open_frame(frame + data.draw(st.binary(min_size=1)), SECRET), LinkVerdict)


@given(st.one_of(st.binary(max_size=300), st.none(), st.integers(), st.text(), st.lists(st.none())))
def test_open_frame_when_given_anything_then_it_answers_and_never_raises(garbage: object) -> None:
    assert isinstance(open_frame(garbage, SECRET), LinkVerdict)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 600), st.integers(0, 3 * AGE_NS_MAX)),
        max_size=60,
    ),
    st.integers(0, 3 * AGE_NS_MAX),
)
def test_K1_to_K3_latest_link_when_the_way_repeats_delays_and_turns_round_then_fresh_only_rises(
    arrivals: list[tuple[int, int, int]], began_ns: int
) -> None:
    state, now_ns, heard = Receiver(), began_ns, list[tuple[int, int]]()
    for incarnation, sequence, delay_ns in arrivals:
        now_ns += delay_ns % 7
        sent = envelope(sequence, incarnation=incarnation, host_ns=max(0, now_ns - delay_ns))
        state, verdict = judge(TERMS, state, sent, now_ns)
        if verdict is LinkVerdict.FRESH:
            assert now_ns - sent.host_ns <= AGE_NS_MAX
            heard.append((incarnation, sequence))
    assert heard == sorted(set(heard))


@given(st.lists(st.integers(1, 12), max_size=60))
def test_lossless_link_when_the_way_repeats_and_turns_round_then_fresh_is_1_2_3_without_a_hole(
    arrivals: list[int],
) -> None:
    terms = Terms(7, "breaker", "supervisor", AGE_NS_MAX, lossless=True)
    state, heard = Receiver(), list[int]()
    for sequence in arrivals:
        state, verdict = judge(terms, state, envelope(sequence), 0)
        if verdict is LinkVerdict.FRESH:
            heard.append(sequence)
        elif sequence > len(heard):
            assert verdict is LinkVerdict.GAP
    assert heard == list(range(1, len(heard) + 1))


@given(st.lists(st.tuples(st.sampled_from(LinkFault), st.integers(0, 5)), max_size=40))
def test_switch_when_its_fault_changes_at_will_then_nothing_is_invented_or_kept_for_ever(
    turns: list[tuple[LinkFault, int]],
) -> None:
    switch, out = Switch(), list[bytes]()
    for number, (fault, argument) in enumerate(turns):
        switch, freed = release(switch, fault, number)
        switch, passed = pass_frame(switch, fault, argument, number.to_bytes(4, "big"), number)
        out += [*freed, *passed]
        assert len(switch.held) <= HELD_MAX
    switch, freed = release(switch, LinkFault.NONE, 1_000)
    out += freed
    assert not switch.held
    whole = {number.to_bytes(4, "big") for number in range(len(turns))}
    corrupted = sum(fault is LinkFault.CORRUPT for fault, _ in turns)
    doubled = sum(fault is LinkFault.DUPLICATE for fault, _ in turns)
    assert len(out) <= len(turns) + doubled
    assert sum(frame not in whole for frame in out) <= corrupted
    if all(fault in (LinkFault.NONE, LinkFault.HOLD) for fault, _ in turns):
        assert out == sorted(whole)
