"""The file in which a simulated venue's account outlives the venue.

One venue holds a book at a time, by a lock beside it: of two that went on from the same account the
later writer would undo the other's trades. The file is only read at the start and only written at
an orderly end; a venue that is killed leaves the account as it was before its start.

Invariants: F1 after a crash the file holds its old or its new book, whole; F2 a file that cannot be
read as a book is never overwritten.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from exchange_adapters.simulator.book import Book, BookError, decode_book, encode_book
from tripgate.durable import FileLock, write_durably
from tripgate.errors import AlreadyRunningError, UsageError

BOOK_BYTES_MAX = 2**29
"""Twice what the orders and fills of a whole account's life can take."""


class BookFile:
    """A book's file, held from entering the block to leaving it.

    Raises
    ------
    UsageError
        At once: the path names no file.
    AlreadyRunningError
        On entering: another venue holds it.
    StateUnwritableError
        On entering: its folder is missing or not writable.
    """

    def __init__(self, path: Path) -> None:
        if not path.name:
            raise UsageError("--book names no file: give a path such as venue-book.json")
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"), is_removed=True)

    def __enter__(self) -> Self:
        """Take the lock."""
        if not self._lock.acquire():
            owner = f" (process {self._lock.owner})" if self._lock.owner else ""
            raise AlreadyRunningError(
                f"another venue{owner} holds the book {self.path}: end it, or name another --book"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        self._lock.release()

    def read(self) -> Book | None:
        """Return the book, or ``None`` if there is no file.

        Raises
        ------
        BookError
            What stands there is no whole book of this schema, or cannot be read.
        """
        try:
            size_bytes = self.path.stat().st_size
            # A pipe or a device would be waited for without end.
            if not self.path.is_file() or size_bytes > BOOK_BYTES_MAX:
                raise BookError("is no book of the simulated venue")
            return decode_book(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BookError(f"cannot be read ({error.strerror})") from None

    def write(self, book: Book) -> None:
        """Replace the file. Raises ``StateUnwritableError``; then the old book stands."""
        write_durably(self.path, encode_book(book))
