"""The one function that a death drill's tree may call in its children (see ``actors.entry``)."""

from typing import Any

from actors import runtime, service
from chaos.deaths import life


@runtime.actor_context
async def serve(
    ctx: runtime.Context,
    actor: str,
    venue: str,
    folder: str,
    incarnation: int,
    settings: dict[str, Any],
) -> None:
    """Live as a victim until the order comes."""
    place = service.attach(folder, actor, venue, incarnation, settings, ctx.started)
    try:
        await life.live(place, ctx)
    finally:
        place.close()
