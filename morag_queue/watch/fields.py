"""Prepare the fields of events for a log.

Values of any origin (worker names, reasons, errors) are kept on one line; control characters are escaped and passwords
in URLs are masked.
"""

from collections.abc import Mapping
from typing import Any

from morag_queue.settings import mask_url


def sanitize(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with every text, also in lists and mappings, safe to print."""
    return {name: _sanitized(value) for name, value in fields.items()}


def _sanitized(value: Any) -> Any:
    match value:
        case str():
            text = mask_url(value)
            return text if text.isprintable() else text.encode("unicode_escape").decode()
        case dict():
            return {_sanitized(name): _sanitized(item) for name, item in value.items()}
        case list() | tuple():
            return [_sanitized(item) for item in value]
        case float():
            return round(value, 4)
    return value


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten lists and mappings, which key=value cannot show."""
    flattened: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flattened[name] = ", ".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, list):
            flattened[name] = "; ".join(map(str, value))
        else:
            flattened[name] = value
    return flattened
