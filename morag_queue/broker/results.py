"""Results of Celery's backend, where it uses the broker's database."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from morag_queue.core.enums import TaskState
from morag_queue.core.lanes import queue_of
from morag_queue.core.worker_records import HeldMessage

from .codec import LedgerRecord, TaskResult, completed_record, read_result
from .keys import Keys
from .ledger import Ledger, TaskEnd

if TYPE_CHECKING:
    from redis import Redis


class Results:
    """Reads results, and ends tasks whose worker died after the work and before the acknowledgement.

    The process that runs a task stores its result before the worker acknowledges the message. Such a task must not run
    again.
    """

    def __init__(self, client: "Redis", keys: Keys, ledger: Ledger) -> None:
        self._client, self._keys, self._ledger = client, keys, ledger

    def get(self, task_id: str) -> TaskResult | None:
        return read_result(self._client.get(self._keys.result(task_id)))

    def finish(self, held: Iterable[HeldMessage]) -> list[str]:
        """End those of these messages whose result is a success; return their task ids.

        The messages must belong to dead or fenced workers. A result older than the claim belongs to an earlier run of
        the same id. Safe to repeat: a task ends once.
        """
        done = self._succeeded(list(held))
        if not done:
            return []
        records = self._ledger.records(message.task_id for message in done)
        return [
            message.task_id for message in done if self._ledger.settle(_task_end(message, records.get(message.task_id)))
        ]

    def _succeeded(self, held: list[HeldMessage]) -> list[HeldMessage]:
        texts: list[bytes | None] = (
            self._client.mget([self._keys.result(message.task_id) for message in held]) if held else []  # type: ignore[assignment]
        )
        results = map(read_result, texts)
        return [
            message
            for message, result in zip(held, results, strict=True)
            if _succeeded_since(result, message.claimed_at)
        ]


def _succeeded_since(result: TaskResult | None, claimed_at: float) -> bool:
    if result is None or result.status != "SUCCESS" or result.ended_at is None:
        return False
    return result.ended_at >= claimed_at


def _task_end(held: HeldMessage, record: LedgerRecord | None) -> TaskEnd:
    return TaskEnd(
        held.tag, held.task_id, held.worker, queue_of(held.lane) or "", TaskState.COMPLETED, None, None,
        completed_record(held, record),
    )  # fmt: skip
