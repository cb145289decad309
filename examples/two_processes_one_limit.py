"""Two processes share one limit: however they race, together they never pass it.

Run it: python examples/two_processes_one_limit.py
"""

import subprocess
import sys

from tripgate import Gate
from tripgate.clock import sleep_s
from tripgate.gate.standalone import StandaloneInstrument, commit_token, open_standalone

ETH, LIMIT, ORDER = "my-exchange/ETH/USDT:USDT", 10_000, 100
SCOPES = ("portfolio", "venue:my-exchange", "asset:ETH", "strategy:left", "strategy:right",
          f"instrument:{ETH}")  # fmt: skip
INSTRUMENT = StandaloneInstrument(
    asset="ETH", tick="0.01", lot="0.01", order_reporting_max="1000",
    collar_bps_max=100, stop_distance_bps_max=500, mark_age_max_ms=60_000,
)  # fmt: skip


def ask_until_denied(strategy: str) -> None:
    """Open 0.05 ETH at 2,000 again and again until the gate says no; tell how often it said yes."""
    granted = 0
    with Gate.attach(strategy=strategy, instance="shared") as gate:
        eth = gate.instrument("my-exchange", "ETH/USDT:USDT")
        while decision := eth.check("0.05", price="2000", stop="1950"):
            granted += commit_token(gate.page, decision.token)  # "about to be sent"
    print(strategy, granted, decision, flush=True)


def main() -> None:
    """Own the gate, start both, add up what they were granted."""
    limits = {scope: ("none", "none") for scope in SCOPES} | {"portfolio": (LIMIT, "none")}
    with open_standalone(
        "shared", limits=limits, instruments={ETH: INSTRUMENT},
        strategies={"left": 1_000, "right": 1_000}, reporting_currency="USDT",
    ) as owner:  # fmt: skip
        owner.mark(ETH, "2000")
        owner.open()
        command = [sys.executable, __file__]
        both = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True)
                for name in ("left", "right")]  # fmt: skip
        while any(process.poll() is None for process in both):
            owner.renew()  # well within the lease of half a second
            sleep_s(0.05)
        lines = [process.communicate()[0].strip() for process in both]
    print(*lines, sep="\n")
    committed = ORDER * sum(int(line.split()[1]) for line in lines)
    print(f"granted together: {committed} of {LIMIT} USDT")


if __name__ == "__main__":
    ask_until_denied(sys.argv[1]) if len(sys.argv) > 1 else main()
