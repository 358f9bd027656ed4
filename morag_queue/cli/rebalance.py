"""`rebalance`: one turn of the balancing loop, made for cron."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, Refused, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.model import QueueType
    from morag_queue.operations.rebalance import RebalanceResult


@verb(changes=True)
def command(
    ctx: CliContext,
    max_moves: Annotated[
        int | None,
        typer.Option("--max-moves", metavar="N", min=0, help="At most so many tasks, of those that could also stay."),
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="Q", help="Only the lanes of this queue.")] = None,
    plan_file: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="Write the plan and change nothing.")
    ] = None,
    apply_file: Annotated[
        str | None, typer.Option("--apply", metavar="FILE", help="Apply a plan that was written before.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell the roads not taken, and why.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 4 if the plan has changes.")] = False,
) -> ExitStatus:
    """Put work where it is done soonest: one turn of the loop that `watch` runs. It says nothing if nothing is to do.

    Lanes of dead and draining workers are emptied, what would starve is brought forward, GPU-preferred work goes to
    idle CPUs and back. It ends with 7 when someone else leads the fleet.
    """
    from morag_queue.operations import plan_file as files
    from morag_queue.operations.rebalance import preview, run_once, run_plan

    _check(plan_file, apply_file, max_moves, queue)
    only = _queue(queue)
    if apply_file is not None:
        plan = files.read(ctx.world.cwd / apply_file, ctx.broker.fleet, "rebalance")
        if ctx.options.dry_run:
            raise UsageError(f"--apply has no dry run: what {apply_file} would do is written in it")
        done = run_plan(ctx.broker, ctx.settings, plan, who=ctx.who, reason=ctx.options.reason)
    elif plan_file is not None or ctx.options.dry_run:
        plan, done = preview(ctx.broker, ctx.settings, max_moves=max_moves, only=only)
        if plan_file is not None:
            files.write(plan, ctx.world.cwd / plan_file)
    else:
        done = run_once(
            ctx.broker, ctx.settings, who=ctx.who, reason=ctx.options.reason, max_moves=max_moves, only=only
        )
    _answer(ctx, done, explain)
    return _status(done, apply_file, exit_code)


def _check(plan_file: str | None, apply_file: str | None, max_moves: int | None, queue: str | None) -> None:
    if apply_file is None:
        return
    if plan_file is not None:
        raise UsageError("rebalance takes --plan or --apply, not both")
    if max_moves is not None or queue is not None:
        raise UsageError("--max-moves and --queue are for making a plan: --apply carries out the one in the file")


def _queue(name: str | None) -> "QueueType | None":
    from morag_queue.operations.names import resolve_queue

    return None if name is None else resolve_queue(name)


def _answer(ctx: CliContext, done: "RebalanceResult", explain: bool) -> None:
    told = done.decisions if done.dry_run else done.moved_tasks or done.rejected
    if not (ctx.json or told or explain):
        if ctx.stdout.isatty():
            ctx.note("Nothing to do: work is where it should be.")
        return

    def human() -> "RenderableType":
        from morag_queue.view.plans import rebalanced_view

        return rebalanced_view(done, explain=explain, quiet=ctx.quiet)

    ctx.emit(done, human)


def _status(done: "RebalanceResult", apply_file: str | None, exit_code: bool) -> ExitStatus:
    if apply_file is not None and done.rejected:
        if not done.moved_tasks and not done.already:
            raise Refused(
                f"{apply_file} no longer fits the fleet: none of its {len(done.rejected)} moves could be made, "
                "and nothing was changed; make a new plan with --plan"
            )
        return ExitStatus.PARTIAL
    return ExitStatus.CHANGES if exit_code and done.decisions else ExitStatus.OK
