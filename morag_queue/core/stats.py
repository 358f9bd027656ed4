"""Statistics of queues, workers and the fleet, from a snapshot and the counters.

Counts of completed and failed tasks cover all time; averages and rates cover the window. Times are minutes, the unit of
the models.
"""

from collections.abc import Mapping

from pydantic import Field

from .histogram import Window, quantile
from .lanes import queue_of
from .levels import priority_of_level
from .model import Capability, Frozen, Lease, Pause, QueuePriority, QueueType, WorkerStatus
from .policy import Policy
from .snapshot import Snapshot, Totals, WorkerView
from .worker_status import SERVING, in_flight, status_in

RATE_SECONDS = 300.0
"""Period of recent rates, to a minute: short enough to show a change, long enough to be smooth."""

ASSUMED_RUN_S = 60.0
"""Run time of a task in the backlog if no task has ended and none has an estimate: that of a web page."""


class QueueStats(Frozen):
    """Statistics of a queue. `backlog_time` is the queued work divided by the slots that serve it."""

    queue_type: QueueType
    total_tasks: int
    pending_tasks: int
    processing_tasks: int
    completed_tasks: int
    failed_tasks: int
    average_wait_time: float
    average_processing_time: float
    p95_wait_time: float
    worker_count: int
    oldest_wait_time: float
    backlog_time: float
    pending_by_priority: dict[str, int] = Field({})
    arrivals_per_minute: float = 0.0
    completions_per_minute: float = 0.0
    recent_arrivals_per_minute: float = Field(0.0, description="in the last five minutes, whatever the window")
    recent_completions_per_minute: float = Field(0.0, description="in the last five minutes, whatever the window")
    paused: bool = Field(False, description="hands out no task until `resume`")
    pause: Pause | None = Field(None, description="of a paused queue: who, when and why, empty if not recorded")


class WorkerStats(Frozen):
    """Statistics of a worker. `active_tasks` run now; `assigned_tasks` are held or wait in its own lanes."""

    worker: str
    capability: Capability
    status: WorkerStatus
    active_tasks: int
    assigned_tasks: int
    max_concurrent_tasks: int
    completed_tasks: int
    failed_tasks: int
    last_heartbeat_seconds: float | None
    reason: str
    host: str = ""
    queues: tuple[str, ...] = ()
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    gpu_percent: float | None = None
    average_processing_time: float = 0.0
    success_rate: float | None = Field(None, description="completed ÷ ended, 0..1; None before the first end")
    failures_in_a_row: int = 0
    claims: bool = Field(True, description="takes messages with the atomic claim")
    no_claim_reason: str = Field("", description="why it does not")


class FleetStats(Frozen):
    taken_at: float
    window_seconds: float
    queues: tuple[QueueStats, ...]
    workers: tuple[WorkerStats, ...]
    leader: Lease | None = None
    foreign_messages: int = 0


def queue_stats(
    queue: QueueType,
    snapshot: Snapshot,
    window: Window,
    totals: Totals,
    serving: tuple[WorkerView, ...],
    recent: Window,
) -> QueueStats:
    """Return one queue. `serving` are the workers in service that read it, see `serving_workers`.

    `recent` has the counts of the last `RATE_SECONDS`.

    `processing_tasks` are messages that workers hold. `backlog_time` is pending tasks × mean run time ÷ serving slots.
    The mean run time is that of the window, else of all time, else of the estimates, else `ASSUMED_RUN_S`. A queue
    without a serving worker counts as served by one slot.
    """
    pending = snapshot.pending[queue]
    processing = sum(queue_of(message.lane) is queue for message in snapshot.held)
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
        recent_arrivals_per_minute=recent.per_minute(recent.arrivals),
        recent_completions_per_minute=recent.per_minute(recent.ended),
        paused=queue in snapshot.paused,
        pause=snapshot.pause_of(queue),
    )


def worker_stats(view: WorkerView, snapshot: Snapshot, policy: Policy) -> WorkerStats:
    """Return one worker. `active_tasks` counts held tasks without those that its last heartbeat called reserved."""
    info, beat = view.info, view.beat
    status, reason = status_in(snapshot, view, policy)
    silence = None if beat is None else max(snapshot.taken_at - beat.at, 0.0)
    held = in_flight(view, snapshot.held_count(view))
    return WorkerStats(
        worker=info.worker,
        capability=info.capability,
        status=status,
        active_tasks=_active(view, held, snapshot.taken_at - policy.offline_after_seconds),
        assigned_tasks=held + snapshot.waiting_count(info.worker),
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
        claims=info.claims,
        no_claim_reason=info.no_claim_reason,
    )


def fleet_stats(
    snapshot: Snapshot,
    windows: Mapping[QueueType, Window],
    totals: Mapping[QueueType, Totals],
    policy: Policy,
    *,
    window_seconds: float,
    recent: Mapping[QueueType, Window],
) -> FleetStats:
    """Return all four queues, used or not, and the workers sorted by id.

    `windows` has the counts of the last `window_seconds`, `recent` those of the last `RATE_SECONDS`.
    """
    serving = serving_workers(snapshot, policy)
    return FleetStats(
        taken_at=snapshot.taken_at,
        window_seconds=window_seconds,
        queues=tuple(
            queue_stats(
                queue,
                snapshot,
                windows.get(queue, Window()),
                totals.get(queue, Totals()),
                serving[queue],
                recent.get(queue, Window()),
            )
            for queue in QueueType
        ),
        workers=tuple(
            worker_stats(view, snapshot, policy) for view in sorted(snapshot.workers, key=lambda view: view.info.worker)
        ),
        leader=snapshot.leader,
        foreign_messages=sum(view.foreign for view in snapshot.lanes),
    )


def serving_workers(snapshot: Snapshot, policy: Policy) -> Mapping[QueueType, tuple[WorkerView, ...]]:
    """Return, for each queue, the workers that read it and are in service: online or busy."""
    serving = [view for view in snapshot.workers if status_in(snapshot, view, policy)[0] in SERVING]
    return {queue: tuple(view for view in serving if queue.value in view.info.queues) for queue in QueueType}


def _active(view: WorkerView, held: int, alive_since: float) -> int:
    beat = view.beat
    if beat is None or beat.stopped or beat.at < alive_since or view.fenced or view.connections == 0:
        return 0
    return min(max(held - beat.reserved, 0), view.info.slots)


def _oldest_wait_s(queue: QueueType, snapshot: Snapshot) -> float:
    since = min((view.oldest for view in snapshot.lanes_by_queue[queue] if view.oldest is not None), default=None)
    return 0.0 if since is None else max(snapshot.taken_at - since, 0.0)


def _estimated_run_s(queue: QueueType, snapshot: Snapshot) -> float:
    """Return the mean estimate of the known entries at the ends of each list, weighted by the length of the list."""
    seconds = count = 0.0
    for view in snapshot.lanes_by_queue[queue]:
        for length, *ends in zip(view.lengths, view.heads, view.tails, strict=True):
            known = [entry.minutes * 60 for end in ends for entry in end if entry.minutes]
            if known:
                seconds, count = seconds + length * sum(known) / len(known), count + length
    return seconds / count if count else ASSUMED_RUN_S


def _pending_by_priority(queue: QueueType, snapshot: Snapshot) -> dict[str, int]:
    """Count by priority name: exact in strict order, approximated by level in weighted order."""
    pending = dict.fromkeys((priority.name for priority in QueuePriority), 0)
    for view in snapshot.lanes_by_queue[queue]:
        for level, length in enumerate(view.lengths):
            pending[priority_of_level(level).name] += length
    return pending
