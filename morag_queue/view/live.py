"""The live view: one picture of the fleet in so many columns and rows. A pure function of frame, size and state."""

from collections.abc import Sequence

from rich.segment import Segment

from morag_queue.operations.stats import LiveFrame

from .durations import format_duration
from .grid import Line, Screenful, fitted, padded, text
from .live_state import HELP, LiveState
from .live_tables import alert_lines, clock, journal_lines, queue_lines, worker_lines, workers
from .text import safe

WIDE = 150
"""Columns from which on alerts and journal stand beside the workers."""
_TALL = 30
_SIDE = 3
_LEAST_JOURNAL = 2
"""Lines: its title and an entry."""
_STALE_S = 10.0


def render(frame: LiveFrame, width: int, height: int, state: LiveState) -> Screenful:
    """Exactly `height` lines of exactly `width` cells, whatever there is to show."""
    top = [_header(frame, width, state), *([[]] if height >= _TALL else []), *queue_lines(frame, width), []]
    room = max(height - len(top) - 1, 0)
    if state.help:
        body = _help(width)
    elif width >= WIDE:
        body = _beside(frame, width, room, state)
    else:
        body = _below(frame, width, room, state)
    body = body[:room] + [[]] * (room - len(body))
    lines = [*top, *body][: max(height - 1, 0)]
    return Screenful([padded(line, width) for line in (*lines, _footer(width, state))])


def _header(frame: LiveFrame, width: int, state: LiveState) -> Line:
    leader = frame.stats.leader
    who = safe(leader.who, 40) if leader else "nobody"
    parts = [
        text("morag-queue ", "bold"),
        text(f"{safe(frame.fleet.replace('redis://', ''), 60)}  ", "dim"),
        text(f"{clock(frame.stats.taken_at)} UTC  "),
        text(f"leader: {who}  ", "" if leader else "dim"),
    ]
    if state.trouble:
        told = f"{state.trouble}; this is {format_duration(state.age_s)} old "
        return [text(fitted(f" ✖ {safe(told, 500)}", width), "bold white on red")]
    if state.paused:
        parts.append(text(f" PAUSED {format_duration(state.age_s)} ago ", "black on yellow"))
    elif state.age_s > _STALE_S:
        parts.append(text(f" {format_duration(state.age_s)} old ", "black on yellow"))
    return parts


def _below(frame: LiveFrame, width: int, room: int, state: LiveState) -> list[Line]:
    """Alerts first, then workers, and the journal in what they leave, or a quarter."""
    alerts = _cut(alert_lines(frame, width), max(room // 4, 2))
    body = [*alerts, []] if alerts else []
    left = room - len(body)
    shown = workers(frame, state)
    for_journal = min(max(left - len(shown) - 3, left // 4), len(frame.journal) + 1)
    if for_journal < _LEAST_JOURNAL:
        return [*body, *_workers(frame, width, left, state)]
    body += _workers(frame, width, left - for_journal - 1, state)
    body += [[]] * (room - for_journal - len(body))
    return [*body, [text("JOURNAL", "bold dim")], *journal_lines(frame.journal[: for_journal - 1], width)]


def _beside(frame: LiveFrame, width: int, room: int, state: LiveState) -> list[Line]:
    """Workers at the left, alerts and journal at the right."""
    right = max(width // 3, 56)
    left = width - right - _SIDE
    workers_part = _workers(frame, left, room, state)
    alerts = _cut(alert_lines(frame, right), max(room // 2, 2))
    side: list[Line] = [[text("ALERTS", "bold dim")], *(alerts or [[text("none", "green")]]), []]
    side += [[text("JOURNAL", "bold dim")], *journal_lines(frame.journal, right)]
    rows = []
    for n in range(room):
        first = workers_part[n] if n < len(workers_part) else []
        second = side[n] if n < len(side) else []
        rows.append([*padded(first, left), text(" │ ", "dim"), *second])
    return rows


def _workers(frame: LiveFrame, width: int, room: int, state: LiveState) -> list[Line]:
    if not frame.stats.workers:
        return [[text("No worker has registered.", "yellow")]]
    every = workers(frame, state)
    if not every:
        return [[text(f"No worker matches {safe(state.filter, 40)!r}.", "yellow")]]
    fits = max(room - 1, 1)
    if len(every) <= fits:
        return worker_lines(frame, every, width)
    fits = max(fits - 1, 1)
    offset = min(state.offset, len(every) - fits)
    part = every[offset : offset + fits]
    told = f"… workers {offset + 1} to {offset + len(part)} of {len(every)}"
    return [*worker_lines(frame, part, width), [text(told, "dim")]]


def _cut(lines: Sequence[Line], most: int) -> list[Line]:
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], [text(f"… and {len(lines) - most + 1} more alerts: morag-queue doctor", "yellow")]]


def _help(width: int) -> list[Line]:
    return [[text(f"  {keys:<16}", "bold"), text(fitted(what, max(width - 18, 0)))] for keys, what in HELP]


def _footer(width: int, state: LiveState) -> Line:
    if state.typing:
        return [text("/", "bold"), text(safe(state.filter, 60)), text("▏ Enter keeps, Esc drops", "dim")]
    keys = ("q quit", "p pause" if not state.paused else "p go on", f"s sort: {state.sort}", "/ filter", "? help")
    line: list[Segment] = [text("  ".join(keys), "dim")]
    if state.filter:
        line.append(text(f"  filter: {safe(state.filter, 40)} (Esc drops it)", "yellow"))
    return padded(line, width)
