"""Print answers: a model becomes one JSON document for scripts, or a renderable for a terminal.

JSON: times are ISO 8601 in UTC, enums are their values (QueuePriority: its name), numbers that are not finite are null.
Characters outside ASCII are escaped: a script gets a hostile name unchanged, and a terminal does not interpret it.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pydantic import BaseModel

from morag_queue.core.model import QueuePriority

from .text import YEAR_9999_S

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_TIMES = {"at", "since", "until", "deadline", "expected_start"}


class Sink(Protocol):
    """Where output goes: `CliContext`, or anything with the same attributes."""

    @property
    def json(self) -> bool: ...

    @property
    def stdout(self) -> TextIO: ...

    @property
    def console(self) -> "Console": ...


def emit(sink: Sink, answer: BaseModel | Mapping[str, Any], human: "Callable[[], RenderableType]") -> None:
    """Print the answer: one JSON document with --json, else the result of `human`.

    `human` is not called with --json, so that Rich and the views are imported only when needed. If it returns a str,
    that is printed without wrapping.
    """
    if sink.json:
        sink.stdout.write(dumps(answer, indent=2 if sink.stdout.isatty() else None) + "\n")
        return
    rendered = human()
    if isinstance(rendered, str):
        sink.stdout.write(rendered + "\n")
    else:
        sink.console.print(rendered)


def dumps(answer: Any, indent: int | None = None) -> str:
    """Return the JSON text of a model, or of plain values that contain models."""
    return json.dumps(plain(answer), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """Convert models to JSON types.

    A model's field is a time in seconds since the epoch if its name is in `_TIMES` or ends in `_at`. Numbers in plain
    mappings stay numbers: a mapping may hold a user's task arguments.
    """
    match value:
        case BaseModel():
            return {key: iso(item) if is_time_name(key) and _is_number(item) else plain(item) for key, item in value}
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case QueuePriority():
            return value.name
        case Enum():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case bool() | int() | str() | None:
            return value
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def is_time_name(name: str) -> bool:
    """Return whether a model field of this name holds seconds since the epoch."""
    return name in _TIMES or name.endswith("_at")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def iso(seconds: float) -> str | None:
    """Return ISO 8601 in UTC, to the millisecond; None for 0 (unknown) and for values out of range."""
    if not 0 < seconds < YEAR_9999_S:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
