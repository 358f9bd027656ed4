"""The message header that carries the entry: words of priority, enqueue time, requirements.

Apart from `wire`, so that who only reads it need not import Celery.
"""

from typing import Any

from morag_queue.core.model import TaskQueueEntry

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
