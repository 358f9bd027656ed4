"""Text for a terminal: printable strings, durations, times, short numbers.

Sources, worker ids, reasons and arguments may hold anything. Build renderables from `rich.text.Text` of `safe` text,
never from a str: markup such as `[bold]` is then shown literally.
"""

import re
from datetime import datetime

from morag_queue.core.words import count_of
from morag_queue.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_DURATION = 40
"""Characters; a longer text is not a duration."""
_LONGEST_S = 10 * 365 * 86_400.0
_UUID = re.compile(r"\b([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
YEAR_9999_S = 253_370_764_800.0
"""The last year that datetime can represent."""


def safe(value: object, limit: int | None = None) -> str:
    """Return one printable line; other characters become visible escapes.

    That covers control characters, ANSI sequences, line breaks, bidirectional and zero-width marks, and the lone
    surrogates that stand for bytes of a file name that are not UTF-8. A text longer than `limit` characters loses its
    middle, because the end of a path matters as much as its beginning.
    """
    plain = str(value)
    if limit is not None and len(plain) > 2 * limit:  # do not escape a megabyte to show a few characters
        plain = f"{plain[:limit]}{plain[-limit:]}"
    if not plain.isprintable():
        plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain)
    if limit is None or len(plain) <= limit:
        return plain
    head = limit // 2
    return f"{plain[:head]}…{plain[len(plain) - (limit - 1 - head) :]}"


def short_ids(text: str) -> str:
    """Shorten each UUID to its first eight digits, as git does: commands take a prefix of an id."""
    return _UUID.sub(r"\1", text)


def parse_duration(text: str, option: str) -> float:
    """Return the seconds of `30s`, `5m`, `2h`, `1h30m`, `500ms` or `1d`. Raises UsageError that names the option."""
    normalized = text.strip().lower()
    parts = _PART.findall(normalized) if len(normalized) <= _LONGEST_DURATION else []
    if not parts or "".join(number + unit for number, unit in parts) != normalized:
        raise UsageError(f"{option} {text!r} is not a duration: write it like 500ms, 30s, 5m, 2h or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST_S:
        raise UsageError(f"{option} {text!r} is longer than ten years: write it like 30s, 5m or 2h")
    return seconds


def format_duration(seconds: float | None) -> str:
    """Format in at most two units: `850ms`, `4.2s`, `3m 20s`, `1h 5m`, `2d 3h`; `–` if unknown."""
    if seconds is None or seconds != seconds:
        return "–"
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds > _LONGEST_S:
        return "∞"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for small, name, size, below in (("s", "m", 60, 3600), ("m", "h", 3600, 86_400), ("h", "d", 86_400, None)):
        if whole < size:
            return f"{whole}{small}"
        if below is None or whole < below:
            rest = whole % size // int(_UNITS[small])
            return f"{whole // size}{name}" + (f" {rest}{small}" if rest else "")
    raise AssertionError(whole)


def local_time(at: float | None, now: float) -> str:
    """Format seconds since the epoch in the user's time zone (TZ): `14:13:20` today, else `2026-11-23 14:13:20`.

    `now` decides which day is today; 0 always shows the date. `–` for None and 0 (unknown) and for values out of range.
    JSON output has UTC instead, see `output.iso`.
    """
    if at is None or not 0 < at < YEAR_9999_S:
        return "–"
    moment, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now).date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")


def format_minutes(minutes: float | None) -> str:
    """Format minutes, the unit of the models, like `format_duration`."""
    return format_duration(None if minutes is None else minutes * 60)


def short(value: float) -> str:
    """Format a number in at most four characters: 7, 0.4, 999, 12k, 3.4M."""
    if value < 9.95 and value != int(value):
        return f"{value:.1f}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.1f}{unit}" if value < 9.95 * size else f"{value / size:.0f}{unit}"
    return f"{value:.0f}"


def more_line(hidden: int, noun: str = "") -> str:
    """Return the line below a truncated list: how many entries it omits, and where to see them."""
    more = count_of(hidden, f"more {noun}") if noun else f"{hidden} more"
    return f"… and {more}; --json lists {'it' if hidden == 1 else 'them all'}"
