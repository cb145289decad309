"""Rows of links: names, the fault switch, and what an onlooker is shown."""

import pytest

from tests.tree_fixtures import paper_page
from tripgate.errors import UsageError
from tripgate.gate.status import read_status
from tripgate.messages import LinkFault
from tripgate.page.layout import LINK
from tripgate.page.links import fault_of, from_root, link_names, link_states, set_fault, to_root


def test_link_names_when_listed_then_each_direction_of_each_child_has_its_own_row() -> None:
    page = paper_page()
    names, router = link_names(page), page.names.role("router", "sim")
    assert len(set(names.values())) == len(names) == 2 * (len(page.names.roles) - 1) + 3
    assert names[to_root(router)] == "router(sim)>supervisor"
    assert names[from_root(router)] == "supervisor>router(sim)"
    assert max(names) < page.layout.capacities.links
    assert {"rings>audit_writer", "rings>position_keeper"} <= set(names.values())


def test_set_fault_when_named_then_the_row_has_it_and_unknown_words_are_no_fault() -> None:
    page = paper_page()
    row = page.rows(LINK)[to_root(page.names.role("breaker"))]
    set_fault(page, "breaker>supervisor", LinkFault.DELAY, 250)
    assert fault_of(row) == (LinkFault.DELAY, 250)
    set_fault(page, "breaker>supervisor", LinkFault.NONE)
    assert fault_of(row) == (LinkFault.NONE, 0)
    row["fault"] = 99
    assert fault_of(row) == (LinkFault.NONE, 0)
    row["fault"], row["argument"] = LinkFault.DROP, -(2**62)
    assert fault_of(row) == (LinkFault.DROP, 0)
    with pytest.raises(UsageError, match="no link is called 'breaker'"):
        set_fault(page, "breaker", LinkFault.DROP)
    with pytest.raises(UsageError, match="no link is called 'rings>audit_writer'"):
        set_fault(page, "rings>audit_writer", LinkFault.DROP)
    with pytest.raises(UsageError, match="argument is 0 to 1000000"):
        set_fault(page, "breaker>supervisor", LinkFault.DROP, -1)


def test_link_states_when_a_link_was_used_then_it_is_shown_with_what_was_refused() -> None:
    page = paper_page()
    assert link_states(page, 0) == []
    row = page.rows(LINK)[to_root(page.names.role("breaker"))]
    row["sent"], row["received"], row["stale"], row["forged"] = 9, 5, 3, 1
    row["heard_ns"], row["silent"], row["silences"] = 5_000_000, 1, 2
    row["age_max_ns"], row["fault"], row["argument"] = 1_500_000, LinkFault.DROP, 4
    (state,) = link_states(page, 7_000_000)
    assert (state.name, state.heard_ms, state.silent) == ("breaker>supervisor", 2.0, True)
    assert state.rejected == {"STALE": 3, "FORGED": 1}
    shown = read_status(page).to_json()["links"]["breaker>supervisor"]
    assert (shown["sent"], shown["received"], shown["silences"]) == (9, 5, 2)
    assert (shown["age_max_ms"], shown["fault"], shown["argument"]) == (1.5, "DROP", 4)
    assert "name" not in shown
    row["heard_ns"], row["sent"] = 0, 1
    assert read_status(page).to_json()["links"]["breaker>supervisor"]["heard_ms"] is None
