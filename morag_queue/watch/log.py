"""Write events as log lines with structlog: key=value on a terminal, else one JSON object per line."""

from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from .events import EVENTS, Event
from .fields import flat, sanitize

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


def _flat(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return flat(fields)


def _sanitize(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return sanitize(fields)
