"""`drain`: empty a worker and take it out of service."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.words import count_of
from morag_queue.errors import ExitStatus, NotFound, Refused, UsageError

from .confirm import confirm_force
from .context import CliContext
from .cordon import emit_result
from .options import verb
from .parameters import WorkerArgument

if TYPE_CHECKING:
    from morag_queue.operations.agentless import AgentlessDrain
    from morag_queue.operations.cordon import CordonResult
    from morag_queue.operations.drain import Drain
    from morag_queue.operations.drain_options import DrainOptions, DrainProgress


@verb(changes=True)
def drain(
    ctx: CliContext,
    worker: WorkerArgument,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="DURATION", help="Maximum time to wait (default 1h).")
    ] = None,
    no_deadline: Annotated[bool, typer.Option("--no-deadline", help="Wait without a time limit.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Override all checks and requeue running tasks (they may run twice).")
    ] = False,
    allow_last: Annotated[
        bool, typer.Option("--allow-last", help="Allow draining the last worker that serves waiting work.")
    ] = False,
    allow_pinned: Annotated[
        bool, typer.Option("--allow-pinned", help="Unpin tasks that are pinned to this worker.")
    ] = False,
    shutdown: Annotated[bool, typer.Option("--shutdown", help="Shut the worker down once it is drained.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the drain and return at once.")] = False,
) -> ExitStatus:
    """Take a worker out of service: stop it from taking work, move its waiting tasks and wait for running ones.

    The worker stays drained across restarts until `uncordon`. Ctrl-C detaches: the drain continues, and the same
    command waits for it again. Exits with 6 if tasks are still running at the deadline; the worker then keeps draining.
    """
    from morag_queue.operations.drain_options import DEADLINE_SECONDS, DrainOptions
    from morag_queue.view.text import parse_duration

    if deadline is not None and no_deadline:
        raise UsageError("drain takes --deadline or --no-deadline, not both")
    seconds = DEADLINE_SECONDS if deadline is None else parse_duration(deadline, "--deadline")
    options = DrainOptions(
        who=ctx.user, reason=ctx.options.reason, deadline_seconds=None if no_deadline else seconds,
        deadline_given=deadline is not None or no_deadline, force=force, detach=detach, shutdown=shutdown,
        overrides=frozenset(
            flag for flag, given in {"--allow-last": allow_last, "--allow-pinned": allow_pinned}.items() if given
        ),
    )  # fmt: skip
    if force:
        confirm_force(ctx, f"{worker}: its running tasks will be requeued and may run twice.")
    with _progress(ctx, worker) as progress:
        return _drain(ctx, worker, options, progress)


def _drain(ctx: CliContext, worker: str, options: "DrainOptions", progress: "DrainProgress") -> ExitStatus:
    from morag_queue.operations.drain import Drain

    try:
        drain = Drain(ctx.broker, worker, options, progress)
    except NotFound:
        return _drain_agentless(ctx, worker, options, progress)
    return _preview(ctx, drain) if ctx.options.dry_run else _run(ctx, drain, options)


def _drain_agentless(ctx: CliContext, worker: str, options: "DrainOptions", progress: "DrainProgress") -> ExitStatus:
    from morag_queue.operations.agentless import AgentlessDrain, agentless_node

    node = agentless_node(ctx.broker, worker)
    if options.force or options.overrides:
        flags = ", ".join([*(["--force"] if options.force else []), *sorted(options.overrides)])
        raise UsageError(f"{node} is agentless, so its tasks cannot be requeued: run the command again without {flags}")
    drain = AgentlessDrain(ctx.broker, node, options, progress)
    if ctx.options.dry_run:
        emit_result(ctx, drain.preview(), "drained")
        return ExitStatus.OK
    return _run(ctx, drain, options)


def _preview(ctx: CliContext, drain: "Drain") -> ExitStatus:
    from morag_queue.operations.drain_options import refusal

    emit_result(ctx, drain.preview(), "drained")
    if blockers := drain.blockers():
        raise Refused(*refusal(blockers))
    return ExitStatus.OK


def _run(ctx: CliContext, drain: "Drain | AgentlessDrain", options: "DrainOptions") -> ExitStatus:
    try:
        result = drain.run()
    except KeyboardInterrupt:
        ctx.warn(f"Detached: the drain of {drain.worker} continues. Wait for it with: morag-queue drain {drain.worker}")
        raise
    emit_result(ctx, result, result.state)
    return _status(ctx, result, options.detach)


def _status(ctx: CliContext, result: "CordonResult", detached: bool) -> ExitStatus:
    """Return the exit status; if the drain has not finished, print what to do next to stderr."""
    from morag_queue.operations.agentless import NOT_KNOWN

    if result.state == "drained":
        return ExitStatus.OK if result.shut_down is not False else ExitStatus.DEADLINE
    command = f"morag-queue drain {result.worker}"
    if detached:
        ctx.note(f"The drain continues. Wait for it with: {command}")
        return ExitStatus.OK
    is_agentless = NOT_KNOWN in " ".join(result.warnings)
    requeue = "" if is_agentless else f", or requeue running tasks with: {command} --force"
    running = count_of(result.running_tasks, "task")
    ctx.warn(
        f"The deadline passed with {running} still running on {result.worker}, which takes no new work. "
        f"Keep waiting with: {command}{requeue}"
    )
    return ExitStatus.DEADLINE


@contextmanager
def _progress(ctx: CliContext, worker: str) -> Iterator["DrainProgress"]:
    """Print each event with the elapsed time and, on a terminal, a progress bar of ended tasks."""
    from morag_queue.operations.drain_options import DrainProgress

    started = monotonic()
    with ExitStack() as stack:
        bar: list[Callable[[int], None]] = []
        last = 0

        def on_remaining(count: int) -> None:
            nonlocal last
            if not bar and count:
                bar.append(stack.enter_context(ctx.progress(f"draining {worker}", count)))
            elif bar and count < last:
                bar[0](last - count)
            last = count

        def on_event(line: str) -> None:
            ctx.note(f"[{monotonic() - started:6.1f} s] {line}")

        yield DrainProgress(pause=sleep, report=on_event, remaining=on_remaining)
