"""Write requirements.lock, requirements-build.lock and the constraints of pyproject.toml together.

    make lock              refresh the hashes, move nothing
    make lock UPGRADE=1    let transitive packages move to their newest release

Direct pins are edited by hand in pyproject.toml. The lock files hold names, versions and hashes
and nothing else (no marker: one set of versions serves Python 3.11 and 3.12 on x86-64 and arm64;
no address: the file works with any index). Needs uv, because only its resolver can look past the
URL in tractor's metadata; installing from the lock needs pip alone.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("engine", "build", "dev")
CONSTRAINTS = re.compile(r"^constraint-dependencies = \[\n(?:  .*\n)*\]$", re.MULTILINE)
ENTRY = re.compile(
    r"^(?P<pin>[A-Za-z0-9._-]+==[^ ;\\]+)[^\n]*(?P<hashes>(?:\n {4}--hash=.*)+)", re.M
)


def compile_lock(uv: str, folder: Path, groups: tuple[str, ...], source: str | None) -> str:
    """Resolve for every supported Python and machine at once; return uv's text."""
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-annotate", "--no-header"]
    command += [part for group in groups for part in ("--group", group)]
    command += [source] if source else []
    finished = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, check=False)
    if finished.returncode:
        sys.exit("pin: uv could not resolve the pins of pyproject.toml (its words stand above)")
    return finished.stdout


def entries(lock: str) -> dict[str, str]:
    """Return ``name==version`` to its entry, marker dropped, in the order of the lock."""
    return {match["pin"]: f"{match['pin']} \\{match['hashes']}\n" for match in ENTRY.finditer(lock)}


def main() -> None:
    """Resolve once, then write the three places from that one answer."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("pin: needs uv on the path: python3 -m pip install uv")
    project = ROOT / "pyproject.toml"
    text = project.read_text()
    if not CONSTRAINTS.search(text):
        sys.exit("pin: pyproject.toml has no constraint-dependencies list to write to")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        free = CONSTRAINTS.sub("constraint-dependencies = [\n]", text)
        (folder / "pyproject.toml").write_text(free if "--upgrade" in sys.argv else text)
        every = entries(compile_lock(uv, folder, GROUPS, "pyproject.toml"))
        build = entries(compile_lock(uv, folder, ("build",), None))
    (ROOT / "requirements.lock").write_text("".join(every.values()))
    (ROOT / "requirements-build.lock").write_text("".join(every[pin] for pin in build))
    pins = "".join(f'  "{pin}",\n' for pin in every)
    project.write_text(CONSTRAINTS.sub(f"constraint-dependencies = [\n{pins}]", text))
    sys.stdout.write(f"pin: {len(every)} packages locked, {len(build)} of them to build\n")


if __name__ == "__main__":
    main()
