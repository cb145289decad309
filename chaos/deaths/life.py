"""A victim's life: renew the lease, stream frames to the root if asked, and die on order."""

import threading
from typing import Any

import trio

from actors.runtime import Context
from actors.service import Service
from chaos.deaths.fates import BY_NUMBER, Fate, meet
from chaos.deaths.ground import Word, open_orders
from tripgate.clock import host_ns, sleep_s

TURN_S = 0.01
FRAME_BYTES = 20_000


async def live(place: Service, context: Context) -> None:
    """Live until ordered otherwise; returns where the ordered fate is to return."""
    words = open_orders(place.page.folder)[place.role]
    if fate := _take(words, Word.NEXT_FATE):
        meet(fate)
    await place.ready()
    if place.settings["heartbeats"]:
        threading.Thread(target=_beat, args=(place,), name="heartbeats", daemon=True).start()
    async with trio.open_nursery() as nursery:
        if every_ms := int(place.settings["frame_every_ms"]):
            nursery.start_soon(_stream, context, words, every_ms / 1_000)
        try:
            while True:
                place.lease.renew(host_ns())
                if fate := _take(words, Word.FATE):
                    meet(fate)
                    break
                await trio.sleep(TURN_S)
        finally:
            # From here on nobody renews, whatever has ended the loop.
            words[Word.EVENT_NS] = words[Word.EVENT_NS] or host_ns()
        nursery.cancel_scope.cancel()


def _beat(place: Service) -> None:
    """Renew the lease from a thread, whatever the loop does: a planted bug, never the product's."""
    while True:
        place.lease.renew(host_ns())
        sleep_s(TURN_S)


def _take(words: Any, word: Word) -> Fate | None:
    """Return the ordered fate and stamp the moment, once."""
    number = int(words[word])
    if not number:
        return None
    words[word] = 0
    words[Word.EVENT_NS] = host_ns()
    return BY_NUMBER[number]


async def _stream(context: Context, words: Any, every_s: float) -> None:
    """Send frames to the root for ever; it discards them, as it would a stream nobody reads."""
    frame = b"\x00" * FRAME_BYTES
    async with context.open_stream() as stream:
        while True:
            await stream.send(frame)
            words[Word.FRAMES] += 1
            await trio.sleep(every_s)
