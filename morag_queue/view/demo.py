"""Answers of `demo`: the fleet while it runs, and the account of its tasks at the end."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from morag_queue.core.stats import FleetStats
from morag_queue.core.words import count_of

from .stats import stats_view
from .text import format_duration, safe


def progress_view(stats: FleetStats, ended: int, total: int) -> RenderableType:
    """Show a progress bar and the tables of `stats`."""
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(total=max(total, 1), completed=ended, width=40), Text(f"{ended} of {count_of(total, 'task')} done")
    )
    return Group(Text(), line, Text(), stats_view(stats), Text())


def account_view(answer: Mapping[str, Any]) -> RenderableType:
    """Show the account of all tasks; `answer` is the JSON document of `demo`."""
    account: Mapping[str, Any] = answer["account"]
    table = Table.grid(padding=(0, 2))
    for name in ("attempted", "executed", "lost", "duplicated", "stuck"):
        is_bad = account[name] and name in ("lost", "duplicated", "stuck")
        table.add_row(Text(name), Text(str(account[name]), "bold red" if is_bad else "bold"), Text(_note(name, answer)))
    for priority, seconds in answer["wait_seconds_by_priority"].items():
        table.add_row(Text(f"{priority} wait"), Text(format_duration(seconds), "bold"), Text())
    return Group(Text(), Text(f"Account after {format_duration(answer['seconds'])}", "bold"), table)


def _note(name: str, answer: Mapping[str, Any]) -> str:
    interrupted, killed = answer["interrupted_tasks"], answer["killed_worker"]
    if name == "executed" and interrupted:
        return f"{len(interrupted)} of them requeued from {safe(killed)}, which was killed"
    if name == "duplicated" and (explained := set(answer["duplicated_tasks"]) & set(interrupted)):
        return f"{len(explained)} of them were running on {safe(killed)} when it was killed"
    return ""
