"""A result of the shape that ``bench tree`` has, made by hand: a real one takes minutes."""

from typing import Any

from benchmarks.tree_verdicts import judge_goals


def tree_result() -> dict[str, Any]:
    """Return a result in which every goal is reached."""
    denied, back = {"p50": 4.0, "p99": 9.0, "max": 9.0}, {"p50": 850.0, "p99": 900.0, "max": 900.0}
    stopped = {"p50": 230.0, "p99": 255.0, "max": 255.0}
    result: dict[str, Any] = {
        "schema": 1, "command": ["paper", "--json"], "cores": 2, "load_average": 0.5, "repeats": 3,
        "references": {"interpreter_start_ms": {"p50": 20.0, "p99": 22.0, "max": 22.0},
                       "death_told_ms": {"p50": 0.1, "p99": 0.2, "max": 0.3}},
        "armed_s": 8.0,
        "quiet": {"seconds": 60.0, "asked": 9_000, "denied": {}},
        "memory": {"members_mb": {"root": 80.0, "breaker": 83.0}, "tree_mb": 163.0,
                   "venue_mb": 41.0, "strategies_mb": 85.0, "launcher_mb": 35.0},
        "actors": {"breaker": {
            "lease_ms": 250,
            "killed": {"n": 3, "denied_ms": denied, "back_ms": back},
            "stopped": {"n": 3, "denied_ms": stopped, "back_ms": back},
        }},
        "root": {"lease_ms": 500, "hung_denied_ms": 480.0, "hung_open_again_ms": 2.0,
                 "killed_denied_ms": 230.0, "gone_ms": 60.0},
        "armed_again_s": 9.0, "verified": True,
    }  # fmt: skip
    return {**result, "goals": judge_goals(result)}
