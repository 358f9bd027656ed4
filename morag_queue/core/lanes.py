"""Lane names. A lane is one Celery queue name: the shared lane of a queue, or the lane of one worker in it.

A queue name has no dot, but a worker id may contain dots and glob characters: a lane name is split at its first dot.
"""

from .enums import QueueType

_SEPARATOR = "."


def lane(queue: str, worker: str | None = None) -> str:
    """Return the name of a queue's shared lane, or of the lane of one worker in it."""
    return str(queue) if worker is None else f"{queue}{_SEPARATOR}{worker}"


def split(name: str) -> tuple[str, str | None]:
    """Return the queue and the worker of a lane, None for a shared lane. The inverse of `lane`."""
    queue, separator, worker = name.partition(_SEPARATOR)
    return queue, worker if separator else None


def queue_of(name: str) -> QueueType | None:
    """Return which of the four queues a lane belongs to; None for the lane of another application."""
    try:
        return QueueType(split(name)[0])
    except ValueError:
        return None
