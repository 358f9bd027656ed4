"""The dead in a table."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.operations.dead_letters import DeadPage

from .tasks import graves_table


def dead_view(page: DeadPage, now: float) -> RenderableType:
    if not page.dead:
        return Text("No task has failed for good, and none is quarantined.", style="dim")
    parts: list[RenderableType] = [graves_table(page.dead, now)]
    if page.has_more:
        parts += [Text(), Text(f"{page.total} in all; --limit N shows more, --limit 0 all", style="dim")]
    return Group(*parts)
