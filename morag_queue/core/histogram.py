"""Histograms of waits and run times: counts in buckets whose width grows with the value.

The upper edge of a bucket is 1.2 times its lower edge, so the geometric middle is within √1.2 − 1 = 9.6 % of every
value in it. 120 counters cover 1 ms to 30 days. Buckets of different minutes, queues and workers can be added.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, floor, log

SMALLEST_S = 0.001
LARGEST_S = 30 * 86_400.0
GROWTH = 1.2
RELATIVE_ERROR = GROWTH**0.5 - 1
_LOG_GROWTH = log(GROWTH)
LAST_BUCKET = ceil(log(LARGEST_S / SMALLEST_S) / _LOG_GROWTH)


def bucket(seconds: float) -> int:
    """Return the counter of a duration: 0 below 1 ms and for what is not a number, `LAST_BUCKET` from 30 days on."""
    if not seconds >= SMALLEST_S:
        return 0
    if seconds >= LARGEST_S:
        return LAST_BUCKET
    return min(1 + floor(log(seconds / SMALLEST_S) / _LOG_GROWTH), LAST_BUCKET)


def seconds_of(index: int) -> float:
    """Return the duration that a bucket stands for, in seconds: 0 for the first, else its geometric middle."""
    return SMALLEST_S * GROWTH ** (min(index, LAST_BUCKET) - 0.5) if index > 0 else 0.0


def quantile(counts: Mapping[int, int], q: float) -> float:
    """Return the q-quantile (0..1, nearest rank) in seconds, within `RELATIVE_ERROR`; 0 where nothing was counted."""
    total = sum(counts.values())
    rank = max(1, ceil(min(max(q, 0.0), 1.0) * total))
    seen = 0
    for index in sorted(counts):
        seen += counts[index]
        if seen >= rank:
            return seconds_of(index)
    return 0.0


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in one queue during `seconds`.

    `wait_seconds` and `run_seconds` are sums; `waits` and `runs` are histograms, counts by `bucket`.
    """

    seconds: float = 0.0
    arrivals: int = 0
    completed: int = 0
    failed: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    waits: Mapping[int, int] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return self.completed + self.failed

    @property
    def mean_wait_seconds(self) -> float | None:
        """None while no task has started in the window."""
        return _mean(self.wait_seconds, self.waits)

    @property
    def mean_run_seconds(self) -> float | None:
        """None while no task has ended in the window."""
        return _mean(self.run_seconds, self.runs)

    def per_minute(self, count: int) -> float:
        return count * 60.0 / self.seconds if self.seconds > 0 else 0.0


def merge(windows: Iterable[Window]) -> Window:
    """Add windows that follow one another to one; their lengths in seconds are added as well."""
    parts = list(windows)
    return Window(
        seconds=sum(part.seconds for part in parts),
        arrivals=sum(part.arrivals for part in parts),
        completed=sum(part.completed for part in parts),
        failed=sum(part.failed for part in parts),
        wait_seconds=sum(part.wait_seconds for part in parts),
        run_seconds=sum(part.run_seconds for part in parts),
        waits=_sum(part.waits for part in parts),
        runs=_sum(part.runs for part in parts),
    )


def _mean(total: float, counts: Mapping[int, int]) -> float | None:
    n = sum(counts.values())
    return total / n if n else None


def _sum(histograms: Iterable[Mapping[int, int]]) -> Mapping[int, int]:
    total: Counter[int] = Counter()
    for counts in histograms:
        total.update(counts)
    return dict(total)
