"""Results of the death drills as tables and sentences: for the terminal and for the documents."""

from collections.abc import Iterator, Mapping
from typing import Any

SPREAD = "(p50 / p99 / max)"
FATES_HEAD = (
    "fate", "what", "n", f"first denial ms {SPREAD}", f"lease zero ms {SPREAD}",
    f"successor trades ms {SPREAD}", "code", "reason on record",
)  # fmt: skip
ROOTS_HEAD = ("what", "n", f"openings denied ms {SPREAD}", f"tree gone ms {SPREAD}", "after it")
HEADS = {"matrix": FATES_HEAD, "soak": FATES_HEAD, "roots": ROOTS_HEAD}
REASON_CHARACTERS_MAX = 60
VIOLATIONS_SHOWN = 20


def rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of a result under its head."""
    if result["kind"] == "roots":
        return [
            (one["says"], str(one["n"]), spread_text(one["denied_ms"]),
             spread_text(one["gone_ms"]), one["after"])
            for one in result["rows"].values()
        ]  # fmt: skip
    return [
        (name, one["says"], str(one["n"]), spread_text(one["denied_ms"]),
         spread_text(one["zeroed_ms"]), spread_text(one["back_ms"]), str(one["code"]),
         str(one["reason"])[:REASON_CHARACTERS_MAX])
        for name, one in result["fates"].items()
    ]  # fmt: skip


def spread_text(spread: Mapping[str, float]) -> str:
    """Return middle, 99 % and largest as one text."""
    if not spread:
        return "-"
    return " / ".join(
        f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in spread.values()
    )


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was counted, a sentence each, and the violations."""
    if result["kind"] != "roots":
        yield (
            f"{result['dealt']} deaths dealt, {result['recorded']} on record; "
            f"{result['approvals']} openings approved meanwhile; looked every "
            f"{spread_text(result['turn_ms'])} ms {SPREAD}; lease {result['lease_ms']} ms"
        )
        yield (
            f"bystanders: {result['false_denials']} of {result['asked']} openings denied (their "
            f"lease was renewed late), {result['slow_starts']} starts given up as too slow"
        )
    if result.get("frames"):
        yield f"{result['frames']} frames of 20 kB streamed to the root"
    if escalation := result.get("escalation"):
        yield (
            f"brittle victim: {escalation['deaths']} deaths, its scope closed after "
            f"{escalation['closed_ms']} ms, tried again after {escalation['retried_s']} s"
        )
    yield (
        f"load average {result['load_average']}, {result['elapsed_s']} s; left processes: "
        f"{len(result['left'])}; violations: {len(result['violations'])}"
    )
    yield from result["violations"][:VIOLATIONS_SHOWN]
