"""`rebalance`: run one turn of the balancing loop, for use in cron."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, LeaseHeld, Refused, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.model import QueueType
    from morag_queue.operations.rebalance import RebalanceResult


@verb(changes=True)
def rebalance(
    ctx: CliContext,
    max_moves: Annotated[
        int | None, typer.Option("--max-moves", metavar="N", min=0, help="Maximum number of optional moves.")
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="Q", help="Balance only this queue's lanes.")] = None,
    plan_file: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="Write the plan to a file, and change nothing.")
    ] = None,
    apply_file: Annotated[
        str | None, typer.Option("--apply", metavar="FILE", help="Apply a plan written with --plan.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="List declined moves and the reasons.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 4 if the plan has changes.")] = False,
) -> ExitStatus:
    """Run one turn of the loop that `watch` runs, and print nothing if there is nothing to do.

    Empties the lanes of dead and draining workers, promotes tasks that would starve, and moves GPU-preferred work to
    idle CPU workers and back. Exits with 7 if another process leads the fleet; with --quiet it then prints nothing, so
    that cron sends no mail beside a `watch`.
    """
    _check(plan_file, apply_file, max_moves, queue)
    try:
        result = _result(ctx, max_moves, _queue(queue), plan_file, apply_file)
    except LeaseHeld as held:
        if ctx.quiet and not ctx.json:
            return held.exit_status
        raise
    _answer(ctx, result, explain)
    return _status(result, apply_file, exit_code)


def _result(
    ctx: CliContext, max_moves: int | None, only: "QueueType | None", plan_file: str | None, apply_file: str | None
) -> "RebalanceResult":
    from morag_queue.operations import plan_file as files
    from morag_queue.operations.rebalance import preview, run_once, run_plan

    user, reason = ctx.user, ctx.options.reason
    if apply_file is not None:
        plan = files.read(ctx.environment.cwd / apply_file, ctx.broker.fleet, "rebalance")
        if ctx.options.dry_run:
            raise UsageError(f"--apply cannot be combined with --dry-run: read {apply_file} to see its changes")
        return run_plan(ctx.broker, ctx.settings, plan, who=user, reason=reason)
    if plan_file is not None or ctx.options.dry_run:
        plan, result = preview(ctx.broker, ctx.settings, max_moves=max_moves, only=only)
        if plan_file is not None:
            files.write(plan, ctx.environment.cwd / plan_file)
        return result
    return run_once(ctx.broker, ctx.settings, who=user, reason=reason, max_moves=max_moves, only=only)


def _check(plan_file: str | None, apply_file: str | None, max_moves: int | None, queue: str | None) -> None:
    if apply_file is None:
        return
    if plan_file is not None:
        raise UsageError("rebalance takes --plan or --apply, not both")
    if max_moves is not None or queue is not None:
        raise UsageError("--max-moves and --queue limit a new plan; --apply runs a plan unchanged, so leave them out")


def _queue(name: str | None) -> "QueueType | None":
    from morag_queue.operations.names import resolve_queue

    return None if name is None else resolve_queue(name)


def _answer(ctx: CliContext, result: "RebalanceResult", explain: bool) -> None:
    has_changes = result.decisions if result.dry_run else result.moved_tasks or result.rejected
    if not (ctx.json or has_changes or explain):
        if ctx.stdout.isatty():
            ctx.note("Nothing to do: the fleet is balanced.")
        return

    def human() -> "RenderableType":
        from morag_queue.view.plans import rebalance_view

        return rebalance_view(result, explain=explain, quiet=ctx.quiet)

    ctx.emit(result, human)


def _status(result: "RebalanceResult", apply_file: str | None, exit_code: bool) -> ExitStatus:
    if apply_file is not None and result.rejected:
        if not result.moved_tasks and not result.already:
            raise Refused(
                f"{apply_file} no longer fits the fleet: none of its moves was made, "
                "and nothing was changed; write a new plan with --plan"
            )
        return ExitStatus.PARTIAL
    return ExitStatus.CHANGES if exit_code and result.decisions else ExitStatus.OK
