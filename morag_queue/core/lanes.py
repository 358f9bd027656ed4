"""Lane names. A lane is one Celery queue name: a queue's shared lane, or the lane of one worker in it.

A queue name has no dot, a worker's id may have some (and glob characters too), so a name is split at its first dot.
"""

from .model import QueueType

_SEPARATOR = "."


def lane(queue: str, worker: str | None = None) -> str:
    """The shared lane of a queue, or the lane of one worker in it."""
    return str(queue) if worker is None else f"{queue}{_SEPARATOR}{worker}"


def split(name: str) -> tuple[str, str | None]:
    """The queue and the worker of a lane; no worker for a shared lane. The inverse of `lane`."""
    queue, separator, worker = name.partition(_SEPARATOR)
    return queue, worker if separator else None


def queue_of(name: str) -> QueueType | None:
    """Which of the four queues a lane belongs to; None for a lane that is not ours."""
    try:
        return QueueType(split(name)[0])
    except ValueError:
        return None
