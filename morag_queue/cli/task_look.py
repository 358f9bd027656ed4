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
    """Tell why a task waits (one reason of a closed list), who could take it, and when it is expected to start."""
    from morag_queue.verbs.look import Look

    look = Look(ctx.broker, ctx.settings)
    answer = look.why(task_id)

    def human() -> "RenderableType":
        from morag_queue.view.task import why_view

        return why_view(answer, look.picture.taken_at)

    ctx.emit(answer, human)


@verb()
def show(ctx: CliContext, task_id: Id) -> None:
    """Show a task: its entry, its message, where it is now, and what was decided about it."""
    from morag_queue.verbs.show import shown

    answer = shown(ctx.broker, ctx.settings, task_id)

    def human() -> "RenderableType":
        from morag_queue.view.task import show_view

        return show_view(answer)

    ctx.emit(answer, human)
