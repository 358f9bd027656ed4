"""`journal ls|show|undo`: the record of changes to the fleet."""

from time import time
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.words import count_of
from morag_queue.errors import ExitStatus, NotFound

from .context import CliContext
from .options import verb
from .parameters import EntryArgument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.model import JournalEntry

_SHOWN_FAILURES = 20


@verb()
def ls(
    ctx: CliContext,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Maximum number of entries.")] = 50,
    verb_name: Annotated[str | None, typer.Option("--verb", metavar="VERB", help="Only changes by this verb.")] = None,
) -> None:
    """List the latest changes, newest first."""
    from morag_queue.operations.journal import latest

    entries = latest(ctx.broker, limit, verb_name)

    def human() -> "RenderableType":
        from morag_queue.view.journal import journal_view

        return journal_view(entries, time(), verb_name)

    ctx.emit({"entries": entries}, human)


@verb()
def show(ctx: CliContext, entry_id: EntryArgument) -> None:
    """Show one change in full, task by task.

    The state `begun` means that its command still runs, or was killed: the tasks are those changed so far.
    """
    from morag_queue.operations.journal import in_full, is_begun

    entry = in_full(ctx.broker, _entry(ctx, entry_id))
    if is_begun(entry):
        done = count_of(entry.changes["count"], "task")
        were = "was" if entry.changes["count"] == 1 else "were"
        ctx.note(
            f"This change has not ended, or its command was killed: {done} {were} changed so far; "
            f"undo: morag-queue journal undo {entry.entry_id}"
        )

    def human() -> "RenderableType":
        from morag_queue.view.journal import entry_view

        return entry_view(entry, time())

    ctx.emit(entry, human)


@verb(changes=True)
def undo(ctx: CliContext, entry_id: EntryArgument) -> ExitStatus:
    """Undo one change, and report what could not be undone.

    Those are tasks that have started, ended or been changed again since. Lifts pauses and cordons. Puts tasks that
    were cancelled, moved or reprioritised back to their place, tasks that were queued again back to the end that they
    had, and dropped ones back into dead. Cancels the tasks of a submit that still wait. An undo can be undone, too. The
    tasks of a change are recorded for the ledger's retention time.
    """
    from morag_queue.operations.journal import Undo

    result = Undo(ctx.broker, ctx.settings, **ctx.change)(_entry(ctx, entry_id))
    undone = "would be undone" if result.dry_run else "undone"
    unchanged = f", {result.unchanged} already undone" if result.unchanged else ""
    again = f"; undo: morag-queue journal undo {result.journal}" if result.journal else ""
    ctx.emit(result, lambda: f"{result.verb}: {result.undone} {undone}{unchanged}{again}")
    if not result.is_repeated:
        for failure in result.not_undone[:_SHOWN_FAILURES]:
            ctx.warn(f"not undone: {failure.subject}: {failure.reason}")
        if len(result.not_undone) > _SHOWN_FAILURES:
            ctx.warn(f"… and {len(result.not_undone) - _SHOWN_FAILURES} more; --json lists them all")
    return result.exit_status


def _entry(ctx: CliContext, entry_id: str) -> "JournalEntry":
    from morag_queue.operations.journal import entry as find_entry

    entry = find_entry(ctx.broker, entry_id)
    if entry is None:
        raise NotFound(f"no journal entry {entry_id!r}; `morag-queue journal ls` lists the latest entries")
    return entry


SUBCOMMANDS = {"ls": ls, "show": show, "undo": undo}
