"""The rows of the speed table: pairs of measurements, their ratios and the bar that each is to meet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from time import monotonic
from typing import Any

from morag_queue.core.words import count_of

PAIRS = 5
SUBJECT_SECONDS = 120.0
"""A subject stops after the pair during which this time has passed since its first pair."""

Pair = tuple[float, float]
Measured = Mapping[str, Pair]
"""By the name of a row: our figure and that of the peer, measured one right after the other."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    `unit` is that of both figures. `bar` is a ratio, or with `is_absolute` a figure of ours in that unit; None: the row
    claims nothing. `more_is_better`: the bar is a minimum. A row without a `peer` must be absolute.
    """

    name: str
    what: str
    peer: str
    unit: str
    bar: float | None = None
    more_is_better: bool = False
    is_absolute: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """Rows that are measured together. `pairs` measures for ever; it is closed after `count` pairs."""

    rows: Sequence[Row]
    pairs: Callable[[], Iterator[Measured]]
    count: int = PAIRS


@dataclass(slots=True)
class Result:
    """A row with its pairs."""

    row: Row
    pairs: list[Pair] = field(default_factory=list)

    @property
    def ours(self) -> float:
        return median(ours for ours, _ in self.pairs)

    @property
    def peers(self) -> float:
        return median(peer for _, peer in self.pairs)

    @property
    def compared(self) -> list[float]:
        """What the bar is for: the ratio of each pair, or our figures."""
        return [ours if self.row.is_absolute else ours / peer for ours, peer in self.pairs]

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the bar; None without one."""
        bar, found = self.row.bar, median(self.compared)
        return None if bar is None else found >= bar if self.row.more_is_better else found <= bar

    @property
    def verdict(self) -> str:
        if self.is_met is not None:
            return "met" if self.is_met else "NOT MET"
        return "no difference" if min(self.compared) <= 1 <= max(self.compared) else ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.row.name, "what": self.row.what, "peer": self.row.peer, "unit": self.row.unit,
            "ours": self.ours, "peers": self.peers if self.row.peer else None,
            "compared": "value" if self.row.is_absolute else "ratio", "median": median(self.compared),
            "min": min(self.compared), "max": max(self.compared), "pairs": len(self.pairs), "bar": self.row.bar,
            "met": self.is_met,
        }  # fmt: skip

    def cells(self) -> list[str]:
        """The cells of the table: what, ours, the peer's, median and spread, bar, verdict."""
        row, unit = self.row, f" {self.row.unit}" if self.row.unit else ""
        spread = f"{figure(median(self.compared))} ({figure(min(self.compared))}–{figure(max(self.compared))})"
        limit = "–" if row.bar is None else f"{'≥' if row.more_is_better else '≤'} {figure(row.bar)}"
        if row.is_absolute:
            spread, limit = spread + unit, limit + unit
        if len(self.pairs) != PAIRS:
            spread += f", {count_of(len(self.pairs), 'pair')}"
        peer = f"{row.peer}: {figure(self.peers)}{unit}" if row.peer else "–"
        return [row.what, f"{figure(self.ours)}{unit}", peer, spread, limit, self.verdict]


def measure(subject: Subject, names: set[str], pairs: int | None, seconds: float = SUBJECT_SECONDS) -> list[Result]:
    """Measure the subject; return the rows with these names, or all for no name."""
    results = {row.name: Result(row) for row in subject.rows if not names or row.name in names}
    end = None
    with closing(subject.pairs()) as measuring:  # type: ignore[type-var]
        for measured in islice(measuring, pairs or subject.count):
            for name, result in results.items():
                result.pairs.append(measured[name])
            end = end or monotonic() + seconds
            if monotonic() > end:
                break
    return list(results.values())


def figure(number: float) -> str:
    """Three digits, thousands separated."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"


HEADER = ["what", "ours", "peer", "ratio: median (min–max)", "bar", ""]


def markdown(results: Sequence[Result]) -> str:
    rows = [HEADER, *(result.cells() for result in results)]
    head, *body = [f"| {' | '.join(cells)} |\n" for cells in rows]
    return "".join([head, f"|{'---|' * len(HEADER)}\n", *body])
