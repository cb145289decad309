"""A keeper on a real page, with a router and an audit_writer whose parts the test plays."""

from pathlib import Path

from actors.audit_writer import Drain
from actors.position_keeper import Keeper
from tests.tree_fixtures import BTC, MARKET_MS, approve, mark, paper_page, service
from tripgate.audit.store import LogWriter
from tripgate.gate.commit import Approved, commit
from tripgate.gate.slots import claim_strategy_slot
from tripgate.gate.words import STATE_MASK
from tripgate.messages import EventKind
from tripgate.page.layout import CLAIM, ENTRY, KEY, ROLE, SUM

PRICE, STOP = 500_000, 480_000


class Desk:
    """A keeper, and a router and an audit_writer whose parts the test plays."""

    def __init__(self) -> None:
        self.page = paper_page()
        self.router = service(self.page, "router", "sim")
        self.writer = service(self.page, "audit_writer")
        self.place = service(self.page, "position_keeper")
        state = Path(self.page.names.state_folder)
        self.log = LogWriter(state / "audit", state / "heads")
        self.slot = claim_strategy_slot(self.page, 0)
        self.keeper = Keeper(self.place)
        self.keeper.rebuild()
        self.trade = 0
        self.market(0, PRICE)

    def market(self, step: int, price: int | None) -> None:
        self.page.header["step"] = step
        self.page.header["market_ms"] = MARKET_MS + step
        if price is not None:
            mark(self.page, 0, price, step=step, market_ms=MARKET_MS + step)
        self.page.rows(ROLE)["events_step"][self.router.role] = step

    def entry(self, lots: int = 10) -> Approved:
        order = approve(self.page, self.slot, 0, lots, PRICE, STOP)
        assert commit(self.page, order)
        return order

    def fill(self, token: int, lots: int, price: int = PRICE, fee: int = 0) -> None:
        self.trade += 1
        self.router.emit(EventKind.FILL, {
            "trade": self.trade, "token": token, "strategy": "trend", "venue": "sim",
            "symbol": BTC, "lots": lots, "ticks": price, "fee": fee, "cumulative": abs(lots),
        })  # fmt: skip

    def done(self, token: int, cumulative: int) -> None:
        body = {"token": token, "state": "FILLED", "cumulative": cumulative}
        self.router.emit(EventKind.ORDER_DONE, body)

    def store(self) -> None:
        drain = Drain(self.writer, self.log)
        frames = drain.gather()
        drain.store(frames)
        drain.publish(frames)

    def lots(self) -> int:
        return int(self.page.rows(KEY)["closable"][0]) >> 32

    def gross(self) -> int:
        return int(self.page.rows(SUM)["gross"][0])

    def state_of(self, order: Approved) -> int:
        word = int(self.page.rows(ENTRY)["word"][order.row])
        return int(word & STATE_MASK)

    def words(self) -> list[bytes]:
        keys = self.page.rows(KEY)
        tables = [self.page.rows(table).tobytes() for table in (SUM, CLAIM)]
        fields = ("closable", "charged", "cash_lot_ticks", "fees", "basis_lot_ticks")
        return tables + [keys[name].tobytes() for name in fields]

    def close(self) -> None:
        self.log.close()
        for place in (self.router, self.writer, self.place):
            place.close()
