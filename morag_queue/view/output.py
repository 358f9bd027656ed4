"""The way out: a model becomes one JSON document, or a renderable for a person.

JSON: times are ISO 8601 in UTC, enums are words (a QueuePriority its name), a number that is not finite is null, and
everything that is not ASCII is escaped, so that a hostile name is whole for a script and harmless on a terminal.
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pydantic import BaseModel

from morag_queue.core.model import QueuePriority

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_TIMES = {"at", "since", "until", "deadline", "expected_start"}
_YEAR_9999_S = 253_370_764_800.0  # what datetime can still write


class Sink(Protocol):
    """Where output goes and how: `CliContext`, or whatever else has these."""

    @property
    def json(self) -> bool: ...

    @property
    def stdout(self) -> TextIO: ...

    @property
    def console(self) -> "Console": ...


def emit(sink: Sink, answer: BaseModel | Mapping[str, Any], human: "Callable[[], RenderableType]") -> None:
    """Prints the answer: with --json as one document on stdout, else what `human` makes of it.

    `human` is called only where a person reads, so that rich and the views are imported only then. A str out of it
    is printed as it is, never wrapped.
    """
    if sink.json:
        sink.stdout.write(dumps(answer, indent=2 if sink.stdout.isatty() else None) + "\n")
        return
    shown = human()
    if isinstance(shown, str):
        sink.stdout.write(shown + "\n")
    else:
        sink.console.print(shown)


def dumps(answer: Any, indent: int | None = None) -> str:
    """The JSON text of a model or of plain values with models in them."""
    return json.dumps(plain(answer), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """JSON's own types out of models.

    Seconds since the epoch are told by the name of a model's field (`…_at`, or one of `_TIMES`); in plain mappings,
    which may be a user's own arguments, a number stays a number.
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
    """Whether a model's field of that name is seconds since the epoch."""
    return name in _TIMES or name.endswith("_at")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def iso(seconds: float) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond; None for 0 (not known) and what is no time."""
    if not 0 < seconds < _YEAR_9999_S:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
