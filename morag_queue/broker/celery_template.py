"""Templates of messages that a Celery app's configuration and tasks affect.

Celery's and kombu's own code writes the template, with a marker in each place that differs between messages. So it has
all that Celery adds for the task: time limits, `ignore_result`, serializer, compression.
"""

import re
from typing import Any

from celery import Celery
from kombu.compression import compress
from kombu.connection import Connection
from kombu.messaging import Producer
from kombu.serialization import dumps as serialize
from kombu.utils.json import dumps

from .celery_message import NO_LINKS, Template
from .codec import HEADER

_MARK = "\x01{}\x01"


_SLOT = re.compile(r'"?\\u0001(\w+)\\u0001"?')


def template_of(app: Celery, task: str) -> Template:
    """The template of a task as this app sends it."""
    registered = app.tasks.get(task)
    # None leaves the choice to the worker's own declaration of the task.
    options = {name: getattr(registered, name, None) for name in ("ignore_result", "time_limit", "soft_time_limit")}
    serializer = getattr(registered, "serializer", None) or app.conf.task_serializer
    compression = getattr(registered, "compression", None) or app.conf.task_compression
    content_type, content_encoding, _ = serialize(([], {}, NO_LINKS), serializer)
    parts = app.amqp.as_task_v2(
        _MARK.format("id"), task, argsrepr=_MARK.format("args"), kwargsrepr=_MARK.format("kwargs"), **options
    )
    headers = {**parts.headers, HEADER: _MARK.format("header")}
    if compression:
        headers["compression"] = compress(b"", compression)[1]
    captured = _capture(headers, parts.properties, content_type, content_encoding)
    return Template(tuple(_SLOT.split(dumps(captured))), serializer, compression)


def _capture(headers: dict[str, Any], properties: dict[str, Any], content_type: str, encoding: str) -> dict[str, Any]:
    """Publish to kombu's in-memory transport, and return the message as any virtual transport would store it."""
    lane = _MARK.format("lane")
    with Connection("memory://") as connection, connection.channel() as channel:
        channel.queue_declare(lane)
        Producer(channel).publish(
            b"",
            routing_key=lane,
            exchange="",
            content_type=content_type,
            content_encoding=encoding,
            headers=headers,
            **properties,
        )
        message: dict[str, Any] = channel._get(lane)
        channel.queue_delete(lane)
    message["body"] = _MARK.format("body")
    message["properties"]["priority"] = _MARK.format("level")
    message["properties"]["delivery_tag"] = _MARK.format("tag")
    return message
