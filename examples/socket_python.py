"""A strategy that needs no package of ours: a Unix socket, msgpack and docs/protocol.md.

Run it: name it as a strategy's `command` in tripgate.toml. At each step it buys one lot of every
instrument it may trade, and closes it again at the next.
"""

import os
import socket
import struct
import sys
import time

import msgpack


class Line:
    def __init__(self, path):
        self.socket, self.number, self.events = socket.socket(socket.AF_UNIX), 0, []
        for _ in range(300):  # a router that was restarted listens again after a few seconds
            if self.socket.connect_ex(path) == 0:
                break
            time.sleep(0.1)
        self.file = self.socket.makefile("rb")

    def ask(self, op, **fields):
        self.number += 1
        body = msgpack.packb({"id": self.number, "op": op, **fields})
        self.socket.sendall(struct.pack(">I", len(body)) + body)
        while (message := self.receive()).get("id") != self.number:
            self.events.append(message)  # events come in between
        return message

    def receive(self):
        if len(header := self.file.read(4)) < 4:
            sys.exit("the router hung up")  # the tree starts us again
        return msgpack.unpackb(self.file.read(struct.unpack(">I", header)[0]))


def trade(line, mark, position):
    """Hold one lot, stop 5 % below, for one step; prices are ticks and quantities are lots."""
    if position["lots"]:
        return line.ask("close", instrument=position["instrument"])
    return line.ask("order", instrument=position["instrument"], lots=1, stop=mark * 95 // 100)


line, sent, event = Line(os.environ["TRIPGATE_SOCKET"]), 0, {}
welcome = line.ask("hello", protocol=1, strategy=os.environ["TRIPGATE_STRATEGY"])
if "error" in welcome:
    sys.exit(welcome["error"])
while event.get("event") not in ("ended", "cut"):
    event = line.events.pop(0) if line.events else line.receive()
    if event["event"] == "step":
        marks = {quote["instrument"]: quote["mark"] for quote in event["quotes"]}
        for position in line.ask("positions")["positions"]:
            if mark := marks.get(position["instrument"]):
                sent += trade(line, mark, position).get("submitted", False)
        line.ask("done", step=event["step"])
print(f"{welcome['strategy']}: {sent} orders sent, then {event['event']}")
