"""Watching a storm: what must hold at any moment, at a quiet one, and how breaches are kept.

At any moment outside the desk's own section no node's gross may pass its configured limit: at
constant marks and with factors that only tighten, nothing excuses it. At a moment when every
process is stopped outside its section each word must equal the sum of its tables, to the unit.
"""

from dataclasses import dataclass
from pathlib import Path

from chaos.storm.ground import KEEPER, Ground
from chaos.storm.ledger import Ledger, differences, entry_faults
from tripgate.page import atomics
from tripgate.page.layout import CONTROL_HEADER, ENTRY, KEY, LIMIT, ROLE, SLOT, SUM, exit_entry

REPORT_FILE = "violations"
TEXT_MAX = 400


class Reporter:
    """Appends breaches to a file that outlives whoever found them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / REPORT_FILE

    def add(self, when: str, texts: list[str]) -> None:
        """Write one line per breach."""
        if texts:
            with open(self._path, "a", encoding="utf-8") as file:
                file.writelines(f"{when}: {text[:TEXT_MAX]}\n" for text in texts)

    def lines(self) -> list[str]:
        """Return everything reported so far."""
        if not self._path.exists():
            return []
        return self._path.read_text(encoding="utf-8").splitlines()


@dataclass
class Watch:
    """The observer's eyes on one page."""

    ground: Ground
    reporter: Reporter
    ledger: Ledger
    glances: int = 0
    exact: int = 0
    used_ppm_max: int = 0

    def glance(self) -> None:
        """Look at the nodes' gross while everybody runs, unless the desk is inside a section."""
        page = self.ground.page
        section = page.address(SLOT, KEEPER, "section")
        before = atomics.load(section)
        words = page.rows(SUM)["gross"].copy()
        if before & 1 or atomics.load(section) != before or not self._desk_is_settled():
            return
        self.glances += 1
        limits = page.rows(LIMIT)["gross_configured"]
        self.used_ppm_max = max(self.used_ppm_max, int((words * 1_000_000 // limits).max()))
        self.reporter.add(
            "at a glance",
            [
                f"{page.names.scopes[node]}: gross {words[node]} of {limits[node]}"
                for node in ((words > limits) | (words < 0)).nonzero()[0]
            ],
        )
        margin, margin_max = page.rows(SUM)["margin"].copy(), page.rows(LIMIT)["margin_max"]
        self.reporter.add(
            "at a glance",
            [
                f"{page.names.scopes[node]}: margin {margin[node]} of {margin_max[node]}"
                for node in ((margin > margin_max) | (margin < 0)).nonzero()[0]
            ],
        )
        self._judge_grants()

    def inspect(self) -> None:
        """Look at everything while every member is stopped; sections must be even for the sums."""
        page = self.ground.page
        self.ledger.read_on()
        self.reporter.add("in the journal", self.ledger.flips)
        self.ledger.flips.clear()
        self.glance()
        slots = page.rows(SLOT)
        busy = ((slots["section"] | slots["exit_section"]) & 1).any()
        frozen = atomics.load(page.address(CONTROL_HEADER, 0, "freeze"))
        if busy or frozen or not self._desk_is_settled():
            return
        self.exact += 1
        self.reporter.add("in a quiet moment", [*differences(page), *entry_faults(page)])
        self.reporter.add("in a quiet moment", self._position_faults())

    def _position_faults(self) -> list[str]:
        """Compare positions with the journal and, without reduce-only, holds with positions."""
        texts = []
        first = exit_entry(self.ground.page.layout.capacities, 0)
        exited = self.ground.page.rows(ENTRY)["token"][first:]
        for key, word in enumerate(self.ground.page.rows(KEY)["closable"]):
            lots, pending = int(word) >> 32, int(word) & 0xFFFF_FFFF
            known = {self.ledger.positions[key]}
            if self.ledger.last[0] == key:
                known.add(self.ledger.last[1])
            if lots not in known:
                texts.append(f"key {key} holds {lots} lots, the venue says {sorted(known)}")
            if not self.ground.reduces_only(key) and not exited[key] and pending > abs(lots):
                texts.append(f"key {key}: {pending} lots are being closed of {lots}")
        return texts

    def _judge_grants(self) -> None:
        slots = self.ground.page.rows(SLOT)
        self.reporter.add(
            "at a grant",
            [
                f"slot {slot}: overshoot {slots['overshoot_max'][slot]}"
                for slot in (slots["overshoot_max"] > 0).nonzero()[0]
            ],
        )

    def _desk_is_settled(self) -> bool:
        """Whether the living desk has repaired what its predecessor left."""
        roles, slots = self.ground.page.rows(ROLE), self.ground.page.rows(SLOT)
        return int(roles["incarnation"][KEEPER]) == int(slots["incarnation"][KEEPER])
