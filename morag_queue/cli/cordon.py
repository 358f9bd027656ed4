"""`cordon`: a worker takes no new work."""

from typing import Annotated

import typer

from .context import CliContext
from .options import verb
from .standing import show


@verb(changes=True)
def command(
    ctx: CliContext, worker: Annotated[str, typer.Argument(metavar="W", help="Its id, or how that begins.")]
) -> None:
    """Let a worker take nothing from shared lanes any more; it finishes what is in its own.

    It stays so over a restart, until `uncordon`. To empty it as well, use `drain`.
    """
    from morag_queue.operations.agentless import cordon_any

    options = ctx.options
    show(ctx, cordon_any(ctx.broker, worker, who=ctx.who, reason=options.reason, dry_run=options.dry_run), "cordoned")
