"""An account that was written down and read goes on as if nothing had happened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange_adapters.simulator.book import BookError, decode_book, encode_book
from exchange_adapters.simulator.matching import MatchingEngine
from exchange_adapters.simulator.restore import book_of, restore_engine
from exchange_adapters.venue_port import RejectClass, Rejected
from tests.property.test_matching_conservation import ACTIONS, EQUITY_MONEY, TERMS, Tick, act, play


def write_and_read(engine: MatchingEngine) -> MatchingEngine:
    return restore_engine(decode_book(encode_book(book_of(engine))), TERMS)


@given(ACTIONS, st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_engine_when_written_and_read_at_any_point_then_goes_on_identically(
    actions: list[object], breaks: list[int]
) -> None:
    kept = MatchingEngine(EQUITY_MONEY, TERMS)
    read = MatchingEngine(EQUITY_MONEY, TERMS)
    for now, action in enumerate(actions):
        if now in breaks:
            read = write_and_read(read)
        assert act(read, action, now) == act(kept, action, now)
    # A break after the last action, whatever was drawn, so that no example is without one.
    read = write_and_read(read)
    assert read.fills == kept.fills
    assert read.records() == kept.records()
    assert read.open_records() == kept.open_records()
    assert read.account.positions == kept.account.positions
    assert read.account.marks_ticks == kept.account.marks_ticks
    assert read.account.fees_money == kept.account.fees_money
    assert read.account.cash() == kept.account.cash()
    assert read.account.equity() == kept.account.equity()
    for record in kept.records():
        assert read.query(record.order.client_id) == kept.query(record.order.client_id)
        again = read.send(record.order, 99)
        assert isinstance(again, Rejected)
        assert again.reject_class is RejectClass.DUPLICATE_CLIENT_ID
    closing = Tick((30, 30))
    assert act(read, closing, 100) == act(kept, closing, 100)
    assert book_of(read) == book_of(kept)


@given(ACTIONS, st.data())
def test_book_when_one_byte_is_changed_added_or_lost_then_is_refused(
    actions: list[object], data: st.DataObject
) -> None:
    text = encode_book(book_of(play(actions)[0]))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    damage = data.draw(
        st.sampled_from(
            [
                text[:place] + bytes([other]) + text[place + 1 :],
                text[:place] + bytes([other]) + text[place:],
                text[:place] + text[place + 1 :],
                text[:place],
            ]
        )
    )
    with pytest.raises(BookError):
        decode_book(damage)
