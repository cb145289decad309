"""A guest that only measures: how long a request over the router's socket takes to be answered.

Started by the tree as the strategy of ``benchmarks.socket``'s run. It asks in its first step, in
which the market stands, and writes what it measured to the file that it was given.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any

from benchmarks.measure import no_collection, summarize
from tripgate.clock import host_ns, sleep_s
from tripgate.errors import DeadlineError
from tripgate.frames import Decoder, encode

BATCHES, BATCH = 5, 400
CHECK_BATCHES = 2
"""More denials than the attempts of a second, of market time which stands, would be cheaper ones.
"""
"""A batch fits the burst that the router grants one connection; between two it is refilled."""
PAUSE_S = 0.25
APPROVED = 40
"""A slot has 56 places for openings, and the run allows 50 orders in a second of market time."""
RECEIVE_BYTES = 1 << 16


class Line:
    """A blocking connection that speaks docs/protocol.md."""

    def __init__(self, path: str) -> None:
        self._socket = socket(AF_UNIX)
        self._socket.connect(path)
        self._decoder = Decoder()
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, operation: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """Return the answer to a request."""
        self._number += 1
        self._socket.sendall(encode({"id": self._number, "op": operation, **fields}))
        answers: list[dict[str, Any]] = []
        while not answers:
            for message in self._receive():
                (answers if "id" in message else self.events).append(message)
        return answers[0]

    def step(self) -> dict[str, Any]:
        """Return the next step that it is told of."""
        while True:
            for event in self.events:
                if event["event"] == "step":
                    self.events.remove(event)
                    return event
            self.events += self._receive()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _receive(self) -> list[Any]:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise DeadlineError("the router hung up before the measurement had ended")
        return self._decoder.feed(data)


def measure(line: Line, instrument: int, mark: int) -> dict[str, Any]:
    """Return the figures by request; a check is measured denied and approved."""
    order = {"instrument": instrument, "lots": 1, "price": mark, "stop": mark * 98 // 100}
    answer: dict[str, Any] = {}

    def check() -> None:
        answer.update(line.ask("check", order))

    approved = _timed(check, 1, APPROVED)
    if not answer["approved"]:
        raise DeadlineError(f"the gate denied what was to be measured: {answer}")
    order["price"] = 2 * mark
    return {
        "ping": _timed(lambda: line.ask("ping", {}), BATCHES, BATCH),
        "board": _timed(lambda: line.ask("board", {"instrument": instrument}), BATCHES, BATCH),
        "check, approved": approved,
        "check, denied": _timed(check, CHECK_BATCHES, BATCH),
    }


def _timed(call: Callable[[], object], batches: int, batch: int) -> dict[str, float]:
    singles, chunks = [], []
    with no_collection():
        for _ in range(batches):
            sleep_s(PAUSE_S)
            began = host_ns()
            for _ in range(batch):
                asked = host_ns()
                call()
                singles.append(host_ns() - asked)
            chunks.append((host_ns() - began) / batch)
    return asdict(summarize(chunks, singles))


def main() -> None:
    """Attach, measure in the first step that has a price, write, leave."""
    hello = {"protocol": 1, "strategy": os.environ["TRIPGATE_STRATEGY"]}
    with closing(Line(os.environ["TRIPGATE_SOCKET"])) as line:
        welcome = line.ask("hello", hello)
        if "error" in welcome:
            raise DeadlineError(welcome["error"])
        quote = line.step()["quotes"][0]
        figures = measure(line, quote["instrument"], quote["mark"])
    result = Path(sys.argv[1])
    whole = result.with_suffix(".part")
    whole.write_text(json.dumps(figures))
    whole.replace(result)


if __name__ == "__main__":
    main()
