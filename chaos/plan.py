"""A chaos plan: what should hold, which faults strike when, and how it heals.

A plan is an explicit sorted list of faults and not a set of rates: so it can be replayed to the
bit, shrunk by leaving faults out, and kept as a short file when it has found a bug. Times count
from the start of the run, in market time for the simulation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.faults import FAULTS
from tripgate.errors import ConfigError

SCHEMA = 1
FAULTS_MAX = 1_000
"""Faults in one plan: far beyond any plan that a person can still read."""

TIME_MS_MAX = 7 * 86_400_000
"""Longest plan: one week."""


@dataclass(frozen=True, slots=True)
class FaultAt:
    """One fault: at ``time_ms`` after the start, ``fault`` strikes ``target``."""

    time_ms: int
    fault: str
    target: str
    arguments: Mapping[str, int] = field(default_factory=dict)

    def sort_key(self) -> tuple[int, str, str, str]:
        """Return the order of faults in a plan: time first, then names, so that it is total."""
        return self.time_ms, self.fault, self.target, json.dumps(self.arguments, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of chaos.

    Attributes
    ----------
    seed
        Everything random in the run is drawn from it: market, strategy, venue.
    hypothesis
        Names of the invariants that must hold; empty means all of them.
    faults
        Sorted by time; none strikes at or after ``heal_ms``.
    heal_ms
        From here on no fault strikes, the operator resumes, and the run must converge.
    end_ms
        End of the run.
    """

    title: str
    seed: int
    hypothesis: tuple[str, ...]
    faults: tuple[FaultAt, ...]
    heal_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be run as it is written, with all its problems at once."""
        problems = _problems(self)
        if problems:
            raise ConfigError(*problems)


def _problems(plan: Plan) -> list[str]:
    problems = []
    if not 0 < plan.heal_ms < plan.end_ms <= TIME_MS_MAX:
        problems.append(
            f"heal_ms, end_ms: expected 0 < heal_ms < end_ms <= {TIME_MS_MAX}, "
            f"was {plan.heal_ms}, {plan.end_ms}"
        )
    if len(plan.faults) > FAULTS_MAX:
        problems.append(f"faults: at most {FAULTS_MAX}, was {len(plan.faults)}: split the plan")
    if list(plan.faults) != sorted(plan.faults, key=FaultAt.sort_key):
        problems.append("faults: sort them by time_ms, fault, target")
    for number, fault in enumerate(plan.faults):
        if fault.fault not in FAULTS:
            problems.append(f"faults[{number}].fault: {fault.fault!r} is none of {sorted(FAULTS)}")
        if not 0 <= fault.time_ms < plan.heal_ms:
            problems.append(
                f"faults[{number}].time_ms: expected 0 .. heal_ms ({plan.heal_ms}), "
                f"was {fault.time_ms}"
            )
        problems.extend(
            f"faults[{number}].arguments.{name}: expected 0 or more, was {value}"
            for name, value in fault.arguments.items()
            if value < 0
        )
    return problems


def as_document(plan: Plan) -> dict[str, object]:
    """Return the plan as JSON values."""
    return {
        "schema": SCHEMA,
        "title": plan.title,
        "seed": plan.seed,
        "hypothesis": list(plan.hypothesis),
        "faults": [
            {
                "time_ms": fault.time_ms,
                "fault": fault.fault,
                "target": fault.target,
                "arguments": dict(fault.arguments),
            }
            for fault in plan.faults
        ],
        "heal_ms": plan.heal_ms,
        "end_ms": plan.end_ms,
    }


def to_json(plan: Plan) -> str:
    """Return the plan as JSON text, the same text for the same plan."""
    return json.dumps(as_document(plan), indent=2, sort_keys=True) + "\n"


def from_json(text: str, name: str = "plan") -> Plan:
    """Return the plan written in ``text``.

    Raises
    ------
    ConfigError
        It is no JSON, or fields are missing, unknown, of the wrong type or contradictory; each
        problem is one line that begins with ``name``.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name}: not JSON: {error}") from None
    problems: list[str] = []
    fields = _fields(document, _PLAN_FIELDS, name, problems)
    faults = []
    for number, item in enumerate(fields.get("faults", [])):
        place = f"{name}: faults[{number}]"
        entry = _fields(item, _FAULT_FIELDS, place, problems)
        arguments = entry.get("arguments", {})
        problems.extend(
            f"{place}.arguments.{key}: expected a whole number, was {value!r}"
            for key, value in arguments.items()
            if type(value) is not int
        )
        if len(entry) == len(_FAULT_FIELDS):
            faults.append(FaultAt(**entry))
    if "schema" in fields and fields["schema"] != SCHEMA:
        problems.append(f"{name}: schema: this release reads {SCHEMA}, was {fields['schema']}")
    hypothesis = fields.get("hypothesis", [])
    if not all(isinstance(item, str) for item in hypothesis):
        problems.append(f"{name}: hypothesis: expected names of invariants, was {hypothesis!r}")
    if problems:
        raise ConfigError(*problems)
    try:
        return Plan(
            title=fields["title"],
            seed=fields["seed"],
            hypothesis=tuple(hypothesis),
            faults=tuple(faults),
            heal_ms=fields["heal_ms"],
            end_ms=fields["end_ms"],
        )
    except ConfigError as error:
        raise ConfigError(*(f"{name}: {problem}" for problem in error.problems)) from None


def read_plan(path: Path) -> Plan:
    """Return the plan in a file; raises ``ConfigError`` where it cannot be read or is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return from_json(text, str(path))


_PLAN_FIELDS: Mapping[str, type] = {
    "schema": int,
    "title": str,
    "seed": int,
    "hypothesis": list,
    "faults": list,
    "heal_ms": int,
    "end_ms": int,
}

_FAULT_FIELDS: Mapping[str, type] = {"time_ms": int, "fault": str, "target": str, "arguments": dict}


def _fields(
    document: object, expected: Mapping[str, type], place: str, problems: list[str]
) -> dict[str, Any]:
    """Return the fields that are present and of the right type; report all others."""
    if not isinstance(document, dict):
        problems.append(f"{place}: expected an object, was {type(document).__name__}")
        return {}
    problems.extend(
        f"{place}: unknown field {name!r}: known are {sorted(expected)}"
        for name in document
        if name not in expected
    )
    good: dict[str, Any] = {}
    for name, kind in expected.items():
        if name not in document:
            problems.append(f"{place}: {name} is missing")
        elif type(document[name]) is not kind:
            problems.append(f"{place}: {name}: expected {kind.__name__}, was {document[name]!r}")
        else:
            good[name] = document[name]
    return good
