"""Answer of `stats`: the fleet in two tables, its queues and its workers."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.stats import FleetStats
from morag_queue.core.words import count_of

from .stats_columns import QUEUE_COLUMNS, WORKER_COLUMNS, table_columns
from .table import FittedTable
from .text import format_duration, local_time, safe


def stats_view(stats: FleetStats) -> RenderableType:
    """Show queues, workers, the leader, and the number of foreign messages."""
    parts: list[RenderableType] = [FittedTable(table_columns(QUEUE_COLUMNS, stats.queues)), Text()]
    if stats.workers:
        parts.append(FittedTable(table_columns(WORKER_COLUMNS, stats.workers)))
    else:
        parts.append(Text("No workers are registered.", style="yellow"))
    parts += [Text(), _leader(stats)]
    if stats.foreign_messages:
        foreign = f"{count_of(stats.foreign_messages, 'foreign message')} not written by Celery; left in place."
        parts += [Text(), Text(foreign, style="yellow")]
    return Group(*parts)


def _leader(stats: FleetStats) -> Text:
    lease = stats.leader
    if lease is None:
        return Text("Leader: none; no watch leads this fleet: run `morag-queue watch`", style="yellow")
    since = f"{local_time(lease.since, stats.taken_at)} ({format_duration(stats.taken_at - lease.since)})"
    leader = f"Leader: {safe(lease.who)} ({safe(lease.verb)}) since {since}, term {lease.term}"
    return Text(leader, no_wrap=True, overflow="ellipsis")
