"""`task cancel|move|prio|retry`: by id, by several ids, or by a filter with a preview, a count and --yes."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.lanes import split
from morag_queue.errors import ExitStatus, Refused, UsageError

from .choice import InLane, InQueue, InState, OfAge, OfName, OfPriority, OfWorker, chosen, priority_of
from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.broker.task_lookup import TaskHit
    from morag_queue.core.edits import MoveTarget
    from morag_queue.core.snapshot import Snapshot
    from morag_queue.core.task import TaskFilter
    from morag_queue.operations.task_editor import EditReport, TaskEditor
    from morag_queue.operations.task_edits import Selection

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", show_default=False)]
_PREVIEWED = 10


@verb(changes=True)
def cancel(
    ctx: CliContext,
    ids: Ids = None,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Kill the process that runs it. What it did is not undone.")
    ] = False,
    queue: InQueue = None,
    lane: InLane = None,
    worker: OfWorker = None,
    state: InState = None,
    priority: OfPriority = None,
    age: OfAge = None,
    name: OfName = None,
) -> ExitStatus:
    """Cancel tasks. One that waits is out of its lane at once.

    One that a worker has taken but not begun is dropped when its turn comes (Celery's revoke; a worker that restarts
    before that has forgotten it). One that runs goes on to its end unless --terminate kills its process.
    """
    from morag_queue.operations import task_edits

    editor = task_editor(ctx, "task cancel")
    wanted = chosen(editor.snapshot, queue, lane, worker, state, priority, age, name)
    tasks = _selected(ctx, editor, ids or [], wanted, "cancel")
    return emit_edits(ctx, task_edits.cancel(editor, tasks, terminate=terminate))


@verb(changes=True)
def move(
    ctx: CliContext,
    ids: Ids = None,
    to_queue: Annotated[str | None, typer.Option("--to-queue", metavar="Q", help="To a queue; lifts a pin.")] = None,
    to_worker: Annotated[str | None, typer.Option("--to-worker", metavar="W", help="To a worker: a pin.")] = None,
    to_lane: Annotated[str | None, typer.Option("--to-lane", metavar="L", help="To the lane of that name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="To a worker that cannot take it now, too.")] = False,
    queue: InQueue = None,
    lane: InLane = None,
    worker: OfWorker = None,
    priority: OfPriority = None,
    age: OfAge = None,
    name: OfName = None,
) -> ExitStatus:
    """Move waiting tasks to another queue, or pin them to a worker. They go behind those that wait there.

    What needs a GPU is never moved into a lane that a worker without one reads.
    """
    from morag_queue.operations import task_edits

    editor = task_editor(ctx, "task move")
    target = _target(editor.snapshot, to_queue, to_worker, to_lane)
    wanted = chosen(editor.snapshot, queue, lane, worker, None, priority, age, name)
    tasks = _selected(ctx, editor, ids or [], wanted, f"move to {target.shown}")
    return emit_edits(ctx, task_edits.move(editor, tasks, target, force=force))


@verb(changes=True)
def prio(
    ctx: CliContext,
    words: Annotated[list[str], typer.Argument(metavar="[ID…] PRIORITY", show_default=False)],
    queue: InQueue = None,
    lane: InLane = None,
    worker: OfWorker = None,
    priority: OfPriority = None,
    age: OfAge = None,
    name: OfName = None,
) -> ExitStatus:
    """Give waiting tasks another priority: URGENT, HIGH, NORMAL, LOW or BATCH, the last word of the line."""
    from morag_queue.operations import task_edits

    *ids, word = words
    to = priority_of(word)
    editor = task_editor(ctx, "task prio")
    wanted = chosen(editor.snapshot, queue, lane, worker, None, priority, age, name)
    tasks = _selected(ctx, editor, ids, wanted, f"change to {to.name}")
    return emit_edits(ctx, task_edits.prioritise(editor, tasks, to))


@verb(changes=True)
def retry(
    ctx: CliContext,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", show_default=False)],
    keep: Annotated[bool, typer.Option("--keep", help="Go on counting its retries and the workers it cost.")] = False,
) -> ExitStatus:
    """Run ended tasks again under their ids, as they were: failed, cancelled, quarantined or completed ones."""
    from morag_queue.operations import task_edits

    return emit_edits(ctx, task_edits.retry(task_editor(ctx, "task retry"), ids, reset=not keep))


def task_editor(ctx: CliContext, name: str) -> "TaskEditor":
    """Build the editor for one command; `name` is its words, for the journal."""
    from morag_queue.operations.task_editor import TaskEditor

    options = ctx.options
    return TaskEditor(ctx.broker, ctx.settings, name, who=ctx.who, reason=options.reason, dry_run=options.dry_run)


def _target(snapshot: "Snapshot", queue: str | None, worker: str | None, lane: str | None) -> "MoveTarget":
    from morag_queue.core.edits import MoveTarget
    from morag_queue.operations.names import resolve, resolve_queue

    if [queue, worker, lane].count(None) != 2:
        raise UsageError("move where? give one of --to-queue, --to-worker and --to-lane")
    if queue is not None:
        return MoveTarget(queue=resolve_queue(queue))
    if worker is not None:
        return MoveTarget(worker=resolve("worker", worker, snapshot.worker_by_id))
    name, owner = split(str(lane))
    return MoveTarget(resolve_queue(name), None if owner is None else resolve("worker", owner, snapshot.worker_by_id))


def _selected(ctx: CliContext, editor: "TaskEditor", ids: list[str], wanted: "TaskFilter", words: str) -> "Selection":
    """Return the ids, or the tasks of the filter once they are confirmed."""
    if ids and not wanted.is_empty:
        raise UsageError("give ids or a filter, not both")
    if ids:
        return ids
    if wanted.is_empty:
        raise UsageError("which tasks? give ids, or a filter such as --queue, --worker or --priority")
    found = editor.select(wanted)
    if found and not ctx.options.dry_run and not ctx.options.yes:
        _ask(ctx, found, words)
        editor.refresh()  # the fleet may have changed while the prompt was open
    return found


def _ask(ctx: CliContext, found: "list[TaskHit]", words: str) -> None:
    """Show what the filter matches, and ask for confirmation: it may match more than intended."""
    from morag_queue.view.text import safe

    for one in found[:_PREVIEWED]:
        ctx.warn(
            f"  {safe(one.task.task_id, 60)}  {one.task.priority.name}  {one.task.lane}  {safe(one.task.source, 60)}"
        )
    if len(found) > _PREVIEWED:
        ctx.warn(f"  … and {len(found) - _PREVIEWED} more")
    if not ctx.confirm(f"{words}: {len(found)} tasks. Go on?"):
        raise Refused(f"{words}: {len(found)} tasks; nothing was changed: add --yes, or look first with --dry-run")


def emit_edits(ctx: CliContext, report: "EditReport") -> ExitStatus:
    """Print the answer of a command that edits tasks."""

    def human() -> "RenderableType":
        from morag_queue.view.plans import steered_view

        return steered_view(report)

    ctx.emit(report.as_json(), human) if report.tasks or ctx.json else ctx.note("No task fits the filter.")
    for one in report.refused[:20]:
        ctx.warn(f"refused: {one.task_id}: {one.detail}")
    return report.exit_status
