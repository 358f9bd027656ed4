"""A worker's question for work, ready to be sent but for the new delivery tag.

A busy worker asks for every task, with a key for each lane at each level: a hundred words to put into Redis' protocol,
which are the same every time.
"""

from collections.abc import Iterable, Sequence

from morag_queue.broker import scripts
from morag_queue.broker.keys import Keys
from morag_queue.core import lanes
from morag_queue.core.model import QueueType

_PLACES = {queue.value: place for place, queue in enumerate(QueueType)}


class ClaimRequest:
    """What one incarnation of a worker sends for these Celery queues; `levels` in the order in which they are taken."""

    def __init__(self, worker: str, incarnation: str, queues: Iterable[str], levels: Sequence[int], keys: Keys) -> None:
        ordered = sorted(_described(name, worker) for name in queues)
        names = [name for _, _, name, _ in ordered]
        fixed = (keys.unacked, keys.unacked_index, keys.held, keys.cordons, keys.paused, keys.incarnations)
        lists = [keys.list(name, level) for level in levels for name in names]
        described = [word for other, _, name, queue in ordered for word in (name, queue, "" if other else "1")]
        before = [str(len(fixed) + len(lists)), *fixed, *lists, worker, incarnation]
        after = [str(len(names)), *described, *map(str, levels)]
        self._count = 2 + len(before) + 1 + len(after)
        self._before, self._after = _encoded(before), _encoded(after)

    def asked(self, tag: str, *, is_loaded: bool) -> bytes:
        """The command; with the script's text where the server may not know it yet."""
        command = ("EVALSHA", scripts.sha("claim")) if is_loaded else ("EVAL", scripts.source("claim"))
        return b"*%d\r\n%s%s%s%s" % (self._count, _encoded(command), self._before, _encoded([tag]), self._after)


def _described(name: str, worker: str) -> tuple[bool, int, str, str]:
    """Sorts as the lanes are read: own lanes first, then in the order of the queues; lanes of no queue of ours last."""
    queue, owner = lanes.split(name)
    is_own = owner == worker and queue in _PLACES
    return not is_own, _PLACES.get(queue, len(_PLACES)), name, queue if queue in _PLACES else name


def _encoded(words: Iterable[str]) -> bytes:
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in (word.encode() for word in words))
