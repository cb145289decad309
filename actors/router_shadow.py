"""The last door of a shadow run: a page that denies nothing must not meet a real venue."""

from actors.service import Service
from tripgate.config.reader import parse_config
from tripgate.errors import ConfigError


def require_simulated_if_shadow(service: Service) -> None:
    """Refuse to send for a page that denies nothing, unless the venue is simulated.

    Raises
    ------
    ConfigError
        The venue is real. The root refuses such a run before it makes a page; this is the last
        door, where the orders leave.
    """
    config = parse_config(service.settings["config_text"], service.settings["config_name"])
    if service.header["shadow"] and config.venues[service.venue].kind != "simulated":
        raise ConfigError(
            f"venues.{service.venue}: this is a shadow page, which denies nothing, and the venue "
            "is not simulated: its router does not start"
        )
