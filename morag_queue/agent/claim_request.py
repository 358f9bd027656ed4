"""A worker's claim, encoded in advance except for the new delivery tag.

A busy worker claims for every task, with a key for each lane at each level: about a hundred words of Redis protocol
that are the same every time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from morag_queue.broker import scripts
from morag_queue.broker.keys import Keys
from morag_queue.core import lanes
from morag_queue.core.model import QueueType

_PLACES = {queue.value: place for place, queue in enumerate(QueueType)}


@dataclass(frozen=True)
class ClaimLane:
    """One lane that a worker reads; `is_own`: it is this worker's own lane."""

    name: str
    queue: str
    is_own: bool


@dataclass(frozen=True)
class ClaimCall(scripts.Call):
    """`lists` are level by level, and in each level lane by lane; `levels` are separated by blanks."""

    SCRIPT: ClassVar = "claim"
    KEYS: ClassVar = ("unacked", "unacked_index", "held", "cordons", "paused", "incarnations")

    tag: str
    worker: str
    incarnation: str
    levels: str
    lists: Sequence[scripts.Key]
    lanes: Sequence[ClaimLane]


def claim_call(
    worker: str, incarnation: str, lanes: Sequence[ClaimLane], levels: Sequence[int], keys: Keys, tag: str = ""
) -> ClaimCall:
    """A claim of lanes and levels, both in the order in which they are read."""
    lists = [keys.list(lane.name, level) for level in levels for lane in lanes]
    return ClaimCall(tag, worker, incarnation, " ".join(map(str, levels)), lists, lanes)


class ClaimRequest:
    """The claim of one incarnation of a worker; `queues` are Celery's, `levels` in the order in which they are read."""

    def __init__(self, worker: str, incarnation: str, queues: Iterable[str], levels: Sequence[int], keys: Keys) -> None:
        read = [claim_lane(name, worker) for name in sorted(queues, key=lambda name: _place(name, worker))]
        key_words, (_, *words) = claim_call(worker, incarnation, read, levels, keys).words(keys)
        before = [str(len(key_words)), *key_words]
        self._count = 2 + len(before) + 1 + len(words)
        self._before, self._after = _encoded(before), _encoded(words)

    def packed(self, tag: str, *, is_loaded: bool) -> bytes:
        """The command; with the script's text where the server may not have it yet."""
        command = ("EVALSHA", scripts.sha("claim")) if is_loaded else ("EVAL", scripts.source("claim"))
        return b"*%d\r\n%s%s%s%s" % (self._count, _encoded(command), self._before, _encoded([tag]), self._after)


def claim_lane(name: str, worker: str) -> ClaimLane:
    """The lane of a Celery queue; one that is no lane of ours is its own queue."""
    queue, owner = lanes.split(name)
    is_ours = queue in _PLACES
    return ClaimLane(name, queue if is_ours else name, is_own=is_ours and owner == worker)


def _place(name: str, worker: str) -> tuple[bool, int, str]:
    """Sorts the worker's own lanes first, then by the order of the queues; lanes that are not ours last."""
    queue = lanes.split(name)[0]
    return not claim_lane(name, worker).is_own, _PLACES.get(queue, len(_PLACES)), name


def _encoded(words: Iterable[scripts.Word]) -> bytes:
    encoded = (word.encode() if isinstance(word, str) else word for word in words)
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
