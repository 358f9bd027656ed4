"""What became of tasks that were changed by hand."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.operations.task_editor import EditReport

from .columns import Column, Fitting
from .text import cell

_SHOWN = 20


def steered_view(report: EditReport) -> RenderableType:
    """A row a task that was changed or is as wanted, and the counts. Refused ones are told apart from it."""
    told = [one for one in report.tasks if one.outcome != "refused"]
    shown = told[:_SHOWN]
    parts: list[RenderableType] = []
    if shown:
        parts.append(
            Fitting(
                [
                    Column("TASK", [cell(one.task_id, "bold", 255) for one in shown], least=13),
                    Column("OUTCOME", [cell(one.outcome) for one in shown]),
                    Column("", [cell(one.detail, "", 400) for one in shown], least=20),
                ]
            )
        )
    if len(told) > len(shown):
        parts.append(Text(f"… and {len(told) - len(shown)} more; --json lists them all", style="dim"))
    counts = report.as_json()
    words = [f"{counts['changed']} {'would be changed' if report.dry_run else 'changed'}"]
    words += [f"{counts[name]} {name}" for name in ("unchanged", "refused") if counts[name]]
    undo = f"; undo: morag-queue journal undo {report.entry_id}" if report.entry_id else ""
    return Group(*parts, Text(", ".join(words) + undo))
