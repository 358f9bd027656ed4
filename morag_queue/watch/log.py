"""Write events as log lines with structlog: key=value on a terminal, else one JSON object per line.

Field values of any origin (worker names, reasons, errors) are kept on one line; control characters are escaped and
passwords in URLs are masked.
"""

from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from morag_queue.settings import mask_url

from .events import EVENTS, Event

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes events to a stream: with `quiet` only warnings and errors, with `debug` also debug events."""

    def __init__(self, stream: TextIO, *, json: bool, quiet: bool = False, debug: bool = False) -> None:
        renderer: list[Processor] = (
            [structlog.processors.JSONRenderer()]
            if json
            else [_flat, structlog.processors.LogfmtRenderer(key_order=["at", "level", "event"], bool_as_flag=False)]
        )
        # People read the user's zone to the second, with the date, because a log spans days; programs read UTC.
        stamp = structlog.processors.TimeStamper(fmt="iso" if json else "%Y-%m-%dT%H:%M:%S", utc=json, key="at")
        self._threshold = _LEVELS["warning" if quiet else "debug" if debug else "info"]
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[
                stamp, _sanitize, *renderer,
            ],
            wrapper_class=structlog.BoundLogger,
        )  # fmt: skip

    def __call__(self, event: Event, /, **fields: Any) -> None:
        level = EVENTS[event].level
        if _LEVELS[level] >= self._threshold:
            self._logger.info(event.value, level=level, **fields)


class ServiceLog:
    """Passes events to structlog as the service has configured it."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("morag_queue")

    def __call__(self, event: Event, /, **fields: Any) -> None:
        getattr(self._logger, EVENTS[event].level)(event.value, **_sanitize(None, "", dict(fields)))


def _sanitize(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
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


def _flat(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Flatten lists and mappings, which key=value cannot show."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat[name] = ", ".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, list):
            flat[name] = "; ".join(map(str, value))
        else:
            flat[name] = value
    return flat
