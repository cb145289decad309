"""A whole log replayed: equal as it was written, and not one forged record goes unseen."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.audit_logs import Folders, unguarded
from tests.unit.replay_desk import (
    Change,
    ReplayDesk,
    body_changed,
    forged,
    repeated,
    replayed,
    spread,
)
from tripgate.audit.record import pack_body
from tripgate.audit.verify import verify
from tripgate.cli.app import main
from tripgate.clock import host_ns, sleep_s
from tripgate.errors import ChainBrokenError
from tripgate.messages import EventKind
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.ring import RingWriter
from tripgate.reasons import Level


@contextlib.contextmanager
def own_folders(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give a module's log folders of its own."""
    root = factory.mktemp("replay")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("TRIPGATE_STATE", "TRIPGATE_SHM", "XDG_RUNTIME_DIR"):
            (root / variable).mkdir(mode=0o700)
            patch.setenv(variable, str(root / variable))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    with own_folders(tmp_path_factory):
        desk = ReplayDesk()
        desk.trade_a_day()
        desk.close()
        yield desk.folders


def test_P6_log_when_replayed_then_decisions_book_and_sums_are_equal(folders: Folders) -> None:
    report = replayed(folders)
    assert report.mismatches == []
    assert verify(folders.audit, folders.heads).verified
    assert (report.approved, report.denied, report.merged) == (
        2, {"STOP_MISSING": 1}, {"STOP_MISSING": 2},
    )  # fmt: skip
    assert (report.equal, report.partly, report.unjudged) == (3, {}, 0)
    assert report.snapshots == report.sums_compared == 5
    assert report.head_sums_compared >= 1
    assert (report.positions, report.reserved, report.levels) == ({}, 0, {})
    assert report.rows == sum(report.replayed.values())
    assert report.not_replayed == {}


def word(number: int, value: int) -> Any:
    """Return the edit that sets a word of a decision record."""

    def edit(words: bytearray) -> None:
        words[8 * number : 8 * number + 8] = value.to_bytes(8, "little", signed=True)

    return edit


def setting(*path: Any, to: Any) -> Any:
    """Return the edit that sets one value of a body."""

    def edit(body: Any) -> None:
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = to

    return edit


def fewer_rows(table: str) -> Any:
    def edit(body: Any) -> None:
        body.pop(table)

    return edit


def forge(*arguments: Any, **options: Any) -> Callable[[], Change]:
    """Return what makes the change of one body: a change counts rows, so each test has one."""
    return lambda: body_changed(*arguments, **options)


def repeat(*arguments: Any, **options: Any) -> Callable[[], Change]:
    """Return what makes the change that drops or doubles a row."""
    return lambda: repeated(*arguments, **options)


K = EventKind
FORGERIES: dict[str, Callable[[], Change]] = {
    "a fill is dropped": repeat(K.FILL, 0),
    "a fill is doubled": repeat(K.FILL, 2, trade=2),
    "a fill is larger": forge(K.FILL, setting("lots", to=5)),
    "a fill is dearer": forge(K.FILL, setting("ticks", to=1)),
    "a fee is lower": forge(K.FILL, setting("fee", to=0)),
    "a grant is above its limit": forge(K.DECISION, word(22, 10**15)),
    "an order was larger": forge(K.DECISION, word(3, 11)),
    "an approval is dropped": repeat(K.DECISION, 0),
    "an approval is doubled": repeat(K.DECISION, 2),
    "another order was sent": forge(K.ORDER_SENT, setting("lots", to=9)),
    "an end is dropped": repeat(K.ORDER_DONE, 0),
    "an end tells of more": forge(K.ORDER_DONE, setting("cumulative", to=5)),
    "merged denials count on another": forge(K.DENIALS_MERGED, setting("of", to=99)),
    "merged denials are of another reason": forge(
        K.DENIALS_MERGED, setting("reason", to="MARGIN")
    ),
    "an equity is higher": forge(
        K.RISK_SNAPSHOT, setting("accounts", "portfolio", "equity", to=10**10), place=2
    ),
    "a drawdown is lower": forge(
        K.RISK_SNAPSHOT, setting("accounts", "portfolio", "drawdown_ppm", to=0), place=3
    ),
    "a high-water mark is lower": forge(
        K.RISK_SNAPSHOT, setting("accounts", "portfolio", "high_water_mark", to=1), place=2
    ),
    "a position is smaller": forge(
        K.RISK_SNAPSHOT, setting("positions", 0, to=[3, 0, 0, 0]), place=1
    ),
    "a mark is higher": forge(
        K.RISK_SNAPSHOT, setting("marks", 0, to=[600_000, 600_000]), place=1
    ),
    "a worth is smaller": forge(
        K.RISK_SNAPSHOT, setting("charged", 0, to=[1, 1]), place=1
    ),
    "a sum is smaller": forge(
        K.RISK_SNAPSHOT, setting("nodes", "portfolio", "gross", to=0), place=1
    ),
    "a margin is smaller": forge(
        K.RISK_SNAPSHOT, setting("nodes", "venue:sim", "margin", to=0), place=1
    ),
    "a snapshot's level is lower": forge(
        K.RISK_SNAPSHOT, setting("nodes", "portfolio", "level", to=2), place=1
    ),
    "a result is better": forge(K.RISK_SNAPSHOT, setting("realised", to=1), place=1),
    "a snapshot holds more than there is": forge(
        K.RISK_SNAPSHOT, setting("records", 16, to=99), place=1
    ),
    "a body lacks what it should tell": forge(
        K.RISK_SNAPSHOT, fewer_rows("marks"), place=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_P6_log_when_one_record_is_forged_then_the_replay_finds_it(
    folders: Folders, tmp_path: Path, what: str
) -> None:
    copy = forged(folders, tmp_path, FORGERIES[what]())
    assert verify(copy.audit, copy.heads).verified
    assert replayed(copy).mismatch_count > 0


LEVEL_FORGERIES: dict[str, Callable[[], Change]] = {
    "a level is dropped": repeat(K.LEVEL_CHANGED, 0),
    "a level is lower": forge(K.LEVEL_CHANGED, setting("level", to="NORMAL")),
    "a level is higher": forge(K.LEVEL_CHANGED, setting("level", to="HARD")),
    "a level followed another": forge(K.LEVEL_CHANGED, setting("before", to="MEDIUM")),
    "an escalation is dropped": repeat(K.ESCALATED, 0),
    "a withdrawal is dropped": repeat(K.LEVEL_WITHDRAWN, 0),
    "a withdrawal is of another": forge(K.LEVEL_WITHDRAWN, setting("writer", to="KEEPER")),
    "a decision read another level": forge(K.DECISION, word(1, 1 << 32)),
    "a snapshot's level is lower": forge(
        K.RISK_SNAPSHOT, setting("nodes", "venue:sim", "level", to=0), place=2
    ),
}  # fmt: skip


APART_S = 0.1
"""Far more than a decision's stamp runs ahead; ``spread`` makes seconds of it."""


@pytest.fixture(scope="module")
def leveled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    with own_folders(tmp_path_factory):
        desk = ReplayDesk()
        page, place = desk.page, desk.page.names.scope("venue:sim")
        desk.step()
        desk.sent()
        desk.step()
        sleep_s(APART_S)
        set_level(page, 0, LevelWriter.BREAKER, Level.SOFT)
        breaker = RingWriter(page, page.names.role("breaker"))
        change = {"scope": "portfolio", "level": "SOFT", "before": "NORMAL", "cause": "drawdown"}
        breaker.append(int(K.LEVEL_CHANGED), pack_body(change), host_ns(), desk.place.market_ms)
        set_level(page, place, LevelWriter.SUPERVISOR, Level.MEDIUM)
        desk.tell(K.ESCALATED, {"scope": "venue:sim", "reason": "dies too often"})
        sleep_s(APART_S)
        desk.step()
        sleep_s(APART_S)
        set_level(page, place, LevelWriter.SUPERVISOR, Level.NORMAL)
        withdrawn = {"scope": "venue:sim", "writer": "SUPERVISOR", "before": "MEDIUM"}
        desk.tell(K.LEVEL_WITHDRAWN, withdrawn)
        sleep_s(APART_S)
        desk.step()
        desk.commit_log()
        desk.close()
        yield desk.folders


def test_P5_levels_when_replayed_then_each_snapshot_shows_what_the_records_explain(
    leveled: Folders, tmp_path: Path
) -> None:
    report = replayed(forged(leveled, tmp_path, spread()))
    assert report.mismatches == []
    assert report.levels == {"portfolio": "SOFT"}
    assert report.snapshots == 4


@pytest.mark.parametrize("what", LEVEL_FORGERIES)
def test_P5_levels_when_a_record_is_forged_then_the_replay_finds_it(
    leveled: Folders, tmp_path: Path, what: str
) -> None:
    change, apart = LEVEL_FORGERIES[what](), spread()
    copy = forged(leveled, tmp_path, lambda row: [r for one in apart(row) for r in change(one)])
    assert replayed(copy).mismatch_count > 0


def test_replay_when_nothing_is_there_then_the_command_says_so(isolated_folders: Path) -> None:
    assert main(["audit", "replay"]) == 3
    assert main(["audit", "replay", "--from-row", "0"]) == 2


def test_replay_when_run_as_a_command_then_its_exit_code_tells(
    isolated_folders: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    desk = ReplayDesk()
    desk.trade_a_day()
    desk.close()
    assert main(["audit", "replay", "--json"]) == 0
    assert '"equal": true' in capsys.readouterr().out
    folders = desk.folders
    copy = forged(folders, tmp_path, FORGERIES["a fill is larger"]())
    for source, target in ((copy.audit, folders.audit), (copy.heads, folders.heads)):
        for path in target.iterdir():
            path.unlink()
        for path in source.iterdir():
            shutil.move(path, target / path.name)
    assert main(["audit", "replay"]) == 31
    assert "lots filled of token" in capsys.readouterr().out
    assert main(["audit", "replay", "--from-row", "9999"]) == 0
    assert main(["audit", "replay", "--epoch", "7"]) == 0
    with unguarded(folders.paths()[0]) as connection:
        connection.execute("UPDATE log SET market_ms = 1 WHERE seq = 9")
    assert main(["audit", "replay"]) == 30


def test_replay_when_the_chain_is_broken_then_nothing_is_judged(
    folders: Folders, tmp_path: Path
) -> None:
    copy = folders.copy_to(tmp_path / "copy")
    with unguarded(copy.paths()[0]) as connection:
        connection.execute("UPDATE log SET host_ns = host_ns + 1 WHERE seq = 12")
    with pytest.raises(ChainBrokenError, match="row 12"):
        replayed(copy)
