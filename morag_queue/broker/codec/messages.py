"""Celery messages (protocol 2) as kombu stores them in Redis, and the header that morag-queue adds to them.

A lane holds the bare message; `unacked` holds `[message, exchange, routing key]`. This module does not
import Celery.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol

from morag_queue.core.enums import ContentType, QueuePriority, QueueType, Requires
from morag_queue.core.snapshot import LaneEntry

from .fields import escaped, json_object, member, number, priority, word

HEADER = "morag_queue"
"""Name of the message header that carries the fields of a `TaskQueueEntry`."""


class Described(Protocol):
    """The fields of a task that our header carries; `TaskQueueEntry` has them."""

    @property
    def priority(self) -> QueuePriority: ...
    @property
    def requires(self) -> Requires: ...
    @property
    def content_type(self) -> ContentType | None: ...
    @property
    def queue(self) -> QueueType: ...
    @property
    def estimated_duration(self) -> float: ...
    @property
    def enqueued_at(self) -> float: ...
    @property
    def worker(self) -> str | None: ...
    @property
    def submission(self) -> str | None: ...


def header_fields(entry: Described) -> dict[str, Any]:
    """Build the value of our header."""
    header: dict[str, Any] = {
        "priority": entry.priority.name,
        "enqueued_at": round(entry.enqueued_at, 3),
        "queue": entry.queue,
        "requires": entry.requires,
        "estimated_minutes": round(entry.estimated_duration, 4),
    }
    if entry.content_type is not None:
        header["content_type"] = entry.content_type
    if entry.worker is not None:
        header["worker"] = entry.worker
    if entry.submission is not None:
        header["submission"] = entry.submission
    return header


def read_message(raw: bytes | str | None) -> dict[str, Any] | None:
    """Decode a message of Celery's protocol 2; None for any other text."""
    message = json_object(raw)
    if message is None or not isinstance(message.get("body"), str):
        return None
    parts = (message.get("headers"), message.get("properties"))
    return message if all(isinstance(part, dict) for part in parts) else None


def header_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return our header of a decoded message; {} where it has none."""
    header = message["headers"].get(HEADER)
    return header if isinstance(header, dict) else {}


def task_id_of(message: Mapping[str, Any]) -> str:
    """Return the task id of a decoded message; "" where it has none."""
    return word(message["headers"].get("id"))


def task_of(message: Mapping[str, Any]) -> str:
    """Return the task name of a decoded message; "" where it has none."""
    return word(message["headers"].get("task"))


def level_of(message: Mapping[str, Any]) -> int:
    """Return the level at which kombu queues a decoded message: its priority, limited to 0 to 9."""
    level = message["properties"].get("priority")
    return min(max(level, 0), 9) if isinstance(level, int) else 0


def read_arguments(message: dict[str, Any] | None) -> tuple[Any, Any] | None:
    """Decode args and kwargs from a message body; None for a serializer other than JSON, and for compressed bodies."""
    if message is None or message.get("content-type") != "application/json":
        return None
    try:
        args, kwargs, _ = json.loads(b64decode(message["body"]))
    except (ValueError, TypeError, RecursionError):
        return None
    return args, kwargs


class _Foreign(Enum):
    FOREIGN = 0


FOREIGN: Final = _Foreign.FOREIGN

Read = LaneEntry | None | Literal[_Foreign.FOREIGN]


def lane_entry(raw: bytes | str, level: int) -> Read:
    """Read our header of a waiting message: None for a Celery message without it, `FOREIGN` for any other text.

    Every snapshot reads thousands of these, so it checks less than `read_message`.
    """
    try:
        headers = json.loads(raw)["headers"]
        task_id = word(headers.get("id"))
        header = headers.get(HEADER)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return FOREIGN
    if not isinstance(header, dict) or not task_id:
        return None
    worker = header.get("worker")
    return LaneEntry(
        task_id=task_id,
        requires=member(Requires, header.get("requires")) or Requires.CPU,
        priority=priority(header.get("priority"), level),
        minutes=max(number(header.get("estimated_minutes")) or 0.0, 0.0),
        enqueued_at=max(number(header.get("enqueued_at")) or 0.0, 0.0),
        content_type=member(ContentType, header.get("content_type")),
        queue=member(QueueType, header.get("queue")),
        worker=word(worker) or None,
    )


def requires_gpu(raw: bytes | str) -> bool:
    """Whether our header of a message says that the task requires a GPU."""
    entry = lane_entry(raw, 0)
    return isinstance(entry, LaneEntry) and entry.requires is Requires.GPU


def rewrite_message(
    raw: bytes | str, *, lane: str, level: int, tag: str = "", fields: Mapping[str, Any] | None = None
) -> str | None:
    """Readdress a message; None for a text that is not Celery's.

    `tag` replaces the delivery tag. `fields` are merged into our header (a value of None removes the field); a message
    without our header gets none.
    """
    message = read_message(raw)
    if message is None:
        return None
    _readdress(message, lane, level, tag)
    header = message["headers"].get(HEADER)
    if isinstance(header, dict):
        merged = {**header, **(fields or {})}
        message["headers"][HEADER] = {name: value for name, value in merged.items() if value is not None}
    return json.dumps(message)


def renew_message(raw: bytes | str, *, lane: str, level: int, tag: str, keep_retries: bool) -> str | None:
    """Prepare a message to run again: without its eta, and without its retry count unless `keep_retries`."""
    message = read_message(raw)
    if message is None:
        return None
    _readdress(message, lane, level, tag)
    message["headers"]["eta"] = None
    if not keep_retries:
        message["headers"]["retries"] = 0
    return json.dumps(message)


def _readdress(message: dict[str, Any], lane: str, level: int, tag: str) -> None:
    properties = message["properties"]
    info = properties.get("delivery_info")
    properties["delivery_info"] = {**(info if isinstance(info, dict) else {}), "exchange": "", "routing_key": lane}
    properties["priority"] = level
    if tag:
        properties["delivery_tag"] = tag


@dataclass(frozen=True, slots=True)
class UnackedMessage:
    """A value of `unacked`: the message's own text, and the lane from which it was taken."""

    text: str
    lane: str


def read_unacked(value: bytes | None) -> UnackedMessage | None:
    """Split kombu's triple without decoding and re-encoding the message; None for any other text."""
    if value is None:
        return None
    try:
        inner = value.decode()[1:].lstrip()
        _, end = json.JSONDecoder().raw_decode(inner)
        _, _, lane = json.loads("[0" + inner[end:])
    except (ValueError, TypeError, RecursionError):
        return None
    return UnackedMessage(inner[:end], str(lane))


def unacked_task_id(value: bytes) -> str | None:
    """Read the task id of a value of `unacked`; None for a text that has none."""
    try:
        return str(json.loads(value)[0]["headers"]["id"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


_ID = re.compile(rb'"id":\s*("(?:[^"\\]|\\.)*")')


def task_id_in(raw: bytes) -> str:
    """Read the task id of an undecoded message, to search many; "" where there is none.

    The first `id` counts: in a message that Celery wrote no other field of that name comes before it.
    """
    match = _ID.search(raw)
    try:
        return str(json.loads(match[1])) if match else ""
    except ValueError:
        return ""


def text_filter(name: str | None, wanted: QueuePriority | None) -> Callable[[bytes], bool]:
    """Return a cheap test of undecoded messages, to skip most of a long lane.

    False means that the message cannot match: it lacks the text `name`, or its header has another priority.
    """
    name = name or ""
    text = name.encode() if escaped(name) == name else b""  # kombu may escape it in another way
    any_priority = f'"{HEADER}": {{"priority": "'.encode()
    this_priority = any_priority + (f'{wanted.name}"'.encode() if wanted is not None else b"")

    def may_fit(raw: bytes) -> bool:
        return text in raw and (this_priority in raw or any_priority not in raw)

    return may_fit
