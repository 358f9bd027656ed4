"""What a turn of balancing decided, and what became of it."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.explain.decisions import TaskDecision
from morag_queue.operations.rebalance import RebalanceResult

from .columns import Column, Fitting
from .durations import format_minutes
from .text import cell, safe

_SHOWN = 50


def rebalanced_view(done: RebalanceResult, *, explain: bool, quiet: bool) -> RenderableType:
    """A table of the moves and a line that sums them up; with `explain` the roads not taken."""
    parts: list[RenderableType] = []
    if done.decisions and not quiet:
        parts += [_table(done.decisions[:_SHOWN])]
        if len(done.decisions) > _SHOWN:
            parts.append(Text(f"… and {len(done.decisions) - _SHOWN} more; --json lists them all", style="dim"))
        parts.append(Text())
    parts.append(Text(_summary(done)))
    parts += [Text(f"  refused: {safe(one.task_id or 'lane')}: {safe(one.reason)}") for one in done.rejected[:_SHOWN]]
    if explain:
        parts.append(Text("Not done:" if done.declined else "No other road was looked at."))
        parts += [Text(f"  {safe(one.subject)}: {safe(one.reason)}") for one in done.declined]
    return Group(*parts)


def _table(rows: tuple[TaskDecision, ...]) -> Fitting:
    return Fitting(
        [
            Column("TASK", [cell(row.task_id or f"{row.tasks} tasks", "", 255) for row in rows], least=12),
            Column("FROM", [cell(f"{row.source_lane} {row.source_level}", "", 200) for row in rows], least=14),
            Column("TO", [cell(f"{row.target_lane} {row.target_level}", "", 200) for row in rows], least=14),
            Column("SAVES", [cell(_saved(row)) for row in rows], right=True, rank=2),
            Column("WHY", [cell(row.reason, "", 300) for row in rows], rank=1, least=30),
        ]
    )


def _saved(row: TaskDecision) -> str:
    return format_minutes(row.estimated_improvement) if row.estimated_improvement else "–"


def _summary(done: RebalanceResult) -> str:
    wanted = sum(row.tasks for row in done.decisions)
    if done.dry_run:
        return f"{wanted} tasks would be moved" if wanted else "Nothing would be moved"
    parts = [f"{done.moved_tasks} tasks moved"]
    parts += [f"{done.already} were there already"] if done.already else []
    parts += [f"{done.foreign} messages of others left where they are"] if done.foreign else []
    parts += [f"{len(done.rejected)} refused"] if done.rejected else []
    return ", ".join(parts)
