"""Results of Celery's backend, in the broker's database or another one."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from morag_queue.core.enums import TaskState
from morag_queue.core.lanes import queue_of
from morag_queue.core.worker_records import HeldMessage
from morag_queue.settings import Settings

from .codec import LedgerRecord, TaskResult, completed_record, read_result
from .keys import RESULT_KEYS, Keys
from .ledger import Ledger, TaskEnd
from .translated import translated

if TYPE_CHECKING:
    from redis import Redis


class ResultReader:
    """Reads the results of one backend. `url` is for messages. A result that is not JSON reads as missing."""

    def __init__(self, client: "Redis", prefix: str, url: str) -> None:
        self.client, self.url, self._prefix = client, url, prefix

    @classmethod
    def of_settings(cls, client: "Redis", keys: Keys, settings: Settings) -> "ResultReader":
        """The backend of the settings; `client` and `keys` are those of the broker, the default."""
        results = settings.results
        prefix = keys.result("")
        if results.global_keyprefix:
            given = results.global_keyprefix
            prefix = given + ("" if given[-1] in ":_-." else "_") + RESULT_KEYS  # as Celery does
        if not results.url:
            return cls(client, prefix, settings.redis_url)
        from .connection import connect

        return cls(connect(results.url, settings.broker), prefix, results.url)

    def read(self, task_ids: Sequence[str]) -> list[TaskResult | None]:
        """Raises BrokerUnreachable or BrokerError, with the URL of the backend."""
        with translated(self.url):
            found: Any = self.client.mget([self._prefix + task_id for task_id in task_ids]) if task_ids else []
        return list(map(read_result, found))


class Results:
    """Reads results, and ends tasks whose worker died after the work and before the acknowledgement.

    The process that runs a task stores its result before the worker acknowledges the message. Such a task must not run
    again.
    """

    def __init__(self, reader: ResultReader, ledger: Ledger) -> None:
        self._reader, self._ledger = reader, ledger

    def get(self, task_id: str) -> TaskResult | None:
        """Raises BrokerUnreachable or BrokerError, with the URL of the backend."""
        return self._reader.read([task_id])[0]

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
        results = self._reader.read([message.task_id for message in held])
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
