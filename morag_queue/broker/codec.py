"""The message header that carries the entry: words of priority, enqueue time, requirements.

Apart from `wire`, so that who only reads it need not import Celery.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal, TypeVar

from morag_queue.core import lanes
from morag_queue.core.levels import LEVELS, priority_of_level
from morag_queue.core.model import ContentType, QueuePriority, QueueType, Requires, TaskQueueEntry, TaskState
from morag_queue.core.snapshot import LaneEntry
from morag_queue.core.task import Task

HEADER = "morag_queue"


def fields(entry: TaskQueueEntry) -> dict[str, Any]:
    """What travels with the message."""
    carried: dict[str, Any] = {
        "priority": entry.priority.name,
        "enqueued_at": round(entry.enqueued_at, 3),
        "queue": entry.queue,
        "requires": entry.requires,
        "estimated_minutes": round(entry.estimated_duration, 4),
    }
    if entry.content_type is not None:
        carried["content_type"] = entry.content_type
    if entry.worker is not None:
        carried["worker"] = entry.worker
    return carried


_E = TypeVar("_E", bound=Enum)


def decoded(raw: bytes | str) -> dict[str, Any] | None:
    """The message as Celery writes it (protocol 2); None for anything else."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("body"), str):
        return None
    parts = (message.get("headers"), message.get("properties"))
    return message if all(isinstance(part, dict) for part in parts) else None


def waiting_task(
    raw: bytes | str, lane: str, level: int, depth: int | None = None, position: int | None = None
) -> Task | None:
    """A message in a lane; None where it is not Celery's."""
    message = decoded(raw)
    if message is None:
        return None
    headers = message["headers"]
    entry = headers.get(HEADER)
    entry = entry if isinstance(entry, dict) else {}
    retries = _integer(headers.get("retries"))
    return Task(
        task_id=str(headers.get("id") or ""),
        state=TaskState.RETRYING if retries else TaskState.QUEUED,
        task=str(headers.get("task") or ""),
        source=str(headers.get("argsrepr") or ""),
        lane=lane,
        level=level,
        depth=depth,
        position=position,
        eta_at=_time(headers.get("eta")),
        retries=retries,
        **entry_fields(entry, lane, level),
    )


def entry_fields(entry: Mapping[str, Any], lane: str, level: int) -> dict[str, Any]:
    """What our header, or a ledger record, says of a task; where it says nothing, what follows from its place."""
    return {
        "priority": _priority(entry.get("priority"), level),
        "requires": _one_of(Requires, entry.get("requires")) or Requires.CPU,
        "content_type": _one_of(ContentType, entry.get("content_type")),
        "queue": lanes.queue_of(lane),
        "pinned_to": entry["worker"] if isinstance(entry.get("worker"), str) else None,
        "enqueued_at": number(entry.get("enqueued_at")),
        "estimated_duration": number(entry.get("estimated_minutes")),
    }


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _priority(word: Any, level: int) -> QueuePriority:
    known = QueuePriority.__members__.get(word) if isinstance(word, str) else None
    return known or priority_of_level(level)


def _one_of(kind: type[_E], value: Any) -> _E | None:
    try:
        return kind(value)
    except ValueError:
        return None


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _time(text: Any) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def rewritten(raw: bytes | str, *, lane: str, level: int, tag: str = "", **entry: Any) -> str:
    """The message for another place: address, level and, with `tag`, delivery tag; `entry` goes into our header.

    A value of None takes the field out of the header; a message without our header gets none. Unlike cjson, Python
    keeps `{}` and `[]` apart, and the body is a string to it.
    """
    message = json.loads(raw)
    properties = message["properties"]
    info = properties.get("delivery_info")
    properties["delivery_info"] = {**(info if isinstance(info, dict) else {}), "exchange": "", "routing_key": lane}
    properties["priority"] = level
    if tag:
        properties["delivery_tag"] = tag
    header = message["headers"].get(HEADER)
    if isinstance(header, dict):
        message["headers"][HEADER] = {k: v for k, v in {**header, **entry}.items() if v is not None}
    return json.dumps(message)


def fresh(raw: str, *, keep_retries: bool) -> str:
    """The message to be run again: at once, and its own retries counted from the beginning unless they are kept."""
    message = json.loads(raw)
    message["headers"]["eta"] = None
    if not keep_retries:
        message["headers"]["retries"] = 0
    return json.dumps(message)


class _Foreign(Enum):
    FOREIGN = 0


FOREIGN: Final = _Foreign.FOREIGN


Read = LaneEntry | None | Literal[_Foreign.FOREIGN]


def lane_entry(raw: bytes | str, level: int) -> Read:
    """The entry; None for a message of Celery's that was not submitted by us, `FOREIGN` for what is no such message."""
    try:
        headers = json.loads(raw)["headers"]
        task_id = headers.get("id")
        entry = headers.get(HEADER)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return FOREIGN
    if not isinstance(entry, dict) or not isinstance(task_id, str):
        return None
    worker = entry.get("worker")
    return LaneEntry(
        task_id=task_id,
        requires=_member(Requires, entry.get("requires")) or Requires.CPU,
        priority=_entry_priority(entry.get("priority"), level),
        minutes=_number(entry.get("estimated_minutes")),
        enqueued_at=_number(entry.get("enqueued_at")),
        content_type=_member(ContentType, entry.get("content_type")),
        queue=_member(QueueType, entry.get("queue")),
        worker=worker if isinstance(worker, str) else None,
    )


def _entry_priority(word: Any, level: int) -> QueuePriority:
    known = QueuePriority.__members__.get(word) if isinstance(word, str) else None
    return known or priority_of_level(min(level, LEVELS[-1]))


def _member(kind: type[_E], value: Any) -> _E | None:
    if not isinstance(value, str):
        return None
    known: Any = kind._value2member_map_.get(value)
    return known  # type: ignore[no-any-return]


def _number(value: Any) -> float:
    """0 where it is missing or no finite number."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e15 else 0.0
