"""The goals that a tree is held to, and whether this run reached them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.verdicts import Verdict

DETECTED_MS_MAX = 20.0
LATE_MS_MAX = 20.0
RESTART_MS_MAX = 2_500.0
ARMED_S_MAX = 15.0
GONE_MS_MAX = 1_000.0
MEMORY_MB_MAX = 1_600.0


def judge_goals(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the verdict on each goal for a result of ``tree.measure_tree``, JSON-ready."""
    root, memory, quiet = result["root"], result["memory"], result["quiet"]
    killed, back = _worst(result, "killed", "denied_ms"), _worst(result, "killed", "back_ms")
    late = max(
        one["stopped"]["denied_ms"]["p99"] - one["lease_ms"] for one in result["actors"].values()
    )
    root_late = root["hung_denied_ms"] - root["lease_ms"]
    false_denials = sum(quiet["denied"].values())
    verdicts = (
        Verdict(
            f"denial after SIGKILL of an actor, p99: at most {DETECTED_MS_MAX:g} ms",
            killed <= DETECTED_MS_MAX, f"{killed:.1f} ms",
        ),
        Verdict(
            f"denial after SIGSTOP of an actor, p99: at most its lease + {LATE_MS_MAX:g} ms",
            late <= LATE_MS_MAX, f"lease {late:+.1f} ms",
        ),
        Verdict(
            f"denial after SIGSTOP of the root: at most its lease + {LATE_MS_MAX:g} ms",
            root_late <= LATE_MS_MAX, f"lease {root_late:+.1f} ms",
        ),
        Verdict(
            f"a killed actor's successor holds its lease, p99: at most {RESTART_MS_MAX:g} ms",
            back <= RESTART_MS_MAX, f"{back:.0f} ms",
        ),
        Verdict(
            f"command to armed gate, warm caches: at most {ARMED_S_MAX:g} s",
            result["armed_s"] <= ARMED_S_MAX, f"{result['armed_s']:.1f} s",
        ),
        Verdict(
            f"nothing of the tree left after SIGKILL of the root: at most {GONE_MS_MAX:g} ms",
            root["gone_ms"] <= GONE_MS_MAX, f"{root['gone_ms']:.0f} ms",
        ),
        Verdict(
            f"memory of the tree, proportional: at most {MEMORY_MB_MAX:g} MB",
            memory["tree_mb"] <= MEMORY_MB_MAX, f"{memory['tree_mb']:.0f} MB",
        ),
        Verdict(
            "false denials in a fault-free run: 0", false_denials == 0,
            f"{false_denials} of {quiet['asked']} openings in {quiet['seconds']:g} s",
        ),
    )  # fmt: skip
    return [asdict(verdict) for verdict in verdicts]


def _worst(result: Mapping[str, Any], what: str, figure: str) -> float:
    return max(float(one[what][figure]["p99"]) for one in result["actors"].values())
