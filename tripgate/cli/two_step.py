"""Two-step confirmation: a code that acts once, soon, and only on the state it was shown for.

What loosens the gate is first said and then done. The code is bound to everything the operator was
shown (the facts); if any of it has changed meanwhile, the operator decided on another state, and
nothing happens. The trip generation is no fact: it rises with every fall of equity too, and the
levels, factors and version of the limits say what an operator decides on.

Invariant: S1 one code acts at most once, because it is removed before anything is written.
"""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tripgate.cli.halt import Target
from tripgate.cli.output import write_line
from tripgate.clock import NS_PER_S, boot_ns
from tripgate.durable import FileLock, write_durably
from tripgate.errors import DeadlineError, UsageError
from tripgate.instance import CROCKFORD
from tripgate.page.layout import LIMIT
from tripgate.page.level import LevelWriter, writer_level
from tripgate.page.mapping import Page
from tripgate.reasons import Level
from tripgate.units import PPM

CODE_LENGTH = 6
CODE_LIFE_S = 60
AGAIN = "ask again without --confirm"


def state_facts(page: Page) -> dict[str, Any]:
    """Return what any code is bound to: run, version of the limits, levels by writer, factors."""
    factors = page.rows(LIMIT)["factor_ppm"]
    return {
        "epoch": page.epoch,
        "limits_version": int(page.header["limits_version"]),
        "factors": {
            scope: int(factors[node])
            for node, scope in enumerate(page.names.scopes)
            if int(factors[node]) != PPM
        },
        "levels": {
            name: {
                writer.name.lower(): level.name
                for writer in LevelWriter
                if (level := writer_level(page, node, writer)) > Level.NORMAL
            }
            for node, name in enumerate(page.names.scopes)
        },
    }


def what_changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text per fact that differs."""
    changes = [
        f"{name}: {then.get(name)!r} then, {value!r} now"
        for name, value in now.items()
        if name != "levels" and then.get(name) != value
    ]
    old, new = then.get("levels") or {}, now.get("levels") or {}
    changes += [
        f"level of {scope}: {_held_text(old.get(scope))} then, {_held_text(new.get(scope))} now"
        for scope in sorted(set(old) | set(new))
        if old.get(scope) != new.get(scope)
    ]
    return changes


def _held_text(held: Mapping[str, str] | None) -> str:
    if held is None:
        return "absent"
    return " ".join(f"{level} by {writer}" for writer, level in held.items()) or "NORMAL"


def offer_code(path: Path, facts: Mapping[str, Any]) -> str:
    """Write a fresh code for ``facts`` durably (an earlier one ends with that) and return it."""
    code = "".join(secrets.choice(CROCKFORD) for _ in range(CODE_LENGTH))
    pending = {"code": code, "made_boot_ns": boot_ns(), "facts": facts}
    write_durably(path, json.dumps(pending).encode())
    return code


def write_code(code: str) -> None:
    """Print a code and how to use it."""
    write_line(f"code {code}, valid for {CODE_LIFE_S} s: repeat the command with")
    write_line(f"  --confirm {code}")


def acquire(target: Target) -> FileLock:
    """Return the operators' lock, held. Raises ``DeadlineError`` while another command has it."""
    lock = target.lock
    if not lock.acquire():
        raise DeadlineError("another operator's command is at work: try again in a moment")
    return lock


def take_code(path: Path, facts: Mapping[str, Any], code: str) -> None:
    """Use the pending code up. Raises ``UsageError`` where it may not act, with what changed."""
    pending = _read_pending(path)
    if pending is None:
        raise UsageError(f"no code is pending (each acts once): {AGAIN}")
    if not secrets.compare_digest(str(pending["code"]).encode(), code.strip().upper().encode()):
        raise UsageError(f"{code!r} is not the code that was given last: check it, or {AGAIN}")
    path.unlink()
    age_ns = boot_ns() - int(pending["made_boot_ns"])
    if not 0 <= age_ns <= CODE_LIFE_S * NS_PER_S:
        raise UsageError(f"the code has expired (it lives {CODE_LIFE_S} s): {AGAIN}")
    changes = what_changed(pending["facts"], facts)
    if changes:
        raise UsageError(
            "the state is not the one that the code was given for; nothing was done:\n"
            + "\n".join(f"  {text}" for text in changes)
            + f"\n{AGAIN}"
        )


def _read_pending(path: Path) -> dict[str, Any] | None:
    try:
        pending = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(pending, dict) and {"code", "made_boot_ns", "facts"} <= pending.keys()
    return pending if whole and isinstance(pending["facts"], dict) else None
