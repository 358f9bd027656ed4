"""The tables of the live view: queues, workers, alerts, the journal; each as lines of a given width."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rich.segment import Segment

from morag_queue.broker.contract import JournalEntry
from morag_queue.core.doctor import Severity
from morag_queue.core.model import QueuePriority, QueueStats, WorkerStats, WorkerStatus
from morag_queue.operations.stats import HISTORY, LiveFrame, QueueFlow, RunningTask

from .durations import format_duration, format_minutes
from .grid import Cell, GridColumn, Line, fitted, grid, text
from .live_state import LiveState, Sort
from .stats import STATUS_STYLE
from .text import safe

_BARS = "▁▂▃▄▅▆▇█"
_BAR = 6
_DIGITS = re.compile(r"([0-9]+)")
_ALERT = {Severity.ERROR: ("✖ ", "bold red"), Severity.WARNING: ("▲ ", "yellow"), Severity.INFO: ("• ", "cyan")}
_BAD_FIRST = (
    WorkerStatus.OFFLINE, WorkerStatus.SUSPECT, WorkerStatus.DRAINING, WorkerStatus.DRAINED, WorkerStatus.CORDONED,
    WorkerStatus.BUSY, WorkerStatus.ONLINE,
)  # fmt: skip


def queue_lines(frame: LiveFrame, width: int) -> list[Line]:
    """One line a queue under a heading."""
    queues = frame.stats.queues
    flows = [frame.flows.get(queue.queue_type, QueueFlow()) for queue in queues]

    def numbers(title: str, values: Iterable[float], rank: int = 0, kind: str = "") -> GridColumn:
        return GridColumn(title, [(short(value), kind if value else "dim") for value in values], right=True, rank=rank)

    def times(title: str, values: Iterable[float], rank: int = 0) -> GridColumn:
        return GridColumn(title, [(format_minutes(one) if one else "–", "") for one in values], right=True, rank=rank)

    names = [_queue_name(frame, queue) for queue in queues]
    columns = [
        GridColumn("QUEUE", names, least=12),
        numbers("PENDING", [queue.pending_tasks for queue in queues], kind="bold"),
        *(
            numbers(one.name if width > 130 else one.name[0], [_pending(queue, one) for queue in queues], 2)
            for one in QueuePriority
        ),
        numbers("RUN", [queue.processing_tasks for queue in queues], kind="cyan"),
        numbers("IN/M", [flow.arrivals for flow in flows], 1),
        numbers("OUT/M", [flow.ended for flow in flows], 1),
        times("OLDEST", [queue.oldest_wait_time for queue in queues], 1),
        times("BACKLOG", [queue.backlog_time for queue in queues], 1),
        numbers("WORKERS", [queue.worker_count for queue in queues], 4),
        times("WAIT", [queue.average_wait_time for queue in queues], 5),
        times("P95", [queue.p95_wait_time for queue in queues], 6),
        times("MEAN", [queue.average_processing_time for queue in queues], 7),
        numbers("DONE", [queue.completed_tasks for queue in queues], 8),
        numbers("FAILED", [queue.failed_tasks for queue in queues], 8, "red"),
    ]
    # The last column is drawn once it is known how much is left for it.
    heading, rows = grid([*columns, GridColumn("", [("", "")] * len(queues), least=8, fills=True)], width)
    room = len(heading.pop().text)
    heading.append(text(fitted("LAST HOUR" if room >= 9 else "HOUR", room), "bold dim"))
    return [heading, *([*line[:-1], _spark(flow, room)] for line, flow in zip(rows, flows, strict=True))]


def _spark(flow: QueueFlow, room: int) -> Segment:
    """What was done, a minute (or a few) a bar."""
    return text(fitted(spark(flow.history, min(room, HISTORY)), room), "green")


def _queue_name(frame: LiveFrame, queue: QueueStats) -> Cell:
    if queue.queue_type in frame.paused:
        return f"‖ {queue.queue_type.value}", "bold yellow"
    return queue.queue_type.value, "bold"


def _pending(queue: QueueStats, priority: QueuePriority) -> int:
    return queue.pending_by_priority.get(priority.name, 0)


def short(value: float) -> str:
    """A number in at most four signs: 7, 0.4, 999, 12k, 3.4M."""
    if value < 9.95 and value != int(value):
        return f"{value:.1f}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.1f}{unit}" if value < 9.95 * size else f"{value / size:.0f}{unit}"
    return f"{value:.0f}"


def spark(values: Sequence[int], width: int) -> str:
    """The values as bars, the latest at the right; several in one bar where there are more than columns."""
    if width <= 0 or not values:
        return ""
    group = -(-len(values) // width)
    start = len(values) % group
    bins = [sum(values[:start])] if start else []
    bins += [sum(values[n : n + group]) for n in range(start, len(values), group)]
    highest = max(bins)
    return "".join(_BARS[-(-one * 7 // highest)] if one else " " for one in bins) if highest else ""


# -- workers


def workers(frame: LiveFrame, state: LiveState) -> list[WorkerStats]:
    """Those that the filter lets through, in order."""
    word = state.filter.casefold()
    found = [one for one in frame.stats.workers if not word or word in _searched(frame, one)]
    return sorted(found, key=_order(frame, state.sort))


def _searched(frame: LiveFrame, one: WorkerStats) -> str:
    tasks = (f"{task.label} {task.task_id}" for task in frame.running.get(one.worker, ()))
    return " ".join((one.worker, one.host, one.capability, one.status, one.reason, *one.queues, *tasks)).casefold()


def _order(frame: LiveFrame, sort: Sort) -> Callable[[WorkerStats], tuple[float, list[str]]]:
    def age(one: WorkerStats) -> float:
        return -max((task.seconds for task in frame.running.get(one.worker, ())), default=0.0)

    keys: dict[Sort, Callable[[WorkerStats], float]] = {
        Sort.NAME: lambda one: 0.0,
        Sort.STATUS: lambda one: _BAD_FIRST.index(one.status),
        Sort.LOAD: lambda one: -_load(one),
        Sort.AGE: age,
        Sort.BEAT: lambda one: -(float("inf") if one.last_heartbeat_seconds is None else one.last_heartbeat_seconds),
    }
    return lambda one: (keys[sort](one), _in_counting_order(one.worker))


def _in_counting_order(name: str) -> list[str]:
    """So that worker-10 comes after worker-9."""
    return [part.zfill(12) if part.isdecimal() else part for part in _DIGITS.split(name)]


def worker_lines(frame: LiveFrame, shown: Sequence[WorkerStats], width: int) -> list[Line]:
    """One line a worker under a heading."""
    running = [frame.running.get(one.worker, ()) for one in shown]
    is_wide = width >= 110
    columns = [
        GridColumn("WORKER", [(safe(one.worker, 100), "bold") for one in shown], least=16, most=30 if is_wide else 20),
        GridColumn("KIND", [(one.capability.value, "dim") for one in shown], rank=5),
        GridColumn("STATUS", [(one.status.value, STATUS_STYLE[one.status]) for one in shown]),
        GridColumn("LOAD", [(_bar(one), _load_style(one)) for one in shown]),
        GridColumn("BEAT", [(_beat(one), "dim") for one in shown], right=True, rank=2),
        *(_figures(shown) if is_wide else ()),
        GridColumn("AGE", [(_age(tasks), "") for tasks in running], right=True, rank=3),
    ]
    if is_wide:
        columns += [
            GridColumn("TASK", [(_task(tasks), "cyan") for tasks in running], least=16, most=60),
            GridColumn("REASON", [(safe(_reason(one), 200), "yellow") for one in shown], least=10, fills=True),
        ]
    else:
        told = [_task_or_reason(*one) for one in zip(shown, running, strict=True)]
        columns.append(GridColumn("TASK", told, least=24 if width >= 70 else 10, fills=True))
    heading, rows = grid(columns, width)
    return [heading, *rows]


def _figures(shown: Sequence[WorkerStats]) -> Iterator[GridColumn]:
    yield GridColumn("CPU", [(f"{one.cpu_percent:.0f}%", "dim") for one in shown], right=True, rank=7)
    yield GridColumn("MEM", [(f"{one.memory_percent:.0f}%", "dim") for one in shown], right=True, rank=8)
    yield GridColumn("GPU", [(_percent(one.gpu_percent), "dim") for one in shown], right=True, rank=8)
    yield GridColumn("DONE", [(short(one.completed_tasks), "dim") for one in shown], right=True, rank=9)
    yield GridColumn("FAILED", [_failed(one) for one in shown], right=True, rank=9)


def _load(one: WorkerStats) -> float:
    return one.assigned_tasks / max(one.max_concurrent_tasks, 1)


def _bar(one: WorkerStats) -> str:
    full = min(max(round(_load(one) * _BAR), 1), _BAR) if one.assigned_tasks else 0
    return f"{'█' * full}{'░' * (_BAR - full)} {short(one.assigned_tasks)}/{one.max_concurrent_tasks}"


def _load_style(one: WorkerStats) -> str:
    return "red" if _load(one) > 2 else "yellow" if _load(one) > 1 else "green" if one.assigned_tasks else "dim"


def _beat(one: WorkerStats) -> str:
    seconds = one.last_heartbeat_seconds
    return "never" if seconds is None else f"{seconds:.1f}s" if seconds < 9.95 else format_duration(seconds)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}%"


def _failed(one: WorkerStats) -> Cell:
    return short(one.failed_tasks), "red" if one.failed_tasks else "dim"


def _age(tasks: tuple[RunningTask, ...]) -> str:
    return format_duration(tasks[0].seconds) if tasks else ""


def _task(tasks: tuple[RunningTask, ...]) -> str:
    if not tasks:
        return ""
    more = f" +{len(tasks) - 1}" if len(tasks) > 1 else ""
    return safe(tasks[0].label, 100) + more


def _reason(one: WorkerStats) -> str:
    """What the bar and the word of the status do not say already."""
    return "" if one.status is WorkerStatus.BUSY else one.reason.removeprefix(f"{one.status.value} ")


def _task_or_reason(one: WorkerStats, tasks: tuple[RunningTask, ...]) -> Cell:
    reason = _reason(one)
    return (safe(reason, 200), "yellow") if reason else (_task(tasks), "cyan")


# -- alerts and the journal


def alert_lines(frame: LiveFrame, width: int) -> list[Line]:
    """One line an alert, the first the most pressing."""
    lines = []
    for one in frame.alerts:
        sign, kind = _ALERT[one.severity]
        lines.append([text(sign, kind), text(fitted(safe(one.message, 300), width - 2), kind)])
    return lines


def journal_lines(entries: Sequence[JournalEntry], width: int) -> list[Line]:
    """One line an entry, the newest first: when, who, what, to what, why."""
    return [_entry(one, width) for one in entries]


def _entry(one: JournalEntry, width: int) -> Line:
    what = safe(" ".join(part for part in (one.verb, one.subject) if part), 120)
    why = safe(" · ".join(part for part in (one.reason, _counts(one)) if part), 200)
    line = [text(clock(one.at) + " ", "dim"), text(what, "bold")]
    used = 9 + len(what)
    rest = f"  {why}" if why else ""
    rest += f"  ({safe(one.who, 40)})"
    if used >= width:
        return [line[0], text(fitted(what, max(width - 9, 0)), "bold")]
    return [*line, text(fitted(rest, width - used), "dim")]


def _counts(one: JournalEntry) -> str:
    """The numbers among what was done; ids are for `journal show`."""
    numbers = {key: value for key, value in one.changes.items() if type(value) is int and value}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in list(numbers.items())[:3])


def clock(at: float) -> str:
    """The time of day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S") if at > 0 else "--:--:--"
