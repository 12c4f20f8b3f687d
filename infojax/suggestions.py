"""The end of a message about an unknown name."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: object, known: Iterable[str], *, listed: bool = True) -> str:
    """ "; did you mean b?" if a known name is similar; otherwise "; there is a, b, c" if `listed`, or nothing."""
    known = list(known)
    if close := get_close_matches(str(name), known, 1):
        return f"; did you mean {close[0]}?"
    return f"; there is {', '.join(known) or 'none'}" if listed else ""
