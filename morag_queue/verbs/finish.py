"""What a dead worker had ended and not acknowledged: it is done, and to run it again would be once too often."""

from collections.abc import Collection, Mapping
from typing import Any

from morag_queue.broker.ledger import Ending
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.results import succeeded
from morag_queue.core.lanes import queue_of
from morag_queue.core.model import Held, TaskState
from morag_queue.core.snapshot import Snapshot

_CARRIED = ("priority", "enqueued_at", "queue", "requires", "estimated_minutes", "content_type", "task")


def finish(broker: RedisBroker, picture: Snapshot, workers: Collection[str]) -> list[str]:
    """Ends those tasks of these dead workers of which a result says that they succeeded; their ids.

    How long they ran is not known. Whoever does it twice, or late, changes nothing: an end is written once.
    """
    held = [one for worker in workers for one in picture.held_by_worker.get(worker, ())]
    with broker.translated():
        done = succeeded(broker.client, broker.keys, held)
        records = broker.ledger.records([one.task_id for one in done])
        return [one.task_id for one in done if broker.ledger.settle(_ending(one, records.get(one.task_id, {})))]


def _ending(one: Held, known: Mapping[str, Any]) -> Ending:
    queue = queue_of(one.lane)
    record = {name: known[name] for name in _CARRIED if name in known} | {
        "state": TaskState.COMPLETED, "lane": one.lane, "worker": one.worker, "started_at": None,
        "wait_seconds": None, "run_seconds": None, "error": "",
    }  # fmt: skip
    return Ending(one.tag, one.task_id, one.worker, queue or "", TaskState.COMPLETED, None, None, record)
