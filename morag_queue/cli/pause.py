"""`pause`: a queue hands out nothing until `resume`."""

from typing import TYPE_CHECKING, Annotated

import typer

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from morag_queue.operations.pause import PauseResult

Queue = Annotated[str, typer.Argument(metavar="Q", help="The queue, or an unambiguous beginning of its name.")]


@verb(changes=True)
def command(ctx: CliContext, queue: Queue) -> None:
    """Hand out nothing of a queue until `resume`: what runs goes on, what is submitted waits. It survives restarts."""
    from morag_queue.operations.pause import pause

    options = ctx.options
    tell(ctx, pause(ctx.broker, queue, who=ctx.who, reason=options.reason, dry_run=options.dry_run))


def tell(ctx: CliContext, answer: "PauseResult") -> None:
    """The answer of `pause` and `resume`; the second run says `already`."""
    state = "paused" if answer.paused else "not paused"
    verb = "would be" if answer.dry_run else "is"
    verb = verb if answer.changed else "is already"
    counts = f"{answer.pending_tasks} wait, {answer.processing_tasks} in workers' hands"
    ctx.emit(answer, lambda: f"{answer.queue} {verb} {state} ({counts})")
    for warning in answer.warnings:
        ctx.warn(f"warning: {warning}")
