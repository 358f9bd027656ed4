"""`uncordon`: a worker takes work again."""

from typing import Annotated

import typer

from .context import CliContext
from .options import verb
from .standing import show


@verb(changes=True)
def command(
    ctx: CliContext, worker: Annotated[str, typer.Argument(metavar="W", help="Its id, or how that begins.")]
) -> None:
    """Put a worker back into service that was cordoned or drained, or whose circuit breaker has opened."""
    from morag_queue.operations.agentless import uncordon_any

    options = ctx.options
    done = uncordon_any(ctx.broker, worker, who=ctx.who, reason=options.reason, dry_run=options.dry_run)
    show(ctx, done, "in service")
