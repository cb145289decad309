"""The object a run ends with: what was decided, traded, lost and proved.

Counted from the page (which outlives its processes) and from the log, which is verified on the
way: nothing here is what an actor says of itself.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.audit.verify import verify
from tripgate.gate.record import unpack_record
from tripgate.gate.status import decision_counts, read_status
from tripgate.messages import EventKind
from tripgate.page.layout import ACCOUNT, BOARD, PROTECTION, ROLE
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import MONEY_SCALE, PPM


def summarise(page: Page, armed_s: float | None) -> dict[str, Any]:
    """Return the summary of the page's run (OPERATIONS section 6), JSON-ready.

    Parameters
    ----------
    armed_s
        Seconds from the command to the armed gate; None if it was never armed.
    """
    state = Path(page.names.state_folder)
    verdict = verify(state / "audit", state / "heads")
    status = read_status(page)
    account = page.rows(ACCOUNT)[0]
    fills, levels, digest = _history(state / "audit", page.epoch)
    approved, denied = decision_counts(page)
    would_deny = _would_deny(state / "audit", page.epoch) if status.shadow else {}
    highest = max((Level[level] for _, _, level, _ in levels), default=Level.NORMAL)
    overshoot = status.overshoot_at_grant_max_money
    return {
        "schema": 1,
        "instance": page.names.instance,
        "epoch": page.epoch,
        "shadow": status.shadow,
        "armed_s": armed_s,
        "steps": int(page.header["step"]) + 1,
        "ticks": int(page.rows(BOARD)["ticks"].sum()),
        "decisions": {
            "approved": approved,
            "denied": _without(denied, would_deny),
            "would_deny": would_deny,
            "digest": digest,
        },
        "fills": fills,
        "equity": int(account["equity_mark"]) / MONEY_SCALE if account["known"] else None,
        "drawdown_max": int(account["drawdown_max_ppm"]) / PPM,
        "level_max": highest.name,
        "levels": levels,
        "flat": not status.positions,
        "liquidations": _liquidations(state / "audit", page.epoch),
        "overshoot_at_grant_max": None if overshoot is None else overshoot / MONEY_SCALE,
        "seconds_unprotected_max": int(page.rows(PROTECTION)["unprotected_ms_max"].max()) / 1000,
        "audit": {"rows": verdict.rows, "head": verdict.head, "verified": verdict.verified},
        "restarts": int(page.rows(ROLE)["restarts"].sum()),
    }


def _history(audit: Path, epoch: int) -> tuple[int, list[list[Any]], str]:
    """Return fills, level changes [market ms, scope, level, cause] and a digest of decisions.

    The digest covers what two runs of one replay must agree on, decision by decision, in each
    process's own order: how the processes' rings interleave in the log is a matter of timing.
    """
    fills, levels, decisions = 0, [], []
    kinds = (EventKind.DECISION, EventKind.FILL, EventKind.LEVEL_CHANGED)
    for stored in LogReader(audit).rows(kinds=[int(kind) for kind in kinds], epoch=epoch):
        row = stored.row
        if row.kind == EventKind.DECISION:
            told = repr(unpack_record(row.body).replayed()).encode()
            decisions.append((row.producer, row.producer_sequence, hashlib.sha256(told).digest()))
        elif row.kind == EventKind.FILL:
            fills += 1
        else:
            body = unpack_body(row.body)
            levels.append([row.market_ms, body["scope"], body["level"], body["cause"]])
    digest = hashlib.sha256(b"".join(told for _, _, told in sorted(decisions)))
    return fills, levels, digest.hexdigest()


def _would_deny(audit: Path, epoch: int) -> dict[str, int]:
    """Count by reason what a shadow page granted although its rules would have denied it."""
    counts: Counter[str] = Counter()
    for stored in LogReader(audit).rows(kinds=[int(EventKind.DECISION)], epoch=epoch):
        record = unpack_record(stored.row.body)
        if record.would_deny and record.reason is not None:
            counts[record.reason.name] += 1
    return dict(sorted(counts.items()))


def _without(denied: dict[str, int], granted: dict[str, int]) -> dict[str, int]:
    """Return what was denied indeed: a shadow page counts what it would have denied with it."""
    left = {name: count - granted.get(name, 0) for name, count in denied.items()}
    return {name: count for name, count in left.items() if count > 0}


def _liquidations(audit: Path, epoch: int) -> int:
    """Count fills that no order of ours explains: the venue's own, such as a liquidation."""
    fills = LogReader(audit).rows(kinds=[int(EventKind.FILL)], epoch=epoch)
    return sum(1 for stored in fills if unpack_body(stored.row.body)["token"] == 0)
