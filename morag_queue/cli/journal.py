"""`journal ls|show|undo`: who changed what, when and why."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import NotFound

from .context import CliContext
from .options import verb
from .undo import undo

if TYPE_CHECKING:
    from rich.console import RenderableType


@verb()
def ls(
    ctx: CliContext,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest so many.")] = 50,
    verb_name: Annotated[str | None, typer.Option("--verb", metavar="VERB", help="Only of this verb.")] = None,
) -> None:
    """List the latest changes, the newest first."""
    from morag_queue.operations.journal import latest

    entries = latest(ctx.broker, limit, verb_name)

    def human() -> "RenderableType":
        from morag_queue.view.journal import journal_view

        return journal_view(entries)

    ctx.emit({"entries": entries}, human)


@verb()
def show(
    ctx: CliContext,
    entry_id: Annotated[str, typer.Argument(metavar="ENTRY", help="Its id, or how that begins.")],
) -> None:
    """Show one change: what was done, task by task."""
    from morag_queue.operations.journal import entry

    found = entry(ctx.broker, entry_id)
    if found is None:
        raise NotFound(f"no journal entry {entry_id!r}: `morag-queue journal ls` lists the latest")

    def human() -> "RenderableType":
        from morag_queue.view.journal import entry_view

        return entry_view(found)

    ctx.emit(found, human)


commands = {"ls": ls, "show": show, "undo": undo}
