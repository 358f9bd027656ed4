"""Invented frames of the live screen that resemble those of real fleets."""

from math import sin

from morag_queue.core.doctor import Code, Finding, Severity
from morag_queue.core.model import Capability, JournalEntry, Lease, QueuePriority, QueueType, WorkerStatus
from morag_queue.core.stats import FleetStats, QueueStats, WorkerStats
from morag_queue.operations.live_stats import HISTORY, LiveFrame, RunningTask

NOON = 1_790_000_000.0
_MEDIA = ("lecture-07.mp4", "interview.wav", "report.pdf", "https://example.org/talks/42", "scan-0113.png", "panel.mp3")
_QUEUES_OF = {
    Capability.GPU: ("gpu_priority", "gpu_fallback"),
    Capability.CPU: ("cpu_standard", "cpu_batch"),
    Capability.HYBRID: tuple(QueueType),
}


def queue(
    kind: QueueType, pending: int, oldest: float, backlog: float, *, paused: bool = False, **by_priority: int
) -> QueueStats:
    return QueueStats(
        queue_type=kind, total_tasks=pending + 900, pending_tasks=pending, processing_tasks=3, completed_tasks=15_042,
        failed_tasks=12, average_wait_time=0.7, average_processing_time=2.1, p95_wait_time=6.5, worker_count=3,
        oldest_wait_time=oldest, backlog_time=backlog, paused=paused,
        recent_arrivals_per_minute=4.2 * (list(QueueType).index(kind) + 1),
        recent_completions_per_minute=3.7 * (list(QueueType).index(kind) + 1),
        pending_by_priority={**dict.fromkeys((priority.name for priority in QueuePriority), 0), **by_priority},
    )  # fmt: skip


def worker(n: int, status: WorkerStatus = WorkerStatus.BUSY, reason: str = "", **more: object) -> WorkerStats:
    capability = list(Capability)[n % 3]
    fields = {
        "worker": f"worker-{capability.value}-{n + 1}", "capability": capability, "status": status, "active_tasks": 1,
        "assigned_tasks": n % 5, "max_concurrent_tasks": 2, "completed_tasks": 100 + 7 * n, "failed_tasks": n % 4,
        "last_heartbeat_seconds": 0.3 * (n % 7), "reason": reason, "host": f"node-{n % 8}",
        "queues": _QUEUES_OF[capability], "cpu_percent": (37.0 * n) % 100, "memory_percent": 20.0 + n % 60,
        "gpu_percent": (53.0 * n) % 100 if capability.has_gpu else None, "average_processing_time": 1.2,
    }  # fmt: skip
    return WorkerStats(**{**fields, **more})


def fleet(count: int = 8) -> LiveFrame:
    """Return a frame with `count` workers, some of them unhealthy."""
    workers = [worker(n) for n in range(count)]
    workers[1] = worker(1, WorkerStatus.CORDONED, "cordoned by ann@ops: new disks")
    workers[2] = worker(2, WorkerStatus.OFFLINE, "no beat for 4 min", last_heartbeat_seconds=240.0)
    workers[4] = worker(4, WorkerStatus.DRAINING, "draining by ann@ops: kernel update")
    running = {
        worker.worker: tuple(
            RunningTask(f"3f1c-{n}-{k}", _MEDIA[(n + k) % len(_MEDIA)], 400.0 / (n + 1) / (k + 1))
            for k in range(min(worker.assigned_tasks, 2))
        )
        for n, worker in enumerate(workers)
    }
    history = {
        kind: tuple(int(6 + n + 6 * sin(minute / (5 + n))) for minute in range(HISTORY))
        for n, kind in enumerate(QueueType)
    }  # fmt: skip
    return LiveFrame(
        stats=FleetStats(
            taken_at=NOON,
            window_seconds=3600,
            queues=(
                queue(QueueType.GPU_PRIORITY, 118, 12.5, 19.0, URGENT=3, HIGH=41, NORMAL=74),
                queue(QueueType.GPU_FALLBACK, 1730, 95.0, 240.0, NORMAL=1500, LOW=230),
                queue(QueueType.CPU_STANDARD, 0, 0.0, 0.0),
                queue(QueueType.CPU_BATCH, 12_400, 600.0, 2900.0, paused=True, BATCH=12_400),
            ),
            workers=tuple(workers),
            leader=Lease(holder="x", term=1, who="watch@node-1", verb="watch", since=NOON - 60, until=NOON + 15),
        ),
        fleet="mq@redis.example:6379/0",
        history=history,
        running=running,
        journal=(
            _entry(40, "watch@node-1", "rebalance", "gpu_fallback", "idle workers while work waits", moved=12),
            _entry(95, "ann@ops", "drain", "worker-hybrid-5", "kernel update", moved_tasks=3),
            _entry(300, "watch@node-1", "failover", "worker-hybrid-3", "no connection, no process", requeued_tasks=2),
            _entry(360, "ann@ops", "cordon", "worker-gpu-2", "new disks"),
            _entry(1200, "ben@ops", "prio", "9b2e", "the customer waits"),
        ),
        alerts=(
            _alert(Severity.ERROR, Code.WORKER_GONE_WITH_TASKS, "worker-hybrid-3 is gone and still holds 2 tasks"),
            _alert(
                Severity.WARNING, Code.TASKS_STARVING, "a LOW task has waited 2 h in gpu_fallback; 2 h is the limit"
            ),
        ),
    )


def _entry(ago: float, who: str, verb: str, subject: str, reason: str, **changes: int) -> JournalEntry:
    at = NOON - ago
    return JournalEntry(
        entry_id=f"{at:.0f}-0", at=at, who=who, verb=verb, subject=subject, reason=reason, changes=changes
    )


def _alert(severity: Severity, code: Code, message: str) -> Finding:
    return Finding(code=code, severity=severity, subject="", message=message, remedy="")
