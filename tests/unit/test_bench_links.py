"""``tripgate bench links``: that each figure was really taken; how fast it is, is nobody's test."""

import json

import pytest

from actors import secret
from benchmarks import links
from benchmarks.bench import private_page
from tripgate.cli.app import main
from tripgate.errors import DeadlineError

pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
NAMES = (
    "seal_ns", "open_and_judge_ns", "pipe_round_trip_p50_ns", "doorbell_round_trip_p99_ns",
    "ring_flood_events_per_s", "ring_flood_applied_p99_ns", "ring_paced_applied_p50_ns",
    "control_to_root_p50_ns", "control_from_root_p99_ns",
)  # fmt: skip


def test_bench_links_when_run_with_little_effort_then_every_figure_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(secret, "_held", [])
    whole = links.run_links
    monkeypatch.setattr(links, "run_links", lambda: whole(0.01))
    assert main(["bench", "links", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert all(figures[name] > 0 for name in NAMES)


def test_bench_links_when_the_other_process_cannot_start_then_it_is_said() -> None:
    with private_page() as page, pytest.raises(DeadlineError, match="did not start"):
        links._side("read", page.folder / "nowhere", 1)
