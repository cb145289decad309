"""A whole tree whose audit log cannot be written for a while: openings stop, exits go, it recovers.

The limit on file size is set from outside on the audit writer alone, as a full disk would be, and
lifted again. Nobody is restarted and nobody resumes anything.
"""

import resource

from tests.tree.paper_runs import PaperRun, paper_run, role_row, wait_until
from tripgate.gate.client import Gate
from tripgate.gate.decision import Decision
from tripgate.gate.status import decision_counts
from tripgate.messages import EventKind
from tripgate.page.mapping import Page
from tripgate.reasons import DenyReason

OPTIONS = ("--feed", "generator:calm", "--strategy", "pulse", "--speed", "90")
UNLIMITED = resource.RLIM_INFINITY
SMALL_BYTES = 1_000


def ask(gate: Gate) -> Decision:
    """Ask for an opening that lacks its stop: no healthy gate reserves anything for it."""
    handle = gate.instrument(*gate.instruments[0])
    return handle.check(handle.units.lot)


def trades_on(page: Page) -> None:
    approved, _ = decision_counts(page)
    wait_until(lambda: decision_counts(page)[0] > approved + 2, "approvals")


def outage(run: PaperRun, page: Page, gate: Gate, writer: int) -> None:
    """Let the log be unwritable until the strategy has closed everything it held."""
    wait_until(lambda: run.page_positions(page), "a position")
    resource.prlimit(writer, resource.RLIMIT_FSIZE, (SMALL_BYTES, UNLIMITED))
    told: list[Decision] = []

    def is_denied() -> bool:
        told.append(ask(gate))
        return told[-1].scope == "lease:audit_writer"

    wait_until(is_denied, "a denial for the audit writer's lease")
    assert told[-1].reason in (DenyReason.INPUT_STALE, DenyReason.LEASE_LAPSED)
    # pulse closes what it holds at every step and may open nothing now.
    wait_until(lambda: not run.venue_positions(), "a flat venue")
    wait_until(lambda: len(run.venue_fills()) > len(run.log_fills()), "a fill not in the log yet")
    assert ask(gate).scope == "lease:audit_writer"
    resource.prlimit(writer, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))


def test_P6_tree_when_its_log_cannot_be_written_for_a_while_then_it_comes_back_by_itself() -> None:
    with paper_run() as run:
        page = run.start(*OPTIONS).armed_page()
        gate = run.attach("pulse")
        row = role_row(page, "audit_writer")
        writer, incarnation = int(row["pid"]), int(row["incarnation"])
        trades_on(page)
        outage(run, page, gate, writer)
        wait_until(lambda: ask(gate).reason is DenyReason.STOP_MISSING, "an open gate")
        trades_on(page)
        assert (int(row["pid"]), int(row["incarnation"])) == (writer, incarnation)
        venue: list[tuple[int, str, int]] = []

        def told_alike() -> bool:
            venue[:] = run.venue_fills()
            return venue == run.log_fills()[: len(venue)] and len(venue) > 0

        wait_until(told_alike, "the venue's fills in the log")
        assert run.interrupt() == 0, run.last_words
        summary = run.summary
        assert summary["audit"]["verified"]
        assert summary["restarts"] == 0
        assert summary["level_max"] == "NORMAL"
        assert run.bodies(EventKind.ACTOR_DOWN) == []
        trades = [trade for trade, _, _ in run.log_fills()]
        assert trades == list(range(1, len(trades) + 1))
        (failed,) = run.bodies(EventKind.AUDIT_FAILED)
        (recovered,) = run.bodies(EventKind.AUDIT_RECOVERED)
        assert "file size limit" in str(failed["reason"])
        assert int(str(recovered["outage_ms"])) > 0
        assert run.command("audit", "verify", run.instance).returncode == 0
        assert len(list((run.state / "audit").glob("*.db"))) == 2
