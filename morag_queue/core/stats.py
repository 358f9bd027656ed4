"""The figures a person reads, out of a snapshot and the counters: queues, workers, the fleet.

Counts of completed and failed tasks are of all time, averages and rates of the window. Times are minutes, as the
models have them.
"""

from collections.abc import Mapping

from .histogram import Window, quantile
from .lanes import queue_of
from .levels import priority_of_level
from .model import FleetStats, QueuePriority, QueueStats, QueueType, WorkerStats
from .policy import Policy
from .snapshot import Snapshot, Totals, WorkerView
from .worker_status import SERVING, in_flight, status_in

# What a task counts as in the backlog where none has ended and none says how long it will take: as a web page.
ASSUMED_RUN_S = 60.0


def queue_stats(
    queue: QueueType, snapshot: Snapshot, window: Window, totals: Totals, serving: tuple[WorkerView, ...]
) -> QueueStats:
    """One queue. `serving` are the workers in service that read it, see `serving_workers`.

    `processing_tasks` are the messages in workers' hands. `backlog_time` is pending tasks × their mean run time ÷
    serving slots: the mean of the window, else of all time, else of the estimates, else `ASSUMED_RUN_S`; as if by one
    slot while nobody serves the queue.
    """
    pending = snapshot.pending[queue]
    processing = sum(queue_of(one.lane) is queue for one in snapshot.held)
    slots = sum(max(view.info.slots, 1) for view in serving)
    mean_run_s = window.mean_run_seconds or totals.mean_run_seconds or _estimated_run_s(queue, snapshot)
    return QueueStats(
        queue_type=queue,
        total_tasks=pending + processing + totals.completed + totals.failed,
        pending_tasks=pending,
        processing_tasks=processing,
        completed_tasks=totals.completed,
        failed_tasks=totals.failed,
        average_wait_time=(window.mean_wait_seconds or 0.0) / 60,
        average_processing_time=(window.mean_run_seconds or 0.0) / 60,
        p95_wait_time=quantile(window.waits, 0.95) / 60,
        worker_count=len(serving),
        oldest_wait_time=_oldest_wait_s(queue, snapshot) / 60,
        backlog_time=pending * mean_run_s / 60 / max(slots, 1),
        pending_by_priority=_pending_by_priority(queue, snapshot),
        arrivals_per_minute=window.per_minute(window.arrivals),
        completions_per_minute=window.per_minute(window.ended),
        paused=queue in snapshot.paused,
    )


def worker_stats(view: WorkerView, snapshot: Snapshot, policy: Policy) -> WorkerStats:
    """One worker. `active_tasks` runs: what is in its hands, but for what its last beat said was only reserved."""
    info, beat = view.info, view.beat
    word, reason = status_in(snapshot, view, policy)
    silence = None if beat is None else max(snapshot.taken_at - beat.at, 0.0)
    hands = in_flight(view, snapshot.held_count(view))
    return WorkerStats(
        worker=info.worker,
        capability=info.capability,
        status=word,
        active_tasks=_active(view, hands, snapshot.taken_at - policy.offline_after_seconds),
        assigned_tasks=hands + snapshot.waiting_count(info.worker),
        max_concurrent_tasks=info.slots,
        completed_tasks=view.totals.completed,
        failed_tasks=view.totals.failed,
        last_heartbeat_seconds=silence,
        reason=reason,
        host=info.host,
        queues=info.queues,
        cpu_percent=beat.cpu_percent if beat else 0.0,
        memory_percent=beat.memory_percent if beat else 0.0,
        gpu_percent=beat.gpu_percent if beat else None,
        average_processing_time=(view.totals.mean_run_seconds or 0.0) / 60,
        success_rate=view.totals.success_rate,
        failures_in_a_row=view.totals.failures_in_a_row,
    )


def fleet_stats(
    snapshot: Snapshot,
    windows: Mapping[QueueType, Window],
    totals: Mapping[QueueType, Totals],
    policy: Policy,
    *,
    window_seconds: float,
) -> FleetStats:
    """Everything at once: all four queues, used or not, and the workers by their ids."""
    serving = serving_workers(snapshot, policy)
    return FleetStats(
        taken_at=snapshot.taken_at,
        window_seconds=window_seconds,
        queues=tuple(
            queue_stats(queue, snapshot, windows.get(queue, Window()), totals.get(queue, Totals()), serving[queue])
            for queue in QueueType
        ),
        workers=tuple(
            worker_stats(view, snapshot, policy) for view in sorted(snapshot.workers, key=lambda view: view.info.worker)
        ),
        leader=snapshot.leader,
        foreign_messages=sum(view.foreign for view in snapshot.lanes),
    )


def serving_workers(snapshot: Snapshot, policy: Policy) -> Mapping[QueueType, tuple[WorkerView, ...]]:
    """For each queue the workers that read it and are in service: online or busy."""
    serving = [view for view in snapshot.workers if status_in(snapshot, view, policy)[0] in SERVING]
    return {queue: tuple(view for view in serving if queue.value in view.info.queues) for queue in QueueType}


def _active(view: WorkerView, hands: int, alive_since: float) -> int:
    beat = view.beat
    if beat is None or beat.stopped or beat.at < alive_since or view.fenced:
        return 0
    return min(max(hands - beat.reserved, 0), view.info.slots)


def _oldest_wait_s(queue: QueueType, snapshot: Snapshot) -> float:
    since = min((view.oldest for view in snapshot.lanes_by_queue[queue] if view.oldest is not None), default=None)
    return 0.0 if since is None else max(snapshot.taken_at - since, 0.0)


def _estimated_run_s(queue: QueueType, snapshot: Snapshot) -> float:
    """The mean estimate at the ends of its lists, each for as many tasks as wait there."""
    seconds = count = 0.0
    for view in snapshot.lanes_by_queue[queue]:
        for length, *ends in zip(view.lengths, view.heads, view.tails, strict=True):
            known = [one.minutes * 60 for end in ends for one in end if one.minutes]
            if known:
                seconds, count = seconds + length * sum(known) / len(known), count + length
    return seconds / count if count else ASSUMED_RUN_S


def _pending_by_priority(queue: QueueType, snapshot: Snapshot) -> dict[str, int]:
    """By the words of the tiers; exact in strict order, an approximation by level in weighted order."""
    pending = dict.fromkeys((one.name for one in QueuePriority), 0)
    for view in snapshot.lanes_by_queue[queue]:
        for level, length in enumerate(view.lengths):
            pending[priority_of_level(level).name] += length
    return pending
