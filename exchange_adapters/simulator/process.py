"""Entry point of the simulated venue: ``python -m exchange_adapters.simulator.process``.

It is a process of its own, outside the tree, because an exchange survives the death of its clients:
its books must stand when every one of ours is gone. It ends by ``shutdown``, SIGTERM or SIGINT, or
after ten minutes without a connection. Then its account ends with it, unless ``--book`` names the
file that keeps it for the next start. When it listens it prints one line of JSON,
``{"ready": true, ...}``; everything for people goes to stderr.

Invariants: E1 exit code 0 means that the book holds everything that was ever answered; E2 the
socket file goes after the book is written.
"""

import argparse
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import trio

from exchange_adapters.market.feed import open_feed
from exchange_adapters.simulator.book import Book, BookError
from exchange_adapters.simulator.book_file import BookFile
from exchange_adapters.simulator.instruments import load_instruments
from exchange_adapters.simulator.restore import book_of
from exchange_adapters.simulator.server import VenueServer, inode_of, open_listener, remove_socket
from exchange_adapters.simulator.venue import SimulatedVenue
from tripgate.errors import DataError, TripgateError, UsageError
from tripgate.units import limit_money, money_text, to_decimal

IDLE_EXIT_S = 600.0
"""Seconds without a connection after which an orphaned venue ends."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; a wrong one ends the process with exit code 2 and its reason."""
    parser = argparse.ArgumentParser(
        prog="python -m exchange_adapters.simulator.process",
        description="Simulated venue: one account, a recorded or generated market, a local socket.",
    )
    add = parser.add_argument
    add("--socket", type=Path, required=True, help="path of the Unix socket (made with mode 0600)")
    add("--feed", required=True, help="generator:NAME or replay:DIR")
    add("--from", dest="start", help="first instant, ISO 8601, UTC (replay)")
    add("--to", dest="stop", help="first instant left out, ISO 8601, UTC (replay)")
    add("--seed", type=int, default=0, help="seed of the generator (default 0)")
    add("--symbols", help="comma-separated unified symbols (default: all of the feed)")
    add("--equity", required=True, help="starting equity in the reporting currency")
    add("--book", type=Path, help="file that keeps the account from one orderly end to the next")
    add(
        "--idle-exit-s",
        type=float,
        default=IDLE_EXIT_S,
        help=f"seconds without a connection until it ends (default {IDLE_EXIT_S:.0f})",
    )
    return parser.parse_args(arguments)


def starting_equity(text: str) -> int:
    """Return the starting equity in money units. Raises ``UsageError`` unless it is positive."""
    try:
        amount = to_decimal(text)
        if amount <= Decimal(0) or not (amount_money := limit_money(amount)):
            raise ValueError("must be above zero")
    except ValueError as error:
        raise UsageError(f"--equity {text}: {error}; give an amount such as 100000") from None
    return amount_money


def open_venue(options: argparse.Namespace, book: Book | None) -> SimulatedVenue:
    """Return the venue that the options describe, at its first step, with the book's account."""
    if not 0 < options.idle_exit_s < float("inf"):
        raise UsageError("--idle-exit-s must be a number of seconds above zero")
    equity_money = starting_equity(options.equity)
    symbols = None
    if options.symbols is not None:
        symbols = [name.strip() for name in options.symbols.split(",") if name.strip()]
        if not symbols:
            raise UsageError("--symbols names no symbol: leave it out to trade all of the feed")
    feed = open_feed(
        options.feed, seed=options.seed, start=options.start, stop=options.stop, symbols=symbols
    )
    return SimulatedVenue(
        feed,
        load_instruments(feed.symbols),
        feed_spec=options.feed,
        seed=options.seed,
        starting_equity_money=equity_money,
        book=book,
    )


async def serve(
    venue: SimulatedVenue, path: Path, *, idle_exit_s: float, at_end: Callable[[], None]
) -> None:
    """Serve ``venue`` on ``path`` until its orderly end, and call ``at_end`` when all is answered.

    The socket file is removed on the way out.
    """
    server = VenueServer(venue, idle_exit_s=idle_exit_s)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        listener = await open_listener(path)
        own_inode = inode_of(path)
        try:
            async with trio.open_nursery() as nursery:

                async def stop_on_signal() -> None:
                    async for _ in signals:
                        server.stop()

                nursery.start_soon(stop_on_signal)
                print(json.dumps({"ready": True, "socket": str(path), "pid": os.getpid()}))
                sys.stdout.flush()
                await server.serve(listener)
                # In a thread and before the signals' reader ends: a second SIGTERM meanwhile must
                # neither break it off nor stay in the queue to end the process afterwards.
                await trio.to_thread.run_sync(at_end)
                nursery.cancel_scope.cancel()
        finally:
            # A successor may have replaced the file already: remove only our own.
            if inode_of(path) == own_inode:
                remove_socket(path)


def run(options: argparse.Namespace, book_file: BookFile | None) -> None:
    """Serve the venue until its orderly end; go on from the book and write it, if there is one."""
    book = None if book_file is None else book_file.read()
    venue = open_venue(options, book)
    if book is not None and starting_equity(options.equity) != book.starting_equity_money:
        began = money_text(book.starting_equity_money)
        print(
            f"venue: the book {options.book} began with {began}; --equity {options.equity} "
            "is not used",
            file=sys.stderr,
        )

    def keep() -> None:
        if book_file is not None:
            book_file.write(book_of(venue.engine))

    serve_until_end = functools.partial(
        serve, venue, options.socket, idle_exit_s=options.idle_exit_s, at_end=keep
    )
    trio.run(serve_until_end)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the venue and return its exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.book is None:
            run(options, None)
        else:
            with BookFile(options.book) as book_file:
                try:
                    run(options, book_file)
                except BookError as error:
                    raise DataError(
                        f"{options.book} {error}; it was left as it is: use another instance, or "
                        "move the file away to begin a new account"
                    ) from None
    except TripgateError as error:
        print(f"venue: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
