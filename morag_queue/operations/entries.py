"""The waiting tasks of each queue, and the tasks of each worker, for services. Both read the lanes from end to end."""

from collections.abc import Iterator
from itertools import islice

from morag_queue.broker.codec import waiting_entry, with_record
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import QueueType, TaskQueueEntry
from morag_queue.core.task import TaskFilter

from .tasks import SelectedTask, Tasks

_BATCH = 500
"""Tasks whose ledger records are read in one call."""


def queue_entries(broker: RedisBroker) -> dict[QueueType, list[TaskQueueEntry]]:
    """Return the waiting tasks of all four queues, the next to run first."""
    tasks = Tasks(broker, broker.settings)
    found: dict[QueueType, list[TaskQueueEntry]] = {queue: [] for queue in QueueType}
    for entry in _entries(broker, tasks.waiting(TaskFilter())):
        found[entry.queue].append(entry)
    return found


def worker_assignments(broker: RedisBroker) -> dict[str, list[str]]:
    """Return the ids of the tasks of each worker: those that it holds, then those in its lanes."""
    tasks = Tasks(broker, broker.settings)
    found: dict[str, list[str]] = {view.worker: [] for view in tasks.snapshot.workers}
    for held in tasks.snapshot.held:
        found.setdefault(held.worker, []).append(held.task_id)
    for worker, lanes in tasks.snapshot.lanes_by_worker.items():
        if any(lane.length for lane in lanes):
            waiting = tasks.waiting(TaskFilter(worker=worker))
            found.setdefault(worker, []).extend(selected.task.task_id for selected in waiting)
    return found


def _entries(broker: RedisBroker, waiting: Iterator[SelectedTask]) -> Iterator[TaskQueueEntry]:
    limit = broker.settings.policy.max_retries
    while batch := list(islice(waiting, _BATCH)):
        ids = [selected.task.task_id for selected in batch]
        records = broker.records(ids)
        with broker.translated():
            attempts = broker.evidence.attempts(ids)
        for selected in batch:
            task = with_record(selected.task, records.get(selected.task.task_id))
            entry = waiting_entry(task, selected.waiting.raw, attempts.get(task.task_id, 0), limit)
            if entry is not None:
                yield entry
