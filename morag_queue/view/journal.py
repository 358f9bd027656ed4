"""The journal for a person: one line a change, or one change in full."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.broker.contract import JournalEntry

from .columns import Column, Fitting
from .output import iso
from .text import cell, safe


def journal_view(entries: Sequence[JournalEntry]) -> RenderableType:
    if not entries:
        return Text("No such change is in the journal.")
    return Fitting(
        [
            Column("WHEN", [cell(iso(one.at) or "–") for one in entries]),
            Column("VERB", [cell(one.verb) for one in entries]),
            Column("SUBJECT", [cell(one.subject, "", 200) for one in entries], least=12),
            Column("WHAT", [cell(_what(one.changes), "", 200) for one in entries], least=16),
            Column("WHO", [cell(one.who, "", 100) for one in entries], rank=2, least=8),
            Column("REASON", [cell(one.reason, "", 300) for one in entries], rank=1, least=16),
            Column("ENTRY", [cell(one.entry_id, "dim") for one in entries], rank=3),
        ]
    )


def entry_view(one: JournalEntry) -> RenderableType:
    known = {"entry": one.entry_id, "when": iso(one.at), "who": one.who, "verb": one.verb, "subject": one.subject}
    known |= {name: text for name, text in (("reason", one.reason), ("plan", one.plan_id)) if text}
    lines = [Text(f"{name:<8} {safe(value)}") for name, value in known.items()]
    return Group(*lines, *(Text(line) for line in _told(one.changes)))


def _what(changes: Mapping[str, Any]) -> str:
    """The counts of an entry in a line, and the state that it led to."""
    state = [str(changes["state"])] if isinstance(changes.get("state"), str) else []
    counts = {name: value for name, value in changes.items() if isinstance(value, int) and value and value is not True}
    told = [str(count) if name == "count" else f"{count} {name.replace('_', ' ')}" for name, count in counts.items()]
    return ", ".join([*state, *told]) or "–"


def _told(changes: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in changes.items():
        match value:
            case Mapping():
                lines += [f"{safe(name)}", *(f"  {safe(key)}: {_plain(item)}" for key, item in value.items())]
            case list():
                lines += [f"{safe(name)}", *(f"  {_plain(item)}" for item in value)]
            case _:
                lines.append(f"{safe(name):<8} {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    return " ".join(safe(one) for one in value) if isinstance(value, list) else safe(value)
