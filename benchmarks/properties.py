"""How many cases the property tests of the promises try, counted by running them.

The tests are no part of an installation; where they are missing the figure says so. What is counted
is what the test runner and hypothesis report: tests that passed, and examples that were tried.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tripgate.errors import TripgateError

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = "tests/property"
WORDS = ("-m", "pytest", FOLDER, "-v", "--hypothesis-show-statistics", "-p", "no:cacheprovider")
COMMAND = f"python {' '.join(WORDS)}"
BOUND_S = 1_800.0

_PASSED = re.compile(r"^\S+::(test_\w+)\S* PASSED")
_STATISTICS = re.compile(r"^\S+::(test_\w+)[^:]*:$")
_EXAMPLES = re.compile(r"(\d+) passing")
_PROMISE = re.compile(r"(P\d+)(?=_)")


def count_properties() -> dict[str, Any]:
    """Run the property tests (minutes) and return what they tried, by promise.

    Raises
    ------
    TripgateError
        The tests are not here, or one of them failed.
    """
    if not (CHECKOUT / FOLDER).is_dir():
        raise TripgateError("the tests are not part of an installation: run it in a checkout")
    done = subprocess.run(
        [sys.executable, *WORDS], cwd=CHECKOUT, capture_output=True, text=True, timeout=BOUND_S,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    if done.returncode:
        raise TripgateError(f"a property test failed: run {COMMAND}")
    return read_counts(done.stdout)


def read_counts(text: str) -> dict[str, Any]:
    """Return tests and examples by promise from the runner's words.

    A test that carries several promises counts for each of them, and once in the whole.
    """
    tests: Counter[str] = Counter()
    examples: Counter[str] = Counter()
    current = ""
    for line in text.splitlines():
        if found := _PASSED.match(line):
            tests.update(["all", *_promises(found[1])])
        elif found := _STATISTICS.match(line):
            current = found[1]
        elif current and (found := _EXAMPLES.search(line)):
            for name in ("all", *_promises(current)):
                examples[name] += int(found[1])
    promises = sorted((name for name in tests if name != "all"), key=lambda name: int(name[1:]))
    return {
        "tests": tests["all"],
        "examples": examples["all"],
        "promises": {name: {"tests": tests[name], "examples": examples[name]} for name in promises},
    }


def _promises(test: str) -> list[str]:
    head = re.match(r"test((?:_P\d+)+)_", test)
    return _PROMISE.findall(head[1] + "_") if head else []
