"""Figures of waits and run times: counts in buckets whose width grows with the value.

A bucket's upper edge is 1.2 times its lower one, so its geometric middle is within √1.2 − 1 = 9.6 % of everything in
it, from 1 ms to 30 days in 120 counters. Buckets of different minutes, queues and workers add up.
"""

from collections.abc import Mapping
from math import ceil, floor, log

SMALLEST_S = 0.001
LARGEST_S = 30 * 86_400.0
GROWTH = 1.2
RELATIVE_ERROR = GROWTH**0.5 - 1

_LOG_GROWTH = log(GROWTH)
LAST_BUCKET = ceil(log(LARGEST_S / SMALLEST_S) / _LOG_GROWTH)


def bucket(seconds: float) -> int:
    """Which counter a duration belongs to: 0 for anything below 1 ms, `LAST_BUCKET` for the end of the range."""
    if not seconds >= SMALLEST_S:
        return 0
    if seconds >= LARGEST_S:
        return LAST_BUCKET
    return min(1 + floor(log(seconds / SMALLEST_S) / _LOG_GROWTH), LAST_BUCKET)


def seconds_of(index: int) -> float:
    """What a bucket stands for: 0 for the first, else its geometric middle. In seconds."""
    return SMALLEST_S * GROWTH ** (min(index, LAST_BUCKET) - 0.5) if index > 0 else 0.0


def quantile(counts: Mapping[int, int], q: float) -> float:
    """The q-quantile (0..1, nearest rank) of what was counted, in seconds, within `RELATIVE_ERROR`; 0 of nothing."""
    total = sum(counts.values())
    rank = max(1, ceil(min(max(q, 0.0), 1.0) * total))
    seen = 0
    for index in sorted(counts):
        seen += counts[index]
        if seen >= rank:
            return seconds_of(index)
    return 0.0
