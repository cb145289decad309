"""Redis as the holder of the limits: one Lua script for each order, over a Unix socket.

The server is this benchmark's own: no port, no persistence, a socket in a temporary folder, ended
with the peer. A script runs alone in the server, so check and reservation are one step for any
number of clients. The protocol is spoken here in a few lines: a client library would add its own
cost to the peer's figure, and a dependency to ours.
"""

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers import LEASES, MEDIUM, NODES, Terms
from tripgate.clock import NS_PER_MS, NS_PER_S, host_ns, sleep_s
from tripgate.errors import DeadlineError, InvariantBroken
from tripgate.reasons import DenyReason
from tripgate.units import PPM

SERVER = "redis-server"
START_WAIT_S = 20.0
END_WAIT_S = 10.0
ANSWER_WAIT_S = 30.0
POLL_S = 0.01

SCRIPT = f"""
local lots, price, stop = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
local words = {{}}
for node = 1, {NODES} do
    words[node] = redis.call('HMGET', KEYS[node], 'gross', lots > 0 and 'long' or 'short',
                             'gross_max', 'net_max', 'level')
    if tonumber(words[node][5]) >= {MEDIUM} then return -{int(DenyReason.LEVEL)} end
end
for _, deadline in ipairs(redis.call('HVALS', KEYS[6])) do
    if tonumber(deadline) <= now then return -{int(DenyReason.LEASE_LAPSED)} end
end
local spec = redis.call('HMGET', KEYS[7], 'mark', 'marked_ms', 'age_max_ms', 'collar_ppm',
                        'stop_distance_ppm', 'order_money_max', 'numerator', 'denominator')
for index, text in ipairs(spec) do spec[index] = tonumber(text) end
local mark = spec[1]
if now - spec[2] > spec[3] then return -{int(DenyReason.MARK_STALE)} end
if math.abs(price - mark) * {PPM} > spec[4] * mark then return -{int(DenyReason.PRICE_COLLAR)} end
if lots > 0 and stop >= math.min(price, mark) or lots < 0 and stop <= math.max(price, mark) then
    return -{int(DenyReason.STOP_WRONG_SIDE)}
end
if math.abs(price - stop) * {PPM} > spec[5] * price then return -{int(DenyReason.STOP_TOO_FAR)} end
local amount = math.ceil(math.abs(lots) * spec[7] * math.max(price, mark) / spec[8])
if amount > spec[6] then return -{int(DenyReason.ORDER_NOTIONAL)} end
for node = 1, {NODES} do
    local read = words[node]
    if tonumber(read[1]) + amount > tonumber(read[3]) then
        return -{int(DenyReason.GROSS_LIMIT)}
    end
    if tonumber(read[2]) + amount > tonumber(read[4]) then return -{int(DenyReason.NET_LIMIT)} end
end
local text = string.format('%.0f', amount)
for node = 1, {NODES} do
    redis.call('HINCRBY', KEYS[node], 'gross', text)
    redis.call('HINCRBY', KEYS[node], lots > 0 and 'long' or 'short', text)
end
return redis.call('INCR', KEYS[8])
"""
"""All of the check in one script. Lua numbers are doubles: exact below 2^53, hence times in ms."""

KEYS = (*(f"node{number}" for number in range(NODES)), "leases", "spec", "sequence")


def server_path() -> str | None:
    """Return where the Redis server is installed, or None."""
    return shutil.which(SERVER)


def _encode(words: tuple[object, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


class RedisLine:
    """One connection that speaks the part of the protocol (RESP 2) that is needed here."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_WAIT_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def call(self, *words: object) -> Any:
        """Send a command and return its answer. Raises ``InvariantBroken`` on an error answer."""
        return self.send(_encode(words))

    def send(self, request: bytes) -> Any:
        """Send an encoded command and return its answer."""
        self._socket.sendall(request)
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        kind, text = line[:1], line[1:-2]
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == b"-1" else self._answers.read(int(text) + 2)[:-2].decode()
        if kind == b"*":
            return [self._answer() for _ in range(int(text))]
        if kind == b"+":
            return text.decode()
        raise InvariantBroken(f"redis answered {line!r}")

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()


class RedisPeer:
    """A server of our own under ``folder``, holding the limits."""

    name = "peer_redis_lua"
    says = "Redis, a Lua script over a Unix socket: any number of processes, one more server"

    def __init__(self, terms: Terms, folder: Path, server: str) -> None:
        place = folder / "redis.sock"
        self._server = _start(server, folder, place)
        try:
            self._line = _connect(place, self._server)
            _fill(self._line, terms)
            digest = self._line.call("SCRIPT", "LOAD", SCRIPT)
        except BaseException:
            _end(self._server)
            raise
        # Only the four numbers differ between orders: the rest of the request is encoded once.
        head = _encode(("EVALSHA", digest, len(KEYS), *KEYS))
        count = 3 + len(KEYS)
        self._head = head.replace(b"*%d\r\n" % count, b"*%d\r\n" % (count + 4), 1)

    def check(self, lots: int, price: int, stop: int) -> int:
        """See ``peers.Peer.check``."""
        now_ms = host_ns() // NS_PER_MS
        words = b"".join(
            [b"$%d\r\n%s\r\n" % (len(text), text)
             for text in (b"%d" % lots, b"%d" % price, b"%d" % stop, b"%d" % now_ms)]
        )  # fmt: skip
        answer: int = self._line.send(self._head + words)
        return answer

    def sums(self) -> list[tuple[int, int, int]]:
        """See ``peers.Peer.sums``."""
        read = [self._line.call("HMGET", key, "gross", "long", "short") for key in KEYS[:NODES]]
        return [(int(gross), int(long), int(short)) for gross, long, short in read]

    def release_all(self) -> None:
        """See ``peers.Peer.release_all``."""
        for key in KEYS[:NODES]:
            self._line.call("HSET", key, "gross", 0, "long", 0, "short", 0)

    def close(self) -> None:
        """End the server."""
        self._line.close()
        _end(self._server)


def _start(server: str, folder: Path, place: Path) -> "subprocess.Popen[bytes]":
    command = [
        server, "--port", "0", "--unixsocket", str(place), "--unixsocketperm", "700",
        "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(folder),
    ]  # fmt: skip
    if guard := shutil.which("setpriv"):
        # A benchmark that is killed must not leave a server behind.
        command = [guard, "--pdeathsig", "KILL", *command]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _connect(place: Path, server: "subprocess.Popen[bytes]") -> RedisLine:
    give_up_ns = host_ns() + int(START_WAIT_S * NS_PER_S)
    while host_ns() < give_up_ns and server.poll() is None:
        with contextlib.suppress(OSError):
            return RedisLine(place)
        sleep_s(POLL_S)
    raise DeadlineError(
        f"{server.args!r} answers no connection (exit code {server.poll()}): start it by hand to "
        "see why, or remove it"
    )


def _fill(line: RedisLine, terms: Terms) -> None:
    now_ms = host_ns() // NS_PER_MS
    for key in KEYS[:NODES]:
        line.call(
            "HSET", key, "gross", 0, "long", 0, "short", 0, "gross_max", terms.limit_money,
            "net_max", terms.limit_money, "level", int(terms.level),
        )  # fmt: skip
    for number in range(LEASES):
        line.call("HSET", "leases", f"role{number}", now_ms + terms.lease_ns // NS_PER_MS)
    line.call(
        "HSET", "spec", "mark", terms.mark, "marked_ms", now_ms, "age_max_ms",
        terms.age_max_ns // NS_PER_MS, "collar_ppm", terms.collar_ppm, "stop_distance_ppm",
        terms.stop_distance_ppm, "order_money_max", terms.order_money_max, "numerator",
        terms.value_numerator, "denominator", terms.value_denominator,
    )  # fmt: skip


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(END_WAIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
