"""Celery's results, where they are kept in the broker's database: what a task's process says of its end."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import HeldMessage, TaskState

from .keys import Keys
from .ledger import Ledger, TaskEnd

_CARRIED = ("priority", "enqueued_at", "queue", "requires", "estimated_minutes", "content_type", "task")


class Results:
    """What a dead worker had ended and not acknowledged: it is done, and to run it again would be once too often.

    A result is written by the process that ran the task, before the worker acknowledges the message: a worker that was
    killed between the two holds a message of a task that is done. An older result is of an earlier run of that id.
    """

    def __init__(self, client: Redis, keys: Keys, ledger: Ledger) -> None:
        self._client, self._keys, self._ledger = client, keys, ledger

    def finish(self, held: Iterable[HeldMessage]) -> list[str]:
        """Ends those tasks, of hands that are dead or fenced, of which a result says that they succeeded; their ids.

        How long they ran is not known. Whoever does it twice, or late, changes nothing: an end is written once.
        """
        done = self._succeeded(list(held))
        records = self._ledger.records([one.task_id for one in done])
        return [one.task_id for one in done if self._ledger.settle(_ending(one, records.get(one.task_id, {})))]

    def _succeeded(self, held: Sequence[HeldMessage]) -> list[HeldMessage]:
        found: Any = self._client.mget([self._keys.result(one.task_id) for one in held]) if held else []
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


def _ending(one: HeldMessage, known: Mapping[str, Any]) -> TaskEnd:
    queue = queue_of(one.lane)
    record = {name: known[name] for name in _CARRIED if name in known} | {
        "state": TaskState.COMPLETED, "lane": one.lane, "worker": one.worker, "started_at": None,
        "wait_seconds": None, "run_seconds": None, "error": "",
    }  # fmt: skip
    return TaskEnd(one.tag, one.task_id, one.worker, queue or "", TaskState.COMPLETED, None, None, record)
