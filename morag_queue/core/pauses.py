"""Paused queues in words, the same in `stats`, `doctor`, `task why` and `submit`."""

from .model import Pause, QueueType
from .words import span


def paused_words(pause: Pause | None, now: float) -> str:
    """Return `is paused`, or if it is recorded: when it was paused, by whom and why. `now` is the server's clock."""
    if pause is None or not pause.at:
        return "is paused"
    by = f" by {pause.who}" if pause.who else ""
    why = f" ({pause.reason})" if pause.reason else ""
    return f"was paused {span(max(now - pause.at, 0.0))} ago{by}{why}"


def resume_command(queue: QueueType) -> str:
    return f"morag-queue resume {queue.value}"
