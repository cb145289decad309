"""Rows of the log in words: what ``audit query`` and ``audit export`` print of one."""

from datetime import UTC, datetime

from tripgate import clock
from tripgate.audit.reader import StoredRow
from tripgate.audit.record import RecordError, unpack_body
from tripgate.errors import UsageError
from tripgate.gate.record import FLAG_SHADOW, unpack_record
from tripgate.messages import EventKind
from tripgate.reasons import Level
from tripgate.spelling import did_you_mean


def kind_codes(words: list[str] | None) -> list[int] | None:
    """Return the codes of event kinds given by name or code; None for None.

    Raises
    ------
    UsageError
        There is no kind of that name.
    """
    if words is None:
        return None
    names = {kind.name: int(kind) for kind in EventKind}
    codes = []
    for word in words:
        code = names.get(word.upper().replace("-", "_"))
        if code is None and word.isascii() and word.isdecimal() and len(word) < 10:
            code = int(word)
        if code is None:
            hint = did_you_mean(word.upper(), names)
            raise UsageError(f"there is no event kind '{word}'{hint}: give a name or a code")
        codes.append(code)
    return codes


def kind_name(code: int) -> str:
    """Return a kind's name, or "" for one that this version does not know."""
    try:
        return EventKind(code).name
    except ValueError:
        return ""


def fields_of(stored: StoredRow) -> dict[str, object]:
    """Return a row's fields, always the same ones in the same order, bodies unpacked."""
    row = stored.row
    return {
        "sequence": stored.sequence,
        "utc": utc_text(row.utc_ns),
        "epoch": row.epoch,
        "producer": row.producer,
        "producer_sequence": row.producer_sequence,
        "host_ns": row.host_ns,
        "market_ms": row.market_ms,
        "kind": row.kind,
        "kind_name": kind_name(row.kind),
        "token": row.token,
        "body": _decision(row.body) if row.kind == EventKind.DECISION else _body(row.body),
        "hash": stored.hash.hex(),
    }


def utc_text(utc_ns: int) -> str:
    """Return a moment (ns since 1970) as ISO 8601 with nanoseconds."""
    seconds, rest_ns = divmod(utc_ns, clock.NS_PER_S)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return str(utc_ns)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns:09}Z"


def _decision(body: bytes) -> object:
    """Return a decision in words; on a shadow page also what an enforcing gate would have said."""
    try:
        record = unpack_record(body)
        level = Level(record.level)
    except ValueError:
        return body.hex()  # Not a record: shown as it lies there, for whoever looks for the damage.
    reason = None if record.reason is None else record.reason.name
    return {
        "approved": record.approved,
        "reason": None if record.approved else reason,
        "shadow": bool(record.flags & FLAG_SHADOW),
        "would_deny": reason if record.would_deny else None,
        "flags": record.flags,
        "level": level.name,
        "strategy": record.strategy,
        "instrument": record.instrument,
        "limits_version": record.limits_version,
        **record.values,
        "gross_before": list(record.gross_before),
        "side_before": list(record.side_before),
    }


def _body(body: bytes) -> object:
    try:
        return _plain(unpack_body(body))
    except RecordError:
        return body.hex()


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.hex() if isinstance(value, bytes) else value
