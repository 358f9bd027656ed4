"""Levels: the kombu priorities 0..9 that stand for a priority in words on the broker. kombu polls level 0 first.

    tier     level   cut between them, by the estimate on the best capability
    URGENT   0
    HIGH     1–2     60 s
    NORMAL   3–5     30 s, 120 s
    LOW      6–7     60 s
    BATCH    8–9     60 s

In strict order a tier never overtakes a higher one; inside a tier shorter tasks go first. In weighted order the level
is a logarithmic index of weight² over length: a short NORMAL task may overtake a long HIGH one, and only URGENT tasks
are at level 0. Both orders also suit workers that poll kombu's default steps (0, 3, 6, 9). The cuts and the constants
of the index are those under which the scheduling policy was simulated.
"""

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from math import floor, log2

from .model import QueuePriority
from .policy import Order

LEVELS = tuple(range(10))

# First level of the tier and its cuts in seconds: the level is the first one plus the number of cuts exceeded.
_TIERS: dict[QueuePriority, tuple[int, tuple[float, ...]]] = {
    QueuePriority.URGENT: (0, ()),
    QueuePriority.HIGH: (1, (60.0,)),
    QueuePriority.NORMAL: (3, (30.0, 120.0)),
    QueuePriority.LOW: (6, (60.0,)),
    QueuePriority.BATCH: (8, (60.0,)),
}
_TIER_OF_LEVEL = tuple(max((t for t in _TIERS if _TIERS[t][0] <= n), key=lambda t: _TIERS[t][0]) for n in LEVELS)

_LONGEST_S = 30 * 86_400.0  # 30 days: keeps estimates and waits finite
_WAIT_DOUBLES_S = 7200.0  # a wait of two hours doubles a task's weighted index
_OVERHEAD_S = 5.0  # added to every length: the overhead dominates a task of a few seconds
_OCTAVES = 10.0  # doublings of the weighted index that the nine levels below URGENT cover


def level(priority: QueuePriority, minutes_best: float, order: Order, *, wait_s: float = 0.0) -> int:
    """Return the level of a task, 0..9; 0 is taken first.

    `minutes_best` is its estimate in minutes on the capability that runs it fastest; an estimate that is not a number
    counts as a long one. `wait_s` is how long it has waited, in seconds; only the weighted order uses it.
    """
    if priority is QueuePriority.URGENT:
        return 0
    seconds = minutes_best * 60.0
    seconds = max(seconds, 0.0) if seconds < _LONGEST_S else _LONGEST_S
    if order is Order.WEIGHTED:
        return _weighted(priority, seconds, max(0.0, wait_s))
    base, cuts = _TIERS[priority]
    return base + sum(seconds > cut for cut in cuts)


def _weighted(priority: QueuePriority, seconds: float, wait_s: float) -> int:
    index = log2(int(priority) ** 2 * (1.0 + min(wait_s, _LONGEST_S) / _WAIT_DOUBLES_S) / (seconds + _OVERHEAD_S))
    return 1 + min(max(floor(-index / _OCTAVES * 9), 0), 8)


def snap(level: int, steps: Sequence[int]) -> int:
    """Return the step, and so the Redis list, of a message of this level in a fleet that polls `steps`.

    As kombu does, it takes the nearest step at or below the level, and the last step where none is below. `steps` are
    sorted and not empty.
    """
    return steps[bisect(steps, level) - 1]


def common_steps(steps: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the steps in 0..9 that all the workers of a lane poll; all ten levels for a lane without workers.

    Workers without a common step cannot be served together: return the step that most of them poll, the lowest of
    several, so that some worker polls every message.
    """
    polled = [frozenset(of_worker).intersection(LEVELS) for of_worker in steps]
    if not polled:
        return LEVELS
    common = frozenset.intersection(*polled)
    if common:
        return tuple(sorted(common))
    votes = Counter(step for of_worker in polled for step in of_worker)
    return (min(votes, key=lambda step: (-votes[step], step)),) if votes else LEVELS


def priority_of_level(level: int) -> QueuePriority:
    """Return the tier of a level in strict order: for display, and for messages without a priority in words."""
    return _TIER_OF_LEVEL[min(max(level, 0), 9)]


def parse_priority(word: str) -> QueuePriority:
    """Return a priority by its name, in any case. Raises ValueError that lists the names."""
    try:
        return QueuePriority[word.strip().upper()]
    except KeyError:
        names = ", ".join(priority.name for priority in QueuePriority)
        raise ValueError(f"unknown priority {word!r}: use one of {names}") from None
