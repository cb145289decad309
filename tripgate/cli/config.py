"""``tripgate config``: check, show and describe the configuration."""

from pathlib import Path

from tripgate.cli.output import write_json, write_line, write_table
from tripgate.config.reader import LoadedConfig, load_config
from tripgate.config.reference import schema_text
from tripgate.config.shape import leaves, path_text, plain
from tripgate.errors import ConfigError

DEFAULT_FILE = Path("tripgate.toml")


def check(file: Path = DEFAULT_FILE, *, json: bool = False) -> int:
    """Check a configuration file and report every problem at once.

    Parameters
    ----------
    file
        The file to check.
    json
        Print one JSON object instead of text.
    """
    try:
        loaded = load_config(file)
    except ConfigError as error:
        if not json:
            raise
        write_json({"file": str(file), "ok": False, "problems": list(error.problems)})
        return error.exit_code
    if json:
        write_json({"file": str(file), "ok": True, "problems": [], **_hashes(loaded)})
        return 0
    config = loaded.config
    counts = (
        _count(len(config.venues), "venue", "venues"),
        _count(len(config.instruments), "instrument", "instruments"),
        _count(len(config.strategies), "strategy", "strategies"),
    )
    write_line(f"{file}: correct: {', '.join(counts)}, configuration {loaded.config_sha256[:12]}")
    return 0


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _hashes(loaded: LoadedConfig) -> dict[str, str]:
    return {"text_sha256": loaded.text_sha256, "config_sha256": loaded.config_sha256}


def schema() -> int:
    """Print the JSON schema of tripgate.toml (for editors)."""
    write_line(schema_text().rstrip("\n"))
    return 0


def show(file: Path = DEFAULT_FILE, *, origin: bool = False, json: bool = False) -> int:
    """Print the configuration in effect, defaults and overrides included; secrets as ***.

    Parameters
    ----------
    file
        The file to read.
    origin
        Say of each value whether it comes from the file, the environment or a default.
    json
        Print one JSON object instead of text.
    """
    loaded = load_config(file)
    if json:
        result: dict[str, object] = {"file": str(file), "config": plain(loaded.config)}
        if origin:
            result["origins"] = dict(loaded.origins)
        write_json({**result, **_hashes(loaded)})
        return 0
    rows = []
    for path, field, value in leaves(loaded.config):
        key, text = path_text(path), _text(field.leaf_rule.plain(value))
        rows.append((key, text, loaded.origins[key]) if origin else (key, text))
    write_table(("key", "value", "origin") if origin else ("key", "value"), rows)
    return 0


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value) if value else "(empty)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "(absent)" if value is None else str(value)
