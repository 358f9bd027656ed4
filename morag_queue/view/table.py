"""Tables of plain cells, drawn as Rich segments, that drop columns on a narrow terminal instead of wrapping rows.

Rich's own `Table` measures, wraps and merges styles for every cell. The live screen draws thousands of cells every two
seconds, and these lines take a tenth of the time.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from .text import safe

Line = list[Segment]
Cell = tuple[str, str]
"""Printable text (see `safe`) and the name of its style."""
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Widths are terminal cells.

    If the columns do not fit, the one with the highest `rank` is dropped first; rank 0 always stays. A column with a
    `min_width` may be cut to that width; any other is shown whole, up to `max_width`. A column that `fills` takes the
    remaining width and is never narrower than `min_width`. `keeps_end` cuts the beginning of a cell instead of its end:
    the end of a path matters most.
    """

    title: str
    cells: Sequence[Cell]
    right: bool = False
    rank: int = 0
    min_width: int = 0
    max_width: int = 1000
    fills: bool = False
    keeps_end: bool = False


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table of the columns that fit the console."""

    columns: Sequence[Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        heading, rows = layout(self.columns, options.max_width, gap=_GAP, heading_style="bold")
        for line in (heading, *rows):
            yield from Segment.adjust_line_length(line, options.max_width, pad=False)
            yield Segment.line()


def cell(value: object, style: str = "", limit: int | None = None) -> Cell:
    """Make a cell of a value of any origin; `limit` is in characters, see `safe`."""
    return safe(value, limit), style


def text(content: str, style_name: str = "") -> Segment:
    return Segment(content, _style(style_name) if style_name else None)


def fitted(content: str, width: int, *, right: bool = False, keeps_end: bool = False) -> str:
    """Pad or cut to exactly `width` terminal cells; an ellipsis marks the cut."""
    length = cell_len(content)
    if length > width:
        if width <= 0:
            return ""
        return _end_of(content, width) if keeps_end else set_cell_size(content, width - 1) + "…"
    return " " * (width - length) + content if right else content + " " * (width - length)


def padded(line: Line, width: int) -> Line:
    """Pad or cut a line to exactly `width` terminal cells."""
    used = sum(cell_len(segment.text) for segment in line)
    if used > width:
        return Segment.adjust_line_length(line, width)
    return [*line, Segment(" " * (width - used))] if used < width else line


def layout(
    columns: Iterable[Column], width: int, *, gap: int = 1, heading_style: str = "bold dim"
) -> tuple[Line, Iterator[Line]]:
    """Return the heading and the rows, in the columns that fit into `width`."""
    kept = [column for column in columns if column.rank == 0 or any(content for content, _ in column.cells)]
    natural = {id(column): _natural_width(column) for column in kept}
    minimum = {id(column): _min_width(column, natural[id(column)]) for column in kept}
    while sum(minimum[id(column)] + gap for column in kept) - gap > width:
        dropped = max(kept, key=lambda column: column.rank)
        if dropped.rank == 0:
            break
        kept.remove(dropped)
    spare_width = width - gap * (len(kept) - 1)
    widths = _distribute([(minimum[id(column)], natural[id(column)], column.fills) for column in kept], spare_width)
    heading = _row([(column.title, heading_style) for column in kept], kept, widths, gap)
    cells = zip(*(column.cells for column in kept), strict=True)
    return heading, (_row(row, kept, widths, gap) for row in cells)


def _natural_width(column: Column) -> int:
    longest = max((cell_len(content) for content, _ in column.cells), default=0)
    wanted = max(longest, len(column.title), column.min_width if column.fills else 0)
    return min(wanted, max(column.max_width, len(column.title)))


def _min_width(column: Column, natural: int) -> int:
    return min(natural, max(column.min_width, len(column.title))) if column.min_width else natural


def _distribute(wanted: Sequence[tuple[int, int, bool]], width: int) -> list[int]:
    """Give each column its minimum width, then its natural width from the left, and the rest to the column that fills.

    `wanted` has the minimum width, the natural width and `fills` of each column.
    """
    widths = [minimum for minimum, _, _ in wanted]
    spare = width - sum(widths)
    for index, (_, natural, _) in enumerate(wanted):
        extra = max(min(spare, natural - widths[index]), 0)
        widths[index] += extra
        spare -= extra
    filling = next((index for index, (_, _, fills) in enumerate(wanted) if fills), None)
    if filling is not None and spare > 0:
        widths[filling] += spare
    return widths


def _row(cells: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], gap: int) -> Line:
    line = []
    for index, ((content, style_name), column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        if index:
            line.append(Segment(" " * gap))
        line.append(text(fitted(content, width, right=column.right, keeps_end=column.keeps_end), style_name))
    return line


def _end_of(content: str, width: int) -> str:
    while cell_len(content) >= width:
        content = content[max((cell_len(content) - width) // 2, 1) :]  # a character may be two cells wide
    return fitted(f"…{content}", width)


@cache
def _style(name: str) -> Style:
    return Style.parse(name)
