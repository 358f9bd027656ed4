"""What was submitted, and what became of it."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import TaskState
from morag_queue.operations.submit import SubmittedTask

from .columns import Column, Fitting
from .durations import format_minutes
from .text import cell

_STATE_STYLE = {TaskState.COMPLETED.value: "green", TaskState.FAILED.value: "red"}


def submitted_view(
    tasks: Sequence[SubmittedTask], summary: str, states: Mapping[str, str], limit: int | None
) -> RenderableType:
    """A table of the tasks, at most `limit` of them, and the summary below it. `states` are those of --wait."""
    shown = tasks[:limit]
    parts: list[RenderableType] = [_table(shown, states), Text()] if shown else []
    if len(tasks) > len(shown):
        parts.insert(1, Text(f"… and {len(tasks) - len(shown)} more; --json lists them all", style="dim"))
    return Group(*parts, Text(summary))


def _table(tasks: Sequence[SubmittedTask], states: Mapping[str, str]) -> Fitting:
    def state(task: SubmittedTask) -> Text:
        word = states.get(task.task_id, "")
        return cell(word, _STATE_STYLE.get(word, ""))

    return Fitting(
        [
            Column("SOURCE", [cell(task.source, "", 400) for task in tasks], least=36, keeps_end=True),
            Column("TYPE", [cell(task.content_type.value) for task in tasks], rank=2),
            Column("PRIORITY", [cell(task.priority) for task in tasks]),
            Column("LANE", [cell(task.lane, "", 200) for task in tasks], least=12),
            Column("STATE", [state(task) for task in tasks], rank=1),
            Column("TAKES", [cell(format_minutes(task.estimated_duration)) for task in tasks], right=True, rank=3),
            Column("WORKER", [cell(task.worker or "–", "", 200) for task in tasks], rank=4, least=12),
            Column("TASK", [cell(task.task_id, "dim", 255) for task in tasks], rank=5),
        ]
    )
