"""What ``paper`` says to nonsense: one clear message, its exit code, and nothing has begun."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from exchange_adapters.market.replay import PANEL_FILE
from supervisors.paper_config import render_paper_config
from tests.tree.paper_runs import (
    ROOT,
    ROOT_MODULE,
    START_BOUND_S,
    VENUE_MODULE,
    PaperRun,
    paper_run,
    wait_until,
)

BTC, NOWHERE = "BTC/USDT:USDT", "NOWHERE/USDT:USDT"
COMMAND_BOUND_S = 120.0


@pytest.fixture
def run() -> Iterator[PaperRun]:
    with paper_run() as run:
        yield run


def assert_refused(run: PaperRun, code: int, *texts: str) -> None:
    """Check exit code and words of an ended command, and that nothing of it is left."""
    assert run.wait(COMMAND_BOUND_S) == code, run.errors
    assert (run.folder / "out").read_text() == ""
    assert "Traceback" not in run.errors
    messages = [line for line in run.errors.splitlines() if line.startswith("tripgate: ")]
    assert len(messages) == 1, run.errors
    for text in texts:
        assert text in run.errors
    assert run.processes() == {}
    assert not run.page_is_left


def panel(folder: Path, bars: int = 6) -> Path:
    """Write a small, sound panel of one coin and return its folder."""
    prices = np.array([[100.0 + bar] for bar in range(bars)], dtype=np.float32)
    folder.mkdir()
    np.savez(
        folder / PANEL_FILE,
        ts=1_621_382_400_000 + 300_000 * np.arange(bars, dtype=np.int64),
        symbols=np.array(["BTC"]),
        open=prices, high=prices + 2, low=prices - 2, close=prices + 1,
        volume=np.ones((bars, 1), dtype=np.float32),
    )  # fmt: skip
    return folder


def test_paper_when_the_replay_folder_does_not_exist_then_exit_4(
    run: PaperRun, tmp_path: Path
) -> None:
    run.start("--replay", str(tmp_path / "nowhere"))
    assert_refused(run, 4, f"there is no folder {tmp_path / 'nowhere'}")


def test_paper_when_the_panel_is_malformed_then_exit_4(run: PaperRun, tmp_path: Path) -> None:
    (tmp_path / PANEL_FILE).write_bytes(b"these are no bars")
    run.start("--replay", str(tmp_path))
    assert_refused(run, 4, PANEL_FILE, "cannot be read")


def test_paper_when_the_range_is_empty_then_exit_4_and_the_range_there_is(
    run: PaperRun, tmp_path: Path
) -> None:
    folder = str(panel(tmp_path / "panel"))
    run.start("--replay", folder, "--from", "2022-01-01", "--to", "2022-01-02")
    assert_refused(run, 4, "2021-05-19T00:00", "has no bar from 2022-01-01 to 2022-01-02")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--strategy", "trent"), "--strategy names some of trend, hold, pulse; was 'trent'"),
        (("--speed", "fast"), "--speed is a number above zero, or max; was 'fast'"),
        (("--gross", "-1"), "--gross is a multiple of equity above 0"),
    ],
)
def test_paper_when_an_option_makes_no_sense_then_exit_2(
    run: PaperRun, options: tuple[str, ...], text: str
) -> None:
    run.start("--feed", "generator:calm", *options)
    assert_refused(run, 2, text)


def test_paper_when_the_config_names_an_unknown_symbol_then_exit_4_and_those_there_are(
    run: PaperRun, tmp_path: Path
) -> None:
    config = tmp_path / "tripgate.toml"
    config.write_text(render_paper_config((BTC, NOWHERE), ("hold",), Decimal(1)))
    run.start("--feed", "generator:calm", "--config", str(config))
    assert_refused(run, 4, f"instruments.sim/{NOWHERE}", f"it has {BTC}")


def test_paper_when_the_config_has_five_errors_then_exit_4_and_all_five_with_their_lines(
    run: PaperRun, tmp_path: Path
) -> None:
    text = render_paper_config((BTC,), ("hold",), Decimal(1))
    for good, bad in (
        ("schema = 1", "schema = 7"),
        ('kind = "simulated"', 'kind = "simulatde"'),
        ("collar_bps_max = 200", "collar_bps_max = -200"),
        ("orders_per_second_max = 50", 'orders_per_second_max = "many"'),
        ("stop_distance_bps_max", "stop_distance_bps_mux"),
    ):
        assert text.count(good) == 1
        text = text.replace(good, bad)
    config = tmp_path / "tripgate.toml"
    config.write_text(text)
    lines = text.splitlines()
    wrong = ("schema =", "kind =", "collar_bps_max", "orders_per_second_max", "stop_distance")
    numbers = [
        next(n for n, line in enumerate(lines, 1) if line.startswith(start)) for start in wrong
    ]
    run.start("--feed", "generator:calm", "--config", str(config))
    places = [f"{config}:{number}: " for number in numbers]
    assert_refused(run, 4, *places, "did you mean 'stop_distance_bps_max'?")


@pytest.mark.parametrize(
    ("options", "filler", "text"),
    [("size=64k", "65536", "the disk is full"), ("ro,size=64k", "0", "read-only")],
)
def test_paper_when_the_state_cannot_be_written_then_exit_7(
    run: PaperRun, options: str, filler: str, text: str
) -> None:
    # A file system of its own, in a mount namespace that ends with the process.
    space = ["unshare", "--mount", "--user", "--map-root-user"]
    space = space[:2] if os.geteuid() == 0 else space
    state = run.environment["TRIPGATE_STATE"]
    if subprocess.run([*space, "mount", "-t", "tmpfs", "tmpfs", state]).returncode:
        pytest.skip("this kernel or container allows no mount namespaces")
    script = (
        'mount -t tmpfs -o "$1" tmpfs "$2" || exit 99\n'
        'test "$3" = 0 || head -c "$3" /dev/zero > "$2/filler"\n'
        'exec "$4" -m tripgate paper --json --feed generator:calm'
    )
    command = [*space, "sh", "-c", script, "sh", options, state, filler, sys.executable]
    with (run.folder / "out").open("wb") as out, (run.folder / "err").open("wb") as error:
        run.launcher = subprocess.Popen(
            command, cwd=ROOT, env=run.environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=error,
        )  # fmt: skip
    assert_refused(run, 7, text, state)


@pytest.mark.parametrize("module", [VENUE_MODULE, ROOT_MODULE])
def test_paper_when_interrupted_before_it_is_armed_then_it_ends_in_order(
    run: PaperRun, module: str
) -> None:
    run.start("--feed", "generator:calm", "--strategy", "hold")
    wait_until(lambda: run.processes(module), "its process", START_BOUND_S)
    assert run.launcher is not None
    run.launcher.send_signal(signal.SIGINT)
    assert run.wait(START_BOUND_S) == 0, run.errors
    assert "Traceback" not in run.errors
    assert run.processes() == {}
    assert not run.page_is_left
