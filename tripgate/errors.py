"""Exceptions, grouped by whose fault the failure is, each with the exit code a command ends with.

Denials are never exceptions: they are data (see ``reasons``). What stands here are faults, and
every class says what the gate does meanwhile. A message says what was wrong *and* what to do.
Anything that is not a ``TripgateError`` is a bug and crashes.
"""


class TripgateError(Exception):
    """Base of every expected failure. Gate effect: none by itself."""

    exit_code = 1


class UsageError(TripgateError):
    """The command or call was wrong. Gate effect: none; nothing was started or reserved."""

    exit_code = 2


class NotRunningError(TripgateError):
    """No live instance answers to the name. Gate effect: there is none, so nothing is granted."""

    exit_code = 3


class ConfigError(TripgateError):
    """A configuration or a part is missing or wrong. Gate effect: nothing was started.

    Parameters
    ----------
    problems
        One line per problem, each with its place; all of them are reported at once.
    """

    exit_code = 4

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class MissingPartError(ConfigError):
    """A needed package is not installed. The message names the command that installs it."""


class DeadlineError(TripgateError):
    """Something did not answer in time. Gate effect: what it was asked to loosen stays tight."""

    exit_code = 5


class AlreadyRunningError(TripgateError):
    """Another live tree owns the instance. Gate effect: the other tree's gate is untouched."""

    exit_code = 6


class StateUnwritableError(TripgateError):
    """The state folder has no space or is read-only. Gate effect: openings stop or never start."""

    exit_code = 7


class PageError(TripgateError):
    """The shared page is missing, foreign, truncated or of another version. Nothing is granted."""

    exit_code = 3


class PageMissingError(PageError):
    """There is no page file, or it cannot be opened. Gate effect: nothing is granted."""


class PageForeignError(PageError):
    """A page file is another user's, or others may open it. Gate effect: nothing is granted."""


class PageTruncatedError(PageError):
    """A page file has fewer bytes than its tables need. Gate effect: nothing is granted."""


class PageVersionError(PageError):
    """A page file is of another version, layout, or set of instruments. Nothing is granted."""


class PageDamagedError(PageError):
    """What stands in a page file cannot be true. Gate effect: nothing is granted."""


class PageReplacedError(PageError):
    """The two page files are of two runs: the page is being replaced. Nothing is granted yet."""


class VenueError(TripgateError):
    """The venue failed or answered nonsense. Gate effect: leases of that venue lapse."""


class VenueUnknownError(VenueError):
    """The fate of a request is unknown. Gate effect: its reservation is held until it is known."""


class DataError(TripgateError):
    """Market data is missing or malformed. Gate effect: nothing was started."""

    exit_code = 4


class ChainBrokenError(TripgateError):
    """The audit log does not verify. Gate effect: none on a live gate; the log is not believed."""

    exit_code = 30


class ReplayMismatchError(TripgateError):
    """What is on record does not follow from the records. Gate effect: none on a live gate."""

    exit_code = 31


class InvariantBroken(AssertionError):
    """A bug: a promise of the code does not hold. The process crashes and its lease lapses."""
