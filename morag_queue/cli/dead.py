"""`dead ls|show|requeue|drop`: failed and quarantined tasks, with their story."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.model import TaskState
from morag_queue.errors import ExitStatus, Refused, UsageError

from .choice import InState, OfAge, OfName
from .context import CliContext
from .options import verb
from .task_change import emit_edits, task_editor

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.task import Task, TaskFilter

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
_PREVIEWED = 10


@verb()
def ls(
    ctx: CliContext,
    state: InState = None,
    age: OfAge = None,
    name: OfName = None,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most so many; 0 is all.")] = 50,
) -> None:
    """List the tasks that are not run again unasked, the latest first: failed for good, or quarantined."""
    from morag_queue.operations.dead_letters import page

    answer = page(ctx.broker, _wanted(state, age, name), limit or None)
    now = ctx.broker.now()

    def human() -> "RenderableType":
        from morag_queue.view.tasks import dead_view

        return dead_view(answer, now)

    ctx.emit(answer, human)


@verb()
def show(
    ctx: CliContext,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task's id, or an unambiguous beginning of it.")],
) -> None:
    """Show one of them: its entry, its message, and how each worker died over it or failed it."""
    from morag_queue.operations.dead_letters import show as whole

    answer = whole(ctx.broker, ctx.settings, task_id)

    def human() -> "RenderableType":
        from morag_queue.view.tasks import show_view

        return show_view(answer)

    ctx.emit(answer, human)


@verb(changes=True)
def requeue(
    ctx: CliContext,
    ids: Ids = None,
    all_: All = False,
    state: InState = None,
    age: OfAge = None,
    name: OfName = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget its retries and the workers it cost: as if it were new.")
    ] = False,
) -> ExitStatus:
    """Queue them again. Without --reset a quarantined one that costs one more worker is back here at once."""
    from morag_queue.operations.task_edits import retry

    chosen = _chosen(ctx, ids or [], all_, _wanted(state, age, name), "requeue")
    return emit_edits(ctx, retry(task_editor(ctx, "dead requeue"), chosen, reset=reset))


@verb(changes=True)
def drop(
    ctx: CliContext,
    ids: Ids = None,
    all_: All = False,
    state: InState = None,
    age: OfAge = None,
    name: OfName = None,
) -> ExitStatus:
    """Forget them for good, messages and all. This cannot be undone."""
    from morag_queue.operations.dead_letters import drop as forget

    chosen = _chosen(ctx, ids or [], all_, _wanted(state, age, name), "drop")
    options = ctx.options
    done = forget(
        ctx.broker, ctx.settings, chosen, who=ctx.who, reason=options.reason, dry_run=options.dry_run
    )  # fmt: skip
    would = "would be dropped" if options.dry_run else "dropped"
    ctx.emit(done, lambda: f"{done.dropped} {would}" + (f", {len(done.unchanged)} already" if done.unchanged else ""))
    for _, why in done.failed:
        ctx.warn(f"refused: {why}")
    if not done.failed:
        return ExitStatus.OK
    return ExitStatus.PARTIAL if done.tasks or done.unchanged else ExitStatus.NOT_FOUND


def _wanted(state: TaskState | None, age: str | None, name: str | None) -> "TaskFilter":
    from morag_queue.core.task import TaskFilter
    from morag_queue.view.text import parse_duration

    if state not in (None, TaskState.FAILED, TaskState.QUARANTINED):
        raise UsageError(f"--state {state}: in dead there are failed and quarantined tasks")
    seconds = None if age is None else parse_duration(age, "--age")
    return TaskFilter(state=state, name=name, older_than_seconds=seconds)


def _chosen(ctx: CliContext, ids: list[str], all_: bool, wanted: "TaskFilter", word: str) -> list[str]:
    """The ids, or all that the filter means once somebody has said yes to them."""
    from morag_queue.operations.dead_letters import select

    if bool(ids) + (all_ or not wanted.is_empty) != 1:
        raise UsageError(f"{word} which tasks? give ids, or a filter such as --state, --age or --all")
    if ids:
        return ids
    found = select(ctx.broker, wanted)
    if found and not ctx.options.dry_run and not ctx.options.yes:
        _ask(ctx, found, word)
    return [task.task_id for task in found]


def _ask(ctx: CliContext, found: "list[Task]", word: str) -> None:
    for task in found[:_PREVIEWED]:
        ctx.warn(f"  {task.task_id[:60]}  {task.state}  {task.error[:80]}")
    if len(found) > _PREVIEWED:
        ctx.warn(f"  … and {len(found) - _PREVIEWED} more")
    if not ctx.confirm(f"{word}: {len(found)} tasks. Go on?"):
        raise Refused(f"{word}: {len(found)} tasks; nothing was changed: add --yes, or look first with --dry-run")


commands = {"ls": ls, "show": show, "requeue": requeue, "drop": drop}
