"""The simulated venue as the process it is: start, survival of its clients, and its ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from exchange_adapters.contract import kit
from exchange_adapters.local_venue import LocalVenue, open_local_venue
from exchange_adapters.simulator import process as process_module
from exchange_adapters.venue_port import OrderKind, VenueOrder
from tripgate.reasons import Side

ROOT = Path(__file__).parents[2]
MODULE = "exchange_adapters.simulator.process"
BTC = "BTC/USDT:USDT"
PATIENCE_S = 60.0
GOOD = ("--feed", "generator:calm", "--equity", "100000", "--symbols", BTC)


def command(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", MODULE, "--socket", str(path), *options]


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(path, *options),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def venue_process(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = start(path, *(options or GOOD))
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready == {"ready": True, "socket": str(path), "pid": process.pid}
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


async def buy(venue: LocalVenue) -> None:
    order = VenueOrder(kit.client_id(1), BTC, Side.BUY, 3, OrderKind.MARKET)
    await kit.send_well(venue, order)
    await venue.advance(0)


def refused(path: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the entry point here, where it has to refuse before it listens."""
    try:
        code: object = process_module.main(["--socket", str(path), *options])
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    assert told.out == ""
    assert isinstance(code, int)
    return code, told.err


def test_venue_process_when_its_client_is_killed_then_the_book_stands(tmp_path: Path) -> None:
    path = tmp_path / "venue.sock"
    client = (
        "import os, sys, trio\n"
        "from pathlib import Path\n"
        "from exchange_adapters.local_venue import open_local_venue\n"
        "from tests.contract.test_venue_process import buy\n"
        "async def main():\n"
        "    async with open_local_venue(Path(sys.argv[1])) as venue:\n"
        "        await buy(venue)\n"
        "        os.kill(os.getpid(), 9)\n"
        "trio.run(main)\n"
    )

    async def look() -> tuple[dict[str, int], int]:
        async with open_local_venue(path) as venue:
            account = await venue.account()
            fills = (await venue.trades(0)).fills
            assert [fill.client_id for fill in fills] == [kit.client_id(1)]
            return account.positions, (await venue.hello()).step

    with venue_process(path):
        died = subprocess.run(
            [sys.executable, "-c", client, str(path)], cwd=ROOT, timeout=PATIENCE_S, check=False
        )
        assert died.returncode == -signal.SIGKILL
        assert trio.run(look) == ({BTC: 3}, 1)


@pytest.mark.parametrize("ending", ["shutdown", "SIGTERM", "SIGINT"])
def test_venue_process_when_told_to_end_then_ends_well_and_takes_its_socket_along(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / "venue.sock"

    async def shut_down() -> None:
        async with open_local_venue(path) as venue:
            await venue.shutdown()

    with venue_process(path) as process:
        if ending == "shutdown":
            trio.run(shut_down)
        else:
            process.send_signal(signal.Signals[ending])
        assert process.wait(PATIENCE_S) == 0
        assert not path.exists()


def test_venue_process_when_nobody_connects_then_ends_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "venue.sock"
    with venue_process(path, *GOOD, "--idle-exit-s", "0.2") as process:
        assert process.wait(PATIENCE_S) == 0
        assert not path.exists()


def test_venue_process_when_it_was_killed_then_a_new_one_takes_the_left_socket(
    tmp_path: Path,
) -> None:
    path = tmp_path / "venue.sock"
    with venue_process(path) as process:
        process.kill()
        process.wait(PATIENCE_S)
        assert path.exists()
    with venue_process(path) as process:
        second = subprocess.run(
            command(path, *GOOD),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert second.returncode == 6
        assert second.stderr == f"venue: another venue already answers on {path}\n"
        assert process.poll() is None


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        pytest.param(("--feed", "generator:calm"), 2, "--equity", id="no equity"),
        pytest.param((*GOOD, "--equity", "-5"), 2, "above zero", id="negative equity"),
        pytest.param((*GOOD, "--equity", "nan"), 2, "--equity nan", id="equity is no number"),
        pytest.param((*GOOD, "--equity", "0.00001"), 2, "above zero", id="equity rounds to none"),
        pytest.param((*GOOD, "--idle-exit-s", "0"), 2, "above zero", id="no patience"),
        pytest.param((*GOOD, "--symbols", ","), 2, "names no symbol", id="empty symbols"),
        pytest.param((*GOOD, "--feed", "public:binance"), 2, "ccxt", id="public feed"),
        pytest.param((*GOOD, "--feed", "replay:/nowhere"), 4, "/nowhere", id="missing panel"),
    ],
)
def test_venue_process_when_an_option_is_bad_then_says_why_with_its_exit_code(
    options: tuple[str, ...],
    code: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = refused(tmp_path / "venue.sock", *options, capsys=capsys)
    assert answer[0] == code
    assert text in answer[1]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [("x" * 120, 2, "shorten"), ("file", 2, "no socket"), ("none/venue.sock", 7, "cannot make")],
)
def test_venue_process_when_its_socket_path_is_bad_then_says_why(
    name: str, code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    answer = refused(tmp_path / name, *GOOD, capsys=capsys)
    assert answer[0] == code
    assert text in answer[1]
    assert (tmp_path / "file").read_text() == "precious"


def test_venue_process_when_it_starts_then_imports_no_compiler_and_no_exchange_library() -> None:
    heavy = "numba", "ccxt", "onnxruntime", "tractor"
    script = f"import sys, {MODULE}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"
