"""`tasks`: list running and waiting tasks."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.model import TaskState
from morag_queue.errors import UsageError

from .context import CliContext
from .options import verb
from .parameters import (
    AgeFilter,
    LaneFilter,
    Limit,
    NameFilter,
    PriorityFilter,
    QueueFilter,
    StateFilter,
    WorkerFilter,
    task_filter,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.task import TaskFilter
    from morag_queue.operations.tasks import Tasks

_NO_LIMIT = 1 << 62


@verb()
def tasks(
    ctx: CliContext,
    queue: QueueFilter = None,
    lane: LaneFilter = None,
    worker: WorkerFilter = None,
    state: StateFilter = None,
    priority: PriorityFilter = None,
    age: AgeFilter = None,
    name: NameFilter = None,
    limit: Limit = 50,
    next_first: Annotated[bool, typer.Option("--next", help="List the next task to run first (default).")] = False,
    newest: Annotated[bool, typer.Option("--newest", help="List the newest task first.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Stream one JSON document per line.")] = False,
) -> None:
    """List running tasks, then waiting tasks in the order in which workers will take them.

    The cost depends on --limit, not on the size of the backlog; `tasks --lines --limit 0` streams the whole backlog.
    Failed and quarantined tasks are listed only with --state.
    """
    from morag_queue.operations.task import unseen_tasks
    from morag_queue.operations.tasks import Tasks

    if newest and next_first:
        raise UsageError("tasks takes --newest or --next, not both")
    if lines and ctx.json:
        raise UsageError("tasks takes --lines or --json, not both")
    listing = Tasks(ctx.broker, ctx.settings)
    selected = task_filter(listing.snapshot, queue, lane, worker, state, priority, age, name)
    if lines:
        _stream(ctx, listing, selected, limit or _NO_LIMIT, newest)
        return
    page = listing.page(selected, limit=limit or _NO_LIMIT, newest=newest)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import tasks_view

        is_dead = selected.state in (TaskState.FAILED, TaskState.QUARANTINED)
        return tasks_view(page, listing.snapshot.taken_at, is_dead)

    if warning := unseen_tasks(ctx.broker):
        ctx.warn(f"warning: {warning}")
    ctx.emit(page, human)


def _stream(ctx: CliContext, listing: "Tasks", selected: "TaskFilter", limit: int, newest: bool) -> None:
    from itertools import islice

    from morag_queue.view.output import dumps

    for task in islice(listing.all(selected, newest=newest), limit):
        ctx.stdout.write(dumps(task) + "\n")
