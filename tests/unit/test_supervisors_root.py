"""The root's own part: what it waits for at a start, what it takes for flat and for busy."""

from contextlib import closing

import pytest
import trio

from actors import runtime
from supervisors import root as module
from supervisors.child_spec import GroupRule
from supervisors.exposure import is_busy, is_flat
from supervisors.root import Run
from supervisors.supervisor import Supervisor
from supervisors.tree import CORE, groups_of, strategies_group
from tests.tree_fixtures import approve, hold, mark, paper_config, paper_page
from tests.unit.held_children import Nursery
from tripgate.errors import DeadlineError
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page.layout import LEASE, ROLE
from tripgate.page.mapping import Page


@pytest.fixture
def page() -> Page:
    return paper_page()


def read_flat(page: Page, reads: int = 2) -> None:
    """Write what a router says once it has read a flat account so many times."""
    row = page.rows(ROLE)[page.names.role("router", "sim")]
    row["account_flat"], row["account_reads"] = 1, reads


async def test_start_when_an_actor_is_not_ready_then_the_error_says_which_and_why(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_WAIT_S", 0.5)
    children = Nursery(fails=True)
    monkeypatch.setattr(runtime, "open_child", children.open_child)
    page.rows(LEASE)["deadline_ns"][0] = 0
    run = Run(page, paper_config(), {})

    async def start() -> None:
        async with trio.open_nursery() as nursery:
            supervisor = Supervisor(page, {}, nursery)
            with closing(supervisor):
                await run._start_children(supervisor)

    with pytest.raises(DeadlineError) as caught:
        await start()
    error = caught.value
    assert error.exit_code == 5
    for actor in ("audit_writer", "router(sim)"):
        assert f"{actor} (exception ChildStartError: no process to be had)" in str(error)
    assert "supervisor (its lease is not live)" in str(error)
    assert "logs" in str(error)


async def test_start_when_asked_to_end_then_it_waits_for_nobody(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = Nursery(stays_silent=True)
    monkeypatch.setattr(runtime, "open_child", children.open_child)
    run = Run(page, paper_config(), {})
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(page, {}, nursery)
        run._stop.set()
        with closing(supervisor):
            assert not await run._start_children(supervisor)
        assert not any(task.ready.is_set() for task in supervisor.groups.values())
        nursery.cancel_scope.cancel()


def test_groups_when_a_tree_is_made_then_exits_and_the_log_are_on_the_exit_path(page: Page) -> None:
    groups = groups_of(page.names.roles)
    assert [group.name for group in groups] == [CORE, "venue:sim"]
    assert {group.rule for group in groups} == {GroupRule.ONE_FOR_ONE}
    specs = [spec for group in groups for spec in group.children]
    assert {spec.name for spec in specs if spec.exit_path} == {"audit_writer", "router(sim)"}
    core = groups[0].children
    assert core[0].name == "audit_writer", "it ends last: all others record their own end"
    assert core[1].ends_before_earlier
    assert sorted(role.text for role in page.names.roles[1:]) == sorted(s.name for s in specs)


def test_groups_when_strategies_are_kept_then_each_closes_its_own_scope_and_is_given_up(
    page: Page,
) -> None:
    (spec,) = strategies_group(page.names).children
    assert (spec.name, spec.closes, spec.gives_up) == ("trend", "strategy:trend", True)


@pytest.mark.parametrize("venue", ["", "sim"])
def test_P7_flat_when_an_account_was_not_read_twice_then_it_is_not_known_to_be(
    page: Page, venue: str
) -> None:
    assert not is_flat(page, venue)
    read_flat(page, reads=1)
    assert not is_flat(page, venue)
    assert is_busy(page, venue)
    read_flat(page)
    assert is_flat(page, venue)
    assert not is_busy(page, venue)
    page.rows(ROLE)["account_flat"][page.names.role("router", "sim")] = 0
    assert not is_flat(page, venue)


@pytest.mark.parametrize("lots", [3, -3])
@pytest.mark.parametrize("venue", ["", "sim"])
def test_flat_when_a_position_is_held_then_it_is_not(page: Page, venue: str, lots: int) -> None:
    read_flat(page)
    hold(page, 1, lots)
    assert not is_flat(page, venue)
    hold(page, 1, -lots)
    assert is_flat(page, venue)


@pytest.mark.parametrize("venue", ["", "sim"])
def test_busy_when_an_order_is_reserved_then_it_is_though_the_account_is_flat(
    page: Page, venue: str
) -> None:
    read_flat(page)
    slot = claim_strategy_slot(page, 0)
    assert not is_busy(page, venue)
    mark(page, 0, 400_000, step=0, market_ms=int(page.header["market_ms"]))
    approve(page, slot, 0, 1, stop=390_000)
    assert is_flat(page, venue)
    assert is_busy(page, venue)
