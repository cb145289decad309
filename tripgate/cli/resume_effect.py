"""What a resume would do: the breaker's own step, run on the causes that stand in the page.

The page is not changed. Thresholds that are part of the release are the breaker's; the one that
comes from the configuration (the total loss) is read from the configuration the run was started
with.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripgate.audit.reader import LogReader
from tripgate.audit.record import unpack_body
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.config.reader import load_text
from tripgate.config.structs import limit_money
from tripgate.errors import ConfigError
from tripgate.gate.cause_rows import load_causes
from tripgate.machines import breaker as machine
from tripgate.machines.breaker_types import (
    Breaker,
    BreakerSpec,
    Cause,
    CauseKey,
    CauseState,
    Resume,
    Resumed,
    ResumeRefused,
    Thresholds,
    total_loss_thresholds,
)
from tripgate.messages import EventKind
from tripgate.page.layout import ACCOUNT
from tripgate.page.level import LevelWriter, node_level, writer_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import PPM, money_text

CONFIG_NAME = "config.toml"
REFUSAL_WAIT_S = 1.0
REFUSAL_ROWS_MAX = 100
POLL_S = 0.05

MEASURED = {
    Cause.DRAWDOWN: machine.DRAWDOWN_THRESHOLDS,
    Cause.LEASE_LAPSED: machine.LEASE_LAPSED_THRESHOLDS,
    Cause.KEEPER_FAULT: machine.KEEPER_FAULT_THRESHOLDS,
}


@dataclass(frozen=True)
class EffectOfResume:
    """What holds a scope, what would be released, what would stay.

    Attributes
    ----------
    held
        One text per holder of the scope's level.
    released, stays
        One text per cause or writer.
    elsewhere
        Other scopes above NORMAL, which a resume of this scope does not touch.
    level, level_after
        The scope's level now and, as far as the page tells, after the breaker has acted.
    """

    scope: str
    level: Level
    level_after: Level
    held: tuple[str, ...]
    released: tuple[str, ...]
    stays: tuple[str, ...]
    elsewhere: tuple[str, ...]

    @property
    def has_something_to_release(self) -> bool:
        """Whether there is anything that a confirmed resume could change."""
        return bool(self.held)

    def lines(self) -> list[str]:
        """Return the effect as lines for people."""
        lines = [f"{self.scope}: level {self.level.name}"]
        parts = (
            ("held by", self.held, "nothing"),
            ("will be released", self.released, "nothing"),
            ("will stay", self.stays, "nothing"),
            ("not touched", self.elsewhere, ""),
        )
        for title, texts, otherwise in parts:
            lines += [f"  {title}: {text}" for text in texts or ([otherwise] if otherwise else [])]
        lines.append(f"  level after: {self.level_after.name}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the effect, JSON-ready."""
        return {
            "scope": self.scope,
            "level": self.level.name,
            "level_after": self.level_after.name,
            "held_by": list(self.held),
            "released": list(self.released),
            "stays": list(self.stays),
            "elsewhere": list(self.elsewhere),
        }


def effect_of_resume(page: Page, scope: str, *, rebase: bool) -> EffectOfResume:
    """Return what a resume of ``scope`` would do, judged on the page as it stands."""
    node = page.names.scope(scope)
    before = _breaker(page)
    after, effects = machine.step(
        before, Resume(node, rebase, operator="", record_id=0), int(page.header["market_ms"])
    )
    writers = {writer: writer_level(page, node, writer) for writer in LevelWriter}
    held, released, stays = _writers(writers, machine.level_of(before, node))
    for key, cause in sorted(before.causes.items()):
        if key.scope == node and cause.contribution > Level.NORMAL:
            held.append(_cause_text(key, cause))
    for effect in effects:
        if isinstance(effect, Resumed) and effect.level_after < effect.level_before:
            what = f"breaker: {effect.key.cause.name.lower()} {effect.level_before.name}"
            released.append(f"{what} to {effect.level_after.name}")
        elif isinstance(effect, ResumeRefused):
            stays.append(f"breaker: {effect.key.cause.name.lower()}: {effect.reason}")
    if rebase:
        released.append(_rebase_text(page, node))
    others = [
        level
        for writer, level in writers.items()
        if writer not in (LevelWriter.OPERATOR, LevelWriter.BREAKER)
    ]
    own = machine.level_of(after, node)
    if writers[LevelWriter.BREAKER] > machine.level_of(before, node):
        own = writers[LevelWriter.BREAKER]
    elsewhere = tuple(
        f"{name} at {node_level(page, number).name}"
        for number, name in enumerate(page.names.scopes)
        if number != node and node_level(page, number) > Level.NORMAL
    )
    return EffectOfResume(
        scope, node_level(page, node), max(own, *others), tuple(held), tuple(released),
        tuple(stays), elsewhere,
    )  # fmt: skip


def refusals_of(state: Path, record: int) -> list[str]:
    """Return what the breaker said it could not release on a record, from the log.

    Its words reach the log a moment after its level has reached the page, so this waits a little.
    """
    reader = LogReader(state / "audit")
    deadline_ns = host_ns() + int(REFUSAL_WAIT_S * NS_PER_S)
    while True:
        rows = reader.newest(REFUSAL_ROWS_MAX, kinds=(int(EventKind.RESUMED),))
        bodies = [unpack_body(stored.row.body) for stored in rows]
        texts = [
            f"{body['cause']}: {body['refused']}"
            for body in bodies
            if body.get("record") == record and "refused" in body
        ]
        if texts or host_ns() > deadline_ns:
            return texts
        sleep_s(POLL_S)


def _writers(
    writers: dict[LevelWriter, Level], explained: Level
) -> tuple[list[str], list[str], list[str]]:
    """Return held, released and staying texts of the writers' bytes (causes come beside them)."""
    held, released, stays = [], [], []
    for writer, level in writers.items():
        text = f"{writer.name.lower()}: {level.name}"
        if level is Level.NORMAL:
            continue
        if writer is LevelWriter.OPERATOR:
            held.append(text)
            released.append(f"{text} to NORMAL")
        elif writer is not LevelWriter.BREAKER:
            held.append(text)
            stays.append(f"{text} (only the {writer.name.lower()} lowers it)")
        elif level > explained:
            held.append(f"{text} (taken over from an earlier run)")
            stays.append(f"{text} until the breaker has judged it")
    return held, released, stays


def _cause_text(key: CauseKey, cause: CauseState) -> str:
    latched = ", latched" if cause.latched else ""
    return f"breaker: {key.cause.name.lower()} {cause.contribution.name}{latched}"


def _rebase_text(page: Page, node: int) -> str:
    row = page.rows(ACCOUNT)[node]
    old, new = money_text(int(row["high_water_mark"])), money_text(int(row["equity_mark"]))
    return f"high-water mark: {old} to {new}"


def _breaker(page: Page) -> Breaker:
    """Return the breaker's state as the page tells it, free to release."""
    causes = load_causes(page)
    thresholds: dict[CauseKey, Thresholds] = {}
    for key, state in causes.items():
        if key.cause in MEASURED:
            thresholds[key] = MEASURED[key.cause]
        elif key.cause is Cause.TOTAL_LOSS:
            thresholds[key] = _loss_thresholds(page, state)
    return Breaker(BreakerSpec(thresholds, PPM), causes, int(page.header["market_ms"]), False)


def _loss_thresholds(page: Page, state: CauseState) -> Thresholds:
    path = Path(page.names.state_folder) / CONFIG_NAME
    try:
        config = load_text(path.read_text(encoding="utf-8"), str(path), {}).config
        return total_loss_thresholds(limit_money(config.limits.portfolio.loss_reporting_max))
    except (OSError, ConfigError):
        # Not readable: suppose that the loss is still beyond it, which promises nothing.
        return total_loss_thresholds(max(1, state.value))
