"""Build Celery messages from templates, one for each task name.

A template is a message with a gap in each place that differs between messages; a message is then a join of strings.
Without an app the template is written here: the import of Celery would take a third of the time of submitting one file.
With an app, Celery writes it, see `celery_template`. A test compares both with what Celery itself puts into the list.
"""

import json
import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from morag_queue.core.model import ContentType, QueuePriority, QueueType, Requires, TaskQueueEntry

from .codec import HEADER, header_fields, open_record

if TYPE_CHECKING:
    from celery import Celery

_REPR_LENGTH = 1024
"""Maximum length of an argument's `repr` in the headers, as Celery's `argsrepr_maxsize`. We use Python's repr: Celery's
own does not escape control characters, and takes twenty times as long."""


@dataclass(frozen=True, slots=True)
class Template:
    """`pieces` alternates between text and the name of the value to insert."""

    pieces: tuple[str, ...]
    serializer: str = "json"
    compression: str | None = None

    def fill(self, values: Mapping[str, str]) -> str:
        pieces = list(self.pieces)
        pieces[1::2] = [values[name] for name in pieces[1::2]]
        return "".join(pieces)


class MessageBuilder:
    """Builds messages for one Celery app, of which only the configuration and the registered tasks are read.

    Without an app, messages are those of an app with Celery's default configuration that has no tasks.
    """

    def __init__(self, app: "Celery | None" = None) -> None:
        self._app = app
        self._templates: dict[str, Template] = {}
        # Delivery tags must be unique, not random: a UUID for each would cost a tenth of a bulk submit.
        self._run, self._count = str(uuid4()), count()
        self._first_attempt = int(self._run[:8], 16)

    def message(self, entry: TaskQueueEntry) -> tuple[str, str]:
        """Return the message as kombu would put it into its list, and the ledger record, both as JSON.

        Raises kombu's EncodeError where the arguments cannot be serialized.
        """
        template = self._templates.get(entry.task) or self._make_template(entry.task)
        header, args, kwargs = _header(entry), _as_json(entry.args), _as_json(entry.kwargs) if entry.kwargs else "{}"
        number = next(self._count)
        if template.serializer == "json":
            body = f"[{args}, {kwargs}, {_NO_LINKS_JSON}]".encode("ascii")
        else:
            from kombu.serialization import dumps

            body = _bytes(dumps((entry.args, entry.kwargs, NO_LINKS), template.serializer)[2])
        if template.compression:
            from kombu.compression import compress

            body = compress(body, template.compression)[0]
        text = template.fill(
            {
                "id": quoted(entry.task_id),
                "args": quoted(repr(entry.args)[:_REPR_LENGTH]),
                "kwargs": quoted(repr(entry.kwargs)[:_REPR_LENGTH]),
                "header": header,
                "body": f'"{b64encode(body).decode("ascii")}"',
                "lane": quoted(entry.lane),
                "level": str(entry.level),
                "tag": f'"{self._run}.{number}"',
            }
        )
        return text, open_record(entry, args, kwargs, self._first_attempt + number)

    def _make_template(self, task: str) -> Template:
        if self._app is None:
            template = _plain_template(task)
        else:
            from .celery_template import template_of

            template = template_of(self._app, task)
        self._templates[task] = template
        return template


NO_LINKS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


_NO_LINKS_JSON = json.dumps(NO_LINKS)


def _plain_template(task: str) -> Template:
    """The template of a task by Celery's default configuration."""
    return Template(
        (
            '{"body": ', "body", ', "content-encoding": "utf-8", "content-type": "application/json", "headers": '
            f'{{"lang": "py", "task": {quoted(task)}, "id": ', "id", ', "shadow": null, "eta": null, "expires": null, '
            '"group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": ', "id",
            ', "parent_id": null, "argsrepr": ', "args", ', "kwargsrepr": ', "kwargs",
            f', "origin": {quoted(f"gen{os.getpid()}@{socket.gethostname()}")}, "ignore_result": null, '
            '"replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}, '
            f'{quoted(HEADER)}: ', "header", '}, "properties": {"correlation_id": ', "id",
            ', "reply_to": "", "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": ', "lane",
            '}, "priority": ', "level", ', "body_encoding": "base64", "delivery_tag": ', "tag", "}}",
        )
    )  # fmt: skip


class _Class(NamedTuple):
    """What our header has of a task besides its time. Most tasks of a submit share it."""

    priority: QueuePriority
    requires: Requires
    content_type: ContentType | None
    queue: QueueType
    estimated_duration: float
    worker: str | None
    submission: str | None
    enqueued_at: float = 0.0


_TIME = '"enqueued_at": {},'


@lru_cache(maxsize=1024)
def _around_time(task: _Class) -> list[str]:
    return json.dumps(header_fields(task)).split(_TIME.format(task.enqueued_at))


def _header(entry: TaskQueueEntry) -> str:
    """Return `header_fields` as JSON."""
    start, end = _around_time(
        _Class(
            entry.priority, entry.requires, entry.content_type, entry.queue, entry.estimated_duration, entry.worker,
            entry.submission,
        )
    )  # fmt: skip
    return f"{start}{_TIME.format(round(entry.enqueued_at, 3))}{end}"


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:  # kombu's encoder supports dates, decimals and UUIDs, and takes three times as long
        from kombu.exceptions import EncodeError
        from kombu.utils.json import dumps

        try:
            return str(dumps(value))
        except TypeError as error:
            raise EncodeError(str(error)) from error


def _bytes(payload: str | bytes) -> bytes:
    return payload.encode("utf-8") if isinstance(payload, str) else payload
