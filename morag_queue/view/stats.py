"""Answer of `stats`: the fleet in two tables, its queues and its workers."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.pauses import paused_words, resume_command
from morag_queue.core.stats import FleetStats
from morag_queue.core.words import count_of

from .stats_columns import QUEUE_COLUMNS, WORKER_COLUMNS, table_columns
from .table import FittedTable
from .text import format_duration, local_time, safe


def stats_view(stats: FleetStats) -> RenderableType:
    """Show queues, workers, the leader, paused queues, and the number of foreign messages."""
    parts: list[RenderableType] = [FittedTable(table_columns(QUEUE_COLUMNS, stats.queues)), Text()]
    if stats.workers:
        parts.append(FittedTable(table_columns(WORKER_COLUMNS, stats.workers)))
    else:
        parts.append(Text("No workers are registered.", style="yellow"))
    parts += [Text(), _leader(stats)]
    if paused := pause_lines(stats):
        parts += [Text(), *(Text(safe(line), style="yellow") for line in paused)]
    if stats.foreign_messages:
        foreign = f"{count_of(stats.foreign_messages, 'foreign message')} not written by Celery; left in place."
        parts += [Text(), Text(foreign, style="yellow")]
    return Group(*parts)


def pause_lines(stats: FleetStats) -> list[str]:
    """Return a line for each queue whose pause is recorded: since when, by whom, why, and what ends it."""
    return [
        f"{queue.queue_type} {paused_words(queue.pause, stats.taken_at)}; to end it: {resume_command(queue.queue_type)}"
        for queue in stats.queues
        if queue.pause is not None and queue.pause.at
    ]


def _leader(stats: FleetStats) -> Text:
    lease = stats.leader
    if lease is None:
        return Text("Leader: none; no watch leads this fleet: run `morag-queue watch`", style="yellow")
    since = f"{local_time(lease.since, stats.taken_at)} ({format_duration(stats.taken_at - lease.since)})"
    leader = f"Leader: {safe(lease.who)} ({safe(lease.verb)}) since {since}, term {lease.term}"
    return Text(leader, no_wrap=True, overflow="ellipsis")
