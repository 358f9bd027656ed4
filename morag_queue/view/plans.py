"""Answers about plans and their results: dry runs, `rebalance`, `failover` and the verbs that edit tasks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.explain.decisions import TaskDecision, describe_step
from morag_queue.core.plan import Step
from morag_queue.core.words import count_of

from .table import Column, FittedTable, cell
from .text import format_minutes, more_line, safe

if TYPE_CHECKING:
    from morag_queue.operations.failover import FailoverResult
    from morag_queue.operations.rebalance import RebalanceResult
    from morag_queue.operations.task_editor import EditReport

_STEPS_SHOWN = _EDITS_SHOWN = 20
_MOVES_SHOWN = 50


def step_lines(steps: Sequence[Step]) -> list[str]:
    """Return one line for each of the first steps of a dry run."""
    lines = [f"  {safe(describe_step(step), 200)}" for step in steps[:_STEPS_SHOWN]]
    hidden = len(steps) - len(lines)
    return [*lines, f"  {more_line(hidden)}"] if hidden else lines


def edits_view(report: "EditReport") -> RenderableType:
    """Show the accepted tasks, changed or already as requested, and the counts. The caller reports refused tasks."""
    accepted = [task for task in report.tasks if task.outcome != "refused"]
    shown = accepted[:_EDITS_SHOWN]
    parts: list[RenderableType] = []
    if shown:
        parts.append(
            FittedTable(
                [
                    Column("TASK", [cell(task.task_id, "bold", 255) for task in shown], min_width=13),
                    Column("OUTCOME", [cell(_outcome(task.outcome, report.dry_run)) for task in shown]),
                    Column("", [cell(task.detail, "", 400) for task in shown], min_width=20),
                ]
            )
        )
    if len(accepted) > len(shown):
        parts.append(Text(more_line(len(accepted) - len(shown)), style="dim"))
    counts = report.as_json()
    totals = [f"{counts['changed']} {'would be changed' if report.dry_run else 'changed'}"]
    totals += [f"{counts[name]} {name}" for name in ("unchanged", "refused") if counts[name]]
    undo = f"; undo: morag-queue journal undo {report.entry_id}" if report.entry_id else ""
    return Group(*parts, Text(", ".join(totals) + undo))


_WOULD = {
    "cancelled": "would cancel",
    "revoked": "would revoke",
    "moved": "would move",
    "changed": "would change",
    "queued": "would queue",
}


def _outcome(outcome: str, dry_run: bool) -> str:
    return _WOULD.get(outcome, outcome) if dry_run else outcome


def failover_view(result: "FailoverResult") -> str:
    """Return a line for each worker with its evidence, then the declined and planned steps, then the counts."""
    lines = [
        f"{safe(worker.worker)}: {worker.verdict.value}, {safe(worker.done)} ({safe('; '.join(worker.evidence))})"
        for worker in result.workers
    ]
    lines += [f"declined: {safe(declined.subject)}: {safe(declined.reason)}" for declined in result.declined]
    lines += step_lines(result.steps)
    counts = {
        "requeued": result.requeued_tasks,
        "moved": result.moved_tasks,
        "resent": result.recovered_tasks,
        "quarantined": result.quarantined_tasks,
    }
    summary = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
    planned = "would be " if result.dry_run and summary else ""
    return "\n".join([*lines, f"{planned}{summary or 'nothing to recover'}"])


def rebalance_view(result: "RebalanceResult", *, explain: bool, quiet: bool) -> RenderableType:
    """Show the moves and a summary line; with `explain` also the declined moves."""
    parts: list[RenderableType] = []
    if result.decisions and not quiet:
        parts.append(_moves_table(result.decisions[:_MOVES_SHOWN]))
        if len(result.decisions) > _MOVES_SHOWN:
            parts.append(Text(more_line(len(result.decisions) - _MOVES_SHOWN), style="dim"))
        parts.append(Text())
    parts.append(Text(_moves_summary(result)))
    parts += [
        Text(f"  refused: {safe(rejected.task_id or 'lane')}: {safe(rejected.reason)}")
        for rejected in result.rejected[:_MOVES_SHOWN]
    ]
    if explain:
        parts.append(Text("Declined:" if result.declined else "No move was declined."))
        parts += [Text(f"  {safe(declined.subject)}: {safe(declined.reason)}") for declined in result.declined]
    return Group(*parts)


def _moves_table(moves: Sequence[TaskDecision]) -> FittedTable:
    return FittedTable(
        [
            Column(
                "TASK", [cell(move.task_id or count_of(move.tasks, "task"), "", 255) for move in moves], min_width=12
            ),
            Column("FROM", [cell(f"{move.source_lane} {move.source_level}", "", 200) for move in moves], min_width=14),
            Column("TO", [cell(f"{move.target_lane} {move.target_level}", "", 200) for move in moves], min_width=14),
            Column("SAVES", [cell(_saved(move)) for move in moves], right=True, rank=2),
            Column("WHY", [cell(move.reason, "", 300) for move in moves], rank=1, min_width=30),
        ]
    )


def _saved(move: TaskDecision) -> str:
    return format_minutes(move.estimated_improvement) if move.estimated_improvement else "–"


def _moves_summary(result: "RebalanceResult") -> str:
    planned = sum(move.tasks for move in result.decisions)
    if result.dry_run:
        return f"{count_of(planned, 'task')} would be moved" if planned else "Nothing would be moved"
    parts = [f"{count_of(result.moved_tasks, 'task')} moved"]
    parts += [f"{result.already} already moved"] if result.already else []
    parts += [f"{count_of(result.foreign, 'foreign message')} left in place"] if result.foreign else []
    parts += [f"{len(result.rejected)} refused"] if result.rejected else []
    return ", ".join(parts)
