"""`tasks`: list running and waiting tasks, or ended ones."""

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.enums import TaskState
from morag_queue.core.task import ENDED
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
    SubmissionFilter,
    WorkerFilter,
    task_filter,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from morag_queue.core.task import Task, TaskFilter
    from morag_queue.operations.tasks import Tasks

_NO_LIMIT = 1 << 62


class Sort(StrEnum):
    NEWEST = "newest"
    SLOWEST = "slowest"


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
    submission: SubmissionFilter = None,
    sort: Annotated[
        Sort | None,
        typer.Option("--sort", case_sensitive=False, help="Order of ended tasks: latest end first, or longest run."),
    ] = None,
    limit: Limit = 50,
    next_first: Annotated[bool, typer.Option("--next", help="List the next task to run first (default).")] = False,
    newest: Annotated[bool, typer.Option("--newest", help="List the newest task first.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Stream one JSON document per line.")] = False,
) -> None:
    """List running tasks, then waiting tasks in the order in which workers will take them.

    The cost depends on --limit, not on the size of the backlog; `tasks --lines --limit 0` streams the whole backlog.
    --state completed, failed, cancelled or quarantined lists ended tasks instead: what the ledger keeps (by default one
    hour), and all dead letters.
    """
    from morag_queue.operations.tasks import Tasks

    if newest and next_first:
        raise UsageError("tasks takes --newest or --next, not both")
    if lines and ctx.json:
        raise UsageError("tasks takes --lines or --json, not both")
    if sort is not None and state not in ENDED:
        raise UsageError("--sort orders ended tasks: add --state completed, failed, cancelled or quarantined")
    if state in ENDED and (next_first or (newest and sort is Sort.SLOWEST)):
        raise UsageError(f"--state {state} lists ended tasks: order them with --sort newest or --sort slowest alone")
    listing = Tasks(ctx.broker, ctx.settings, only_shows=True)
    selected = task_filter(listing.snapshot, queue, lane, worker, state, priority, age, name, submission)
    slowest = sort is Sort.SLOWEST
    if lines:
        found = listing.all(selected, newest=newest, slowest=slowest)
        _stream(ctx, islice(found, limit or _NO_LIMIT))
        _warn_of_agentless(ctx, listing, selected)
        return
    page = listing.page(selected, limit=limit or _NO_LIMIT, newest=newest, slowest=slowest)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import tasks_view

        return tasks_view(page, listing.snapshot.taken_at, has_ended=selected.state in ENDED)

    _warn_of_agentless(ctx, listing, selected)
    ctx.emit(page, human)


def _warn_of_agentless(ctx: CliContext, listing: "Tasks", selected: "TaskFilter") -> None:
    """Say what is not known of the tasks of workers without the agent, where running tasks are listed."""
    if selected.state in (None, TaskState.RUNNING) and listing.agentless.warning:
        ctx.warn(f"warning: {listing.agentless.warning}")


def _stream(ctx: CliContext, tasks: "Iterable[Task]") -> None:
    from morag_queue.view.output import dumps

    for task in tasks:
        ctx.stdout.write(dumps(task) + "\n")
