"""The tables of the live screen: queues, workers, alerts and the journal, each as lines of a given width."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.segment import Segment

from morag_queue.core.doctor import Severity
from morag_queue.core.model import JournalEntry, WorkerStatus
from morag_queue.core.stats import WorkerStats
from morag_queue.core.worker_status import SERVING
from morag_queue.operations.live_stats import HISTORY, LiveFrame, RunningTask

from .journal import counts
from .live_state import LiveState, Sort
from .stats import pause_lines
from .stats_columns import QUEUE_COLUMNS, WORKER_COLUMNS, live_columns, load, reason
from .table import Cell, Column, Line, fitted, layout, text
from .text import format_duration, local_time, safe, short_ids

_NARROW_QUEUES = 130
_NARROW_WORKERS = 110
"""Widths below which the tables use short titles and leave out columns."""
_WIDE_ONLY_RANK = 7
"""A narrow screen omits worker columns of this rank and above, to leave room for the task."""
_BARS = "▁▂▃▄▅▆▇█"
_DIGITS = re.compile(r"([0-9]+)")
_ALERT = {Severity.ERROR: ("✖ ", "bold red"), Severity.WARNING: ("▲ ", "yellow"), Severity.INFO: ("• ", "cyan")}
_WORST_FIRST = (
    WorkerStatus.OFFLINE, WorkerStatus.SUSPECT, WorkerStatus.DRAINING, WorkerStatus.DRAINED, WorkerStatus.CORDONED,
    WorkerStatus.BUSY, WorkerStatus.ONLINE,
)  # fmt: skip


# -- queues


def queue_lines(frame: LiveFrame, width: int) -> list[Line]:
    """Return the heading and one line for each queue."""
    queues = frame.stats.queues
    # The sparkline is drawn once its width is known.
    placeholder = Column("", [("", "")] * len(queues), min_width=8, fills=True)
    columns = [*live_columns(QUEUE_COLUMNS, queues, narrow=width <= _NARROW_QUEUES), placeholder]
    heading, rows = layout(columns, width)
    room = len(heading.pop().text)
    heading.append(text(fitted("LAST HOUR" if room >= 9 else "HOUR", room), "bold dim"))
    history = [frame.history.get(queue.queue_type, ()) for queue in queues]
    return [heading, *([*line[:-1], _history(ended, room)] for line, ended in zip(rows, history, strict=True))]


def _history(ended: Sequence[int], width: int) -> Segment:
    return text(fitted(spark(ended, min(width, HISTORY)), width), "green")


def spark(values: Sequence[int], width: int) -> str:
    """Return a sparkline, newest value at the right. More values than `width` are summed in groups."""
    if width <= 0 or not values:
        return ""
    group = -(-len(values) // width)
    start = len(values) % group
    bins = [sum(values[:start])] if start else []
    bins += [sum(values[n : n + group]) for n in range(start, len(values), group)]
    highest = max(bins)
    return "".join(_BARS[-(-value * 7 // highest)] if value else " " for value in bins) if highest else ""


# -- workers


def workers(frame: LiveFrame, state: LiveState) -> list[WorkerStats]:
    """Return the workers that match the filter, sorted."""
    needle = state.filter.casefold()
    matching = [worker for worker in frame.stats.workers if not needle or needle in _searched(frame, worker)]
    return sorted(matching, key=_sort_key(frame, state.sort))


def _searched(frame: LiveFrame, worker: WorkerStats) -> str:
    tasks = (f"{task.label} {task.task_id}" for task in frame.running.get(worker.worker, ()))
    fields = (worker.worker, worker.host, worker.capability, worker.status, worker.reason, *worker.queues, *tasks)
    return " ".join(fields).casefold()


def _sort_key(frame: LiveFrame, sort: Sort) -> Callable[[WorkerStats], tuple[float, list[str]]]:
    def longest_run(worker: WorkerStats) -> float:
        return max((task.seconds for task in frame.running.get(worker.worker, ())), default=0.0)

    def silence(worker: WorkerStats) -> float:
        return float("inf") if worker.last_heartbeat_seconds is None else worker.last_heartbeat_seconds

    keys: dict[Sort, Callable[[WorkerStats], float]] = {
        Sort.NAME: lambda worker: 0.0,
        Sort.STATUS: lambda worker: _WORST_FIRST.index(worker.status),
        Sort.LOAD: lambda worker: -load(worker),
        Sort.AGE: lambda worker: -longest_run(worker),
        Sort.BEAT: lambda worker: -silence(worker),
    }
    return lambda worker: (keys[sort](worker), _natural_order(worker.worker))


def _natural_order(name: str) -> list[str]:
    """Sort worker-10 after worker-9."""
    return [part.zfill(12) if part.isdecimal() else part for part in _DIGITS.split(name)]


def worker_lines(frame: LiveFrame, shown: Sequence[WorkerStats], width: int) -> list[Line]:
    """Return the heading and one line for each worker."""
    running = [frame.running.get(worker.worker, ()) for worker in shown]
    narrow = width < _NARROW_WORKERS
    name, *columns, reasons = live_columns(WORKER_COLUMNS, shown, narrow=narrow)
    name = replace(name, min_width=16, max_width=20 if narrow else 30)
    age = Column("AGE", [(_age(tasks), "") for tasks in running], right=True, rank=3)
    if narrow:
        columns = [column for column in columns if column.rank < _WIDE_ONLY_RANK]
        cells = [_reason_or_task(worker, tasks) for worker, tasks in zip(shown, running, strict=True)]
        last = [Column("TASK", cells, min_width=24 if width >= 70 else 10, fills=True)]
    else:
        tasks_column = Column("TASK", [(_task(tasks), "cyan") for tasks in running], min_width=16, max_width=60)
        last = [tasks_column, replace(reasons, fills=True)]
    heading, rows = layout([name, *columns, age, *last], width)
    return [heading, *rows]


def _age(tasks: tuple[RunningTask, ...]) -> str:
    return format_duration(tasks[0].seconds) if tasks else ""


def _task(tasks: tuple[RunningTask, ...]) -> str:
    if not tasks:
        return ""
    more = f" +{len(tasks) - 1}" if len(tasks) > 1 else ""
    return safe(short_ids(tasks[0].label), 100) + more


def _reason_or_task(worker: WorkerStats, tasks: tuple[RunningTask, ...]) -> Cell:
    explanation = reason(worker, True)
    return (safe(explanation, 200), "yellow") if explanation else (_task(tasks), "cyan")


# -- alerts and the journal


def alert_lines(frame: LiveFrame, width: int) -> list[Line]:
    """Return one line for each alert, the most severe first, for each late heartbeat, and for each paused queue."""
    alerts = [(alert.severity, alert.message) for alert in frame.alerts]
    late = [worker for worker in frame.stats.workers if _is_late(worker, frame.late_after_seconds)]
    alerts += [(Severity.INFO, f"{worker.worker}: {_late_beat(worker)}") for worker in late]
    alerts += [(Severity.INFO, line) for line in pause_lines(frame.stats)]
    lines = []
    for severity, message in alerts:
        sign, style = _ALERT[severity]
        lines.append([text(sign, style), text(fitted(safe(short_ids(message), 300), width - 2), style)])
    return lines


def _is_late(worker: WorkerStats, after_seconds: float) -> bool:
    """Return whether a worker counts as alive although heartbeats are missing; a suspect one has an alert already."""
    silence = worker.last_heartbeat_seconds
    return worker.status in SERVING and silence is not None and silence >= after_seconds


def _late_beat(worker: WorkerStats) -> str:
    ago = format_duration(worker.last_heartbeat_seconds)
    return f"last heartbeat {ago} ago, although still {worker.status.value}"


def journal_lines(frame: LiveFrame, width: int) -> list[Line]:
    """Return one line for each entry: time, verb and subject, then reason, counts and author."""
    return [_journal_line(entry, frame.stats.taken_at, width) for entry in frame.journal]


def _journal_line(entry: JournalEntry, now: float, width: int) -> Line:
    change = safe(short_ids(" ".join(part for part in (entry.verb, entry.subject) if part)), 120)
    details = safe(" · ".join(part for part in (entry.reason, ", ".join(counts(entry.changes)[:3])) if part), 200)
    time = text(local_time(entry.at, now) + " ", "dim")
    room = width - len(time.text)
    if cell_len(change) >= room:
        return [time, text(fitted(change, max(room, 0)), "bold")]
    rest = (f": {details}" if details else "") + f" ({safe(entry.who, 40)})"
    return [time, text(change, "bold"), text(fitted(rest, room - cell_len(change)), "dim")]
