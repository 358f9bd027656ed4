"""Paused queues in words, the same in `doctor`, `task why` and `submit`."""

from .model import QueueType
from .snapshot import Snapshot
from .words import span


def paused_words(snapshot: Snapshot, queue: QueueType) -> str:
    """Return `is paused`, or if it is recorded: when it was paused, by whom and why."""
    pause = snapshot.pause_of(queue)
    if pause is None or not pause.at:
        return "is paused"
    by = f" by {pause.who}" if pause.who else ""
    why = f" ({pause.reason})" if pause.reason else ""
    return f"was paused {span(max(snapshot.taken_at - pause.at, 0.0))} ago{by}{why}"


def resume_command(queue: QueueType) -> str:
    return f"morag-queue resume {queue.value}"
