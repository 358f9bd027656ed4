"""`task show` and `task why`: what there is of a task, and why it is where it is."""

from typing import TYPE_CHECKING, Annotated

import typer

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

Id = Annotated[str, typer.Argument(metavar="ID", help="The task's id, or an unambiguous beginning of it.")]


@verb()
def why(ctx: CliContext, task_id: Id) -> None:
    """Tell why a task is where it is, who could take it, and when it is expected to start.

    The reason is one of a closed list, the first that holds. Ended: COMPLETED, FAILED, CANCELLED, QUARANTINED. In a
    worker's hands: RUNNING, RESERVED (others run first there), HOLDER_OFFLINE (a failover takes it back). Nowhere:
    NOT_ON_BROKER (a sweep sends it again). Waiting: QUEUE_PAUSED, ETA_NOT_REACHED, NO_CAPABLE_WORKER, LANE_CORDONED
    (all who could take it are out of service), ALL_CAPABLE_OFFLINE, LEVEL_NOT_POLLED (nobody looks at its level),
    BEHIND_PRIORITY (more urgent work is first), BEHIND_EARLIER, ALL_CAPABLE_BUSY (it is the next), ABOUT_TO_START.
    """
    from morag_queue.operations.task import TaskExplainer

    explainer = TaskExplainer(ctx.broker, ctx.settings)
    answer = explainer.why(task_id)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import why_view

        return why_view(answer, explainer.snapshot.taken_at)

    ctx.emit(answer, human)


@verb()
def show(ctx: CliContext, task_id: Id) -> None:
    """Show a task: its entry, its message, where it is now, and what was decided about it."""
    from morag_queue.operations.task import task_details

    answer = task_details(ctx.broker, ctx.settings, task_id)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import show_view

        return show_view(answer)

    ctx.emit(answer, human)
