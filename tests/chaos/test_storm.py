"""P2, P5 in real processes: killed and stopped at random, every word is the sum of its tables."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.storm.client import Client
from chaos.storm.desk import Desk
from chaos.storm.ground import CLIENT_SLOTS, KEEPER, Ground, make_ground, tick
from chaos.storm.guard import Guard
from chaos.storm.ledger import JOURNAL_FILE, Journal, Ledger, Note, differences
from chaos.storm.nursery import CLIENT_UNDERSTATES, MUTANTS, Member
from chaos.storm.run import Verdict, run_storm
from chaos.storm.watch import Reporter, Watch
from tripgate.cli import chaos_storm as command
from tripgate.cli.chaos import EXIT_NOT_EXERCISED, EXIT_VIOLATED
from tripgate.errors import UsageError
from tripgate.page.layout import ENTRY, KEY, ROLE_SLOTS, SLOT, SUM

pytestmark = pytest.mark.jit_only
KILLS, MUTANT_KILLS = 250, 25
TURNS = 150


def test_P2_gate_when_processes_are_killed_and_stopped_at_random_then_nothing_is_ever_over() -> (
    None
):
    verdict = run_storm(kills=KILLS, seed=1)
    assert verdict.violations == []
    assert verdict.is_exercised
    assert sum(verdict.killed.values()) == KILLS
    assert verdict.killed_inside > KILLS // 10
    assert verdict.killed_repairing > 3
    assert verdict.overstayed > 0
    # A storm that stays far below every limit would prove little.
    assert 900_000 < verdict.used_ppm_max <= 1_000_000
    assert verdict.exact > 20


@pytest.mark.parametrize("mutant", MUTANTS)
def test_storm_when_a_bug_is_planted_then_it_is_found(mutant: str) -> None:
    assert run_storm(kills=MUTANT_KILLS, seed=2, mutant=mutant).violations


def test_storm_command_when_it_is_too_short_then_it_says_so_and_does_not_pass(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert command.storm(kills=1, seed=3, json=True) == EXIT_NOT_EXERCISED
    out, err = capfd.readouterr()
    verdict = json.loads(out)
    assert sum(verdict["killed"].values()) == 1
    assert verdict["violations"] == []
    assert "--kills" in err


@pytest.mark.parametrize(("violations", "code"), [([], 0), (["portfolio: over"], EXIT_VIOLATED)])
def test_storm_command_when_it_has_a_verdict_then_its_table_and_code_say_so(
    violations: list[str], code: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # A verdict made by hand: real storms of both kinds are judged above.
    verdict = Verdict(
        seed=4, killed={"client": 5, "desk": 3, "breaker": 1}, killed_inside=2, killed_repairing=1,
        overstayed=1, stops=4, grants=90, denials={"GROSS_LIMIT": 7, "NET_LIMIT": 1}, fills=80,
        repairs_begun=6, repairs=5, glances=40, exact=9, used_ppm_max=987_600, elapsed_s=1.5,
        violations=violations,
    )  # fmt: skip
    monkeypatch.setattr("chaos.storm.run.run_storm", lambda **_: verdict)
    assert command.storm(kills=9) == code
    out = capsys.readouterr().out
    for part in ("breaker 1, client 5, desk 3", "98.76 % of its limit", *violations):
        assert part in out


@pytest.mark.parametrize(("kills", "seed"), [(0, 0), (10**6, 0), (1, -1)])
def test_storm_command_when_a_number_is_out_of_range_then_nothing_is_started(
    kills: int, seed: int
) -> None:
    with pytest.raises(UsageError, match="expected"):
        command.storm(kills=kills, seed=seed)


class Stage:
    """All members of a storm in this process, in turns: what each does can be looked at."""

    def __init__(self, folder: Path, mutant: str = "") -> None:
        self.page = make_ground(folder)
        self.ground, self.reporter = Ground(self.page), Reporter(folder)
        self.watch = Watch(self.ground, self.reporter, Ledger(folder / JOURNAL_FILE))
        self.desk = Desk(self.ground, self.reporter, incarnation=1, seed=1)
        understates = mutant == CLIENT_UNDERSTATES
        self.clients = [
            Client(self.page, strategy, strategy, understates=understates) for strategy in (0, 1)
        ]
        self.guard = Guard(self.ground, 4)

    def play(self, turns: int) -> None:
        for _ in range(turns):
            members: tuple[Member, ...] = (*self.clients, self.desk, self.guard)
            for member in members:
                member.turn()
            tick(self.page, 50)
            self.watch.inspect()


@pytest.fixture
def stage(isolated_folders: Path) -> Iterator[Stage]:
    stage = Stage(isolated_folders / "page" / "storm")
    yield stage
    stage.desk.close()


def test_storm_when_its_members_take_turns_then_every_moment_is_exact(stage: Stage) -> None:
    stage.play(TURNS)
    assert stage.reporter.lines() == []
    assert stage.watch.exact == TURNS
    counts = stage.watch.ledger.counts
    assert min(counts[note] for note in (Note.OPENED, Note.CLOSED, Note.STOPPED)) > 0
    assert counts[Note.ENDED] > 50


def test_storm_when_a_desk_finds_its_page_garbled_then_it_repairs_it_from_the_journal(
    stage: Stage,
) -> None:
    stage.play(TURNS // 3)
    stage.desk.close()
    positions = stage.page.rows(KEY)["closable"].copy() >> 32
    stage.page.rows(SUM)["gross"] += 17
    stage.page.rows(KEY)["closable"] = 5 << 32
    assert differences(stage.page)
    stage.desk = Desk(stage.ground, stage.reporter, incarnation=2, seed=9)
    assert differences(stage.page) == []
    assert (stage.page.rows(KEY)["closable"] >> 32 == positions).all()
    stage.play(TURNS // 3)
    assert stage.reporter.lines() == []


def test_watch_when_something_is_wrong_then_each_breach_is_reported(stage: Stage) -> None:
    stage.play(20)
    keys, sums, entries = (stage.page.rows(table) for table in (KEY, SUM, ENTRY))
    (live,) = ((entries["word"] & 0x7F) > 1).nonzero()
    sums["gross"][0] = 10**12
    stage.page.rows(SLOT)["overshoot_max"][ROLE_SLOTS + CLIENT_SLOTS - 1] = 1
    keys["closable"][2] = (2 << 32) | 3
    entries["remaining"][live[0]] = -1
    stage.watch.inspect()
    text = "\n".join(stage.reporter.lines())
    for part in ("at a glance: portfolio: gross", "overshoot 1", "gross: [", "lots left",
                 "key 2 holds 2 lots", "key 2: 3 lots are being closed of 2"):  # fmt: skip
        assert part in text


def test_watch_when_the_desk_is_at_work_or_not_settled_then_nothing_is_judged(
    stage: Stage,
) -> None:
    glances = stage.watch.glances
    stage.page.rows(SLOT)["section"][KEEPER] += 1
    stage.watch.glance()
    stage.page.rows(SLOT)["section"][KEEPER] += 1
    stage.page.rows(SLOT)["incarnation"][KEEPER] = 2
    stage.watch.inspect()
    assert (stage.watch.glances, stage.watch.exact) == (glances, 0)


@pytest.mark.parametrize(
    ("notes", "flips"),
    [
        ([(Note.OPENED, 5), (Note.CLOSED, -5)], 0),
        ([(Note.OPENED, -5), (Note.STOPPED, 2), (Note.CLOSED, 3)], 0),
        ([(Note.OPENED, 5), (Note.CLOSED, -6)], 1),
        ([(Note.CLOSED, -1)], 1),
        ([(Note.OPENED, 5), (Note.OPENED, -1)], 1),
        ([(Note.OPENED, 5), (Note.STOPPED, 1)], 1),
    ],
)
def test_ledger_when_a_close_flips_or_raises_a_position_then_it_is_noted(
    isolated_folders: Path, notes: list[tuple[Note, int]], flips: int
) -> None:
    journal = Journal(isolated_folders)
    for note, lots in notes:
        journal.append(note, 7, 0, lots)
    journal.close()
    # A writer killed in the middle of a write leaves half a record: it is not there yet.
    with open(isolated_folders / JOURNAL_FILE, "ab") as file:
        file.write(b"half")
    ledger = Ledger(isolated_folders / JOURNAL_FILE)
    ledger.read_on()
    assert len(ledger.flips) == flips
    assert ledger.positions[0] == sum(lots for _, lots in notes)
