"""`tasks`: what runs and what waits."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.model import TaskState
from morag_queue.errors import UsageError

from .choice import InLane, InQueue, InState, OfAge, OfName, OfPriority, OfWorker, chosen
from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.task import TaskFilter
    from morag_queue.operations.tasks import Tasks


@verb()
def command(
    ctx: CliContext,
    queue: InQueue = None,
    lane: InLane = None,
    worker: OfWorker = None,
    state: InState = None,
    priority: OfPriority = None,
    age: OfAge = None,
    name: OfName = None,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most so many; 0 is all.")] = 50,
    next_first: Annotated[bool, typer.Option("--next", help="The next to run first. This is the default.")] = False,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="JSON lines, one a task, as they are read.")] = False,
) -> None:
    """List what runs and what waits: the running ones, then the others in the order in which they are taken.

    A page costs by its length, however many wait. With --json it is one document; --lines streams one a line, so that
    `tasks --lines --limit 0` can read out a whole backlog. Failed and quarantined ones are listed with --state.
    """
    from morag_queue.operations.task import unseen_tasks
    from morag_queue.operations.tasks import Tasks

    if newest and next_first:
        raise UsageError("--newest and --next: choose one")
    if lines and ctx.json:
        raise UsageError("--lines and --json: choose one")
    tasks = Tasks(ctx.broker, ctx.settings)
    wanted = chosen(tasks.snapshot, queue, lane, worker, state, priority, age, name)
    if lines:
        _stream(ctx, tasks, wanted, limit, newest)
        return
    page = tasks.page(wanted, limit=limit or _ALL, newest=newest)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import tasks_view

        return tasks_view(page, tasks.snapshot.taken_at, wanted.state in (TaskState.FAILED, TaskState.QUARANTINED))

    if warning := unseen_tasks(ctx.broker):
        ctx.warn(f"warning: {warning}")
    ctx.emit(page, human)


_ALL = 1 << 62


def _stream(ctx: CliContext, tasks: "Tasks", wanted: "TaskFilter", limit: int, newest: bool) -> None:
    from itertools import islice

    from morag_queue.view.output import dumps

    for task in islice(tasks.all(wanted, newest=newest), limit or _ALL):
        ctx.stdout.write(dumps(task) + "\n")
