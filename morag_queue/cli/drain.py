"""`drain`: a worker out of service, empty."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, NotFound, Refused, UsageError

from .context import CliContext
from .options import verb
from .standing import show

if TYPE_CHECKING:
    from morag_queue.operations.cordon import CordonResult
    from morag_queue.operations.drain import Drain, DrainOptions, DrainProgress


@verb(changes=True)
def command(
    ctx: CliContext,
    worker: Annotated[str, typer.Argument(metavar="W", help="Its id, or how that begins.")],
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="DURATION", help="Stop waiting after this time (1h).")
    ] = None,
    no_deadline: Annotated[bool, typer.Option("--no-deadline", help="Wait as long as it takes.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Whatever stands against it; take back what runs, too (at least once).")
    ] = False,
    allow_last: Annotated[
        bool, typer.Option("--allow-last", help="Also the last worker that serves work that waits.")
    ] = False,
    allow_pinned: Annotated[
        bool, typer.Option("--allow-pinned", help="Let tasks that are pinned to it go to any worker.")
    ] = False,
    shutdown: Annotated[bool, typer.Option("--shutdown", help="Then tell its process to end.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Begin, and do not wait.")] = False,
) -> ExitStatus:
    """Take a worker out of service: it takes nothing any more, what waits for it goes to others, what runs ends.

    It stays drained over a restart, until `uncordon`. Ctrl-C detaches: the drain goes on, and `drain W` looks again.
    Ends with 6 when the deadline has passed and something still runs; nothing of that is undone.
    """
    from morag_queue.operations.drain import DEADLINE_SECONDS, Drain, DrainOptions
    from morag_queue.view.durations import parse_duration

    if deadline is not None and no_deadline:
        raise UsageError("drain takes --deadline or --no-deadline, not both")
    seconds = DEADLINE_SECONDS if deadline is None else parse_duration(deadline, "--deadline")
    wish = DrainOptions(
        who=ctx.who, reason=ctx.options.reason, deadline_seconds=None if no_deadline else seconds,
        deadline_given=deadline is not None or no_deadline, force=force, detach=detach, shutdown=shutdown,
        overrides=frozenset(
            flag for flag, given in {"--allow-last": allow_last, "--allow-pinned": allow_pinned}.items() if given
        ),
    )  # fmt: skip
    asks = force and not (ctx.options.dry_run or ctx.options.yes) and ctx.world.stdin.isatty()
    if asks and not ctx.confirm(f"{worker}: what runs there is taken back and runs again elsewhere. Go on?"):
        raise Refused("nothing was changed; --yes does it without a question")
    with _ears(ctx, worker) as ears:
        try:
            drain = Drain(ctx.broker, worker, wish, ears)
        except NotFound:
            return _stock(ctx, worker, wish, ears)
        if ctx.options.dry_run:
            return _preview(ctx, drain)
        try:
            answer = drain.run()
        except KeyboardInterrupt:
            ctx.warn(f"Detached: {drain.worker} goes on draining. Look again with: morag-queue drain {drain.worker}")
            raise
    return _answer(ctx, answer, detach)


def _stock(ctx: CliContext, worker: str, wish: "DrainOptions", ears: "DrainProgress") -> ExitStatus:
    from morag_queue.operations.agentless import AgentlessDrain, agentless_node

    node = agentless_node(ctx.broker, worker)
    if wish.force or wish.overrides:
        flags = ", ".join([*(["--force"] if wish.force else []), *sorted(wish.overrides)])
        raise UsageError(f"{node} runs without the agent: nothing can be taken back from it, so {flags} does nothing")
    drain = AgentlessDrain(ctx.broker, node, wish, ears)
    if ctx.options.dry_run:
        show(ctx, drain.preview(), "drained")
        return ExitStatus.OK
    return _answer(ctx, drain.run(), wish.detach)


def _preview(ctx: CliContext, drain: "Drain") -> ExitStatus:
    from morag_queue.operations.drain import refusal

    show(ctx, drain.preview(), "drained")
    if against := drain.blockers():
        raise Refused(*refusal(against))
    return ExitStatus.OK


def _answer(ctx: CliContext, answer: "CordonResult", detached: bool) -> ExitStatus:
    from morag_queue.operations.agentless import NOT_KNOWN

    show(ctx, answer, answer.state)
    if answer.state == "drained":
        return ExitStatus.OK if answer.shut_down is not False else ExitStatus.DEADLINE
    again = f"morag-queue drain {answer.worker}"
    if detached:
        ctx.note(f"It goes on draining. Look again with: {again}")
        return ExitStatus.OK
    back = "" if NOT_KNOWN in " ".join(answer.warnings) else f", or take them back with: {again} --force"
    ctx.warn(
        f"The deadline has passed and {answer.running_tasks} still run there. It takes nothing new. "
        f"Wait on with: {again}{back}"
    )
    return ExitStatus.DEADLINE


@contextmanager
def _ears(ctx: CliContext, worker: str) -> Iterator["DrainProgress"]:
    """A line for each event, with the time since the beginning, and a bar on a terminal."""
    from morag_queue.operations.drain import DrainProgress

    began = monotonic()
    with ExitStack() as stack:
        bar: list[Callable[[int], None]] = []
        last = 0

        def left(count: int) -> None:
            nonlocal last
            if not bar and count:
                bar.append(stack.enter_context(ctx.progress(f"draining {worker}", count)))
            elif bar and count < last:
                bar[0](last - count)
            last = count

        def say(line: str) -> None:
            ctx.note(f"[{monotonic() - began:6.1f} s] {line}")

        yield DrainProgress(pause=sleep, report=say, remaining=left)
