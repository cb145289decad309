"""Run all tests with branch coverage, the kernels a second time interpreted; fail under 95 %.

The coverage tool cannot see into compiled kernels, so those tests that carry the marker
``kernels`` run again with numba switched off, and both measurements are combined. Subprocesses
(actors, strategies, the simulated venue) are measured too: see [tool.coverage] in pyproject.toml.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = "2"


def run(title: str, *arguments: str, **environment: str) -> None:
    """Run ``python -m arguments``; end with its exit code if that is not 0."""
    sys.stdout.write(f"\n== {title}\n")
    sys.stdout.flush()
    # An absolute data file, because children run in folders of their own.
    full = {**os.environ, "COVERAGE_FILE": str(ROOT / ".coverage"), **environment}
    code = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=full).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Erase, measure twice, combine, report."""
    run("forget the last measurement", "coverage", "erase")
    # By module, so that tests of one module share the runs that its fixtures start; in the order
    # of the folders, which puts the long ones (chaos, tree) first: else they come last, one by one.
    parallel = ("-n", WORKERS, "--dist", "loadscope", "--no-loadscope-reorder", "--durations", "25")
    run("all tests", "coverage", "run", "-m", "pytest", "-q", *parallel)
    kernels = ("-m", "kernels and not jit_only")
    run(
        "the kernels, interpreted",
        *("coverage", "run", "-m", "pytest", "-q", *kernels),
        NUMBA_DISABLE_JIT="1",
    )
    run("combine", "coverage", "combine", "--quiet")
    run("branch coverage", "coverage", "report")


if __name__ == "__main__":
    main()
