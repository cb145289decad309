"""Shadow runs: the mode is fixed, real venues refused, nothing acts, everything is on record."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import router
from actors.audit_writer import Drain
from actors.breaker import Shell
from actors.router_duties import Duties
from actors.router_orders import Orders
from actors.router_shadow import require_simulated_if_shadow
from actors.spawner import Spawner
from supervisors.launcher import PaperRun
from supervisors.root import Run, run_instance
from supervisors.shadow import MODE_FILE, fix_mode, mode_of, require_mode
from supervisors.summary import summarise
from tests.tree_fixtures import (
    INSTANCE,
    MARKET_MS,
    approve,
    hold,
    mark,
    paper_config,
    paper_page,
    paper_text,
    records,
    service,
)
from tests.unit.test_supervisors_launcher import PLAN
from tripgate.audit.store import LogWriter
from tripgate.cli.app import main
from tripgate.cli.live_view import gate_text
from tripgate.clock import host_ns
from tripgate.errors import ConfigError, StateUnwritableError, UsageError
from tripgate.gate.commit import SEND_WINDOW_MS, why_not_send
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.record import FIELDS, FLAG_SHADOW, pack_record
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.status import read_status
from tripgate.instance import page_folder, prepare_state, state_folder
from tripgate.messages import EventKind
from tripgate.page.layout import KEY, LEASE, ROLE, SLOT
from tripgate.page.level import LevelWriter, set_level
from tripgate.page.mapping import Page, open_page
from tripgate.reasons import DenyReason, Level

PRICE, STOP = 500_000, 480_000


def live_text() -> str:
    """Return a paper run's config with its venue turned into a real one."""
    text = re.sub(r"(?m)^starting_equity_reporting.*\n", "", paper_text())
    text = text.replace('kind = "simulated"', 'kind = "live"\napi_key = "env:KEY"')
    return text.replace("order_reporting_max", "initial_margin_rate = 0.1\norder_reporting_max")


@pytest.fixture
def page() -> Page:
    page = paper_page(shadow=True)
    mark(page, 0, PRICE, step=0, market_ms=MARKET_MS)
    return page


@pytest.fixture
def slot(page: Page) -> int:
    return claim_strategy_slot(page, 0)


def test_mode_when_first_fixed_then_it_stays_for_the_instances_life(tmp_path: Path) -> None:
    assert mode_of(tmp_path) is None
    fix_mode(tmp_path, shadow=True)
    fix_mode(tmp_path, shadow=True)
    assert mode_of(tmp_path) == "shadow"
    with pytest.raises(UsageError, match="was started in shadow mode and stays so"):
        fix_mode(tmp_path, shadow=False)
    assert mode_of(tmp_path) == "shadow"


def test_mode_when_the_instance_ran_before_modes_were_kept_then_it_enforces(
    tmp_path: Path,
) -> None:
    (tmp_path / "epoch").write_text("3\n")
    with pytest.raises(UsageError, match="was started in enforcing mode"):
        require_mode(tmp_path, shadow=True)
    require_mode(tmp_path, shadow=False)


@pytest.mark.parametrize("text", ["", "shadowy\n", "ombré"])
def test_mode_when_its_file_is_damaged_then_nothing_is_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / MODE_FILE).write_text(text)
    for shadow in (True, False):
        with pytest.raises(StateUnwritableError, match="is damaged"):
            require_mode(tmp_path, shadow=shadow)


@pytest.mark.parametrize("shadow", [True, False])
def test_paper_when_restarted_in_the_other_mode_then_exit_2_and_nothing_is_changed(
    *, shadow: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    state = prepare_state(INSTANCE)
    fix_mode(state, shadow=not shadow)
    before = sorted(path.name for path in state.rglob("*"))
    with pytest.raises(UsageError):
        PaperRun(replace(PLAN, shadow=shadow))
    words = ["paper", "--feed", "generator:crash", "--instance", INSTANCE]
    assert main([*words, "--shadow"] if shadow else words) == 2
    assert "choose another --instance" in capsys.readouterr().err
    assert sorted(path.name for path in state.rglob("*")) == before
    assert not page_folder(INSTANCE).exists()


def test_root_when_a_venue_is_real_then_a_shadow_run_is_refused_before_anything_is_made(
    isolated_folders: Path,
) -> None:
    settings: dict[str, Any] = {
        "instance": INSTANCE, "config_text": live_text(), "config_name": "live",
        "venue_sockets": {}, "shadow": True,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"venues\.sim: a shadow page denies nothing") as caught:
        run_instance(settings, Spawner())
    assert caught.value.exit_code == 4
    assert not state_folder(INSTANCE).exists()
    assert not page_folder(INSTANCE).exists()


async def test_router_when_its_venue_is_real_then_it_does_not_start_on_a_shadow_page(
    page: Page,
) -> None:
    place = service(page, "router", "sim", config_text=live_text(), venue_sockets={"sim": "/none"})
    with pytest.raises(ConfigError, match="its router does not start"):
        await router.run(place)
    place.close()


def test_router_when_the_page_enforces_or_the_venue_is_simulated_then_it_may_start() -> None:
    for shadow, text in ((False, live_text()), (True, paper_text())):
        place = service(paper_page(shadow=shadow), "router", "sim", config_text=text)
        require_simulated_if_shadow(place)
        place.close()


def test_make_page_when_it_is_a_shadow_then_every_reader_is_told(page: Page) -> None:
    assert open_page(page.folder, writable=False).header["shadow"] == 1
    status = read_status(page)
    assert status.shadow
    assert status.to_json()["shadow"] is True
    assert gate_text(status) == "SHADOW: denies nothing"
    set_level(page, 0, LevelWriter.OPERATOR, Level.HARD)
    assert gate_text(read_status(page)) == "SHADOW: denies nothing"


def test_status_when_the_page_is_a_shadow_then_its_text_says_so(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["status", "--instance", INSTANCE])
    assert "SHADOW: denies and closes nothing" in capsys.readouterr().out


def test_send_when_something_tightened_since_the_check_then_a_shadow_page_sends_all_the_same(
    page: Page, slot: int
) -> None:
    order = approve(page, slot, 0, 10, PRICE, STOP)
    set_level(page, 0, LevelWriter.BREAKER, Level.HARD)
    page.rows(LEASE)["deadline_ns"] = 0
    assert why_not_send(page, order, MARKET_MS, host_ns()) is None
    assert why_not_send(page, order, MARKET_MS + SEND_WINDOW_MS + 1, host_ns()) is not None
    page.header["closed"] = 1
    assert why_not_send(page, order, MARKET_MS, host_ns()) == "the instance is closed"


def test_cancels_when_the_level_is_medium_then_entries_of_a_shadow_page_rest(
    page: Page, slot: int
) -> None:
    place = service(page, "router", "sim")
    orders = Orders(place, lambda slot, event: None)
    duties = Duties(place, orders)
    order = approve(page, slot, 0, 10, PRICE, STOP)
    live = orders.begin(order, orders.venue_order(order, {}))
    orders.acknowledged(live)
    set_level(page, 0, LevelWriter.BREAKER, Level.MEDIUM)
    page.rows(LEASE)["deadline_ns"] = 1
    assert duties.cancels(host_ns()) == []
    page.header["shadow"] = 0
    assert duties.cancels(host_ns()) == [live], "an enforcing page cancels it"
    place.close()


def test_stops_when_the_page_is_a_shadow_then_positions_are_covered_as_ever(
    page: Page, slot: int
) -> None:
    place = service(page, "router", "sim")
    duties = Duties(place, Orders(place, lambda slot, event: None))
    hold(page, 0, 10, 10 * PRICE)
    page.rows(KEY)["stop_ticks"][0] = STOP
    placed, _ = duties.stops()
    assert [(order.lots, order.stop_ticks) for order in placed] == [(-10, STOP)]
    place.close()


def test_breaker_when_a_scope_of_a_shadow_page_is_hard_then_its_exits_are_only_on_record(
    page: Page,
) -> None:
    place = service(page, "breaker")
    shell = Shell(place)
    hold(page, 0, 10, 10 * PRICE)

    def told() -> list[tuple[object, ...]]:
        return [
            (body["level"], body["lots"], body["shadow"])
            for kind, body in records(page, place.slot) if kind is EventKind.EXIT_WISHED
        ]  # fmt: skip

    for level in (Level.MEDIUM, Level.HARD, Level.HARD, Level.EMERGENCY, Level.EMERGENCY):
        set_level(page, 0, LevelWriter.OPERATOR, level)
        shell.drive_exits()
    assert told() == [("HARD", 10, True), ("EMERGENCY", 10, True)]
    for level in (Level.NORMAL, Level.HARD):
        set_level(page, 0, LevelWriter.OPERATOR, level)
        shell.drive_exits()
    assert told()[2:] == [("HARD", 10, True)], "a second trip is another exit"
    assert not page.rows(KEY)["exit_claim"].any()
    place.close()


@pytest.mark.parametrize("shadow", [True, False])
def test_run_when_the_level_is_emergency_and_all_is_flat_then_only_an_enforcing_run_is_over(
    *, shadow: bool
) -> None:
    page = paper_page(shadow=shadow)
    run = Run(page, paper_config(), {})
    router_role = page.rows(ROLE)[page.names.role("router", "sim")]
    router_role["account_flat"], router_role["account_reads"] = 1, 2
    set_level(page, 0, LevelWriter.BREAKER, Level.EMERGENCY)
    assert run._is_over() is not shadow
    page.header["feed_finished"] = 1
    assert run._is_over()


def test_halt_when_the_page_is_a_shadow_then_it_says_that_nothing_is_closed(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["halt", "--instance", INSTANCE, "--scope", "portfolio", "--reason", "drill"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["shadow"] is True
    assert "this is a shadow page" in captured.err
    assert "being closed" not in captured.err


def decision(token: int, reason: DenyReason | None, *, shadow: bool) -> bytes:
    """Return a decision record as the gate writes it."""
    flags = FLAG_SHADOW if shadow else 0
    record = pack_record(
        token=token, flags=flags, strategy=0, instrument=0, lots=1, stop=STOP,
        t_signed_ms=MARKET_MS, host_ns=1, epoch=1, position=0,
    )  # fmt: skip
    words = np.frombuffer(record, dtype="<i8").copy()
    words[FIELDS.index("outcome")] |= int(reason or 0)
    return words.tobytes()


def test_summary_and_query_when_a_shadow_run_has_decided_then_would_deny_is_counted_by_reason(
    page: Page, slot: int, capsys: pytest.CaptureFixture[str]
) -> None:
    place, state = service(page, "router", "sim"), Path(page.names.state_folder)
    writer = service(page, "audit_writer")
    gross, stale = DenyReason.GROSS_LIMIT, DenyReason.MARK_STALE
    told = [(5, None), (6, gross), (7, gross), (8, stale), (0, DenyReason.BAD_QUANTITY)]
    for token, reason in told:
        place.ring.append(
            int(EventKind.DECISION), decision(token, reason, shadow=True), host_ns(), MARKET_MS
        )
        if reason is not None:
            page.rows(SLOT)["denied"][slot][reason] += 1
    log = LogWriter(state / "audit", state / "heads")
    drain = Drain(writer, log)
    frames = drain.gather()
    drain.store(frames)
    log.close()
    summary = summarise(page, None)
    assert summary["shadow"] is True
    assert summary["decisions"]["would_deny"] == {"GROSS_LIMIT": 2, "MARK_STALE": 1}
    assert summary["decisions"]["denied"] == {"BAD_QUANTITY": 1}
    assert main(["audit", "query", INSTANCE, "--kind", str(int(EventKind.DECISION)), "--json"]) == 0
    bodies = [row["body"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert [(b["approved"], b["reason"], b["would_deny"], b["shadow"]) for b in bodies] == [
        (True, None, None, True), (True, None, "GROSS_LIMIT", True),
        (True, None, "GROSS_LIMIT", True), (True, None, "MARK_STALE", True),
        (False, "BAD_QUANTITY", None, True),
    ]  # fmt: skip
    place.close()
    writer.close()


def test_shadow_when_strategies_ask_then_page_summary_and_query_agree_on_what_would_be_denied(
    page: Page, slot: int, capsys: pytest.CaptureFixture[str]
) -> None:
    btc = InstrumentHandle(page, slot, 0)
    sound, stopless = btc.check_raw(10, PRICE, STOP), btc.check_raw(11, PRICE, 0)
    set_level(page, 0, LevelWriter.BREAKER, Level.HARD)
    halted, senseless = btc.check_raw(12, PRICE, STOP), btc.check_raw(0, PRICE, STOP)
    assert min(sound, stopless, halted) > 0
    assert senseless == -DenyReason.BAD_QUANTITY
    writer, state = service(page, "audit_writer"), Path(page.names.state_folder)
    with LogWriter(state / "audit", state / "heads") as log:
        drain = Drain(writer, log)
        drain.store(drain.gather())
    summary = summarise(page, None)["decisions"]
    assert summary["approved"] == 3
    assert summary["would_deny"] == {"LEVEL": 1, "STOP_MISSING": 1}
    assert summary["denied"] == {"BAD_QUANTITY": 1}
    main(["status", "--instance", INSTANCE])
    assert "would deny LEVEL" in capsys.readouterr().out
    assert main(["audit", "query", INSTANCE, "--kind", "3", "--json"]) == 0
    bodies = [row["body"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert [(body["would_deny"], body["shadow"]) for body in bodies[:3]] == [
        (None, True), ("STOP_MISSING", True), ("LEVEL", True),
    ]  # fmt: skip
    writer.close()


@pytest.mark.parametrize("lots", [10, -10])
def test_entry_filled_when_an_opening_had_no_stop_then_the_standing_one_stays(
    page: Page, slot: int, lots: int
) -> None:
    place = service(page, "router", "sim")
    orders = Orders(place, lambda slot, event: None)
    duties = Duties(place, orders)
    stop = STOP if lots > 0 else 2 * PRICE - STOP
    for wanted in (stop, 0):
        order = approve(page, slot, 0, lots, PRICE, wanted)
        duties.entry_filled(orders.begin(order, orders.venue_order(order, {})))
    assert int(page.rows(KEY)["stop_ticks"][0]) == stop
    place.close()


def test_summary_when_the_page_enforces_then_nothing_would_have_been_denied() -> None:
    summary = summarise(paper_page(), None)
    assert (summary["shadow"], summary["decisions"]["would_deny"]) == (False, {})
