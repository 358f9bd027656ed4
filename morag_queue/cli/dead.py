"""`dead ls|show|requeue|drop`: tasks that failed or were quarantined."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.model import TaskState
from morag_queue.errors import ExitStatus, UsageError

from .confirm import confirm_tasks
from .context import CliContext
from .options import verb
from .parameters import Limit, NameFilter, TaskArgument, TaskArguments, age_seconds
from .task import report_edits, task_editor

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.task import TaskFilter

DeadState = Annotated[
    TaskState | None,
    typer.Option("--state", case_sensitive=False, help="Only tasks in this state: failed or quarantined."),
]
DeadAge = Annotated[
    str | None,
    typer.Option("--age", metavar="DURATION", help="Only tasks that ended at least this long ago."),
]
AllTasks = Annotated[bool, typer.Option("--all", help="Select all failed and quarantined tasks.")]


@verb()
def ls(
    ctx: CliContext,
    state: DeadState = None,
    age: DeadAge = None,
    name: NameFilter = None,
    limit: Limit = 50,
) -> None:
    """List failed and quarantined tasks, newest first.

    These tasks run again only if you requeue them.
    """
    from morag_queue.operations.dead_letters import page

    answer = page(ctx.broker, _filter(state, age, name), limit or None)
    now = ctx.broker.now()

    def human() -> "RenderableType":
        from morag_queue.view.tasks import dead_view

        return dead_view(answer, now)

    ctx.emit(answer, human)


@verb()
def show(ctx: CliContext, task_id: TaskArgument) -> None:
    """Show the ledger entry, message and failure history of a task."""
    from morag_queue.operations.dead_letters import show as dead_letter

    answer = dead_letter(ctx.broker, ctx.settings, task_id)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import show_view

        return show_view(answer)

    ctx.emit(answer, human)


@verb(changes=True)
def requeue(
    ctx: CliContext,
    ids: TaskArguments = None,
    all_tasks: AllTasks = False,
    state: DeadState = None,
    age: DeadAge = None,
    name: NameFilter = None,
    reset: Annotated[bool, typer.Option("--reset", help="Reset the counts of retries and dead workers.")] = False,
) -> ExitStatus:
    """Queue failed and quarantined tasks again.

    Without --reset, a quarantined task is quarantined again as soon as one more worker dies while holding it.
    """
    from morag_queue.operations.task_edits import retry

    selected = _select(ctx, ids or [], all_tasks, _filter(state, age, name), "requeue")
    return report_edits(ctx, retry(task_editor(ctx, "dead requeue"), selected, reset=reset))


@verb(changes=True)
def drop(
    ctx: CliContext,
    ids: TaskArguments = None,
    all_tasks: AllTasks = False,
    state: DeadState = None,
    age: DeadAge = None,
    name: NameFilter = None,
) -> ExitStatus:
    """Drop failed and quarantined tasks.

    `journal undo` puts them back until the ledger's retention time ends; then their messages are deleted.
    """
    from morag_queue.operations.dead_letters import drop as drop_dead_letters

    selected = _select(ctx, ids or [], all_tasks, _filter(state, age, name), "drop")
    result = drop_dead_letters(ctx.broker, ctx.settings, selected, **ctx.change)
    dropped = "would be dropped" if ctx.options.dry_run else "dropped"
    unchanged = f", {len(result.unchanged)} already dropped" if result.unchanged else ""
    undo = f"; undo: morag-queue journal undo {result.journal}" if result.journal else ""
    ctx.emit(result, lambda: f"{result.dropped} {dropped}{unchanged}{undo}")
    for _, reason in result.failed:
        ctx.warn(f"refused: {reason}")
    if not result.failed:
        return ExitStatus.OK
    return ExitStatus.PARTIAL if result.tasks or result.unchanged else ExitStatus.NOT_FOUND


def _filter(state: TaskState | None, age: str | None, name: str | None) -> "TaskFilter":
    from morag_queue.core.task import TaskFilter

    if state not in (None, TaskState.FAILED, TaskState.QUARANTINED):
        raise UsageError(f"--state {state}: not a state of dead letters; use failed or quarantined")
    return TaskFilter(state=state, name=name, older_than_seconds=age_seconds(age))


def _select(ctx: CliContext, ids: list[str], all_tasks: bool, selected: "TaskFilter", change: str) -> list[str]:
    """Return `ids`, or those of all tasks that match the filter, once confirmed."""
    from morag_queue.operations.dead_letters import select
    from morag_queue.operations.task_editor import PREVIEWED
    from morag_queue.view.text import safe

    if bool(ids) + (all_tasks or not selected.is_empty) != 1:
        raise UsageError(f"dead {change} needs either task ids or a filter, such as --state, --age or --all")
    if ids:
        return ids
    matching = select(ctx.broker, selected)
    rows = [f"{safe(task.task_id, 60)}  {task.state}  {safe(task.error, 80)}" for task in matching[:PREVIEWED]]
    confirm_tasks(ctx, change, rows, len(matching))
    return [task.task_id for task in matching]


SUBCOMMANDS = {"ls": ls, "show": show, "requeue": requeue, "drop": drop}
