"""The last word of a run's routers about each order, from the log."""

from pathlib import Path

from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.messages import EventKind

WORDS = (
    EventKind.ORDER_SENT, EventKind.ORDER_ACKNOWLEDGED, EventKind.ORDER_UNKNOWN, EventKind.FILL,
    EventKind.ORDER_DONE,
)  # fmt: skip


def last_words(audit_folder: Path, epoch: int) -> dict[int, EventKind]:
    """Return the last of ``WORDS`` about each token that has not ended, in one run.

    Raises
    ------
    ChainBrokenError
        The log cannot be read.
    """
    words: dict[int, EventKind] = {}
    kinds = [int(kind) for kind in WORDS]
    for stored in LogReader(audit_folder).rows(kinds=kinds, epoch=epoch):
        kind, body = EventKind(stored.row.kind), unpack_body(stored.row.body)
        token = int(str(body["token"]))
        if kind is EventKind.ORDER_DONE:
            words.pop(token, None)
        # A fill after its order's end says nothing that is still asked.
        elif kind is not EventKind.FILL or token in words:
            words[token] = kind
    return words


def refusal_of(audit_folder: Path, record: int, newest: int = 100) -> str | None:
    """Return why the keeper refused to act on an operator's record, if it is among the last ones.

    Raises
    ------
    ChainBrokenError
        The log cannot be read.
    """
    kinds = (int(EventKind.ORDER_RESOLVED),)
    for stored in LogReader(audit_folder).newest(newest, kinds=kinds):
        body = unpack_body(stored.row.body)
        if body["record"] == record and "refused" in body:
            return str(body["refused"])
    return None
