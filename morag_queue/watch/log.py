"""Log lines by structlog: key=value for a person at a terminal, one JSON object a line for everything else.

Whatever a field holds (a worker's name, a reason, an error) comes out on one line, with nothing in it that a terminal
would obey, and with no password of a URL.
"""

from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from morag_queue.settings import mask_url

from .events import EVENTS, Event

_LOUDNESS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes events to a stream. With `quiet`, only warnings and errors; `debug` adds what is of no use every day."""

    def __init__(self, stream: TextIO, *, json: bool, quiet: bool = False, debug: bool = False) -> None:
        renderer: list[Processor] = (
            [structlog.processors.JSONRenderer()]
            if json
            else [_flat, structlog.processors.LogfmtRenderer(key_order=["at", "level", "event"], bool_as_flag=False)]
        )
        self._least = _LOUDNESS["warning" if quiet else "debug" if debug else "info"]
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"), _harmless, *renderer,
            ],
            wrapper_class=structlog.BoundLogger,
        )  # fmt: skip

    def __call__(self, event: Event, /, **fields: Any) -> None:
        level = EVENTS[event].level
        if _LOUDNESS[level] >= self._least:
            self._logger.info(event.value, level=level, **fields)


class ServiceLog:
    """Events for the structlog of a service that has configured it in its own way."""

    def __init__(self) -> None:
        self._logger = structlog.get_logger("morag_queue")

    def __call__(self, event: Event, /, **fields: Any) -> None:
        getattr(self._logger, EVENTS[event].level)(event.value, **_harmless(None, "", dict(fields)))


def _harmless(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _shown(value) for name, value in fields.items()}


def _shown(value: Any) -> Any:
    match value:
        case str():
            text = mask_url(value)
            return text if text.isprintable() else text.encode("unicode_escape").decode()
        case dict():
            return {_shown(name): _shown(one) for name, one in value.items()}
        case list() | tuple():
            return [_shown(one) for one in value]
        case float():
            return round(value, 4)
    return value


def _flat(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """key=value has no lists and tables."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat[name] = ", ".join(f"{key}: {one}" for key, one in value.items())
        elif isinstance(value, list):
            flat[name] = "; ".join(map(str, value))
        else:
            flat[name] = value
    return flat
