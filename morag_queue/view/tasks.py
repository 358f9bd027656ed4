"""Tasks in a table: what runs, what waits and how long already."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import TaskState
from morag_queue.core.task import Task
from morag_queue.operations.tasks import TaskPage

from .columns import Column, Fitting
from .durations import format_duration, format_minutes
from .text import cell

STATE_STYLE = {
    TaskState.RUNNING: "cyan",
    TaskState.RETRYING: "yellow",
    TaskState.COMPLETED: "green",
    TaskState.FAILED: "red",
    TaskState.QUARANTINED: "bold red",
    TaskState.CANCELLED: "dim",
}


def tasks_view(page: TaskPage, now: float, buried: bool = False) -> RenderableType:
    """The page, and below it what it leaves out. `buried`: of tasks that have failed, with the reason."""
    if not page.tasks:
        return Text("No such task." if page.waiting or buried else "Nothing runs and nothing waits.", style="dim")
    parts: list[RenderableType] = [graves_table(page.tasks, now) if buried else _table(page.tasks, now)]
    if page.has_more:
        more = f"{page.waiting} wait in all; " if not buried else ""
        parts += [Text(), Text(f"{more}--limit N shows more, --limit 0 all", style="dim")]
    return Group(*parts)


def _table(tasks: Sequence[Task], now: float) -> Fitting:
    return Fitting(
        [
            Column("TASK", [cell(task.task_id, "bold", 255) for task in tasks], least=13),
            Column("STATE", [cell(task.state, STATE_STYLE.get(task.state, "")) for task in tasks]),
            Column("PRIORITY", [cell(task.priority.name) for task in tasks], rank=1),
            Column("LANE", [cell(task.lane, "", 200) for task in tasks], least=12),
            Column(
                "POS", [cell("–" if task.position is None else task.position) for task in tasks], right=True, rank=2
            ),
            Column("AGE", [cell(_age(task, now)) for task in tasks], right=True),
            Column("TAKES", [cell(format_minutes(task.estimated_duration)) for task in tasks], right=True, rank=5),
            Column("WORKER", [cell(task.worker or task.pinned_to or "–", "", 200) for task in tasks], rank=3, least=12),
            Column("NAME", [cell(task.task, "", 200) for task in tasks], rank=6, least=16),
            Column("SOURCE", [cell(task.source, "", 400) for task in tasks], rank=4, least=20, keeps_end=True),
        ]
    )


def graves_table(tasks: Sequence[Task], now: float) -> Fitting:
    """Failed and quarantined tasks."""
    ages = [format_duration(None if task.ended_at is None else now - task.ended_at) for task in tasks]
    return Fitting(
        [
            Column("TASK", [cell(task.task_id, "bold", 255) for task in tasks], least=13),
            Column("STATE", [cell(task.state, STATE_STYLE.get(task.state, "")) for task in tasks]),
            Column("AGO", [cell(age) for age in ages], right=True),
            Column("WORKER", [cell(task.worker or "–", "", 200) for task in tasks], rank=3, least=12),
            Column("LANE", [cell(task.lane, "", 200) for task in tasks], rank=2, least=12),
            Column("REASON", [cell(task.error, "", 400) for task in tasks], least=16),
            Column("SOURCE", [cell(task.source, "", 400) for task in tasks], rank=4, least=20, keeps_end=True),
        ]
    )


def _age(task: Task, now: float) -> str:
    """Since it was taken, or since it was queued."""
    since = task.claimed_at or task.enqueued_at
    return format_duration(None if since is None else max(now - since, 0.0))
