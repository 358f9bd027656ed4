"""Counts and durations in words, for the reasons that plans and answers give."""


def count_of(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def is_are(count: int) -> str:
    return "is" if count == 1 else "are"


def span(seconds: float) -> str:
    """A duration in its largest fitting unit: `45 s`, `8 min`, `3 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
