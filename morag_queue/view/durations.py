"""Durations as people type and read them."""

import re

from morag_queue.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_S = 10 * 365 * 86_400.0


def parse_duration(text: str, option: str) -> float:
    """Seconds of `30s`, `5m`, `2h`, `1h30m`, `500ms`, `1d`. Raises UsageError that names the option."""
    word = text.strip().lower()
    parts = _PART.findall(word)
    if not parts or "".join(number + unit for number, unit in parts) != word:
        raise UsageError(f"{option} {text!r} is not a duration: write it like 500ms, 30s, 5m, 2h or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds > _LONGEST_S:
        raise UsageError(f"{option} {text!r} is longer than ten years: write it like 30s, 5m or 2h")
    return seconds


def format_duration(seconds: float | None) -> str:
    """At most two units: `850ms`, `4.2s`, `3m 20s`, `1h 5m`, `2d 3h`; `–` where it is not known."""
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


def format_minutes(minutes: float | None) -> str:
    """As `format_duration`, of the models' minutes."""
    return format_duration(None if minutes is None else minutes * 60)
