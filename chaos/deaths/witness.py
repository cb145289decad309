"""The witness: a strategy process outside the tree that asks the gate for real openings.

What it is granted it gives back at once, so that it can ask without end: nothing of what it asks
for is ever near a limit, and each answer tells only whether the gate was open at that moment.
"""

from chaos.deaths.ground import MARK_TICKS, STOP_TICKS, WITNESS_SLOT
from tripgate.errors import InvariantBroken
from tripgate.gate.handle import InstrumentHandle
from tripgate.gate.settle import Settlement
from tripgate.gate.slots import claim_strategy_slot
from tripgate.page.layout import WATERMARK
from tripgate.page.mapping import Page
from tripgate.units import INT_MAX

OPENING = (1, MARK_TICKS, STOP_TICKS)


class Witness:
    """The asking side; it owns the one client slot of the page and settles it itself."""

    def __init__(self, page: Page) -> None:
        slot = claim_strategy_slot(page, 0)
        if slot != WITNESS_SLOT:
            raise InvariantBroken(f"the witness was given slot {slot}, not {WITNESS_SLOT}")
        # Its records have no reader, so each counts as durable at once and frees its entry.
        page.rows(WATERMARK)["sequence"][slot] = INT_MAX
        self._settlement = Settlement(page, slot)
        self._checks = [
            InstrumentHandle(page, slot, key).check_raw for key in range(len(page.names.keys))
        ]
        self.approvals = 0
        self.denials = 0

    def ask(self, role: int) -> int:
        """Ask for an opening where a role's lease decides: 0 if granted, else the reason."""
        answer = self._checks[role - 1](*OPENING)
        if answer > 0:
            self._settlement.release(answer)
            self._settlement.free_durable()
            self.approvals += 1
            return 0
        self.denials += 1
        return -answer
