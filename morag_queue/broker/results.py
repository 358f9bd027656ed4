"""Celery's results, where they are kept in the broker's database: what a task's process says of its end."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from morag_queue.core.model import Held

from .keys import Keys


def succeeded(client: Redis, keys: Keys, held: Sequence[Held]) -> list[Held]:
    """Those messages whose task has succeeded since they were taken.

    A result is written by the process that ran the task, before the worker acknowledges the message: a worker that was
    killed between the two holds a message of a task that is done. An older result is of an earlier run of that id.
    """
    found: Any = client.mget([keys.result(one.task_id) for one in held]) if held else []
    return [one for one, text in zip(held, found, strict=True) if text and _done_at(text) >= one.claimed_at]


def _done_at(text: bytes) -> float:
    """Seconds since the epoch; 0 for what is no success, or does not say when."""
    try:
        result = json.loads(text)
        if result["status"] != "SUCCESS":
            return 0.0
        at = datetime.fromisoformat(result["date_done"])
    except (ValueError, TypeError, KeyError):
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
