"""The live screen: one frame of the fleet in a given number of columns and rows. A pure function of its arguments."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from morag_queue.core.words import count_of
from morag_queue.operations.live_stats import LiveFrame

from .live_state import COLUMN_HELP, HELP, LiveState
from .live_tables import alert_lines, journal_lines, queue_lines, worker_lines, workers
from .table import Line, fitted, padded, text
from .text import format_duration, local_time, safe

WIDE = 150
"""Width from which alerts and journal stand beside the workers instead of above and below."""
_TALL = 30
"""Height from which a blank line separates the header from the queues."""
_DIVIDER = " │ "
_JOURNAL_MIN_LINES = 2
"""The title and one entry."""
_STALE_S = 10.0


@dataclass(frozen=True, slots=True)
class Screen:
    """Lines that are exactly as wide as the terminal."""

    lines: Sequence[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        newline = Segment.line()
        for number, line in enumerate(self.lines):
            if number:
                yield newline
            yield from line


def render(frame: LiveFrame, width: int, height: int, state: LiveState) -> Screen:
    """Draw exactly `height` lines of exactly `width` cells."""
    top = [_header(frame, width, state), *([[]] if height >= _TALL else []), *queue_lines(frame, width), []]
    room = max(height - len(top) - 1, 0)
    if state.help:
        body = _help(width)
    elif width >= WIDE:
        body = _side_by_side(frame, width, room, state)
    else:
        body = _stacked(frame, width, room, state)
    body = body[:room] + [[]] * (room - len(body))
    lines = [*top, *body][: max(height - 1, 0)]
    return Screen([padded(line, width) for line in (*lines, _footer(width, state))])


def _header(frame: LiveFrame, width: int, state: LiveState) -> Line:
    if state.error:
        warning = f"{state.error}; showing data that is {format_duration(state.age_s)} old "
        return [text(fitted(f" ✖ {safe(warning, 500)}", width), "bold white on red")]
    leader = frame.stats.leader
    parts = [
        text("morag-queue ", "bold"),
        text(f"{safe(frame.fleet.replace('redis://', ''), 60)}  ", "dim"),
        text(f"{local_time(frame.stats.taken_at, frame.stats.taken_at)}  "),
        text(f"leader: {safe(leader.who, 40) if leader else 'none'}  ", "" if leader else "dim"),
    ]
    if state.paused:
        parts.append(text(f" PAUSED {format_duration(state.age_s)} ago ", "black on yellow"))
    elif state.age_s > _STALE_S:
        parts.append(text(f" {format_duration(state.age_s)} old ", "black on yellow"))
    return _whole_parts(parts, width)


def _whole_parts(parts: Line, width: int) -> Line:
    """Leave out the parts that do not fit whole, but not the first."""
    kept, room = parts[:1], width - parts[0].cell_length
    for part in parts[1:]:
        if cell_len(part.text.rstrip()) <= room:
            kept.append(part)
            room -= part.cell_length
    return kept


def _stacked(frame: LiveFrame, width: int, room: int, state: LiveState) -> list[Line]:
    """Stack alerts, workers and journal. The journal gets the lines that workers do not need, at least a quarter."""
    alerts = _limited(alert_lines(frame, width), max(room // 4, 2))
    body = [*alerts, []] if alerts else []
    rest = room - len(body)
    for_journal = min(max(rest - len(workers(frame, state)) - 3, rest // 4), len(frame.journal) + 1)
    if for_journal < _JOURNAL_MIN_LINES:
        return [*body, *_workers(frame, width, rest, state)]
    body += _workers(frame, width, rest - for_journal - 1, state)
    body += [[]] * (room - for_journal - len(body))
    return [*body, _title("JOURNAL"), *journal_lines(frame, width)[: for_journal - 1]]


def _side_by_side(frame: LiveFrame, width: int, room: int, state: LiveState) -> list[Line]:
    """Draw the workers on the left, alerts and journal on the right."""
    right_width = max(width // 3, 56)
    left_width = width - right_width - len(_DIVIDER)
    alerts = _limited(alert_lines(frame, right_width), max(room // 2, 2))
    right: list[Line] = [_title("ALERTS"), *(alerts or [[text("none", "green")]]), []]
    right += [_title("JOURNAL"), *journal_lines(frame, right_width)]
    left = _workers(frame, left_width, room, state)
    rows = []
    for number in range(room):
        first = left[number] if number < len(left) else []
        second = right[number] if number < len(right) else []
        rows.append([*padded(first, left_width), text(_DIVIDER, "dim"), *second])
    return rows


def _workers(frame: LiveFrame, width: int, room: int, state: LiveState) -> list[Line]:
    if not frame.stats.workers:
        return [[text("No workers are registered.", "yellow")]]
    matching = workers(frame, state)
    if not matching:
        return [[text(f"No worker matches {safe(state.filter, 40)!r}.", "yellow")]]
    fits = max(room - 1, 1)
    if len(matching) <= fits:
        return worker_lines(frame, matching, width)
    fits = max(fits - 1, 1)
    offset = min(state.offset, len(matching) - fits)
    shown = matching[offset : offset + fits]
    position = f"… workers {offset + 1} to {offset + len(shown)} of {len(matching)}"
    return [*worker_lines(frame, shown, width), [text(position, "dim")]]


def _limited(alerts: Sequence[Line], limit: int) -> list[Line]:
    if len(alerts) <= limit:
        return list(alerts)
    hidden = len(alerts) - limit + 1
    more = count_of(hidden, "more alert")
    return [*alerts[: limit - 1], [text(f"… and {more}; `morag-queue doctor` lists them all", "yellow")]]


def _title(title: str) -> Line:
    return [text(title, "bold dim")]


def _help(width: int) -> list[Line]:
    rows = (*HELP, ("", ""), *COLUMN_HELP)
    return [[text(f"  {name:<16}", "bold"), text(fitted(effect, max(width - 18, 0)))] for name, effect in rows]


def _footer(width: int, state: LiveState) -> Line:
    if state.typing:
        return [text("/", "bold"), text(safe(state.filter, 60)), text("▏ Enter: apply, Esc: clear", "dim")]
    keys = ("q quit", "p resume" if state.paused else "p pause", f"s sort: {state.sort}", "/ filter", "? help")
    line: list[Segment] = [text("  ".join(keys), "dim")]
    if state.filter:
        line.append(text(f"  filter: {safe(state.filter, 40)} (Esc: clear)", "yellow"))
    return padded(line, width)
