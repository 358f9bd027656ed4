"""Facts about tasks that drain and recovery need beyond the snapshot, read from the ledger and the lanes."""

from collections.abc import Iterable, Iterator

from morag_queue.broker.codec import LedgerRecord, waiting_task
from morag_queue.broker.contract import Broker
from morag_queue.broker.lane_search import LaneSearch
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.estimate import estimate
from morag_queue.core.model import Requires
from morag_queue.core.recovery.drain import RunningTask
from morag_queue.core.recovery.requeue import HeldTasks
from morag_queue.core.snapshot import Snapshot, WorkerView

_PINS_READ = 100
"""Messages read per list to find pins. The count need not be exact: any pin blocks a drain."""


def held_tasks(broker: Broker, task_ids: Iterable[str]) -> HeldTasks:
    """Read the attempts of these tasks, and which of them require a GPU by the ledger."""
    ids = list(task_ids)
    if not ids:
        return HeldTasks()
    with broker.translated():
        attempts, records = broker.evidence.attempts(ids), broker.records(ids)
    return HeldTasks(attempts, {task_id for task_id, record in records.items() if record.requires is Requires.GPU})


def running_tasks(broker: Broker, snapshot: Snapshot, view: WorkerView) -> Iterator[RunningTask]:
    """Yield the tasks that a worker holds, each with its expected remaining minutes, None without an estimate."""
    held = snapshot.held_by_worker.get(view.worker, ())
    records = broker.records(message.task_id for message in held)
    for message in held:
        record = records.get(message.task_id, LedgerRecord({}))
        if record.estimated_minutes is None:
            yield RunningTask(message, None)
            continue
        expected = estimate(record.estimated_minutes, record.requires, view.info.capability)
        yield RunningTask(message, max(expected - (snapshot.taken_at - message.claimed_at) / 60, 0.0))


def pinned_count(broker: RedisBroker, snapshot: Snapshot, worker: str) -> int:
    """Count the tasks in a worker's lanes that are pinned to it; only the head of a long list is read."""
    search, count = LaneSearch(broker.client, broker.keys), 0
    with broker.translated():
        for view in snapshot.lanes_by_worker.get(worker, ()):
            for level, length in enumerate(view.lengths):
                for waiting in search.read(view.lane, level, min(length, _PINS_READ), window=_PINS_READ):
                    task = waiting_task(waiting.raw, view.lane, level)
                    count += task is not None and task.pinned_to == worker
    return count
