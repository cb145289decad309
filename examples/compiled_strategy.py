"""A strategy compiled by numba that asks the gate from inside its own loop.

Run it: python examples/compiled_strategy.py
"""

import numba
import numpy as np

from tripgate import DenyReason, Gate
from tripgate.gate.check import check_raw
from tripgate.gate.standalone import StandaloneInstrument, open_standalone

BTC = "my-exchange/BTC/USDT:USDT"
SCOPES = ("portfolio", "venue:my-exchange", "asset:BTC", "strategy:fast", f"instrument:{BTC}")
INSTRUMENT = StandaloneInstrument(
    asset="BTC", tick="0.1", lot="0.001", order_reporting_max="1000",
    collar_bps_max=200, stop_distance_bps_max=500, mark_age_max_ms=60_000,
)  # fmt: skip


@numba.njit
def follow(handle, prices, answers):  # type: ignore[no-untyped-def]
    """Buy 0.01 after each rise; the check costs no call into Python. Lots and ticks throughout."""
    asked = 0
    for i in range(1, len(prices)):
        if prices[i] > prices[i - 1]:
            answers[asked] = check_raw(handle, 10, prices[i], prices[i] * 98 // 100)
            asked += 1
    return asked


if __name__ == "__main__":
    limits = {scope: ("none", "none") for scope in SCOPES} | {"asset:BTC": (5_000, 5_000)}
    with open_standalone(
        "compiled", limits=limits, instruments={BTC: INSTRUMENT}, strategies={"fast": 1_000},
        reporting_currency="USDT", lease_s=60.0,
    ) as owner, Gate.attach(strategy="fast", instance="compiled") as gate:  # fmt: skip
        owner.mark(BTC, "60000")
        owner.open()
        btc = gate.instrument("my-exchange", "BTC/USDT:USDT")
        prices = 600_000 + np.random.default_rng(1).integers(-500, 500, 60)
        answers = np.zeros(len(prices), dtype=np.int64)
        count = follow(btc.address, prices, answers)
        tokens = answers[:count][answers[:count] > 0]
        print(f"asked {count}, approved {len(tokens)}")
        for code in np.unique(-answers[:count][answers[:count] < 0]):
            print(f"denied {DenyReason(int(code)).name}")
