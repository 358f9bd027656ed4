"""`demo`: run a temporary fleet for half a minute and account for every task."""

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
"""Time between progress lines without a terminal."""


@verb(uses_broker=False)
def demo(
    ctx: CliContext,
    input: Annotated[
        Path | None, typer.Option("--input", metavar="DIR", help="Process the files in this directory.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the fleet running until Ctrl-C.")] = False,
    work: Annotated[
        str, typer.Option("--work", metavar="DURATION", help="Approximate duration of the simulated work.")
    ] = "24s",
    seed: Annotated[int, typer.Option("--seed", help="Random seed for the generated media and their order.")] = 0,
) -> ExitStatus:
    """Start a fleet, submit work, kill a worker, and account for every task.

    Runs a Valkey server and four Celery workers on this machine, and removes them and their files at the end. Your
    settings and your broker are not used.
    """
    from morag_queue.local.cluster import Cluster
    from morag_queue.local.demo import SIMULATED, Demo
    from morag_queue.view.demo import account_view
    from morag_queue.view.text import parse_duration

    if input is not None and not input.is_dir():
        raise UsageError(f"--input {input}: no such directory")
    work_seconds = parse_duration(work, "--work")
    with Cluster() as cluster:
        run = Demo(cluster, None if input is None else input.resolve(), work_seconds, seed)
        ctx.note(SIMULATED)
        for line in _instructions(ctx, cluster, run) if keep else ():
            ctx.warn(line, wrap=False)
        _show(ctx, run.run())
        result = run.result()
        answer = result.as_json()
        ctx.emit(answer, lambda: account_view(answer))
        if keep:
            ctx.stdout.flush()
            ctx.warn("The fleet keeps running. Press Ctrl-C to stop it and remove its files.")
            signal.pause()
    return ExitStatus.OK if result.is_good else ExitStatus.FAILED


def _instructions(ctx: CliContext, cluster: "Cluster", demo: "Demo") -> Iterator[str]:
    """Yield instructions for running other commands on the fleet."""
    yield "To run other commands on this fleet, use a second terminal:"
    if "MORAG_QUEUE_REDIS_URL" in ctx.environment.variables:
        yield "  unset MORAG_QUEUE_REDIS_URL"
    yield f"  export REDIS_URL={cluster.url}"
    yield f"  morag-queue submit --recursive {shlex.quote(str(demo.media))} \\"
    yield "    --option simulate_seconds=5"
    yield "  morag-queue stats"


def _show(ctx: CliContext, events: "Iterator[DemoEvent]") -> None:
    """Update tables in place on a terminal; otherwise print progress lines to stderr."""
    if ctx.json or ctx.quiet or not ctx.console.is_terminal:
        _show_lines(ctx, events)
    else:
        _show_live(ctx, events)


def _show_live(ctx: CliContext, events: "Iterator[DemoEvent]") -> None:
    from rich.live import Live

    from morag_queue.local.demo import DemoMessage, DemoUpdate
    from morag_queue.view.demo import progress_view
    from morag_queue.view.text import safe

    with Live(console=ctx.console, transient=True, auto_refresh=False) as live:
        for event in events:
            match event:
                case DemoMessage(text):
                    live.console.print(safe(text))
                case DemoUpdate(stats, ended, total):
                    live.update(progress_view(stats, ended, total), refresh=True)
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
