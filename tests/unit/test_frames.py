"""The frame codec: what goes in comes out, however it is cut, and garbage never passes."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripgate.frames import FRAME_BYTES_MAX, Decoder, FrameError, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    max_leaves=10,
)


@given(st.lists(VALUES, max_size=4), st.integers(1, 50))
def test_frames_when_cut_anywhere_then_come_out_whole_and_in_order(
    messages: list[object], piece: int
) -> None:
    stream = b"".join(map(encode, messages))
    decoder = Decoder()
    found: list[object] = []
    for start in range(0, len(stream), piece):
        found += decoder.feed(stream[start : start + piece])
    assert found == messages
    assert decoder.is_between_frames


@given(st.binary(max_size=200))
def test_decoder_when_fed_any_bytes_then_decodes_or_raises_its_own_error(data: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.feed(data)
    except FrameError:
        assert not decoder.is_between_frames


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\0\0\0\0", id="empty"),
        pytest.param((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), id="oversized"),
        pytest.param(b"\xff\xff\xff\xff", id="huge"),
        pytest.param(b"\0\0\0\1\xc1", id="reserved byte"),
        pytest.param(b"\0\0\0\1\x81", id="map cut short"),
        pytest.param(b"\0\0\0\2\x01\x02", id="two objects"),
        pytest.param(b"\0\0\0\2\xa1\xff", id="text that is not UTF-8"),
        pytest.param(b"\0\0\0\3\x81\x90\x01", id="list as a key"),
        pytest.param(b"\0\0\x10\0" + b"\x91" * 4096, id="nested without end"),
        pytest.param(b"\0\0\0\3\xd4\x05\x00", id="extension type"),
    ],
)
def test_decoder_when_a_frame_is_garbage_then_raises_and_stays_broken(frame: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(FrameError):
        decoder.feed(frame)
    assert not decoder.is_between_frames
    with pytest.raises(FrameError, match="broken before"):
        decoder.feed(encode({"good": 1}))


def test_decoder_when_a_frame_is_unfinished_then_says_so() -> None:
    decoder = Decoder()
    assert decoder.feed(encode([1])[:-1]) == []
    assert not decoder.is_between_frames


@pytest.mark.parametrize(
    "message", [object(), 2**64, {"a": {1, 2}}, "x" * (FRAME_BYTES_MAX + 1)], ids=type
)
def test_encode_when_a_message_cannot_be_framed_then_raises(message: object) -> None:
    with pytest.raises(FrameError):
        encode(message)


def test_encode_when_a_message_just_fits_then_it_is_framed() -> None:
    payload = b"x" * (FRAME_BYTES_MAX - 5)
    frame = encode(payload)
    assert len(frame) == FRAME_BYTES_MAX + 4
    assert msgpack.unpackb(frame[4:]) == payload
    assert Decoder().feed(frame) == [payload]


def test_take_when_frames_come_at_once_then_it_decodes_one_at_a_time() -> None:
    decoder = Decoder(bytes_max=20)
    decoder.push(encode([1]) + encode("two") + encode(b"x" * 30)[:10])
    assert decoder.has_frame
    assert decoder.take() == [[1]]
    assert decoder.take() == ["two"]
    assert decoder.has_frame, "a frame that is too long is an error to raise, not one to wait for"
    with pytest.raises(FrameError, match="a frame of 32 bytes is announced; 1 to 20 fit"):
        decoder.take()
    with pytest.raises(FrameError, match="broken before"):
        decoder.push(b"")


def test_has_frame_when_the_frame_is_unfinished_then_there_is_none() -> None:
    decoder, frame = Decoder(), encode({"step": 7})
    for place in range(len(frame)):
        assert not decoder.has_frame
        assert decoder.take() == []
        decoder.push(frame[place : place + 1])
    assert decoder.has_frame
    assert decoder.take() == [{"step": 7}]
