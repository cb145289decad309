"""Nearest known words for mistyped ones, in one wording for commands, keys and names."""

import difflib
from collections.abc import Collection

SIMILARITY_MIN = 0.6
"""Below this a suggestion confuses more than it helps."""


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return ``, did you mean '…'?`` for the nearest known word, or nothing."""
    matches = difflib.get_close_matches(word, sorted(known), n=1, cutoff=SIMILARITY_MIN)
    return f", did you mean '{matches[0]}'?" if matches else ""
