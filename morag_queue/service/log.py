"""Pass the events of the loop to the logging of the service."""

import logging
from typing import Any

from morag_queue.watch.events import EVENTS, Event
from morag_queue.watch.fields import flat, sanitize

logger = logging.getLogger("morag_queue.watch")


class ServiceLog:
    """Logs to `morag_queue.watch`: the name of the event with its fields as key=value, and the fields in `extra`.

    Standard logging, because every service has it; structlog and Sentry read it too.
    """

    def __call__(self, event: Event, /, **fields: Any) -> None:
        values = sanitize(fields)
        text = " ".join([event.value, *(f"{name}={value}" for name, value in flat(values).items())])
        level = logging.getLevelNamesMapping()[EVENTS[event].level.upper()]
        logger.log(level, "%s", text, extra={"event": event.value, "fields": values})
