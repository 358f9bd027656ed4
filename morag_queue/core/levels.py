"""Levels: the kombu priorities 0..9 that stand for a priority in words on the broker. kombu polls level 0 first.

    tier     level   cut between them, by the estimate on the best capability
    URGENT   0
    HIGH     1–2     60 s
    NORMAL   3–5     30 s, 120 s
    LOW      6–7     60 s
    BATCH    8–9     60 s

In strict order a tier never overtakes a higher one; inside a tier shorter tasks go first. In weighted order the level
is a logarithmic index of weight² over length: a short NORMAL task may overtake a long HIGH one, and only URGENT tasks
are at level 0. The cuts and the constants of the index are those under which the scheduling policy was simulated.

A reader finds only the levels of its own `priority_steps`, and kombu's default is 0, 3, 6, 9. On fewer levels than ten,
each tier has one, and the last level takes the remaining tiers:

    steps        URGENT   HIGH   NORMAL   LOW   BATCH
    0, 3, 6, 9   0        3      6        9     9

LOW and BATCH share a level because that costs least: neither is in a hurry, and CPU work of BATCH has a queue of its
own. kombu would round each level down to a step instead, which puts HIGH work in the list of URGENT work.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from math import floor, log2

from .enums import QueuePriority
from .policy import Order

LEVELS = tuple(range(10))

DEFAULT_STEPS = (0, 3, 6, 9)
"""The levels that kombu, and every tool that uses its default `priority_steps`, knows."""

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


def level(
    priority: QueuePriority, minutes_best: float, order: Order, *, wait_s: float = 0.0, steps: Sequence[int] = LEVELS
) -> int:
    """Return the level of a task, one of `steps`; the first is taken first.

    `minutes_best` is its estimate in minutes on the capability that runs it fastest; an estimate that is not a number
    counts as a long one. `wait_s` is how long it has waited, in seconds; only the weighted order uses it. `steps` are
    ascending and not empty.
    """
    if priority is QueuePriority.URGENT:
        return steps[0]
    seconds = minutes_best * 60.0
    seconds = max(seconds, 0.0) if seconds < _LONGEST_S else _LONGEST_S
    if order is Order.WEIGHTED:
        index, behind_urgent = _weighted(priority, seconds, max(0.0, wait_s)), steps[1:] or steps
        return behind_urgent[index * len(behind_urgent) // _INDEXES]
    if len(steps) < len(LEVELS):
        return steps[min(list(_TIERS).index(priority), len(steps) - 1)]
    base, cuts = _TIERS[priority]
    return base + bisect_left(cuts, seconds)


_INDEXES = 9  # of the weighted order: one for each level behind that of URGENT


def _weighted(priority: QueuePriority, seconds: float, wait_s: float) -> int:
    index = log2(int(priority) ** 2 * (1.0 + min(wait_s, _LONGEST_S) / _WAIT_DOUBLES_S) / (seconds + _OVERHEAD_S))
    return min(max(floor(-index / _OCTAVES * _INDEXES), 0), _INDEXES - 1)


def readable(level: int, steps: Sequence[int]) -> int:
    """Return the step for a message that is queued at this level: the same one if it is a step, else the next.

    So no message overtakes one of a higher priority, and a second move changes nothing. Behind the last step there is
    none: it takes the rest. `steps` are ascending and not empty.
    """
    return steps[min(bisect_left(steps, level), len(steps) - 1)]


def common_steps(steps: Iterable[Sequence[int]], allowed: Sequence[int] = LEVELS) -> tuple[int, ...]:
    """Return the steps that all the workers of a lane poll, as far as they are `allowed`; those for a lane without any.

    Workers without a common step cannot be served together: return the step that most of them poll, the lowest of
    several, so that some worker polls every message.
    """
    polled = [frozenset(of_worker).intersection(LEVELS) for of_worker in steps]
    common = frozenset.intersection(*polled) if polled else frozenset(allowed)
    if common:
        return tuple(sorted(common.intersection(allowed) or common))
    votes = Counter(step for of_worker in polled for step in of_worker)
    return (min(votes, key=lambda step: (-votes[step], step)),) if votes else tuple(allowed)


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
