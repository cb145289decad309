"""The breaker's memory in the page: its causes as rows, so that a restarted breaker finds them.

None of the optional times is negative in truth, so −1 stands for "not running".
"""

from collections.abc import Mapping

from tripgate.errors import InvariantBroken
from tripgate.machines.breaker_types import Cause, CauseKey, CauseState, Verdict
from tripgate.page.layout import CAUSE
from tripgate.page.mapping import Page
from tripgate.reasons import Level

NOT_RUNNING = -1


def store_causes(page: Page, causes: Mapping[CauseKey, CauseState]) -> None:
    """Write all causes to the page (breaker only)."""
    rows = page.rows(CAUSE)
    if len(causes) > len(rows):
        raise InvariantBroken(f"the page has {len(rows)} cause rows, {len(causes)} are needed")
    for number, (key, state) in enumerate(causes.items()):
        row = rows[number]
        row["cause"], row["node"] = int(key.cause), key.scope
        row["level"], row["value"] = int(state.level), state.value
        row["latched"], row["since_ms"] = int(state.latched), state.since_ms
        row["verdict"], row["blind"] = int(state.verdict), int(state.blind)
        row["fresh_since_ms"] = _stored(state.fresh_since_ms)
        row["pending_hard_ms"] = _stored(state.pending_hard_since_ms)
        row["pending_emergency_ms"] = _stored(state.pending_emergency_since_ms)
        for index, time_ms in enumerate(state.below_since_ms):
            row["below_since_ms"][index] = _stored(time_ms)
        row["used"] = 1


def load_causes(page: Page) -> dict[CauseKey, CauseState]:
    """Return the causes that stand in the page."""
    return {
        CauseKey(Cause(int(row["cause"])), int(row["node"])): CauseState(
            level=Level(int(row["level"])),
            value=int(row["value"]),
            since_ms=int(row["since_ms"]),
            latched=bool(row["latched"]),
            verdict=Verdict(int(row["verdict"])),
            blind=bool(row["blind"]),
            fresh_since_ms=_loaded(row["fresh_since_ms"]),
            pending_hard_since_ms=_loaded(row["pending_hard_ms"]),
            pending_emergency_since_ms=_loaded(row["pending_emergency_ms"]),
            below_since_ms=tuple(_loaded(time_ms) for time_ms in row["below_since_ms"]),
        )
        for row in page.rows(CAUSE)
        if row["used"]
    }


def _stored(time_ms: int | None) -> int:
    return NOT_RUNNING if time_ms is None else time_ms


def _loaded(time_ms: int) -> int | None:
    return None if int(time_ms) == NOT_RUNNING else int(time_ms)
