"""The gate alone: hard limits in one process, with no tree, no venue and no config file.

Run it: python examples/gate_only.py
"""

from tripgate import Gate
from tripgate.gate.standalone import GatePage, StandaloneInstrument, open_standalone

BTC = "my-exchange/BTC/USDT:USDT"
LIMITS = {  # (gross, net) of every scope, in USDT; "none" would have to be written out
    "portfolio": ("50000", "30000"),
    "venue:my-exchange": ("50000", "30000"),
    "asset:BTC": ("30000", "30000"),
    "strategy:trend": ("30000", "20000"),
    f"instrument:{BTC}": ("30000", "30000"),
}
INSTRUMENTS = {
    BTC: StandaloneInstrument(
        asset="BTC", tick="0.1", lot="0.001", order_reporting_max="15000",
        collar_bps_max=200, stop_distance_bps_max=500,
    )
}  # fmt: skip


def trade(owner: GatePage, gate: Gate) -> None:
    """Ask, send, settle: what your own program does around its exchange's library."""
    btc = gate.instrument("my-exchange", "BTC/USDT:USDT")
    owner.mark(BTC, "60000")
    owner.open()
    for quantity in ("0.2", "0.2", "0.3", "-0.2"):
        owner.mark(BTC, "60000")  # from your market data; a mark older than 2 s denies
        owner.renew()  # five times per lease, or the gate closes by itself
        decision = btc.check(quantity, price="60000", stop="58500")
        print(quantity, decision)
        if decision and owner.commit(decision.token):
            owner.fill(decision.token, quantity.lstrip("-"))  # what your exchange reported
    print("position", btc.position_lots, "lots")


if __name__ == "__main__":
    with open_standalone(
        "desk", limits=LIMITS, instruments=INSTRUMENTS, strategies={"trend": 10},
        reporting_currency="USDT",
    ) as page, Gate.attach(strategy="trend", instance="desk") as client:  # fmt: skip
        trade(page, client)
