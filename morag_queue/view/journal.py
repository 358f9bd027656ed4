"""Answers of `journal`: one line for each change, or one change in full."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import JournalEntry
from morag_queue.core.words import count_of

from .table import Column, FittedTable, cell
from .text import local_time, safe, short_ids


def journal_view(entries: Sequence[JournalEntry], now: float, verb: str | None = None) -> RenderableType:
    """Show one line for each entry. `verb` is the filter, which an empty list is explained by."""
    if not entries:
        empty = "The journal is empty: nothing has changed the fleet yet."
        return Text(f"No journal entry of the verb {safe(verb)!r}." if verb else empty, style="dim")
    return FittedTable(
        [
            Column("ENTRY", [cell(entry.entry_id, "dim") for entry in entries]),
            Column("WHEN", [cell(local_time(entry.at, now)) for entry in entries], right=True),
            Column("VERB", [cell(entry.verb) for entry in entries]),
            Column("SUBJECT", [cell(short_ids(entry.subject), "", 200) for entry in entries], min_width=10),
            Column("CHANGES", [cell(_summary(entry.changes), "", 200) for entry in entries], min_width=9),
            Column("WHO", [cell(entry.who, "", 100) for entry in entries], rank=2, min_width=8),
            Column("REASON", [cell(entry.reason, "", 300) for entry in entries], rank=1, min_width=14),
        ]
    )


def entry_view(entry: JournalEntry, now: float) -> RenderableType:
    """Show all fields of an entry."""
    facts = {
        "entry": entry.entry_id, "when": local_time(entry.at, now), "who": entry.who, "verb": entry.verb,
        "subject": entry.subject,
    }  # fmt: skip
    facts |= {name: value for name, value in (("reason", entry.reason), ("plan", entry.plan_id)) if value}
    lines = [f"{name:<8} {safe(value)}" for name, value in facts.items()]
    return Group(*(Text(line) for line in (*lines, *_change_lines(entry.changes))))


def counts(changes: Mapping[str, Any]) -> list[str]:
    """Return the counts of an entry as text, such as `3 moved`; `journal show` lists the ids."""
    numbers = {name: value for name, value in changes.items() if type(value) is int and value}
    return [
        count_of(number, "task") if name == "count" else f"{number} {name.removesuffix('_tasks').replace('_', ' ')}"
        for name, number in numbers.items()
    ]


def _summary(changes: Mapping[str, Any]) -> str:
    """Return the resulting state and the counts of an entry on one line."""
    state = changes.get("state")
    return ", ".join([*([state] if isinstance(state, str) else []), *counts(changes)]) or "–"


def _change_lines(changes: Mapping[str, Any]) -> list[str]:
    width = max((len(name) for name, value in changes.items() if not isinstance(value, Mapping | list)), default=0)
    lines = []
    for name, value in changes.items():
        match value:
            case Mapping():
                lines += [f"{safe(name)}", *(f"  {safe(key)}: {_joined(item)}" for key, item in value.items())]
            case list():
                lines += [f"{safe(name)}", *(f"  {_joined(item)}" for item in value)]
            case _:
                lines.append(f"{safe(name):<{max(width, 8)}} {_joined(value)}")
    return lines


def _joined(value: Any) -> str:
    return " ".join(safe(item) for item in value) if isinstance(value, list) else safe(value)
