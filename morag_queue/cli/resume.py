"""`resume`: a paused queue goes on."""

from .context import CliContext
from .options import verb
from .pause import Queue, tell


@verb(changes=True)
def command(ctx: CliContext, queue: Queue) -> None:
    """Let a paused queue hand out its tasks again."""
    from morag_queue.operations.pause import resume

    options = ctx.options
    tell(ctx, resume(ctx.broker, queue, who=ctx.who, reason=options.reason, dry_run=options.dry_run))
