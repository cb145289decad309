"""The one function that a tree may call in its children.

The module holds nothing else that is asynchronous: any coroutine of an enabled module could be
called by whoever reaches the port, so the list of what can be called is this file.
"""

import importlib
from typing import Any

from actors import control, runtime, service

ACTORS = (
    "audit_writer",
    "breaker",
    "market_feed",
    "position_keeper",
    "router",
)
"""Actors that this release can start; a name is also the module's."""


@runtime.actor_context
async def serve(
    ctx: runtime.Context,
    actor: str,
    venue: str,
    folder: str,
    incarnation: int,
    settings: dict[str, Any],
) -> None:
    """Run one actor until it is told to stop, is cancelled or fails."""
    if actor not in ACTORS:
        raise ValueError(f"no actor is called {actor!r}")
    module = importlib.import_module(f"actors.{actor}")
    place = service.attach(folder, actor, venue, incarnation, settings, ctx.started)
    try:
        await control.run_actor(ctx, place, module.run)
    finally:
        place.close()
