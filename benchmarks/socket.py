"""What the router's socket costs a strategy in another language, on a real paper run.

The run's only strategy is a guest that measures (socket_guest.py): round trips of requests through
a living router that at the same time renews its lease, follows its venue and does its duties.
"""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.runs import finish, place
from supervisors.paper_config import render_paper_config
from tripgate.clock import NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError

INSTANCE, STRATEGY = "bench-socket", "pulse"
SYMBOLS = ("BTC/USDT:USDT",)
WAIT_S = 240
POLL_S = 0.05
LAST_WORDS_MAX = 400


def run_socket() -> dict[str, Any]:
    """Return round trips by request, ns, and the load beside which they were measured.

    Raises
    ------
    DeadlineError
        The guest measured nothing; the message holds its last words.
    """
    with place() as here:
        result = here.folder / "figures.json"
        command = f'["python", "-m", "benchmarks.socket_guest", "{result}"]'
        text = render_paper_config(SYMBOLS, (STRATEGY,), Decimal(1))
        lines = [f"command = {command}" if line.startswith("command = ") else line
                 for line in text.splitlines()]  # fmt: skip
        config = here.folder / "tripgate.toml"
        config.write_text("\n".join(lines) + "\n")
        run = here.start(
            "paper", "--config", str(config), "--feed", "generator:calm", "--speed", "max",
            "--instance", INSTANCE, "--json",
        )  # fmt: skip
        log = here.folder / "state" / INSTANCE / "logs" / f"strategy-{STRATEGY}.log"
        deadline_ns = host_ns() + WAIT_S * NS_PER_S
        while run.poll() is None and not (result.exists() or _has_failed(log)):
            if host_ns() > deadline_ns:
                break
            sleep_s(POLL_S)
        run.terminate()
        finish(run, WAIT_S)
        if not result.exists():
            words = log.read_text()[-LAST_WORDS_MAX:] if log.exists() else "it was not started"
            raise DeadlineError(f"the guest measured nothing: {words}")
        figures: dict[str, Any] = json.loads(result.read_text())
        return {"schema": 1, "load_average": round(os.getloadavg()[0], 2), "round_trips": figures}


def _has_failed(log: Path) -> bool:
    """Whether the guest has said why it could not measure: it prints nothing else."""
    return log.exists() and log.stat().st_size > 0
