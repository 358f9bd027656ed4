"""The fleet in two tables: its queues and its workers."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import FleetStats, QueuePriority, QueueStats, WorkerStats, WorkerStatus

from .columns import Column, Fitting
from .durations import format_duration, format_minutes
from .text import cell

STATUS_STYLE = {
    WorkerStatus.ONLINE: "green",
    WorkerStatus.BUSY: "cyan",
    WorkerStatus.CORDONED: "yellow",
    WorkerStatus.DRAINING: "yellow",
    WorkerStatus.DRAINED: "magenta",
    WorkerStatus.SUSPECT: "red",
    WorkerStatus.OFFLINE: "bold red",
}


def stats_view(stats: FleetStats) -> RenderableType:
    """Queues, workers, who leads, and what does not belong here."""
    parts: list[RenderableType] = [queues_table(stats.queues), Text()]
    parts.append(workers_table(stats.workers) if stats.workers else Text("No worker has registered.", style="yellow"))
    if lease := stats.leader:
        parts += [Text(), cell(f"Leader: {lease.who} by {lease.verb}, term {lease.term}")]
    if stats.foreign_messages:
        parts += [Text(), Text(f"{stats.foreign_messages} messages are not Celery's; left alone.", style="yellow")]
    return Group(*parts)


def queues_table(queues: tuple[QueueStats, ...]) -> Fitting:
    def numbers(title: str, values: list[int], rank: int = 0, style: str = "") -> Column:
        return Column(title, [cell(value, style if value else "dim") for value in values], right=True, rank=rank)

    def times(title: str, values: list[float], rank: int) -> Column:
        return Column(title, [cell(format_minutes(value)) for value in values], right=True, rank=rank)

    return Fitting(
        [
            Column("QUEUE", [_named(queue) for queue in queues]),
            numbers("PENDING", [queue.pending_tasks for queue in queues]),
            numbers("RUNNING", [queue.processing_tasks for queue in queues], style="cyan"),
            numbers("DONE", [queue.completed_tasks for queue in queues], rank=1),
            numbers("FAILED", [queue.failed_tasks for queue in queues], rank=1, style="red"),
            numbers("WORKERS", [queue.worker_count for queue in queues]),
            times("OLDEST", [queue.oldest_wait_time for queue in queues], rank=2),
            times("BACKLOG", [queue.backlog_time for queue in queues], rank=3),
            times("WAIT", [queue.average_wait_time for queue in queues], rank=4),
            times("P95", [queue.p95_wait_time for queue in queues], rank=6),
            times("RUN", [queue.average_processing_time for queue in queues], rank=5),
            Column("IN/MIN", [cell(f"{queue.arrivals_per_minute:.1f}") for queue in queues], right=True, rank=8),
            Column("OUT/MIN", [cell(f"{queue.completions_per_minute:.1f}") for queue in queues], right=True, rank=8),
            Column("BY PRIORITY", [cell(_by_priority(queue)) for queue in queues], rank=9),
        ]
    )


def workers_table(workers: tuple[WorkerStats, ...]) -> Fitting:
    return Fitting(
        [
            Column("WORKER", [cell(worker.worker, "bold", 200) for worker in workers], least=24),
            Column("KIND", [cell(worker.capability) for worker in workers], rank=1),
            Column("STATUS", [cell(worker.status, STATUS_STYLE[worker.status]) for worker in workers]),
            Column("ACTIVE", [cell(_slots(worker)) for worker in workers], right=True),
            Column("ASSIGNED", [cell(worker.assigned_tasks) for worker in workers], right=True, rank=4),
            Column("DONE", [cell(worker.completed_tasks) for worker in workers], right=True, rank=3),
            Column("FAILED", [cell(worker.failed_tasks) for worker in workers], right=True, rank=3),
            Column("BEAT", [cell(_ago(worker.last_heartbeat_seconds)) for worker in workers], right=True, rank=1),
            Column("RUN", [cell(format_minutes(worker.average_processing_time)) for worker in workers], True, rank=5),
            Column("CPU", [cell(_percent(worker.cpu_percent)) for worker in workers], right=True, rank=6),
            Column("MEM", [cell(_percent(worker.memory_percent)) for worker in workers], right=True, rank=7),
            Column("GPU", [cell(_percent(worker.gpu_percent)) for worker in workers], right=True, rank=8),
            Column("HOST", [cell(worker.host, "", 200) for worker in workers], rank=9, least=12),
            Column("REASON", [cell(worker.reason, "", 200) for worker in workers], rank=2, least=12),
        ]
    )


def _named(queue: QueueStats) -> Text:
    return cell(f"{queue.queue_type} (paused)", "bold yellow") if queue.paused else cell(queue.queue_type, "bold")


def _by_priority(queue: QueueStats) -> str:
    counts = {name: queue.pending_by_priority.get(name, 0) for name in (one.name for one in QueuePriority)}
    return " ".join(f"{name}:{count}" for name, count in counts.items() if count)


def _slots(worker: WorkerStats) -> str:
    return f"{worker.active_tasks}/{worker.max_concurrent_tasks}"


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else format_duration(seconds)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}%"
