"""Wait until the tasks of a submit have ended."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from morag_queue.broker.codec import LedgerRecord
from morag_queue.broker.contract import Broker
from morag_queue.core.model import TaskState


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `error` is what its worker recorded, or why it was cancelled."""

    state: str
    error: str = ""

    @property
    def is_success(self) -> bool:
        return self.state == TaskState.COMPLETED


_UNKNOWN = Outcome("unknown", "its ledger record has expired")


def wait_for(
    broker: Broker, task_ids: Iterable[str], pause: Callable[[], None], on_ended: Callable[[int], None]
) -> Mapping[str, Outcome]:
    """Wait until each task has ended; return how each did. `pause` is called between two polls.

    A task whose record has expired (it ended longer ago than the retention time) is "unknown".
    """
    open_ids, states = list(task_ids), dict[str, Outcome]()
    while open_ids:
        records = broker.records(open_ids)
        ended = {
            task_id: _outcome(records.get(task_id))
            for task_id in open_ids
            if task_id not in records or records[task_id].state is not TaskState.QUEUED
        }
        states |= ended
        open_ids = [task_id for task_id in open_ids if task_id not in ended]
        on_ended(len(ended))
        if open_ids:
            pause()
    return states


def _outcome(record: LedgerRecord | None) -> Outcome:
    return _UNKNOWN if record is None or record.state is None else Outcome(record.state, record.error)
