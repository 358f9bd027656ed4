"""The demo: the fleet while it runs, and the account at the end."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from morag_queue.core.model import FleetStats

from .durations import format_duration
from .stats import stats_view
from .text import safe


def picture_view(stats: FleetStats, ended: int, total: int) -> RenderableType:
    """The tables of `stats` under a bar of what is done."""
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(total, 1), completed=ended, width=40), Text(f"{ended} of {total} tasks done"))
    return Group(Text(), line, Text(), stats_view(stats), Text())


def outcome_view(answer: Mapping[str, Any]) -> RenderableType:
    """The account in words; `answer` is the JSON document of `demo`."""
    account: Mapping[str, Any] = answer["account"]
    table = Table.grid(padding=(0, 2))
    for word in ("attempted", "executed", "lost", "duplicated", "stuck"):
        bad = account[word] and word in ("lost", "duplicated", "stuck")
        table.add_row(Text(word), Text(str(account[word]), "bold red" if bad else "bold"), Text(_note(word, answer)))
    for word, seconds in answer["wait_seconds_by_priority"].items():
        table.add_row(Text(f"{word} wait"), Text(format_duration(seconds), "bold"), Text())
    return Group(Text(), Text(f"The account, after {format_duration(answer['seconds'])}", "bold"), table)


def _note(word: str, answer: Mapping[str, Any]) -> str:
    interrupted, killed = answer["interrupted_tasks"], answer["killed_worker"]
    if word == "executed" and interrupted:
        return f"{len(interrupted)} of them taken back from {safe(killed)}, which was killed"
    if word == "duplicated" and (explained := set(answer["duplicated_tasks"]) & set(interrupted)):
        return f"{len(explained)} of them in the hands of {safe(killed)} when it was killed"
    return ""
