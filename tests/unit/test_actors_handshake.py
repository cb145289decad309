"""The proof of membership, as messages: what is accepted, and every way in which it is not."""

import msgspec
import pytest

from actors import handshake
from actors.handshake import ACCEPTOR, CONNECTOR, Greeting, HandshakeError, Talk

ADDRESS = ("127.0.0.1", 4_000)
SECRET = handshake.make_secret()
CHILD, ROOT = ("breaker#1", "id-1"), ("root", "id-0")


def talk() -> Talk:
    return Talk(handshake.greet(CHILD), handshake.greet(ROOT), ADDRESS)


@pytest.mark.parametrize("role", [CONNECTOR, ACCEPTOR])
def test_prove_when_the_secret_is_shared_then_the_other_end_is_convinced(role: str) -> None:
    told = talk()
    handshake.verify(SECRET, role, told, handshake.prove(SECRET, role, told))


def test_verify_when_anything_is_another_then_the_proof_is_refused() -> None:
    told = talk()
    proof = handshake.prove(SECRET, CONNECTOR, told)
    change = msgspec.structs.replace
    nobody = ("breaker#2", "id-1")
    others = [
        change(told, address=("127.0.0.1", 4_001)),
        change(told, connector=change(told.connector, name=nobody)),
        change(told, acceptor=change(told.acceptor, name=("root", "id-9"))),
        change(told, connector=handshake.greet(CHILD)),
        change(told, acceptor=handshake.greet(ROOT)),
        Talk(told.acceptor, told.connector, ADDRESS),
    ]
    for other in others:
        with pytest.raises(HandshakeError, match="does not hold"):
            handshake.verify(SECRET, CONNECTOR, other, proof)
    with pytest.raises(HandshakeError, match="does not hold"):
        handshake.verify(SECRET, ACCEPTOR, told, proof)
    with pytest.raises(HandshakeError, match="does not hold"):
        handshake.verify(handshake.make_secret(), CONNECTOR, told, proof)


def test_prove_when_a_character_moves_from_one_name_to_the_next_then_the_proof_differs() -> None:
    told = talk()
    change = msgspec.structs.replace
    moved = change(told, connector=change(told.connector, name=("breaker#", "1id-1")))
    assert handshake.prove(SECRET, CONNECTOR, told) != handshake.prove(SECRET, CONNECTOR, moved)


def test_read_greeting_when_it_is_the_peers_then_it_is_returned() -> None:
    mine, theirs = handshake.greet(ROOT), handshake.greet(CHILD)
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(theirs))
    assert handshake.read_greeting(wire, mine) == theirs


def test_read_greeting_when_it_is_our_own_then_it_is_refused() -> None:
    mine = handshake.greet(ROOT)
    echoed_nonce = Greeting(handshake.LABEL, CHILD, mine.nonce)
    for echo in (mine, handshake.greet(ROOT), echoed_nonce):
        with pytest.raises(HandshakeError, match="claims to be ourselves"):
            handshake.read_greeting(msgspec.to_builtins(echo, builtin_types=(bytes,)), mine)


def test_read_greeting_when_the_peer_has_another_version_then_it_is_refused() -> None:
    other = {"label": "tripgate-tree-0", "name": CHILD, "nonce": bytes(32)}
    with pytest.raises(HandshakeError, match="another version"):
        handshake.read_greeting(other, handshake.greet(ROOT))


@pytest.mark.parametrize(
    "message",
    [
        None, 7, "root", b"", ["root", "id-0"], {}, {"label": handshake.LABEL},
        {"label": handshake.LABEL, "name": CHILD, "nonce": b"short"},
        {"label": handshake.LABEL, "name": CHILD, "nonce": "x" * 32},
        {"label": handshake.LABEL, "name": ("", "id"), "nonce": bytes(32)},
        {"label": handshake.LABEL, "name": ("n" * 129, "id"), "nonce": bytes(32)},
        {"label": handshake.LABEL, "name": ("a", "b", "c"), "nonce": bytes(32)},
        {"label": handshake.LABEL, "name": CHILD, "nonce": bytes(32), "more": 1},
        {"cmd": ["self", "cancel", {}, ["a", "b"], "c"]},
    ],
)  # fmt: skip
def test_read_greeting_when_it_is_none_then_it_is_refused(message: object) -> None:
    with pytest.raises(HandshakeError, match="no greeting"):
        handshake.read_greeting(message, handshake.greet(ROOT))


@pytest.mark.parametrize("message", [None, [], {}, {"mac": "text"}, {"mac": b"x"}, b"\0" * 32])
def test_read_proof_when_it_is_none_then_it_is_refused(message: object) -> None:
    with pytest.raises(HandshakeError, match="no proof"):
        handshake.read_proof(message)
