"""Whether the fleet does its work right now. `stats --live` shows these as alerts, at every refresh."""

from collections.abc import Iterator

from morag_queue.core.levels import priority_of_level
from morag_queue.core.model import QueueType, WorkerStatus
from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import LaneView, Snapshot, WorkerView
from morag_queue.core.worker_status import SERVING, in_flight, status_in

from .finding import Code, Finding, count, error, some, span, warning


def check_service(snapshot: Snapshot, policy: Policy, *, leader_expected: bool = False) -> Iterator[Finding]:
    """The pressing ones first."""
    word = {view.worker: status_in(snapshot, view, policy)[0] for view in snapshot.workers}
    yield from _gone_with_tasks(snapshot, word)
    yield from _without_worker(snapshot, word)
    yield from _stalled(snapshot, policy, word)
    yield from _starving(snapshot, policy)
    if leader_expected and snapshot.leader is None:
        yield warning(
            Code.LEADER_MISSING, "watch", "nobody leads: nothing is balanced, failed over or kept alive by itself",
            "start it again: morag-queue watch",
        )  # fmt: skip
    foreign = sum(view.foreign for view in snapshot.lanes)
    if foreign:
        lanes = some(view.lane for view in snapshot.lanes if view.foreign)
        yield warning(
            Code.FOREIGN_MESSAGES, lanes, f"{count(foreign, 'message')} at the head of {lanes} not of Celery's form",
            "find who writes them; morag-queue doctor tells more",
        )  # fmt: skip


def _gone_with_tasks(snapshot: Snapshot, word: dict[str, WorkerStatus]) -> Iterator[Finding]:
    """Messages in hands that will not give them back by themselves."""
    for worker, held in sorted(snapshot.held_by_worker.items()):
        if word.get(worker, WorkerStatus.OFFLINE) is WorkerStatus.OFFLINE:
            yield error(
                Code.WORKER_GONE_WITH_TASKS, worker, f"{worker} is gone and still holds {count(len(held), 'task')}",
                f"morag-queue failover {worker}",
            )  # fmt: skip


def _without_worker(snapshot: Snapshot, word: dict[str, WorkerStatus]) -> Iterator[Finding]:
    serving = [view for view in snapshot.workers if word[view.worker] in SERVING]
    for lane in snapshot.lanes:
        if not lane.length or lane.queue in snapshot.paused:
            continue
        waits = count(lane.length, "task")
        if lane.worker is None:
            if not any(lane.queue.value in view.info.queues for view in serving):
                yield error(
                    Code.QUEUE_WITHOUT_WORKER, lane.lane,
                    f"{waits} in {lane.lane}, and no worker in service reads it",
                    f"start one (morag-queue worker, or celery worker -Q {lane.lane}), or uncordon one that does",
                )  # fmt: skip
        elif word.get(lane.worker, WorkerStatus.OFFLINE) is WorkerStatus.OFFLINE:
            is_known = lane.worker in word
            yield error(
                Code.LANE_WITHOUT_WORKER, lane.lane,
                f"{waits} in the lane of {lane.worker}, which is {'offline' if is_known else 'not registered'}",
                f"morag-queue failover {lane.worker}, or start it again",
            )  # fmt: skip


def _stalled(snapshot: Snapshot, policy: Policy, word: dict[str, WorkerStatus]) -> Iterator[Finding]:
    """It beats, has nothing in hand, and work that it could take has waited for a while."""
    grace = policy.suspect_after_seconds
    for view in snapshot.workers:
        if word[view.worker] is not WorkerStatus.ONLINE or in_flight(view, snapshot.held_count(view)):
            continue
        if view.beat is None or view.beat.active or snapshot.taken_at - view.info.started_at < grace:
            continue
        waited = max((_waited(snapshot, lane, view) for lane in _readable(snapshot, view)), default=0.0)
        if waited >= grace:
            yield error(
                Code.WORKER_STALLED, view.worker,
                f"{view.worker} beats but takes nothing, while work for it has waited {span(waited)}",
                f"look at its log, then restart it; morag-queue drain {view.worker} takes it out of service meanwhile",
            )  # fmt: skip


def _readable(snapshot: Snapshot, view: WorkerView) -> Iterator[LaneView]:
    for queue in QueueType:
        if queue.value in view.info.queues and queue not in snapshot.paused:
            yield from (lane for lane in snapshot.lanes_by_queue[queue] if lane.worker in (None, view.worker))


def _waited(snapshot: Snapshot, lane: LaneView, view: WorkerView) -> float:
    """Seconds that the oldest entry has waited at a level that the worker polls."""
    since = [
        at for level, at in enumerate(lane.oldest_enqueued_at) if at is not None and level in view.info.priority_steps
    ]
    return snapshot.taken_at - min(since) if since else 0.0


def _starving(snapshot: Snapshot, policy: Policy) -> Iterator[Finding]:
    for queue in QueueType:
        if queue in snapshot.paused:
            continue
        for level in range(10):
            priority = priority_of_level(level)
            patience = policy.balancing.max_wait_minutes.of(priority) * 60
            since = [
                at for lane in snapshot.lanes_by_queue[queue] if (at := lane.oldest_enqueued_at[level]) is not None
            ]
            waited = snapshot.taken_at - min(since) if since else 0.0
            if waited > patience:
                yield warning(
                    Code.TASKS_STARVING, f"{queue.value} {priority.name}",
                    f"a {priority.name} task has waited {span(waited)} in {queue.value}; {span(patience)} is the limit",
                    f"see which: morag-queue tasks --queue {queue.value}; start more workers, or raise its priority",
                )  # fmt: skip
                break
