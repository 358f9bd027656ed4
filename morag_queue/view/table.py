"""Tables of plain cells, drawn as Rich segments, that drop columns instead of wrapping rows on a narrow terminal.

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

    If the columns do not fit, the one with the highest `rank` is dropped first; rank 0 always stays. A column that has
    `least` may be cut to that width, otherwise it is shown whole, up to `most`. A column that `fills` takes the
    remaining width and is never narrower than `least`. `keeps_end` cuts the beginning of a cell instead of its end:
    the end of a path matters most.
    """

    title: str
    cells: Sequence[Cell]
    right: bool = False
    rank: int = 0
    least: int = 0
    most: int = 1000
    fills: bool = False
    keeps_end: bool = False


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table in the columns that the console has room for."""

    columns: Sequence[Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        heading, rows = layout(self.columns, options.max_width, gap=_GAP, heading_style="bold")
        for line in (heading, *rows):
            yield from Segment.adjust_line_length(line, options.max_width, pad=False)
            yield Segment.line()


def cell(value: object, style: str = "", limit: int | None = None) -> Cell:
    """Make a value of any origin a cell; `limit` is in characters, see `safe`."""
    return safe(value, limit), style


def text(words: str, style_name: str = "") -> Segment:
    return Segment(words, _style(style_name) if style_name else None)


def fitted(words: str, width: int, *, right: bool = False, keeps_end: bool = False) -> str:
    """Pad or cut to exactly `width` terminal cells; an ellipsis marks the cut."""
    length = cell_len(words)
    if length > width:
        if width <= 0:
            return ""
        return _end_of(words, width) if keeps_end else set_cell_size(words, width - 1) + "…"
    return " " * (width - length) + words if right else words + " " * (width - length)


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
    kept = [column for column in columns if column.rank == 0 or any(words for words, _ in column.cells)]
    natural = {id(column): _natural_width(column) for column in kept}
    least = {id(column): _least_width(column, natural[id(column)]) for column in kept}
    while sum(least[id(column)] + gap for column in kept) - gap > width:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    spare_width = width - gap * (len(kept) - 1)
    widths = _distribute([(least[id(column)], natural[id(column)], column.fills) for column in kept], spare_width)
    heading = _row([(column.title, heading_style) for column in kept], kept, widths, gap)
    cells = zip(*(column.cells for column in kept), strict=True)
    return heading, (_row(row, kept, widths, gap) for row in cells)


def _natural_width(column: Column) -> int:
    longest = max((cell_len(words) for words, _ in column.cells), default=0)
    wanted = max(longest, len(column.title), column.least if column.fills else 0)
    return min(wanted, max(column.most, len(column.title)))


def _least_width(column: Column, natural: int) -> int:
    return min(natural, max(column.least, len(column.title))) if column.least else natural


def _distribute(wanted: Sequence[tuple[int, int, bool]], width: int) -> list[int]:
    """Give each column its least width, then its natural width in their order, and the rest to the one that fills.

    `wanted` has the least width, the natural width and `fills` of each column.
    """
    widths = [least for least, _, _ in wanted]
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
    for index, ((words, style_name), column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        if index:
            line.append(Segment(" " * gap))
        line.append(text(fitted(words, width, right=column.right, keeps_end=column.keeps_end), style_name))
    return line


def _end_of(words: str, width: int) -> str:
    while cell_len(words) >= width:
        words = words[max((cell_len(words) - width) // 2, 1) :]  # a character may be two cells wide
    return fitted(f"…{words}", width)


@cache
def _style(name: str) -> Style:
    return Style.parse(name)
