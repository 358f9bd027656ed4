"""Levels: what a priority in words becomes on the broker. kombu polls level 0 first.

    tier     level   cut between them, by the estimate on the best capability
    URGENT   0
    HIGH     1–2     60 s
    NORMAL   3–5     30 s, 120 s
    LOW      6–7     60 s
    BATCH    8–9     60 s

In strict order a tier never overtakes a higher one, and inside a tier the shorter go first. In weighted order the
level is a logarithmic index of weight² over length, so a short NORMAL may overtake a long HIGH; URGENT stays alone
at 0. A worker that polls kombu's default steps (0, 3, 6, 9) still gets a sensible order out of either.
"""

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from math import floor, log2

from .model import QueuePriority
from .policy import Order

LEVELS = tuple(range(10))

# First level of the tier, and its cuts in seconds: the level is the first one plus the cuts that are exceeded.
_TIERS: dict[QueuePriority, tuple[int, tuple[float, ...]]] = {
    QueuePriority.URGENT: (0, ()),
    QueuePriority.HIGH: (1, (60.0,)),
    QueuePriority.NORMAL: (3, (30.0, 120.0)),
    QueuePriority.LOW: (6, (60.0,)),
    QueuePriority.BATCH: (8, (60.0,)),
}
_TIER_OF_LEVEL = tuple(max((t for t in _TIERS if _TIERS[t][0] <= n), key=lambda t: _TIERS[t][0]) for n in LEVELS)

_LONGEST_S = 30 * 86_400.0
_WAIT_DOUBLES_S = 7200.0  # a wait of two hours doubles a task's weighted index
_HEAD_START_S = 5.0  # added to every length: below a few seconds the overhead of a task is its length
_OCTAVES = 10.0  # how many doublings of the weighted index the nine levels below URGENT cover


def level(priority: QueuePriority, minutes_best: float, order: Order, *, wait_s: float = 0.0) -> int:
    """The level 0..9 of a task, 0 first.

    `minutes_best` is its estimate in minutes on the capability that runs it fastest; an estimate that is no number
    counts as a long one. `wait_s` is how long it has waited, in seconds; only the weighted order looks at it.
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
    index = log2(int(priority) ** 2 * (1.0 + min(wait_s, _LONGEST_S) / _WAIT_DOUBLES_S) / (seconds + _HEAD_START_S))
    return 1 + min(max(floor(-index / _OCTAVES * 9), 0), 8)


def snap(level: int, steps: Sequence[int]) -> int:
    """The list that a message of this level is in, for a fleet that polls `steps`: as kombu computes it.

    kombu's rule takes the step below, and the last one of all where none is below. `steps` are sorted, not empty.
    """
    return steps[bisect(steps, level) - 1]


def common_steps(steps: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The steps in 0..9 that all the workers of a lane poll; all ten where there is no worker to say otherwise.

    Workers that share no step at all cannot be served together: then the one that most of them poll, the lowest of
    these, so that a message is never put where nobody looks.
    """
    polled = [frozenset(one).intersection(LEVELS) for one in steps]
    if not polled:
        return LEVELS
    common = frozenset.intersection(*polled)
    if common:
        return tuple(sorted(common))
    votes = Counter(step for one in polled for step in one)
    return (min(votes, key=lambda step: (-votes[step], step)),) if votes else LEVELS


def priority_of_level(level: int) -> QueuePriority:
    """The tier that a level stands for in strict order: for display, and for messages that carry no word."""
    return _TIER_OF_LEVEL[min(max(level, 0), 9)]


def parse_priority(word: str) -> QueuePriority:
    """A priority by its word, in any case. Raises ValueError that names the words."""
    try:
        return QueuePriority[word.strip().upper()]
    except KeyError:
        words = ", ".join(one.name for one in QueuePriority)
        raise ValueError(f"unknown priority {word!r}: use one of {words}") from None
