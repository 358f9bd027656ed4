"""Checks of the service right now. `stats --live` shows their findings as alerts at every refresh."""

from collections.abc import Iterator

from morag_queue.core.levels import priority_of_level
from morag_queue.core.model import QueuePriority, QueueType, WorkerStatus
from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import LaneView, Snapshot, WorkerView
from morag_queue.core.words import count_of, is_are, some, span
from morag_queue.core.worker_status import SERVING, in_flight, is_suspect, silence_seconds, status_in

from .finding import Code, Finding, error, warning


def check_service(snapshot: Snapshot, policy: Policy, *, last_led_at: float | None = None) -> Iterator[Finding]:
    """Check workers, lanes, waits and the leader; the most urgent findings come first.

    `last_led_at` is when a `watch` last led, None if that is long ago.
    """
    statuses = {view.worker: status_in(snapshot, view, policy)[0] for view in snapshot.workers}
    yield from _gone_with_tasks(snapshot, policy)
    yield from _suspects(snapshot, policy)
    yield from _without_worker(snapshot, statuses)
    yield from _stalled(snapshot, policy, statuses)
    yield from _starving(snapshot, policy)
    if last_led_at is not None and snapshot.leader is None:
        yield warning(
            Code.LEADER_MISSING, "watch",
            f"no watch leads, the last one led {span(max(snapshot.taken_at - last_led_at, 0.0))} ago: {UNLED}",
            "restart it: morag-queue watch",
        )  # fmt: skip
    foreign = sum(view.foreign for view in snapshot.lanes)
    if foreign:
        lanes = some(view.lane for view in snapshot.lanes if view.foreign)
        yield warning(
            Code.FOREIGN_MESSAGES, lanes,
            f"{count_of(foreign, 'message')} at the head of {lanes} {is_are(foreign)} not Celery's",
            "find the program that writes them; morag-queue doctor shows details",
        )  # fmt: skip


UNLED = "the fleet is neither balanced nor failed over automatically"
"""Consequence of a missing leader."""


def _gone_with_tasks(snapshot: Snapshot, policy: Policy) -> Iterator[Finding]:
    """Workers that are offline and still hold messages: only a failover requeues them."""
    for worker, held in sorted(snapshot.held_by_worker.items()):
        view = snapshot.worker_by_id.get(worker)
        if view is not None and is_suspect(view, snapshot.taken_at, policy):
            continue
        status, reason = status_in(snapshot, view, policy) if view else (WorkerStatus.OFFLINE, "not registered")
        if status is WorkerStatus.OFFLINE:
            state = "dead" if view is not None and (view.fenced or view.connections == 0) else "gone"
            yield error(
                Code.WORKER_GONE_WITH_TASKS, worker,
                f"{worker} is {state} ({reason}): its {count_of(len(held), 'task')} "
                f"{'waits' if len(held) == 1 else 'wait'} for recovery",
                f"morag-queue failover {worker}",
            )  # fmt: skip


def _suspects(snapshot: Snapshot, policy: Policy) -> Iterator[Finding]:
    """Workers that are silent and not proved dead: a failover refuses them, because they may still run their tasks."""
    for view in sorted(snapshot.workers, key=lambda view: view.worker):
        if not is_suspect(view, snapshot.taken_at, policy):
            continue
        _, reason = status_in(snapshot, view, policy)
        count = len(snapshot.held_by_worker.get(view.worker, ()))
        tasks = f"; it holds {count_of(count, 'task')}" if count else ""
        is_late = silence_seconds(view, snapshot.taken_at) > policy.offline_after_seconds
        info = view.info
        yield (error if count and is_late else warning)(
            Code.WORKER_SUSPECT, view.worker,
            f"{view.worker} may be stopped, blocked or cut off ({reason}){tasks}",
            f"look at process {info.pid} on {info.host} (kill -CONT {info.pid} lets a stopped one continue); "
            f"morag-queue failover {view.worker} --force gives its tasks to other workers",
        )  # fmt: skip


def _without_worker(snapshot: Snapshot, statuses: dict[str, WorkerStatus]) -> Iterator[Finding]:
    serving = [view for view in snapshot.workers if statuses[view.worker] in SERVING]
    for lane in snapshot.lanes:
        if not lane.length or lane.queue in snapshot.paused:
            continue
        waiting = f"{count_of(lane.length, 'task')} {'waits' if lane.length == 1 else 'wait'}"
        if lane.worker is None:
            if not any(lane.queue.value in view.info.queues for view in serving):
                yield error(
                    Code.QUEUE_WITHOUT_WORKER, lane.lane,
                    f"{waiting} in {lane.lane}, and no worker in service reads it",
                    f"start one (morag-queue worker, or celery worker -Q {lane.lane}), or uncordon one that reads it",
                )  # fmt: skip
        elif statuses.get(lane.worker, WorkerStatus.OFFLINE) is WorkerStatus.OFFLINE:
            is_known = lane.worker in statuses
            yield error(
                Code.LANE_WITHOUT_WORKER, lane.lane,
                f"{waiting} in the lane of {lane.worker}, which is {'offline' if is_known else 'not registered'}",
                f"morag-queue failover {lane.worker}, or restart the worker",
            )  # fmt: skip


def _stalled(snapshot: Snapshot, policy: Policy, statuses: dict[str, WorkerStatus]) -> Iterator[Finding]:
    """Workers that send heartbeats and hold nothing, while work that they could take is waiting."""
    grace = policy.suspect_after_seconds
    for view in snapshot.workers:
        if statuses[view.worker] is not WorkerStatus.ONLINE or in_flight(view, snapshot.held_count(view)):
            continue
        if view.beat is None or view.beat.active or snapshot.taken_at - view.info.started_at < grace:
            continue
        waited = max((_waited(snapshot, lane, view) for lane in _readable(snapshot, view)), default=0.0)
        if waited >= grace:
            yield error(
                Code.WORKER_STALLED, view.worker,
                f"{view.worker} sends heartbeats but claims nothing, while work for it has waited {span(waited)}",
                f"see its log, then restart it; morag-queue drain {view.worker} takes it out of service meanwhile",
            )  # fmt: skip


def _readable(snapshot: Snapshot, view: WorkerView) -> Iterator[LaneView]:
    """Yield the lanes that the worker reads and that are not paused."""
    for queue in QueueType:
        if queue.value in view.info.queues and queue not in snapshot.paused:
            yield from (lane for lane in snapshot.lanes_by_queue[queue] if lane.worker in (None, view.worker))


def _waited(snapshot: Snapshot, lane: LaneView, view: WorkerView) -> float:
    """Return how long the oldest entry at a level that the worker polls has waited, in seconds."""
    since = [
        at for level, at in enumerate(lane.oldest_enqueued_at) if at is not None and level in view.info.priority_steps
    ]
    return snapshot.taken_at - min(since) if since else 0.0


def _starving(snapshot: Snapshot, policy: Policy) -> Iterator[Finding]:
    """Report the most urgent level of each queue that has exceeded the maximum wait of its priority."""
    for queue in QueueType:
        if queue in snapshot.paused:
            continue
        for level in range(10):
            priority = priority_of_level(level)
            limit_s = policy.balancing.max_wait_minutes.of(priority) * 60
            since = [
                at for lane in snapshot.lanes_by_queue[queue] if (at := lane.oldest_enqueued_at[level]) is not None
            ]
            waited = snapshot.taken_at - min(since) if since else 0.0
            if waited > limit_s:
                article = "an" if priority is QueuePriority.URGENT else "a"
                yield warning(
                    Code.TASKS_STARVING, f"{queue.value} {priority.name}",
                    f"{article} {priority.name} task has waited {span(waited)} in {queue.value}; "
                    f"the limit is {span(limit_s)}",
                    f"list them: morag-queue tasks --queue {queue.value}; start more workers, or raise the priority",
                )  # fmt: skip
                break
