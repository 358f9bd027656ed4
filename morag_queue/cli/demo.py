"""`demo`: a fleet of one's own for half a minute, and what became of each task."""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from morag_queue.local.cluster import Cluster
    from morag_queue.local.demo import Demo, DemoEvent

_LINE_SECONDS = 5.0


@verb(fleet=False)
def command(
    ctx: CliContext,
    input: Annotated[
        Path | None, typer.Option("--input", metavar="DIR", help="Work on the files in it, instead of made ones.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the fleet running until Ctrl-C, to try commands on.")
    ] = False,
    work: Annotated[
        str, typer.Option("--work", metavar="DURATION", help="About how long the simulated work takes.")
    ] = "24s",
    seed: Annotated[int, typer.Option("--seed", help="Other media and another order.")] = 0,
) -> ExitStatus:
    """Start a fleet, give it work, kill a worker on the way, and account for every task.

    A real Valkey server and four real Celery workers on this machine; they and their files are gone at the end. Your
    settings and your own broker play no part.
    """
    from morag_queue.local.cluster import Cluster
    from morag_queue.local.demo import SIMULATED, Demo
    from morag_queue.view.demo import outcome_view
    from morag_queue.view.durations import parse_duration

    if input is not None and not input.is_dir():
        raise UsageError(f"--input {input}: no such directory")
    work_seconds = parse_duration(work, "--work")
    with Cluster() as cluster:
        demo = Demo(cluster, None if input is None else input.resolve(), work_seconds, seed)
        ctx.note(SIMULATED)
        for line in _how_to_join(cluster, demo) if keep else ():
            ctx.warn(line)
        _show(ctx, demo.run())
        outcome = demo.result()
        answer = outcome.as_json()
        ctx.emit(answer, lambda: outcome_view(answer))
        if keep:
            ctx.stdout.flush()
            ctx.warn("The fleet stays up. Ctrl-C ends it and removes everything.")
            signal.pause()
    return ExitStatus.OK if outcome.is_good else ExitStatus.FAILED


def _how_to_join(cluster: "Cluster", demo: "Demo") -> Iterator[str]:
    yield "To try other commands on this fleet, in a second terminal:"
    if "MORAG_QUEUE_REDIS_URL" in os.environ:
        yield "  unset MORAG_QUEUE_REDIS_URL"
    yield f"  export REDIS_URL={cluster.url}"
    yield f"  morag-queue submit --recursive {shlex.quote(str(demo.media))} --option simulate_seconds=5"
    yield "  morag-queue stats"


def _show(ctx: CliContext, events: "Iterator[DemoEvent]") -> None:
    """Tables that change in place on a terminal, else a line now and then on stderr."""
    if ctx.json or ctx.quiet or not ctx.console.is_terminal:
        _show_lines(ctx, events)
    else:
        _show_live(ctx, events)


def _show_live(ctx: CliContext, events: "Iterator[DemoEvent]") -> None:
    from rich.live import Live

    from morag_queue.local.demo import DemoMessage, DemoUpdate
    from morag_queue.view.demo import picture_view
    from morag_queue.view.text import cell

    with Live(console=ctx.console, transient=True, auto_refresh=False) as live:
        for event in events:
            match event:
                case DemoMessage(text):
                    live.console.print(cell(text))
                case DemoUpdate(stats, ended, total):
                    live.update(picture_view(stats, ended, total), refresh=True)
                case _:
                    assert_never(event)


def _show_lines(ctx: CliContext, events: "Iterator[DemoEvent]") -> None:
    from morag_queue.local.demo import DemoMessage, DemoUpdate

    last = float("-inf")
    for event in events:
        match event:
            case DemoMessage(text):
                ctx.note(text)
            case DemoUpdate(stats, ended, total):
                if stats.taken_at - last >= _LINE_SECONDS:
                    last = stats.taken_at
                    running = sum(queue.processing_tasks for queue in stats.queues)
                    ctx.note(f"{ended} of {total} done, {running} running")
            case _:
                assert_never(event)
