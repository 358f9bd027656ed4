"""Build Celery messages from templates, one for each task name.

Celery's and kombu's own code writes the template, with a marker in each place that differs between messages; a message
is then a join of strings. So the template has all that Celery adds for the task: time limits, `ignore_result`,
serializer, compression.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from json.encoder import encode_basestring_ascii as quoted
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu.compression import compress
from kombu.connection import Connection
from kombu.exceptions import EncodeError
from kombu.messaging import Producer
from kombu.serialization import dumps as serialize
from kombu.utils.json import dumps

from morag_queue.core.model import TaskQueueEntry

from .codec import HEADER, header_fields

_REPR_LENGTH = 1024
"""Maximum length of an argument's `repr` in the headers, as Celery's `argsrepr_maxsize`. We use Python's repr: Celery's
own does not escape control characters, and takes twenty times as long."""


_MARK = "\x01{}\x01"


_SLOT = re.compile(r'"?\\u0001(\w+)\\u0001"?')


@dataclass(frozen=True, slots=True)
class _Template:
    """`pieces` alternates between text and the name of the value to insert."""

    pieces: tuple[str, ...]
    serializer: str
    compression: str | None

    def fill(self, values: Mapping[str, str]) -> str:
        pieces = list(self.pieces)
        pieces[1::2] = [values[name] for name in pieces[1::2]]
        return "".join(pieces)


class MessageBuilder:
    """Builds messages for one Celery app, of which only the configuration and the registered tasks are read."""

    def __init__(self, app: Celery | None = None) -> None:
        self._app = app if app is not None else Celery("morag_queue", set_as_current=False, broker="memory://")
        self._templates: dict[str, _Template] = {}
        # Delivery tags must be unique, not random: a UUID for each would cost a tenth of a bulk submit.
        self._run, self._count = uuid4(), count()

    def message(self, entry: TaskQueueEntry) -> tuple[str, str]:
        """Return the message as kombu would put it into its list, and the ledger record, both as JSON.

        Raises kombu's EncodeError where the arguments cannot be serialized.
        """
        template = self._templates.get(entry.task) or self._make_template(entry.task)
        header, args, kwargs = json.dumps(header_fields(entry)), _as_json(entry.args), _as_json(entry.kwargs)
        lane, tag = quoted(entry.lane), f'"{self._run}.{next(self._count)}"'
        if template.serializer == "json":
            body = f"[{args}, {kwargs}, {_NO_LINKS_JSON}]".encode("ascii")
        else:
            body = _bytes(serialize((entry.args, entry.kwargs, _NO_LINKS), template.serializer)[2])
        if template.compression:
            body = compress(body, template.compression)[0]
        text = template.fill(
            {
                "id": quoted(entry.task_id),
                "args": quoted(repr(entry.args)[:_REPR_LENGTH]),
                "kwargs": quoted(repr(entry.kwargs)[:_REPR_LENGTH]),
                "header": header,
                "body": f'"{b64encode(body).decode("ascii")}"',
                "lane": lane,
                "level": str(entry.level),
                "tag": tag,
            }
        )
        # Joined from texts that are JSON already: encoding them again would cost a fifth of a bulk submit.
        record = (
            f'{header[:-1]}, "state": "queued", "task": {quoted(entry.task)}, "source": {quoted(entry.source)}, '
            f'"lane": {lane}, "level": {entry.level}, "args": {args}, "kwargs": {kwargs}, "tag": {tag}}}'
        )
        return text, record

    def _make_template(self, task: str) -> _Template:
        app = self._app
        registered = app.tasks.get(task)
        # None leaves the choice to the worker's own declaration of the task.
        options = {name: getattr(registered, name, None) for name in ("ignore_result", "time_limit", "soft_time_limit")}
        serializer = getattr(registered, "serializer", None) or app.conf.task_serializer
        compression = getattr(registered, "compression", None) or app.conf.task_compression
        content_type, content_encoding, _ = serialize(([], {}, _NO_LINKS), serializer)
        parts = app.amqp.as_task_v2(
            _MARK.format("id"), task, argsrepr=_MARK.format("args"), kwargsrepr=_MARK.format("kwargs"), **options
        )
        headers = {**parts.headers, HEADER: _MARK.format("header")}
        if compression:
            headers["compression"] = compress(b"", compression)[1]
        captured = _capture(headers, parts.properties, content_type, content_encoding)
        text = dumps(captured)
        self._templates[task] = template = _Template(tuple(_SLOT.split(text)), serializer, compression)
        return template


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:  # kombu's encoder supports dates, decimals and UUIDs, and takes three times as long
        try:
            return str(dumps(value))
        except TypeError as error:
            raise EncodeError(str(error)) from error


def _bytes(payload: str | bytes) -> bytes:
    return payload.encode("utf-8") if isinstance(payload, str) else payload


_NO_LINKS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


_NO_LINKS_JSON = json.dumps(_NO_LINKS)


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
