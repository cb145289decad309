"""Which models there are, each with the variants that must hold and those that must be refuted.

A variant is a set of ``#define`` names that its model looks at. What must be refuted leaves out one
rule of the protocol; the sentence beside it says which.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to check a model.

    Attributes
    ----------
    defines
        Preprocessor names; empty is the model as it stands.
    holds
        Whether Spin must find no error; otherwise it must find a violated assertion.
    says
        What holds, or which rule is left out.
    """

    defines: tuple[str, ...]
    holds: bool
    says: str

    @property
    def name(self) -> str:
        """The variant's name: its defines, or ``model``."""
        return "+".join(self.defines) or "model"


@dataclass(frozen=True)
class Model:
    """One ``.pml`` file and its variants.

    Attributes
    ----------
    kills
        Whether processes of the model may be killed, and so rightly end in the middle; the model
        then asserts by itself that it comes to its end.
    """

    name: str
    says: str
    variants: tuple[Variant, ...]
    kills: bool = False


def _holds(says: str, *defines: str) -> Variant:
    return Variant(defines, True, says)


def _refuted(says: str, *defines: str) -> Variant:
    return Variant(defines, False, says)


LEASE_FENCE = Model(
    "lease_fence",
    "no order reaches the venue later than lease + window + skew after the last useful input",
    (
        _holds(
            "t_signed before the lease is read; the venue refuses what is older than its window"
        ),
        _holds("the same without the router's second look at the lease", "ONE_LOOK"),
        _refuted("signed after the only look", "SIGNED_AFTER_CHECK", "ONE_LOOK"),
        _refuted("signed at the send, after both looks", "SIGNED_AT_SEND"),
        _refuted("two looks, but no window at the venue", "NO_VENUE_WINDOW"),
        _refuted("a lease counted from its writing, not from before its input", "LEASE_FROM_WRITE"),
        _refuted("a bound one tick shorter: the bound is reached", "SHORTER_BOUND"),
    ),
)
RESERVATION = Model(
    "reservation",
    "live orders never exceed the limit, and each stands under its own COMMITTED entry",
    (
        _holds(
            "one swap of state and token; time frees RESERVED alone; unknown waits for the window"
        ),
        _refuted("the router compares, then stores", "PLAIN_STORE"),
        _refuted("the swap compares the state without the token", "STATE_ALONE"),
        _refuted("the reaper may free COMMITTED", "REAPER_TAKES_COMMITTED"),
        _refuted(
            "COMMITTED is freed on 'unknown order' before the window passed", "FREED_ON_UNKNOWN"
        ),
        _refuted("the window counts from the send", "SIGNED_AT_SEND"),
    ),
)
CLOSABLE = Model(
    "closable",
    "no exit flips a position, pending lots are never negative, no wish is lost, the claim ends",
    (
        _holds("a venue that enforces reduce-only"),
        _holds(
            "a shared account: an exit waits for the cancels, a close is looked at again", "SHARED"
        ),
        _refuted("a close holds its lots by load and store", "HELD_BY_STORE"),
        _refuted("a stop's fill subtracts from both halves", "STOP_FROM_BOTH"),
        _refuted(
            "the wish is cleared, then the claim, without looking again", "CLAIM_CLEARED_LAST"
        ),
        _refuted("the wish is lowered only after the fill has been told", "LOWERED_AFTER"),
        _refuted(
            "shared: the exit leaves before its cancels are observed", "SHARED", "EXIT_AT_ONCE"
        ),
        _refuted("shared: a held close leaves without a second look", "SHARED", "SENT_UNSEEN"),
    ),
)
REPAIR = Model(
    "repair",
    "sums never understate the tables and equal them in the end, whoever stops or dies",
    (
        _holds("openings and exits around a repair, nobody killed"),
        _holds("openings; the client and the first keeper may be killed", "OPENINGS_ONLY"),
        _holds("exits, some during a freeze; both may be killed", "EXITS_ONLY"),
        _refuted("the repair does not wait for odd sections", "NO_WAIT", "OPENINGS_ONLY"),
        _refuted("the freeze word is read before the counter is odd", "FREEZE_READ_FIRST",
                 "OPENINGS_ONLY"),
        _refuted("openings ignore the count of unposted exits", "UNPOSTED_IGNORED"),
        _refuted("an exit counts itself before its exit_section is odd", "COUNTED_OUTSIDE",
                 "EXITS_ONLY"),
        _refuted("the repair stores the closable word instead of swapping it", "PLAIN_STORE",
                 "EXITS_ONLY"),
        _refuted("the keeper posts an exit by a store, not a swap", "POSTED_BY_STORE",
                 "EXITS_ONLY"),
        _refuted("the repair ends the section of whoever died meanwhile too", "ENDED_IF_DEAD",
                 "EXITS_ONLY"),
    ),
    kills=True,
)  # fmt: skip
TRIP = Model(
    "trip",
    "no grant follows a completed trip until an operator has resumed, through any restart",
    (
        _holds("page at once, then generation, then log; a restart is closed and takes the larger"),
        _refuted("a restart copies the level from the log", "LEVEL_FROM_LOG"),
        _refuted("the check reads the generation once", "ONE_READING"),
        _refuted("the generation moves before the level", "GENERATION_FIRST"),
        _refuted("a new page is open from the start", "OPEN_AT_RESTART"),
        _refuted("a lost page starts at the log's level", "LOST_PAGE_AT_LOG"),
    ),
)
MODELS = (LEASE_FENCE, RESERVATION, CLOSABLE, REPAIR, TRIP)
