"""Answers of `classify` and `submit`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import Classification, TaskState
from morag_queue.core.routing.feasibility import Feasibility
from morag_queue.core.routing.types import Placement

from .table import Cell, Column, FittedTable, cell
from .text import format_minutes, more_line, safe

if TYPE_CHECKING:
    from morag_queue.operations.submit_report import SubmittedTask

_STATE_STYLE = {TaskState.COMPLETED.value: "green", TaskState.FAILED.value: "red"}
_SCORES = 20


def submit_view(
    tasks: "Sequence[SubmittedTask]", summary: str, states: Mapping[str, str], limit: int | None
) -> RenderableType:
    """Show a table of at most `limit` tasks and the summary below it. `states` are the final states of --wait."""
    shown = tasks[:limit]
    parts: list[RenderableType] = [_submitted_table(shown, states), Text()] if shown else []
    if len(tasks) > len(shown):
        parts.insert(1, Text(more_line(len(tasks) - len(shown)), style="dim"))
    return Group(*parts, Text(summary))


def _submitted_table(tasks: "Sequence[SubmittedTask]", states: Mapping[str, str]) -> FittedTable:
    def state(task: "SubmittedTask") -> Cell:
        final = states.get(task.task_id, "")
        return cell(final, _STATE_STYLE.get(final, ""))

    return FittedTable(
        [
            Column("TASK", [cell(task.task_id, "bold", 255) for task in tasks], min_width=13),
            Column("SOURCE", [cell(task.source, "", 400) for task in tasks], min_width=30, keeps_end=True),
            Column("TYPE", [cell(task.content_type.value) for task in tasks], rank=2),
            Column("PRIORITY", [cell(task.priority) for task in tasks]),
            Column("LANE", [cell(task.lane, "", 200) for task in tasks], min_width=12),
            Column("STATE", [state(task) for task in tasks], rank=1),
            Column("ESTIMATE", [cell(format_minutes(task.estimated_duration)) for task in tasks], right=True, rank=3),
            Column("WORKER", [cell(task.worker or "–", "", 200) for task in tasks], rank=4, min_width=12),
        ]
    )


def classify_view(classified: Iterable[tuple[Classification, Placement]]) -> RenderableType:
    """Show one block for each source, in the given order."""
    blocks: list[RenderableType] = []
    for classification, placement in classified:
        if blocks:
            blocks.append(Text())
        blocks += _classification(classification, placement)
    return Group(*blocks)


def _classification(task: Classification, placement: Placement) -> Iterable[RenderableType]:
    decision = placement.decision
    needs = dict.fromkeys([task.requires.value, *(requirement.value for requirement in task.requirements)])
    yield Text(safe(task.source, 400), style="bold")
    yield _fact("type", f"{task.content_type.value}, {task.complexity.value} complexity")
    yield _fact("needs", f"{', '.join(needs)}; {task.memory_gb:.1f} GB memory, {task.disk_gb:.1f} GB disk")
    yield _fact("estimate", f"{format_minutes(task.estimated_minutes)} (confidence {task.confidence:.0%})")
    yield _fact("priority", task.priority.name)
    for reason in task.reasons:
        yield _fact("because", reason)
    yield _fact("lane", f"{placement.lane}, level {placement.level}")
    yield _fact(decision.action.value, f"{decision.reason} (confidence {decision.confidence:.0%})")
    yield from score_lines(placement.scores)


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"  {name:<9} ", "dim"), safe(value, 1000))


class Scored(Protocol):
    """A worker of a score table."""

    @property
    def worker(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def expected_minutes(self) -> float | None: ...


def score_lines(scores: Sequence[Scored], starts: Sequence[str] = ()) -> Iterable[RenderableType]:
    """Show the best workers of a score table below a blank line; nothing if it is empty.

    `starts` says for each worker when the task would start on it, as far as that is known.
    """
    shown = scores[:_SCORES]
    if shown:
        start_column = [Column("STARTS IN", [cell(start) for start in starts[: len(shown)]], right=True, rank=1)]
        yield Text()
        yield FittedTable(
            [
                Column("  WORKER", [cell(f"  {score.worker}", "", 200) for score in shown], min_width=16),
                Column("VERDICT", [cell(score.verdict, _verdict_style(score.verdict)) for score in shown]),
                Column("SCORE", [cell(f"{score.score:.2f}") for score in shown], right=True),
                *(start_column if any(starts) else []),
                Column(
                    "RUNS FOR", [cell(format_minutes(score.expected_minutes)) for score in shown], right=True, rank=1
                ),
            ]
        )
    if len(scores) > len(shown):
        yield Text(more_line(len(scores) - len(shown), "worker"), style="dim")


def _verdict_style(verdict: str) -> str:
    return "green" if verdict == Feasibility.FIT else "yellow"
