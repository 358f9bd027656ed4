"""`stats`: show queues and workers, once or live."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from morag_queue.core.stats import FleetStats

_SVG_COLUMNS, _SVG_ROWS = 120, 24
"""Size of an SVG when stdout is not a terminal."""


@verb()
def stats(
    ctx: CliContext,
    live: Annotated[bool, typer.Option("--live", help="Refresh continuously; press ? for the keys.")] = False,
    interval: Annotated[
        str, typer.Option("--interval", metavar="DURATION", help="With --live: time between refreshes.")
    ] = "2s",
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=0, help="With --live: exit after N refreshes; 0: no limit.")
    ] = 0,
    window: Annotated[
        str, typer.Option("--window", metavar="DURATION", help="Period over which averages and rates are computed.")
    ] = "1h",
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Also save the (last) screen as SVG.")
    ] = None,
) -> ExitStatus:
    """Show queues and workers, at a cost independent of the number of waiting tasks.

    --live adds running tasks, alerts and the journal. If stdout is not a terminal, it prints a new table at each
    refresh, or with --json one document per line. IN/M and OUT/M are the tasks queued and ended per minute in the last
    five minutes; WAIT, P95 and RUNTIME are means and a percentile over --window.
    """
    from morag_queue.view.text import parse_duration

    window_seconds = parse_duration(window, "--window")
    if live:
        from morag_queue.operations.live_stats import FleetWatcher

        from .live import LiveOptions, run_live

        options = LiveOptions(parse_duration(interval, "--interval"), count, svg)
        return run_live(ctx, FleetWatcher(ctx.broker, ctx.settings, window_seconds=window_seconds), options)
    if count:
        raise UsageError("--count has no effect without --live: add --live, or leave out --count")
    _once(ctx, window_seconds, svg)
    return ExitStatus.OK


def _once(ctx: CliContext, window_seconds: float, svg: Path | None) -> None:
    from morag_queue.operations.stats import stats as fleet_stats

    answer = fleet_stats(ctx.quick_broker, ctx.settings, window_seconds=window_seconds)

    def human() -> "RenderableType":
        from morag_queue.view.stats import stats_view

        return stats_view(answer)

    ctx.emit(answer, human)
    if svg is not None:
        _save_svg(ctx, svg, answer)


def _save_svg(ctx: CliContext, path: Path, answer: "FleetStats") -> None:
    from morag_queue.view.stats import stats_view
    from morag_queue.view.svg import svg

    columns = ctx.environment.variables.get("COLUMNS", "")
    width = ctx.console.width if ctx.console.is_terminal else int(columns) if columns.isdecimal() else _SVG_COLUMNS
    text = svg(stats_view(answer), "morag-queue stats", width, _SVG_ROWS)
    (ctx.environment.cwd / path).write_text(text, encoding="utf-8")
    ctx.note(f"wrote {path}")
