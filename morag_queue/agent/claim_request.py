"""A worker's requests to claim and to wait, encoded in advance except for the few words that change.

A busy worker claims for every task, with dozens of words of Redis protocol that are the same every time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

from morag_queue.broker import scripts
from morag_queue.broker.keys import Keys
from morag_queue.core import lanes
from morag_queue.core.enums import QueueType

_PLACES = {queue.value: place for place, queue in enumerate(QueueType)}


@dataclass(frozen=True)
class ClaimLane:
    """One lane that a worker reads; `is_own`: it is this worker's own lane."""

    name: str
    queue: str
    is_own: bool


@dataclass(frozen=True)
class ClaimCall(scripts.Call):
    """Lanes and `levels`, which are separated by blanks, are in the order in which they are read.

    `before` are the levels before that of the worker's last message: most likely nothing waits there.
    """

    SCRIPT: ClassVar = "claim"
    KEYS: ClassVar = ("unacked", "unacked_index", "held", "cordons", "paused", "incarnations", "bells")

    waiting: scripts.Key
    tracker: scripts.Key
    tag: str
    waits: bool
    before: str
    worker: str
    incarnation: str
    prefix: str
    sep: str
    levels: str
    lanes: Sequence[ClaimLane]


@dataclass(frozen=True)
class WaitCall(scripts.Call):
    """`lists` are those of the worker's `own` lanes, by their number, then those of the shared lanes."""

    SCRIPT: ClassVar = "wait"

    waiting: scripts.Key
    tracker: scripts.Key
    bell: scripts.Key
    worker: str
    own: int
    own_left: int
    shared_left: int
    lists: Sequence[scripts.Key]


def claim_call(
    worker: str, incarnation: str, lanes: Sequence[ClaimLane], levels: Sequence[int], keys: Keys, tag: str = "",
    *, waits: bool = False, before: str = "",
) -> ClaimCall:  # fmt: skip
    """A claim of lanes and levels, both in the order in which they are read."""
    group = group_of(lanes)
    return ClaimCall(
        keys.waiting(group), keys.tracker(group), tag, waits, before, worker, incarnation, keys.prefix, keys.sep,
        " ".join(map(str, levels)), lanes,
    )  # fmt: skip


def wait_call(
    worker: str, lanes: Sequence[ClaimLane], levels: Sequence[int], keys: Keys, *, own_left: int = 0,
    shared_left: int = 0, shared: bool = True,
) -> WaitCall:  # fmt: skip
    """Wait for work on these lanes; without `shared`, on the worker's own ones alone."""
    own = [keys.list(lane.name, level) for lane in lanes if lane.is_own for level in levels]
    others = [keys.list(lane.name, level) for lane in lanes if not lane.is_own for level in levels if shared]
    group = group_of(lanes)
    return WaitCall(
        keys.waiting(group), keys.tracker(group), keys.bell(worker), worker, len(own), own_left, shared_left,
        [*own, *others],
    )  # fmt: skip


def group_of(lanes: Iterable[ClaimLane]) -> str:
    """The name of all workers that read the same shared lanes."""
    return ",".join(sorted(lane.name for lane in lanes if not lane.is_own))


def packed(call: scripts.Call, keys: Keys) -> bytes:
    """A call of a script that the server is expected to have."""
    names, args = call.words(keys)
    words = [str(len(names)), *names, *args]
    return b"*%d\r\n%s%s" % (2 + len(words), _called(call.SCRIPT, True), _encoded(words))


class Requests:
    """The requests of one incarnation of a worker; `queues` are Celery's, `levels` in the order in which they are read.

    A script is sent by its digest, and by its text where the server does not have it.
    """

    def __init__(self, worker: str, incarnation: str, queues: Iterable[str], levels: Sequence[int], keys: Keys) -> None:
        self._lanes = [claim_lane(name, worker) for name in sorted(queues, key=lambda name: _place(name, worker))]
        self._worker, self._levels, self._keys = worker, levels, keys
        keys_of, (_, _, _, *words) = claim_call(worker, incarnation, self._lanes, levels, keys).words(keys)
        before = [str(len(keys_of)), *keys_of]
        self._count = 2 + len(before) + 3 + len(words)
        self._before_last = ""
        self._before, self._after = _encoded(before), _encoded(words)
        self._wait = {shared: self._wait_words(shared) for shared in (True, False)}

    def claim(self, tag: str, *, waits: bool, is_loaded: bool) -> bytes:
        """Claim a message under that tag; `waits`: the worker has been waiting since its last claim."""
        changing = _encoded([tag, "1" if waits else "0", self._before_last])
        return b"*%d\r\n%s%s%s%s" % (self._count, _called("claim", is_loaded), self._before, changing, self._after)

    def took(self, level: int) -> None:
        """The last message was of that level: most likely the next one is, too."""
        self._before_last = " ".join(str(one) for one in takewhile(lambda one: one != level, self._levels))

    def wait(self, own_left: int, shared_left: int, *, shared: bool, is_loaded: bool) -> bytes:
        """Wait for work; without `shared`, on the worker's own lanes alone. There are two answers."""
        count, words = self._wait[shared]
        left = _encoded([str(own_left), str(shared_left)])
        return b"%s*%d\r\n%s%s%s" % (_TRACK_NEXT, count, _called("wait", is_loaded), words, left)

    def _wait_words(self, shared: bool) -> tuple[int, bytes]:
        keys, args = wait_call(self._worker, self._lanes, self._levels, self._keys, shared=shared).words(self._keys)
        words = [str(len(keys)), *keys, *args]
        return 2 + len(words), _encoded(words[:-2])


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


def _called(script: str, is_loaded: bool) -> bytes:
    return _encoded(("EVALSHA", scripts.sha(script)) if is_loaded else ("EVAL", scripts.source(script)))


_TRACK_NEXT = b"*3\r\n%s" % _encoded(["CLIENT", "CACHING", "YES"])
"""The server tracks what the next command reads, and no other."""
