"""`failover`: what dead workers left behind, to the others."""

from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, Refused, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.operations.failover import FailoverResult


@verb(changes=True)
def command(
    ctx: CliContext,
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="[W…]", show_default=False, help="Their ids, or how these begin.")
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="All that are dead, and whatever else nobody looks after.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that is not proved dead: it is fenced off first.")
    ] = False,
) -> ExitStatus:
    """Take over from dead workers: what they held goes back first in line, what waited for them goes to everybody.

    That a worker is dead is proved by its connections, never guessed from its silence; the evidence is shown, and a
    live one is refused. With --dead, tasks that the ledger knows and that are nowhere on the broker are sent again.
    """
    from morag_queue.operations.failover import Failover
    from morag_queue.operations.sweep import Sweep

    if dead and (workers or force):
        raise UsageError("failover takes workers (and --force) or --dead, not both")
    if not dead and not workers:
        raise UsageError("say which workers: morag-queue failover W…, or --dead for all that are dead")
    dry_run = ctx.options.dry_run
    asks = force and not (dry_run or ctx.options.yes) and ctx.world.stdin.isatty()
    question = f"{', '.join(workers or ())}: what runs there runs again elsewhere if it is alive. Go on?"
    if asks and not ctx.confirm(question):
        raise Refused("nothing was changed; --yes does it without a question")
    failover = Failover(ctx.broker, who=ctx.who, reason=ctx.options.reason, pause=sleep, dry_run=dry_run)
    sweep = Sweep(ctx.broker, dry_run=dry_run)
    return _answer(ctx, failover.dead(sweep) if dead else failover.named(workers or (), force=force))


def _answer(ctx: CliContext, done: "FailoverResult") -> ExitStatus:
    def human() -> "RenderableType":
        from morag_queue.view.failover import failover_view

        return failover_view(done)

    if ctx.json or done.workers or done.has_changed or done.declined or ctx.stdout.isatty():
        ctx.emit(done, human)
    for one in done.rejected:
        ctx.note(f"left alone: task {one.task_id}: {one.reason}")
    came_back = [one for one in done.workers if one.done not in ("failed over", "left alone")]
    for worker in came_back:
        ctx.warn(f"{worker.worker} was left alone: {worker.done}")
    return ExitStatus.PARTIAL if came_back else ExitStatus.OK
