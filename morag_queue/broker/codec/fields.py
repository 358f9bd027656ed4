"""Read single fields of a broker text. Any producer may have written them: a wrong value reads as missing."""

import json
import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from morag_queue.core.enums import QueuePriority
from morag_queue.core.levels import priority_of_level
from morag_queue.core.worker_records import LARGEST

_SURROGATES = re.compile("[\ud800-\udfff]")

_E = TypeVar("_E", bound=Enum)


def text_of(value: bytes | str) -> str:
    """Decode a name. Bytes that are not UTF-8 become visible escapes, so that the name can be shown."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def whole_number(value: bytes) -> int | None:
    """Read a counter; None for what is no number, or not one of 64 bits."""
    digits = value[1:] if value[:1] == b"-" else value
    return int(value) if digits.isdigit() and len(digits) < 20 else None


def json_object(text: bytes | str | None) -> dict[str, Any] | None:
    """Decode a JSON object; None for any other text."""
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def escaped(text: str) -> str:
    """Return the text as it stands between the quotes of a JSON string."""
    return json.dumps(text)[1:-1]


def number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -LARGEST < value < LARGEST:
        return None
    return float(value)


def count(value: Any) -> int:
    """Return a positive integer, else 0."""
    return value if isinstance(value, int) and value > 0 else 0


def word(value: Any) -> str:
    """Return a text, else "": also for one with lone surrogates, which cannot be sent to the server."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() or not _SURROGATES.search(value) else ""


def member(kind: type[_E], value: Any) -> _E | None:
    """Look up an enum member by its string value."""
    if not isinstance(value, str):
        return None
    found: Any = kind._value2member_map_.get(value)
    return found  # type: ignore[no-any-return]


def priority(name: Any, level: int) -> QueuePriority:
    """Look up a priority by name; without a known name it follows from kombu's level."""
    known = QueuePriority.__members__.get(name) if isinstance(name, str) else None
    return known or priority_of_level(level)


def moment(text: Any) -> float | None:
    """Convert ISO 8601 to seconds since the epoch; without a zone it is UTC, as Celery writes it."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
