"""`task show|why|cancel|move|prio|retry`: single tasks by id, or all tasks that match a filter."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.lanes import split
from morag_queue.core.words import count_of
from morag_queue.errors import ExitStatus, UsageError

from .confirm import confirm_tasks
from .context import CliContext
from .options import verb
from .parameters import (
    AgeFilter,
    LaneFilter,
    NameFilter,
    PriorityFilter,
    QueueFilter,
    StateFilter,
    SubmissionFilter,
    TaskArgument,
    TaskArguments,
    WorkerFilter,
    priority_named,
    task_filter,
)
from .sources import AllowCpu

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.edits.rules import MoveTarget
    from morag_queue.core.snapshot import Snapshot
    from morag_queue.core.task import TaskFilter
    from morag_queue.operations.task_editor import EditReport, TaskEditor
    from morag_queue.operations.task_edits import Selection

_SHOWN_REFUSALS = 20


@verb()
def show(ctx: CliContext, task_id: TaskArgument) -> None:
    """Show the ledger entry, message, location and decisions of a task."""
    from morag_queue.operations.task import task_details

    answer = task_details(ctx.broker, ctx.settings, task_id)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import show_view

        return show_view(answer)

    ctx.emit(answer, human)


@verb()
def why(ctx: CliContext, task_id: TaskArgument) -> None:
    """Explain why a task is in its state, and when it should start.

    The answer gives the first reason that applies and a verdict for every worker. Ended: COMPLETED, FAILED, CANCELLED,
    QUARANTINED. Held by a worker: RUNNING, RESERVED (others run first), HOLDER_OFFLINE (a failover requeues it).
    Missing: NOT_ON_BROKER (a sweep resends it). Waiting: QUEUE_PAUSED, ETA_NOT_REACHED, NO_CAPABLE_WORKER,
    LANE_CORDONED (all capable workers are out of service), ALL_CAPABLE_OFFLINE, LEVEL_NOT_POLLED (no worker polls its
    level), BEHIND_PRIORITY (more urgent work is first), BEHIND_EARLIER (earlier work is first), ALL_CAPABLE_BUSY (it is
    next), ABOUT_TO_START.
    """
    from morag_queue.operations.task import TaskExplainer

    explainer = TaskExplainer(ctx.broker, ctx.settings)
    answer = explainer.why(task_id)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import why_view

        return why_view(answer, explainer.snapshot.taken_at)

    ctx.emit(answer, human)


@verb(changes=True)
def cancel(
    ctx: CliContext,
    ids: TaskArguments = None,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Kill the process of a running task; its effects remain.")
    ] = False,
    queue: QueueFilter = None,
    lane: LaneFilter = None,
    worker: WorkerFilter = None,
    state: StateFilter = None,
    priority: PriorityFilter = None,
    age: AgeFilter = None,
    name: NameFilter = None,
    submission: SubmissionFilter = None,
) -> ExitStatus:
    """Cancel tasks, by id or by filter.

    A waiting task leaves its lane at once. A task that a worker holds but has not started is revoked; a worker that
    restarts before then forgets the revocation. A running task continues unless --terminate kills its process.
    """
    from morag_queue.operations import task_edits

    editor = task_editor(ctx, "task cancel")
    selected = task_filter(editor.snapshot, queue, lane, worker, state, priority, age, name, submission)
    tasks = _select(ctx, editor, ids or [], selected, "cancel")
    if submission is not None and state is None and (held := editor.count_held(submission)):
        count = count_of(held, "task")
        ctx.note(f"{count} of {submission} held by workers, so not selected; add --state running to select")
    return report_edits(ctx, task_edits.cancel(editor, tasks, terminate=terminate))


@verb(changes=True)
def move(
    ctx: CliContext,
    ids: TaskArguments = None,
    to_queue: Annotated[
        str | None, typer.Option("--to-queue", metavar="Q", help="Move to this queue and remove any pin.")
    ] = None,
    to_worker: Annotated[str | None, typer.Option("--to-worker", metavar="W", help="Pin to this worker.")] = None,
    to_lane: Annotated[str | None, typer.Option("--to-lane", metavar="L", help="Move to this lane.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Allow a worker that is cordoned, drained or offline.")
    ] = False,
    allow_cpu: AllowCpu = False,
    queue: QueueFilter = None,
    lane: LaneFilter = None,
    worker: WorkerFilter = None,
    priority: PriorityFilter = None,
    age: AgeFilter = None,
    name: NameFilter = None,
    submission: SubmissionFilter = None,
) -> ExitStatus:
    """Move waiting tasks to the end of another lane, by id or by filter.

    A task that requires a GPU never enters a lane that a worker without one reads, unless --allow-cpu is given.
    --force does not allow that.
    """
    from morag_queue.operations import task_edits

    editor = task_editor(ctx, "task move")
    target = _target(editor.snapshot, to_queue, to_worker, to_lane)
    selected = task_filter(editor.snapshot, queue, lane, worker, None, priority, age, name, submission)
    tasks = _select(ctx, editor, ids or [], selected, f"move to {target.shown}")
    return report_edits(ctx, task_edits.move(editor, tasks, target, force=force, allow_cpu=allow_cpu))


@verb(changes=True)
def prio(
    ctx: CliContext,
    ids_and_priority: Annotated[
        list[str],
        typer.Argument(metavar="[ID…] PRIORITY", show_default=False, help="Task ids, followed by the new priority."),
    ],
    queue: QueueFilter = None,
    lane: LaneFilter = None,
    worker: WorkerFilter = None,
    priority: PriorityFilter = None,
    age: AgeFilter = None,
    name: NameFilter = None,
    submission: SubmissionFilter = None,
) -> ExitStatus:
    """Change the priority of waiting tasks, by id or by filter.

    The priority is the last argument: URGENT, HIGH, NORMAL, LOW or BATCH.
    """
    from morag_queue.operations import task_edits

    *ids, priority_name = ids_and_priority
    new_priority = priority_named(priority_name)
    editor = task_editor(ctx, "task prio")
    selected = task_filter(editor.snapshot, queue, lane, worker, None, priority, age, name, submission)
    tasks = _select(ctx, editor, ids, selected, f"change to {new_priority.name}")
    return report_edits(ctx, task_edits.prioritise(editor, tasks, new_priority))


@verb(changes=True)
def retry(
    ctx: CliContext,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", show_default=False, help="Task ids or unique prefixes.")],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the counts of retries and dead workers.")] = False,
) -> ExitStatus:
    """Run ended tasks again under the same ids.

    Accepts failed, completed, cancelled and quarantined tasks.
    """
    from morag_queue.operations import task_edits

    return report_edits(ctx, task_edits.retry(task_editor(ctx, "task retry"), ids, reset=not keep))


def task_editor(ctx: CliContext, verb_name: str) -> "TaskEditor":
    from morag_queue.operations.task_editor import TaskEditor

    return TaskEditor(ctx.broker, ctx.settings, verb_name, **ctx.change)


def report_edits(ctx: CliContext, report: "EditReport") -> ExitStatus:
    """Print the outcome for each task."""

    def human() -> "RenderableType":
        from morag_queue.view.plans import edits_view

        return edits_view(report)

    if report.tasks or ctx.json:
        ctx.emit(report.as_json(), human)
    else:
        ctx.note("No task matches the filter; nothing was changed.")
    for refusal in report.refused[:_SHOWN_REFUSALS]:
        named = repr(refusal.task_id) in refusal.detail  # as in: no task 'x'
        ctx.warn(f"refused: {refusal.detail if named else f'{refusal.task_id}: {refusal.detail}'}")
    return report.exit_status


def _target(snapshot: "Snapshot", queue: str | None, worker: str | None, lane: str | None) -> "MoveTarget":
    from morag_queue.core.edits.rules import MoveTarget
    from morag_queue.operations.names import resolve, resolve_queue

    if [queue, worker, lane].count(None) != 2:
        raise UsageError("task move needs exactly one of --to-queue, --to-worker and --to-lane")
    if queue is not None:
        return MoveTarget(queue=resolve_queue(queue))
    if worker is not None:
        return MoveTarget(worker=resolve("worker", worker, snapshot.worker_by_id))
    name, owner = split(str(lane))
    return MoveTarget(resolve_queue(name), None if owner is None else resolve("worker", owner, snapshot.worker_by_id))


def _select(ctx: CliContext, editor: "TaskEditor", ids: list[str], selected: "TaskFilter", change: str) -> "Selection":
    """Return `ids`, or the tasks that match the filter, once confirmed."""
    from morag_queue.view.text import safe

    if ids and not selected.is_empty:
        raise UsageError("task ids and filters cannot be combined: use one or the other")
    if ids:
        return ids
    if selected.is_empty:
        raise UsageError("no tasks given: pass ids, or a filter such as --queue, --worker or --submission")
    chosen = editor.choose(selected)
    rows = [
        f"{safe(hit.task.task_id, 60)}  {hit.task.priority.name}  {hit.task.lane}  {safe(hit.task.source, 60)}"
        for hit in chosen.first
    ]
    lasting = f"{count_of(chosen.held, 'order')} to workers cannot be undone" if chosen.held else ""
    if confirm_tasks(ctx, change, rows, len(chosen), lasting):
        editor.refresh()  # the fleet may have changed while the prompt was open
    return chosen.tasks


SUBCOMMANDS = {"show": show, "why": why, "cancel": cancel, "move": move, "prio": prio, "retry": retry}
