"""Answers about tasks: lists of open and dead tasks, one task in full, and why a task waits."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import TaskState
from morag_queue.core.task import Task
from morag_queue.core.words import count_of, is_are

from .submit import score_lines
from .table import Column, FittedTable, cell
from .text import format_duration, format_minutes, local_time, safe, short_ids

if TYPE_CHECKING:
    from morag_queue.operations.dead_letters import DeadPage
    from morag_queue.operations.task import RecordedDecision, TaskDetails, TaskExplanation
    from morag_queue.operations.tasks import TaskPage

STATE_STYLE = {
    TaskState.RUNNING: "cyan",
    TaskState.RETRYING: "yellow",
    TaskState.COMPLETED: "green",
    TaskState.FAILED: "red",
    TaskState.QUARANTINED: "bold red",
    TaskState.CANCELLED: "dim",
}
_LIMIT_HINT = "--limit N shows more, --limit 0 all"


def tasks_view(page: "TaskPage", now: float, *, has_ended: bool = False) -> RenderableType:
    """Show a page of tasks and how many it omits. `has_ended`: the tasks have ended."""
    if not page.tasks:
        return Text("No task matches." if page.waiting or has_ended else "No task is running or waiting.", style="dim")
    parts: list[RenderableType] = [(_ended_table if has_ended else _open_table)(page.tasks, now)]
    if page.has_more:
        total = f"{count_of(page.waiting, 'task')} {is_are(page.waiting)} waiting; " if not has_ended else ""
        parts += [Text(), Text(f"{total}{_LIMIT_HINT}", style="dim")]
    return Group(*parts)


def dead_view(page: "DeadPage", now: float) -> RenderableType:
    """Show a page of dead letters."""
    if not page.dead:
        return Text("No dead letters.", style="dim")
    parts: list[RenderableType] = [_ended_table(page.dead, now)]
    if page.has_more:
        parts += [Text(), Text(f"{page.total} in total; {_LIMIT_HINT}", style="dim")]
    return Group(*parts)


def _open_table(tasks: Sequence[Task], now: float) -> FittedTable:
    workers = [task.worker or task.lane_owner or "–" for task in tasks]
    positions = ["–" if task.position is None else task.position for task in tasks]
    return FittedTable(
        [
            Column("TASK", [cell(task.task_id, "bold", 255) for task in tasks], min_width=13),
            Column("STATE", [cell(task.state, STATE_STYLE.get(task.state, "")) for task in tasks]),
            Column("PRIORITY", [cell(task.priority.name) for task in tasks], rank=1),
            Column("LANE", [cell(task.lane, "", 200) for task in tasks], min_width=12),
            Column("POS", [cell(position) for position in positions], right=True, rank=2),
            Column("AGE", [cell(_age(task, now)) for task in tasks], right=True),
            Column("ESTIMATE", [cell(format_minutes(task.estimated_duration)) for task in tasks], right=True, rank=5),
            Column("WORKER", [cell(worker, "", 200) for worker in workers], rank=3, min_width=12),
            Column("NAME", [cell(task.task, "", 200) for task in tasks], rank=6, min_width=16),
            Column("SOURCE", [cell(task.source, "", 400) for task in tasks], rank=4, min_width=20, keeps_end=True),
        ]
    )


def _ended_table(tasks: Sequence[Task], now: float) -> FittedTable:
    ages = [format_duration(None if task.ended_at is None else now - task.ended_at) for task in tasks]
    return FittedTable(
        [
            Column("TASK", [cell(task.task_id, "bold", 255) for task in tasks], min_width=13),
            Column("STATE", [cell(task.state, STATE_STYLE.get(task.state, "")) for task in tasks]),
            Column("ENDED", [cell(age) for age in ages], right=True),
            *_run_columns(tasks),
            Column("WORKER", [cell(task.worker or "–", "", 200) for task in tasks], rank=3, min_width=12),
            Column("LANE", [cell(task.lane, "", 200) for task in tasks], rank=6, min_width=12),
            *_error_column(tasks),
            Column("SOURCE", [cell(task.source, "", 400) for task in tasks], rank=5, min_width=20, keeps_end=True),
        ]
    )


def _run_columns(tasks: Sequence[Task]) -> Iterable[Column]:
    for title, seconds, rank in (
        ("WAIT", [task.wait_seconds for task in tasks], 4),
        ("RUN", [task.run_seconds for task in tasks], 1),
    ):
        if any(one is not None for one in seconds):
            yield Column(title, [cell(format_duration(one)) for one in seconds], right=True, rank=rank)


def _error_column(tasks: Sequence[Task]) -> Iterable[Column]:
    if any(task.error for task in tasks):
        yield Column("REASON", [cell(task.error, "", 400) for task in tasks], min_width=26)


def _age(task: Task, now: float) -> str:
    """Return the time since the task was claimed, or queued if it was never claimed."""
    since = task.claimed_at or task.enqueued_at
    return format_duration(None if since is None else max(now - since, 0.0))


# -- single tasks


def why_view(answer: "TaskExplanation", now: float) -> RenderableType:
    """Show the reason, the tasks ahead, the expected start, the recorded decisions and the score table."""
    parts: list[RenderableType] = [
        _title(answer.task_id, answer.state),
        _fact("why", f"{answer.reason_code}: {answer.reason}"),
    ]
    if answer.lane:
        place = f", position {_about(answer.position, answer.is_estimated)}" if answer.position is not None else ""
        parts.append(_fact("lane", f"{answer.lane}{place}"))
    parts += _tasks_ahead(answer)
    parts += _expected_start(answer, now)
    parts += _decisions(answer.decisions, now)
    starts = [None if worker.start_at is None else max(worker.start_at - now, 0.0) for worker in answer.workers]
    known = any(start is not None for start in starts)
    parts += score_lines(answer.workers, [format_duration(start) for start in starts] if known else ())
    return Group(*parts)


def _about(position: int, is_estimated: bool) -> str:
    return f"about {position:,}, by the time it was queued" if is_estimated else str(position)


def show_view(answer: "TaskDetails") -> RenderableType:
    """Show one line for each known fact."""
    task, now = answer.task, answer.now_at
    facts: dict[str, str | None] = {
        "why": f"{answer.reason_code}: {answer.reason}",
        "task": task.task,
        "source": task.source,
        "args": None if answer.args is None else json.dumps(answer.args, ensure_ascii=False),
        "kwargs": json.dumps(answer.kwargs, ensure_ascii=False) if answer.kwargs else None,
        "priority": task.priority.name,
        "needs": task.requires.value + (f", {task.content_type.value}" if task.content_type else ""),
        "estimate": None if task.estimated_duration is None else format_minutes(task.estimated_duration),
        "lane": task.lane + ("" if task.level is None else f", level {task.level}"),
        "position": None if task.position is None else _about(task.position, task.is_estimated),
        "worker": task.worker,
        "pinned to": _pin(task),
        "queued": _moment(task.enqueued_at, now),
        "not before": _moment(task.eta_at, now),
        "claimed": _moment(task.claimed_at, now),
        "started": _moment(task.started_at, now),
        "ended": _moment(task.ended_at, now),
        "waited": None if task.wait_seconds is None else format_duration(task.wait_seconds),
        "ran": None if task.run_seconds is None else format_duration(task.run_seconds),
        "error": task.error,
        "attempts": f"requeued from dead workers {count_of(task.attempts, 'time')}" if task.attempts else None,
        "retries": str(task.retries) if task.retries else None,
        "submission": task.submission,
        "ledger": None if task.is_known else "no entry: the task was not submitted through morag-queue",
    }
    parts: list[RenderableType] = [
        _title(task.task_id, task.state),
        *(_fact(name, value) for name, value in facts.items() if value),
    ]
    parts += (
        _fact("history", f"{_moment(at, now) or '–'} {worker}: {reason.removeprefix(f'{worker}: ')}")
        for at, worker, reason in answer.story
    )
    parts += _decisions(answer.decisions, now)
    if answer.result is not None:
        result = json.dumps(answer.result["result"], ensure_ascii=False)
        parts.append(_fact("result", f"{answer.result['status']}: {result}"))
    if answer.result_problem:
        parts.append(_fact("result", f"unknown: {answer.result_problem}"))
    return Group(*parts)


def _pin(task: Task) -> str | None:
    has_moved = not task.has_ended and task.claimed_at is None and task.pinned_to != task.lane_owner
    return f"{task.pinned_to}, but it was moved to {task.lane}" if task.pinned_to and has_moved else task.pinned_to


def _title(task_id: str, state: TaskState) -> Text:
    return Text.assemble((safe(task_id, 255), "bold"), "  ", (state.value, STATE_STYLE.get(state, "")))


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"  {name:<11}", "dim"), safe(value, 1000))


def _tasks_ahead(answer: "TaskExplanation") -> Iterable[Text]:
    if not answer.waiting_ahead:
        return
    named = ", ".join(f"{short_ids(safe(task.task_id, 80))} ({task.priority.name})" for task in answer.tasks_ahead)
    rest = answer.waiting_ahead - len(answer.tasks_ahead)
    yield _fact("ahead", f"{named}{f' and {rest} more' if rest else ''}")


def _expected_start(answer: "TaskExplanation", now: float) -> Iterable[Text]:
    if answer.expected_start is None or answer.earliest_start_at is None or answer.latest_start_at is None:
        return
    start, earliest, latest = (
        format_duration(max(at - now, 0.0))
        for at in (answer.expected_start, answer.earliest_start_at, answer.latest_start_at)
    )
    ahead = f", {answer.ahead} ahead of it" if answer.ahead else ""
    yield _fact("starts", f"in about {start} ({earliest} to {latest}{ahead})")


def _decisions(decisions: "Sequence[RecordedDecision]", now: float) -> Iterable[Text]:
    for decision in decisions:
        by = f" by {decision.who}" if decision.who else ""
        yield _fact("decided", f"{local_time(decision.at, now)} {decision.verb}{by}: {decision.reason}")


def _moment(at: float | None, now: float) -> str | None:
    if at is None:
        return None
    away = format_duration(abs(now - at))
    return f"{local_time(at, now)} ({away} ago)" if at <= now else f"{local_time(at, now)} (in {away})"
