"""`stats`: queues and workers, once or live."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.model import FleetStats


@verb()
def command(
    ctx: CliContext,
    live: Annotated[bool, typer.Option("--live", help="Keep showing it; ? in it shows the keys.")] = False,
    interval: Annotated[
        str, typer.Option("--interval", metavar="DURATION", help="With --live: how often to look.")
    ] = "2s",
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=0, help="With --live: end after so many pictures; 0 is never.")
    ] = 0,
    window: Annotated[str, typer.Option("--window", metavar="DURATION", help="What averages and rates cover.")] = "1h",
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Save the picture, too; of --live the last one.")
    ] = None,
) -> ExitStatus:
    """Show queues and workers. It costs the same whether 200 tasks wait or 200,000.

    --live adds what runs, alerts and the journal. Where stdout is no terminal it prints one answer after another: with
    --json a document a line.
    """
    from morag_queue.view.text import parse_duration

    window_seconds = parse_duration(window, "--window")
    if live:
        from morag_queue.operations.stats import FleetWatcher

        from .live import Wanted
        from .live import live as show

        wanted = Wanted(parse_duration(interval, "--interval"), count, svg)
        return show(ctx, FleetWatcher(ctx.broker, ctx.settings, window_seconds=window_seconds), wanted)
    if count:
        raise UsageError("--count is for --live")
    _once(ctx, window_seconds, svg)
    return ExitStatus.OK


def _once(ctx: CliContext, window_seconds: float, svg: Path | None) -> None:
    from morag_queue.operations.stats import stats

    answer = stats(ctx.broker, ctx.settings, window_seconds=window_seconds)

    def human() -> "RenderableType":
        from morag_queue.view.stats import stats_view

        return stats_view(answer)

    ctx.emit(answer, human)
    if svg is not None:
        _save(ctx, svg, answer)


def _save(ctx: CliContext, path: Path, answer: "FleetStats") -> None:
    from morag_queue.view.stats import stats_view
    from morag_queue.view.svg import svg

    columns = ctx.world.env.get("COLUMNS", "")
    width = ctx.console.width if ctx.console.is_terminal else int(columns) if columns.isdecimal() else 120
    (ctx.world.cwd / path).write_text(svg(stats_view(answer), "morag-queue stats", width, 24), encoding="utf-8")
    ctx.note(f"wrote {path}")
