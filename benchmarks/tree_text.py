"""The tree benchmark's result as tables: one form for the terminal and for the documents."""

from collections.abc import Iterator, Mapping
from typing import Any

SPREAD = "(p50 / p99 / max)"
HEAD = (
    "actor", "lease ms", "n", f"killed: denied ms {SPREAD}", "killed: successor's lease ms",
    "stopped: denied ms", "stopped: successor's lease ms",
)  # fmt: skip
GOALS_HEAD = ("goal", "verdict", "figures")
WHOLE_HEAD = ("what", "figure")
VERDICTS = {True: "reached", False: "not reached", None: "not measured"}


def actor_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one line per actor under ``HEAD``."""
    return [
        (
            name, str(one["lease_ms"]), str(one["killed"]["n"]),
            *(
                spread_text(one[what][figure])
                for what in ("killed", "stopped")
                for figure in ("denied_ms", "back_ms")
            ),
        )
        for name, one in result["actors"].items()
    ]  # fmt: skip


def whole_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is told of the tree as a whole under ``WHOLE_HEAD``."""
    root, memory, quiet, bare = (result[name] for name in ("root", "memory", "quiet", "references"))
    denied = ", ".join(f"{name} {count}" for name, count in quiet["denied"].items())
    members = ", ".join(f"{name} {size:.0f}" for name, size in memory["members_mb"].items())
    others = ", ".join(f"{n} {memory[f'{n}_mb']:.0f}" for n in ("venue", "strategies", "launcher"))
    return [
        ("command to armed gate", f"{result['armed_s']} s"),
        ("root stopped, to the first denial", f"{root['hung_denied_ms']:.0f} ms"),
        ("root continued, to an open gate", f"{root['hung_open_again_ms']:.0f} ms"),
        ("kill -9 of the root, to the first denial", f"{root['killed_denied_ms']:.0f} ms"),
        ("kill -9 of the root, to no process of the tree left", f"{root['gone_ms']:.0f} ms"),
        ("next start on the surviving venue, to armed gate", f"{result['armed_again_s']} s"),
        ("log verified after all of it", str(result["verified"])),
        ("memory of the tree, proportional", f"{memory['tree_mb']:.0f} MB ({members})"),
        ("memory beside the tree", f"{others} MB"),
        (f"denied in {quiet['seconds']:g} s without a fault",
         f"{denied or '0'} of {quiet['asked']} asked"),
        ("reference: a bare interpreter's start",
         f"{spread_text(bare['interpreter_start_ms'])} ms"),
        ("reference: a killed child, to its parent's pidfd",
         f"{spread_text(bare['death_told_ms'])} ms"),
        ("machine", f"{result['cores']} cores, load average {result['load_average']}"),
    ]  # fmt: skip


def goal_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return one line for each goal under ``GOALS_HEAD``."""
    return [(goal["goal"], VERDICTS[goal["reached"]], goal["figures"]) for goal in result["goals"]]


def markdown(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the Markdown lines of a section about the tree, without its heading."""
    command = " ".join(result["command"])
    yield f"On `tripgate {command}`:\n"
    for head, rows in (
        (HEAD, actor_rows(result)), (WHOLE_HEAD, whole_rows(result)),
        (GOALS_HEAD, goal_rows(result)),
    ):  # fmt: skip
        yield table(head, rows)


def table(head: tuple[str, ...], rows: list[Any]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def spread_text(spread: Mapping[str, float]) -> str:
    """Return middle, 99 % and largest as one text."""
    if not spread:
        return "-"
    return " / ".join(
        f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in spread.values()
    )
