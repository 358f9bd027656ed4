"""One task: everything there is of it, or why it waits."""

import json
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.routing.feasibility import Feasibility
from morag_queue.operations.task import RecordedDecision, TaskDetails, TaskExplanation, WorkerScore

from .columns import Column, Fitting
from .durations import format_duration, format_minutes
from .output import iso
from .tasks import STATE_STYLE
from .text import cell, safe

_WORKERS = 20
_TEXT = 1000


def why_view(answer: TaskExplanation, now: float) -> RenderableType:
    """The reason first, then when, then who."""
    parts: list[RenderableType] = [
        Text.assemble(
            (safe(answer.task_id, 255), "bold"), "  ", (answer.state.value, STATE_STYLE.get(answer.state, ""))
        ),
        _line("why", f"{answer.reason_code}: {answer.reason}"),
    ]
    if answer.lane:
        place = f", position {answer.position}" if answer.position is not None else ""
        parts.append(_line("lane", f"{answer.lane}{place}"))
    parts += _when(answer, now)
    parts += _decisions(answer.decisions)
    if answer.workers:
        parts += [Text(), _workers(answer.workers)]
        if len(answer.workers) > _WORKERS:
            parts.append(
                Text(f"… and {len(answer.workers) - _WORKERS} more workers; --json lists them all", style="dim")
            )
    return Group(*parts)


def show_view(answer: TaskDetails) -> RenderableType:
    """A line a fact; facts that are not known are left out."""
    task, now = answer.task, answer.now_at
    head = Text.assemble((safe(task.task_id, 255), "bold"), "  ", (task.state.value, STATE_STYLE.get(task.state, "")))
    facts: dict[str, str | None] = {
        "why": f"{answer.reason_code}: {answer.reason}",
        "task": task.task,
        "source": task.source,
        "args": None if answer.args is None else json.dumps(answer.args, ensure_ascii=False),
        "kwargs": json.dumps(answer.kwargs, ensure_ascii=False) if answer.kwargs else None,
        "priority": task.priority.name,
        "needs": task.requires.value + (f", {task.content_type.value}" if task.content_type else ""),
        "takes": None if task.estimated_duration is None else format_minutes(task.estimated_duration),
        "lane": task.lane + ("" if task.level is None else f", level {task.level}"),
        "position": None if task.position is None else str(task.position),
        "worker": task.worker,
        "pinned to": task.pinned_to,
        "queued": _moment(task.enqueued_at, now),
        "not before": _moment(task.eta_at, now),
        "taken": _moment(task.claimed_at, now),
        "started": _moment(task.started_at, now),
        "ended": _moment(task.ended_at, now),
        "waited": None if task.wait_seconds is None else format_duration(task.wait_seconds),
        "ran": None if task.run_seconds is None else format_duration(task.run_seconds),
        "error": task.error,
        "attempts": f"taken back {task.attempts} times" if task.attempts else None,
        "retries": str(task.retries) if task.retries else None,
        "ledger": None if task.is_known else "has no entry: it was not submitted through morag-queue",
    }
    parts: list[RenderableType] = [head, *(_line(name, text) for name, text in facts.items() if text)]
    parts += (_line("story", f"{_moment(at, now) or ''} {worker}: {why}") for at, worker, why in answer.story)
    parts += _decisions(answer.decisions)
    if answer.result is not None:
        parts.append(
            _line("result", f"{answer.result['status']}: {json.dumps(answer.result['result'], ensure_ascii=False)}")
        )
    return Group(*parts)


def _when(answer: TaskExplanation, now: float) -> Iterable[Text]:
    if answer.expected_start is None or answer.earliest_start_at is None or answer.latest_start_at is None:
        return
    start = max(answer.expected_start - now, 0.0)
    first, last = (max(at - now, 0.0) for at in (answer.earliest_start_at, answer.latest_start_at))
    ahead = f", {answer.ahead} go first" if answer.ahead else ""
    yield _line(
        "starts", f"in about {format_duration(start)} ({format_duration(first)} to {format_duration(last)}{ahead})"
    )


def _decisions(decisions: Sequence[RecordedDecision]) -> Iterable[Text]:
    for one in decisions:
        by = f" by {one.who}" if one.who else ""
        at = iso(one.at) if one.at else None
        yield _line("decided", f"{at or '–'} {one.verb}{by}: {one.reason}")


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"  {name:<11}", "dim"), safe(text, _TEXT))


def _workers(scores: Sequence[WorkerScore]) -> Fitting:
    shown = scores[:_WORKERS]
    style = {Feasibility.FIT.value: "green"}
    return Fitting(
        [
            Column("  WORKER", [cell(f"  {one.worker}", "", 200) for one in shown], least=16),
            Column("VERDICT", [cell(one.verdict, style.get(one.verdict, "yellow")) for one in shown]),
            Column("SCORE", [cell(f"{one.score:.2f}") for one in shown], right=True),
            Column("EXPECTED", [cell(format_minutes(one.expected_minutes)) for one in shown], right=True, rank=1),
        ]
    )


def _moment(at: float | None, now: float) -> str | None:
    if at is None:
        return None
    away = format_duration(abs(now - at))
    return f"{iso(at) or '–'} ({away} ago)" if at <= now else f"{iso(at) or '–'} (in {away})"
