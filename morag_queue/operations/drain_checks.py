"""What a drain is checked against before anything is touched."""

from collections.abc import Iterator

from morag_queue.broker.codec import LedgerRecord, waiting_task
from morag_queue.broker.lane_search import LaneSearch
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.estimate import estimate
from morag_queue.core.plan import Blocker
from morag_queue.core.recovery.drain import RunningTask, drain_blockers
from morag_queue.core.snapshot import Snapshot, WorkerView

_PINS_LOOKED_AT = 100
"""Messages of each list in which pins are looked for: whether there are some is the question, not how many."""


def preflight(
    broker: RedisBroker, snapshot: Snapshot, view: WorkerView, deadline_seconds: float | None
) -> tuple[Blocker, ...]:
    """All that stands against draining the worker now, whether or not it is overridden."""
    return drain_blockers(
        snapshot, view, broker.settings.policy, running=tuple(_running(broker, snapshot, view)),
        pinned=_pinned(broker, snapshot, view.worker), deadline_seconds=deadline_seconds,
    )  # fmt: skip


def _running(broker: RedisBroker, snapshot: Snapshot, view: WorkerView) -> Iterator[RunningTask]:
    held = snapshot.held_by_worker.get(view.worker, ())
    records = broker.records(one.task_id for one in held)
    for one in held:
        record = LedgerRecord(records.get(one.task_id, {}))
        if record.estimated_minutes is None:
            yield RunningTask(one, None)
            continue
        expected = estimate(record.estimated_minutes, record.requires, view.info.capability)
        yield RunningTask(one, max(expected - (snapshot.taken_at - one.claimed_at) / 60, 0.0))


def _pinned(broker: RedisBroker, snapshot: Snapshot, worker: str) -> int:
    search, count = LaneSearch(broker.client, broker.keys), 0
    with broker.translated():
        for lane in snapshot.lanes_by_worker.get(worker, ()):
            for level, length in enumerate(lane.lengths):
                for waiting in search.read(lane.lane, level, min(length, _PINS_LOOKED_AT), window=_PINS_LOOKED_AT):
                    task = waiting_task(waiting.raw, lane.lane, level)
                    count += task is not None and task.pinned_to == worker
    return count
