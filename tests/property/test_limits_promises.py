"""P5 for limits: without a confirmed code no order, evaluation or restart ever loosens one."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.breaker import Shell
from actors.service import Service
from supervisors.carry_over import CarryOver
from supervisors.kept_limits import keep_tighter_limits
from supervisors.page_setup import make_page
from supervisors.root import restore_past
from tests.tree_fixtures import facts, nobody_waits, paper_config, paper_text
from tripgate.cli import limits_change
from tripgate.cli.app import main
from tripgate.clock import host_ns
from tripgate.instance import prepare_state
from tripgate.page.layout import ACCOUNT, LIMIT
from tripgate.page.limits import is_tighter, read_limits
from tripgate.page.mapping import Page

SCOPES = ("portfolio", "venue:sim", "asset:BTC", "strategy:trend", "instrument:sim/BTC/USDT:USDT")
FIELDS = (
    "gross_reporting_max", "net_reporting_max", "order_reporting_max", "collar_bps_max",
    "orders_per_second_max", "margin_buffer_reporting", "stress_loss_reporting_max",
)  # fmt: skip
NUMBERS = count(1)

amounts = st.sampled_from(["none", "0.0001", "100", "150000", "199999.9999", "200000", "10000000"])
steps = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(SCOPES), amounts, amounts),
    st.tuples(st.just("reload"), st.sampled_from(FIELDS), st.sampled_from([1, 30, 100, 900])),
    st.tuples(st.just("confirm"), st.sampled_from(SCOPES), st.sampled_from(["ABC123", ""])),
    st.tuples(st.just("halt"), st.sampled_from(SCOPES)),
    st.tuples(st.just("evaluate"), st.sampled_from([0, 60_000, 120_000])),
    st.tuples(st.just("restart")),
)


class Instance:
    """One instance over its restarts: a page, a state folder and the breaker of the day."""

    def __init__(self) -> None:
        self.name = f"paper-{next(NUMBERS)}"
        self.state = prepare_state(self.name)
        (self.state / "config.toml").write_text(paper_text())
        self.epoch = 0
        self.place: Service | None = None
        self.restart()

    def restart(self) -> None:
        self.close()
        self.epoch += 1
        self.page: Page = make_page(paper_config(), self.name, self.epoch, facts(), {})
        keep_tighter_limits(self.page, self.state)
        restore_past(self.page, CarryOver(True, {}, {}, 0), self.state)
        self.page.header["armed"], self.page.header["closed"] = 1, 0
        accounts = self.page.rows(ACCOUNT)
        accounts["known"] = 1
        accounts["equity_mark"] = accounts["equity_last"] = accounts["starting"]
        texts = {"config_text": paper_text(), "config_name": "paper"}
        self.place = Service(self.page, "breaker", "", 1, texts, nobody_waits)
        self.shell = Shell(self.place)

    def run(self, step: tuple[Any, ...]) -> None:
        word, rest = step[0], step[1:]
        common = ("--instance", self.name, "--reason", "r")
        if word == "set":
            scope, gross, net = rest
            main(["limits", "set", *common, "--scope", scope, "--gross", gross, "--net", net])
        elif word == "confirm":
            scope, code = rest
            words = ["--scope", scope, "--net", "none", "--confirm", code]
            main(["limits", "set", *common, *words])
        elif word == "halt":
            main(["halt", *common, "--scope", rest[0]])
        elif word == "reload":
            field, value = rest
            self.reload(field, value, common)
        elif word == "restart":
            self.restart()
        else:
            self.page.rows(ACCOUNT)["drawdown_ppm"][0] = rest[0]
        self.shell.apply(self.shell.readings(host_ns()))
        self.shell.take_operator_records()

    def reload(self, field: str, value: int, common: tuple[str, ...]) -> None:
        lines = [
            f"{field} = {value}" if line.startswith(f"{field} =") else line
            for line in paper_text().splitlines()
        ]
        path = self.state / "new.toml"
        path.write_text("\n".join(lines) + "\n")
        main(["limits", "reload", *common, "--config", str(path)])

    def close(self) -> None:
        if self.place is not None:
            self.place.close()


@settings(max_examples=30)
@given(st.lists(steps, min_size=1, max_size=8))
def test_P5_limits_when_no_code_is_confirmed_then_none_ever_becomes_looser(
    sequence: list[tuple[Any, ...]],
) -> None:
    instance = Instance()
    patch = pytest.MonkeyPatch()
    # The breaker acts after each command here, so a command has nobody to wait for.
    patch.setattr(limits_change, "BREAKER_WAIT_S", 0.0)
    try:
        before = read_limits(instance.page)
        for step in sequence:
            instance.run(step)
            after = read_limits(instance.page)
            assert [p for p in after if is_tighter(p[1], before[p], after[p])] == [], step
            rows = instance.page.rows(LIMIT)[: len(instance.page.names.scopes)]
            assert (rows["gross_max"] <= rows["gross_configured"]).all()
            assert (rows["net_max"] <= rows["net_configured"]).all()
            before = after
    finally:
        patch.undo()
        instance.close()
