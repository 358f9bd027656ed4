"""`failover`: recover the work of dead workers."""

from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, UsageError

from .confirm import confirm_force
from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.operations.failover import FailoverResult


@verb(changes=True)
def failover(
    ctx: CliContext,
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="W…", show_default=False, help="Worker ids or unique prefixes.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Recover the work of all dead workers, and lost tasks.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Fence workers that are not proved dead, then recover their work.")
    ] = False,
) -> ExitStatus:
    """Recover the work of dead workers.

    Requeues the tasks that they held, ahead of waiting tasks, and moves the tasks in their lanes to the shared lanes.
    Missing connections prove that a worker is dead; silence alone does not. The answer shows the evidence, and a live
    worker is refused. --dead also resends tasks that are open in the ledger but have no message on the broker.
    """
    from morag_queue.operations.failover import Failover
    from morag_queue.operations.sweep import Sweep

    if dead and (workers or force):
        raise UsageError("failover takes workers (with or without --force) or --dead, not both")
    if not dead and not workers:
        raise UsageError("no workers given: use `morag-queue failover W…`, or --dead for all dead workers")
    if force:
        confirm_force(ctx, f"{', '.join(workers or ())}: tasks of a live worker will be requeued and may run twice.")
    dry_run = ctx.options.dry_run
    operation = Failover(ctx.broker, who=ctx.user, reason=ctx.options.reason, pause=sleep, dry_run=dry_run)
    sweep = Sweep(ctx.broker, dry_run=dry_run)
    return _answer(ctx, operation.run_dead(sweep) if dead else operation.run_named(workers or (), force=force))


def _answer(ctx: CliContext, result: "FailoverResult") -> ExitStatus:
    def human() -> "RenderableType":
        from morag_queue.view.plans import failover_view

        return failover_view(result)

    if ctx.json or result.workers or result.has_changed or result.declined or ctx.stdout.isatty():
        ctx.emit(result, human)
    for rejection in result.rejected:
        ctx.note(f"not recovered: task {rejection.task_id}: {rejection.reason}")
    skipped = [worker for worker in result.workers if worker.came_back]
    for worker in skipped:
        ctx.warn(f"not recovered: {worker.worker}: {worker.done}")
    return ExitStatus.PARTIAL if skipped else ExitStatus.OK
