"""Whether an instance enforces or only watches: fixed when it is first started, for ever.

The mode stands in the state folder, written before the first page is made. A restart in the other
mode is refused rather than obeyed: an instance that enforces holds latches, books and perhaps
positions, and one word on a command line must not be what stands between them and a gate that
denies nothing. The other way round is refused too, because the positions of a shadow run were
never held to any limit.

Gate effect of a refusal: nothing is started, and a page that exists stays as it is.
"""

from pathlib import Path

from tripgate.config.structs import Config
from tripgate.durable import write_durably
from tripgate.errors import ConfigError, StateUnwritableError, UsageError

MODE_FILE = "mode"
EPOCH_FILE = "epoch"
SHADOW, ENFORCING = "shadow", "enforcing"


def mode_of(state: Path) -> str | None:
    """Return the mode an instance was started in, None if it never was.

    Raises
    ------
    StateUnwritableError
        The file is damaged: to guess could open a gate that has to deny.
    """
    try:
        text = (state / MODE_FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        # Instances that ran before there were shadow pages enforced.
        return ENFORCING if (state / EPOCH_FILE).exists() else None
    except (OSError, UnicodeDecodeError):
        text = ""
    if text not in (SHADOW, ENFORCING):
        raise StateUnwritableError(
            f"{state / MODE_FILE} is damaged: move the state folder aside and start a new instance"
        )
    return text


def require_mode(state: Path, *, shadow: bool) -> None:
    """Raise ``UsageError`` if the instance was started in the other mode."""
    wanted, found = SHADOW if shadow else ENFORCING, mode_of(state)
    if found is not None and found != wanted:
        raise UsageError(
            f"instance {state.name!r} was started in {found} mode and stays so: "
            f"choose another --instance for a run in {wanted} mode"
        )


def fix_mode(state: Path, *, shadow: bool) -> None:
    """Fix the mode of an instance durably (its owner only, before a page is made)."""
    require_mode(state, shadow=shadow)
    if not (state / MODE_FILE).exists():
        write_durably(state / MODE_FILE, f"{SHADOW if shadow else ENFORCING}\n".encode("ascii"))


def require_simulated(config: Config) -> None:
    """Raise ``ConfigError`` if a venue is real: a gate that denies nothing must not face money."""
    real = [name for name, venue in config.venues.items() if venue.kind != "simulated"]
    if real:
        raise ConfigError(
            *(
                f"venues.{name}: a shadow page denies nothing, so it is for venues of kind "
                '"simulated" only: leave out --shadow, or take a simulated venue'
                for name in real
            )
        )
