"""What a message says of itself in its headers, as an entry of the picture. Whatever it holds, nothing is raised."""

import json
from enum import Enum
from typing import Any, Final, Literal, TypeVar

from morag_queue.core.levels import LEVELS, priority_of_level
from morag_queue.core.model import ContentType, QueuePriority, QueueType, Requires
from morag_queue.core.snapshot import Head

from .header import HEADER


class _Foreign(Enum):
    FOREIGN = 0


FOREIGN: Final = _Foreign.FOREIGN
Read = Head | None | Literal[_Foreign.FOREIGN]
_E = TypeVar("_E", bound=Enum)


def head(raw: bytes | str, level: int) -> Read:
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
    return Head(
        task_id=task_id,
        requires=_one_of(Requires, entry.get("requires")) or Requires.CPU,
        priority=_priority(entry.get("priority"), level),
        minutes=_number(entry.get("estimated_minutes")),
        enqueued_at=_number(entry.get("enqueued_at")),
        content_type=_one_of(ContentType, entry.get("content_type")),
        queue=_one_of(QueueType, entry.get("queue")),
        worker=worker if isinstance(worker, str) else None,
    )


def _priority(word: Any, level: int) -> QueuePriority:
    known = QueuePriority.__members__.get(word) if isinstance(word, str) else None
    return known or priority_of_level(min(level, LEVELS[-1]))


def _one_of(kind: type[_E], value: Any) -> _E | None:
    if not isinstance(value, str):
        return None
    known: Any = kind._value2member_map_.get(value)
    return known  # type: ignore[no-any-return]


def _number(value: Any) -> float:
    """0 where it is missing or no finite number."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e15 else 0.0
