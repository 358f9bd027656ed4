"""`stats`: queues and workers."""

from typing import TYPE_CHECKING, Annotated

import typer

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from rich.console import RenderableType


@verb()
def command(
    ctx: CliContext,
    window: Annotated[str, typer.Option("--window", metavar="DURATION", help="What averages and rates cover.")] = "1h",
) -> None:
    """Show queues and workers. It costs the same whether 200 tasks wait or 200,000."""
    from morag_queue.verbs.stats import stats
    from morag_queue.view.durations import parse_duration

    answer = stats(ctx.broker, ctx.settings, window_seconds=parse_duration(window, "--window"))

    def human() -> "RenderableType":
        from morag_queue.view.stats import stats_view

        return stats_view(answer)

    ctx.emit(answer, human)
