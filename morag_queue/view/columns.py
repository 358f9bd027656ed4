"""A table that fits its place: on a narrow terminal it leaves columns out instead of breaking its rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2


@dataclass(frozen=True)
class Column:
    """`rank` says when it may go: the highest first, 0 never; `least` how far it may be cut, if at all.

    One that `keeps_end` is cut at its beginning: the end of a path says more.
    """

    title: str
    cells: Sequence[Text]
    right: bool = False
    rank: int = 0
    least: int | None = None
    keeps_end: bool = False

    @property
    def natural(self) -> int:
        return max(len(self.title), *(cell.cell_len for cell in self.cells), 0)

    @property
    def minimum(self) -> int:
        return self.natural if self.least is None else min(self.natural, max(self.least, len(self.title)))


@dataclass(frozen=True)
class Fitting:
    """Renders the columns that the width has room for."""

    columns: Sequence[Column]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _table(list(_kept(self.columns, options.max_width)), options.max_width)


def _kept(columns: Sequence[Column], width: int) -> Iterator[Column]:
    kept = [column for column in columns if column.rank == 0 or any(cell.plain for cell in column.cells)]
    while sum(column.minimum + _GAP for column in kept) - _GAP > width:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return iter(kept)


def _table(columns: Sequence[Column], width: int) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    spare = width - sum(column.minimum + _GAP for column in columns) + _GAP
    shown: list[Sequence[Text]] = []
    for column in columns:
        extra = min(spare, column.natural - column.minimum)
        spare -= extra
        size = column.minimum + extra
        table.add_column(
            Text(column.title), justify="right" if column.right else "left", width=size, no_wrap=True,
            overflow="ellipsis",
        )  # fmt: skip
        shown.append([_end_of(cell, size) for cell in column.cells] if column.keeps_end else column.cells)
    for row in zip(*shown, strict=True):
        table.add_row(*row)
    return table


def _end_of(cell: Text, size: int) -> Text:
    words = cell.plain
    if cell_len(words) <= size:
        return cell
    while cell_len(words) >= size:
        words = words[max((cell_len(words) - size) // 2, 1) :]  # a sign may be two cells wide
    return Text(f"…{words}", style=cell.style)
