"""`journal undo`: takes one change back, where it still can."""

from typing import Annotated

import typer

from morag_queue.errors import ExitStatus, NotFound

from .context import CliContext
from .options import verb


@verb(changes=True)
def undo(
    ctx: CliContext,
    entry_id: Annotated[str, typer.Argument(metavar="ENTRY", help="Its id, or how that begins.")],
) -> ExitStatus:
    """Take one change back as far as it can be, and say what could not.

    Pauses and cordons are lifted, tasks that still wait go back to where they were, cancelled ones are sent again.
    """
    from morag_queue.operations.journal import Undo, entry

    found = entry(ctx.broker, entry_id)
    if found is None:
        raise NotFound(f"no journal entry {entry_id!r}: `morag-queue journal ls` lists the latest")
    options = ctx.options
    done = Undo(
        ctx.broker, ctx.settings, who=ctx.who, reason=options.reason, dry_run=options.dry_run
    )(found)  # fmt: skip
    would = "would be taken back" if done.dry_run else "taken back"
    already = f", {done.unchanged} as before already" if done.unchanged else ""
    ctx.emit(done, lambda: f"{done.verb}: {done.undone} {would}{already}")
    for one in done.not_undone:
        ctx.warn(f"not taken back: {one.subject}: {one.reason}")
    return done.exit_status
