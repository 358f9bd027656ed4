"""The columns of queues and workers, defined once for the tables of `stats` and for the live screen."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from morag_queue.core.model import QueuePriority, WorkerStatus
from morag_queue.core.stats import QueueStats, WorkerStats

from .table import Cell, Column, cell
from .text import format_duration, format_minutes, short

Row = TypeVar("Row")

STATUS_STYLE = {
    WorkerStatus.ONLINE: "green",
    WorkerStatus.BUSY: "cyan",
    WorkerStatus.CORDONED: "yellow",
    WorkerStatus.DRAINING: "yellow",
    WorkerStatus.DRAINED: "magenta",
    WorkerStatus.SUSPECT: "red",
    WorkerStatus.OFFLINE: "bold red",
}
_BAR_WIDTH = 6


@dataclass(frozen=True, slots=True)
class StatsColumn(Generic[Row]):
    """A column of a table whose rows are all of one type.

    `read` returns a row's cell; its second argument is True on the live screen, where cells are shorter. `rank` is the
    rank in a table of `stats`, `live_rank` the one on the live screen (see `Column`); a rank of None leaves the column
    out. `short_title` replaces the title on a narrow live screen.
    """

    title: str
    read: Callable[[Row, bool], Cell]
    rank: int | None = None
    live_rank: int | None = None
    short_title: str = ""
    right: bool = False
    min_width: int = 0


def table_columns(columns: Iterable[StatsColumn[Row]], rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a table of `stats`."""
    return [
        Column(
            column.title,
            [column.read(row, False) for row in rows],
            column.right,
            column.rank,
            min_width=column.min_width,
        )
        for column in columns
        if column.rank is not None
    ]


def live_columns(columns: Iterable[StatsColumn[Row]], rows: Sequence[Row], *, narrow: bool) -> list[Column]:
    """Return the columns of a table of the live screen."""
    return [
        Column(
            column.short_title if narrow and column.short_title else column.title,
            [column.read(row, True) for row in rows],
            column.right,
            column.live_rank,
            min_width=column.min_width,
        )
        for column in columns
        if column.live_rank is not None
    ]


# -- queues


def _queue_name(queue: QueueStats, live: bool) -> Cell:
    name = queue.queue_type.value
    if not queue.paused:
        return name, "bold"
    return f"‖ {name}" if live else f"{name} (paused)", "bold yellow"


def _count(read: Callable[[Row], int], style: str, row: Row, live: bool) -> Cell:
    value = read(row)
    return short(value) if live else str(value), style if value else "dim"


def _rate(read: Callable[[Row], float], row: Row, live: bool) -> Cell:
    value = read(row)
    return f"{value:.1f}" if value < 99.95 else short(value), "" if value else "dim"


def _minutes(read: Callable[[Row], float], row: Row, live: bool) -> Cell:
    value = read(row)
    return (format_minutes(value), "") if value else ("–", "dim")


def _by_priority(queue: QueueStats, live: bool) -> Cell:
    counts = {priority.name: _pending(priority, queue) for priority in QueuePriority}
    return " ".join(f"{name}:{count}" for name, count in counts.items() if count), ""


def _pending(priority: QueuePriority, queue: QueueStats) -> int:
    return queue.pending_by_priority.get(priority.name, 0)


QUEUE_COLUMNS: tuple[StatsColumn[QueueStats], ...] = (
    StatsColumn("QUEUE", _queue_name, 0, 0),
    StatsColumn("PENDING", partial(_count, lambda queue: queue.pending_tasks, "bold"), 0, 0, right=True),
    *(
        StatsColumn(
            priority.name, partial(_count, partial(_pending, priority), ""), None, 2, priority.name[0], right=True
        )
        for priority in QueuePriority
    ),
    StatsColumn("RUNNING", partial(_count, lambda queue: queue.processing_tasks, "cyan"), 0, 0, "RUN", right=True),
    StatsColumn("IN/M", partial(_rate, lambda queue: queue.recent_arrivals_per_minute), 8, 1, right=True),
    StatsColumn("OUT/M", partial(_rate, lambda queue: queue.recent_completions_per_minute), 8, 1, right=True),
    StatsColumn("OLDEST", partial(_minutes, lambda queue: queue.oldest_wait_time), 2, 1, right=True),
    StatsColumn("BACKLOG", partial(_minutes, lambda queue: queue.backlog_time), 3, 1, right=True),
    StatsColumn("WORKERS", partial(_count, lambda queue: queue.worker_count, ""), 0, 4, right=True),
    StatsColumn("WAIT", partial(_minutes, lambda queue: queue.average_wait_time), 4, 5, right=True),
    StatsColumn("P95", partial(_minutes, lambda queue: queue.p95_wait_time), 6, 6, right=True),
    StatsColumn("RUNTIME", partial(_minutes, lambda queue: queue.average_processing_time), 5, 7, right=True),
    StatsColumn("DONE", partial(_count, lambda queue: queue.completed_tasks, ""), 1, 8, right=True),
    StatsColumn("FAILED", partial(_count, lambda queue: queue.failed_tasks, "red"), 1, 8, right=True),
    StatsColumn("BY PRIORITY", _by_priority, 9),
)


# -- workers


def load(worker: WorkerStats) -> float:
    """Return assigned tasks per slot."""
    return worker.assigned_tasks / max(worker.max_concurrent_tasks, 1)


def reason(worker: WorkerStats, live: bool) -> str:
    """Return the reason of the status, and why the worker does not claim.

    On the live screen it leaves out what the status and load columns already show.
    """
    shown = worker.reason
    if live:
        shown = "" if worker.status is WorkerStatus.BUSY else shown.removeprefix(f"{worker.status.value} ")
    no_claim = "" if worker.claims else f"no claim: {worker.no_claim_reason}".removesuffix(": ")
    return "; ".join(filter(None, (no_claim, shown)))


def _reason(worker: WorkerStats, live: bool) -> Cell:
    return cell(reason(worker, live), "" if worker.status is WorkerStatus.BUSY and worker.claims else "yellow", 200)


def _load_bar(worker: WorkerStats, live: bool) -> Cell:
    ratio = load(worker)
    full = min(max(round(ratio * _BAR_WIDTH), 1), _BAR_WIDTH) if worker.assigned_tasks else 0
    style = "red" if ratio > 2 else "yellow" if ratio > 1 else "green" if worker.assigned_tasks else "dim"
    bar = "█" * full + "░" * (_BAR_WIDTH - full)
    return f"{bar} {short(worker.assigned_tasks)}/{worker.max_concurrent_tasks}", style


def _heartbeat_age(worker: WorkerStats, live: bool) -> Cell:
    seconds = worker.last_heartbeat_seconds
    if seconds is None:
        return "never", "dim"
    return f"{seconds:.1f}s" if seconds < 9.95 else format_duration(seconds), "dim"


def _percent(read: Callable[[WorkerStats], float | None], worker: WorkerStats, live: bool) -> Cell:
    value = read(worker)
    return "–" if value is None else f"{value:.0f}%", "dim"


WORKER_COLUMNS: tuple[StatsColumn[WorkerStats], ...] = (
    StatsColumn("WORKER", lambda worker, live: cell(worker.worker, "bold", 200), 0, 0, min_width=24),
    StatsColumn("KIND", lambda worker, live: cell(worker.capability), 1, 5),
    StatsColumn("STATUS", lambda worker, live: cell(worker.status, STATUS_STYLE[worker.status]), 0, 0),
    StatsColumn("LOAD", _load_bar, None, 0),
    StatsColumn(
        "ACTIVE", lambda worker, live: cell(f"{worker.active_tasks}/{worker.max_concurrent_tasks}"), 0, right=True
    ),
    StatsColumn("ASSIGNED", partial(_count, lambda worker: worker.assigned_tasks, ""), 4, right=True),
    StatsColumn("BEAT", _heartbeat_age, 1, 2, right=True),
    StatsColumn("CPU", partial(_percent, lambda worker: worker.cpu_percent), 6, 7, right=True),
    StatsColumn("MEM", partial(_percent, lambda worker: worker.memory_percent), 7, 8, right=True),
    StatsColumn("GPU", partial(_percent, lambda worker: worker.gpu_percent), 8, 8, right=True),
    StatsColumn("DONE", partial(_count, lambda worker: worker.completed_tasks, ""), 3, 9, right=True),
    StatsColumn("FAILED", partial(_count, lambda worker: worker.failed_tasks, "red"), 3, 9, right=True),
    StatsColumn("RUNTIME", partial(_minutes, lambda worker: worker.average_processing_time), 5, right=True),
    StatsColumn("HOST", lambda worker, live: cell(worker.host, "", 200), 9, min_width=12),
    StatsColumn("REASON", _reason, 2, 0, min_width=10),
)
