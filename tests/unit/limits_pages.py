"""A paper run's page with its configuration on disk, and hands on ``tripgate limits`` for tests.

The root is this process and the page is real; where a breaker is needed, the real one's turn runs
in a thread.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors.breaker import Shell
from tests.tree_fixtures import (
    INSTANCE,
    paper_page,
    paper_text,
    records,
    service,
)
from tripgate.cli.app import main
from tripgate.clock import host_ns
from tripgate.instance import state_folder
from tripgate.messages import EventKind
from tripgate.operator_file import read_records
from tripgate.page.layout import ACCOUNT
from tripgate.page.mapping import Page
from tripgate.units import money

GROSS, NET = "gross_reporting_max", "net_reporting_max"
WHY = ("--reason", "r")
FULL = money(200_000)
"""Every limit of the paper configuration."""


def started(text: str | None = None) -> Page:
    """Return a paper run's page with its configuration in the state folder; the root is us."""
    page = paper_page()
    (state_folder(INSTANCE) / "config.toml").write_text(text or paper_text())
    accounts = page.rows(ACCOUNT)
    accounts["known"] = 1
    accounts["equity_mark"] = accounts["equity_last"] = accounts["starting"]
    return page


def run(*words: str) -> int:
    return main(["limits", words[0], "--instance", INSTANCE, *words[1:]])


def ordered() -> list[dict[str, Any]]:
    return list(read_records(state_folder(INSTANCE), 0))


def reported(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(*words, "--json") == code
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


@contextmanager
def live_breaker(page: Page) -> Iterator[list[Any]]:
    """Run the real breaker's turn in a thread; yield what it told of limits once it has ended."""
    stop = threading.Event()
    told: list[Any] = []
    place = service(page, "breaker")
    shell = Shell(place)

    def act() -> None:
        while not stop.wait(0.005):
            shell.apply(shell.readings(host_ns()))
            shell.take_operator_records()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()
        found = records(page, place.slot)
        told += [body for kind, body in found if kind is EventKind.LIMITS_CHANGED]
        place.close()
