"""Rows of plain cells in columns, drawn straight as segments: a tenth of the time of a table that measures itself.

The live view draws some thousand cells every two seconds; what a table of Rich's does for each of them (wrap, justify,
measure, merge styles) is known beforehand here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

Line = list[Segment]
Cell = tuple[str, str]
"""Text, which is shown as it is (so it has to be `safe`), and the words of its style."""


@dataclass(frozen=True, slots=True)
class GridColumn:
    """`rank`: the highest goes first where there is no room, 0 stays. It is from `least` to `most` cells wide.

    One with `fills` takes what is left over.
    """

    title: str
    cells: Sequence[Cell]
    right: bool = False
    rank: int = 0
    least: int = 0
    most: int = 1000
    fills: bool = False


@dataclass(frozen=True, slots=True)
class Screenful:
    """Lines that are as wide as they should be already."""

    lines: Sequence[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        newline = Segment.line()
        for n, line in enumerate(self.lines):
            if n:
                yield newline
            yield from line


@cache
def style(words: str) -> Style:
    return Style.parse(words)


def text(words: str, kind: str = "") -> Segment:
    return Segment(words, style(kind) if kind else None)


def fitted(words: str, width: int, *, right: bool = False) -> str:
    """Exactly so many cells; what does not fit ends with an ellipsis."""
    length = cell_len(words)
    if length > width:
        return set_cell_size(words, width - 1) + "…" if width > 0 else ""
    return " " * (width - length) + words if right else words + " " * (width - length)


def padded(line: Line, width: int) -> Line:
    """The line with blanks up to the width; what is too long is cut."""
    used = sum(cell_len(one.text) for one in line)
    if used > width:
        return Segment.adjust_line_length(line, width)
    return [*line, Segment(" " * (width - used))] if used < width else line


def grid(columns: Iterable[GridColumn], width: int) -> tuple[Line, Iterator[Line]]:
    """The heading, and the rows, in the columns that the width has room for."""
    kept = [column for column in columns if column.rank == 0 or any(cell[0] for cell in column.cells)]
    natural = {id(column): _natural(column) for column in kept}
    least = {id(one): max(one.least, len(one.title)) if one.least else natural[id(one)] for one in kept}
    while sum(least[id(one)] + 1 for one in kept) - 1 > width:
        last = max(kept, key=lambda one: one.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    widths = _shared([(least[id(one)], natural[id(one)], one.fills) for one in kept], width - len(kept) + 1)
    heading = _row([(one.title, "bold dim") for one in kept], kept, widths)
    return heading, (_row(cells, kept, widths) for cells in zip(*(one.cells for one in kept), strict=True))


def _natural(column: GridColumn) -> int:
    longest = max((cell_len(cell[0]) for cell in column.cells), default=0)
    return min(max(longest, len(column.title), column.least), max(column.most, len(column.title)))


def _shared(wanted: Sequence[tuple[int, int, bool]], width: int) -> list[int]:
    """What is over goes to the columns in their order up to what they need, and the rest to the one that fills."""
    widths = [min(least, natural) for least, natural, _ in wanted]
    spare = width - sum(widths)
    for n, (_, natural, _) in enumerate(wanted):
        extra = max(min(spare, natural - widths[n]), 0)
        widths[n] += extra
        spare -= extra
    filling = next((n for n, one in enumerate(wanted) if one[2]), None)
    if filling is not None and spare > 0:
        widths[filling] += spare
    return [max(min(one, width), 0) for one in widths]


def _row(cells: Sequence[Cell], columns: Sequence[GridColumn], widths: Sequence[int]) -> Line:
    line = []
    for n, ((words, kind), column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        if n:
            line.append(_GAP)
        line.append(text(fitted(words, width, right=column.right), kind))
    return line


_GAP = Segment(" ")
