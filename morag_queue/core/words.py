"""Small phrases for reasons, findings and messages: counts, durations and lists of names."""

from collections.abc import Iterable

NAMES_SHOWN = 3


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Return the number with its noun: `1 task`, `2 tasks`. `plural` is for nouns that do not just take an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def is_are(number: int) -> str:
    """Return the verb for a count: `is` for 1, else `are`."""
    return "is" if number == 1 else "are"


def span(seconds: float) -> str:
    """Return a duration rounded to one unit: `45 s`, `12 min`, `3 h`, `2 d`. A unit is used from two of it on."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def some(names: Iterable[str], limit: int = NAMES_SHOWN) -> str:
    """Return the first names in alphabetical order without duplicates: `a, b, c and 3 more`."""
    ordered = sorted(set(names))
    rest = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + rest
