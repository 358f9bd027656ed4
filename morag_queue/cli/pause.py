"""`pause` and `resume`: stop and restart the delivery of a queue."""

from typing import TYPE_CHECKING

from .context import CliContext
from .options import verb
from .parameters import QueueArgument

if TYPE_CHECKING:
    from morag_queue.operations.pause import PauseResult


@verb(changes=True)
def pause(ctx: CliContext, queue: QueueArgument) -> None:
    """Stop delivering the tasks of a queue until `resume`.

    Running tasks continue and submitted tasks wait. The pause survives restarts of the workers and the broker.
    """
    from morag_queue.operations.pause import pause as pause_queue

    _answer(ctx, pause_queue(ctx.quick_broker, queue, **ctx.change))


@verb(changes=True)
def resume(ctx: CliContext, queue: QueueArgument) -> None:
    """Resume delivering the tasks of a paused queue."""
    from morag_queue.operations.pause import resume as resume_queue

    _answer(ctx, resume_queue(ctx.quick_broker, queue, **ctx.change))


def _answer(ctx: CliContext, result: "PauseResult") -> None:
    state = "paused" if result.paused else "not paused"
    verb = "is already" if not result.changed else "would be" if result.dry_run else "is"
    counts = f"{result.pending_tasks} waiting, {result.processing_tasks} in flight"
    ctx.emit(result, lambda: f"{result.queue} {verb} {state} ({counts})")
    for warning in result.warnings:
        ctx.warn(f"warning: {warning}")
