"""Values of our keys that cannot be read: the one policy for them.

Another program, another version or a hand may have written anything. A reader never raises for a value: it goes on
without it and adds it here. The command line prints what was added, `doctor` has a finding for it, `watch` logs it.

A key of another type reads as empty for verbs that only show. For all others it is an error before anything changes, if
decisions depend on it: a plan made without knowing what is held, paused or cordoned would be wrong.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from morag_queue.core.snapshot import BrokenValue
from morag_queue.core.words import count_of
from morag_queue.errors import BrokerError

from .codec import text_of
from .keys import Keys

_T = TypeVar("_T")

_SHOWN = 3
"""Values of each key that are kept; the others are counted."""

_LONGEST = 80
"""Characters of a field that are kept."""

_VALUES = {
    "workers": ("the registration cannot be read", "its agent writes it again after: HDEL {key} {field}"),
    "beats": ("the heartbeat cannot be read", "the next one replaces it; of a worker that is gone: HDEL {key} {field}"),
    "cordons": (
        "the cordon cannot be read, so the worker counts as cordoned",
        "to return it to service: morag-queue uncordon {field}",
    ),
    "held": ("the holder of the message cannot be read", "it is requeued once nothing keeps it: HDEL {key} {field}"),
    "totals": ("the counter is no number", "it counts again from zero after: HDEL {key} {field}"),
    "lease": ("the lease cannot be read", "the next leader replaces it: DEL {key}"),
    "pauses": ("the author of the pause cannot be read", "pause the queue again after: HDEL {key} {field}"),
    "memory": ("the state of balancing cannot be read", "the next turn of `watch` replaces it: DEL {key}"),
    "corrections": ("the learned run times cannot be read", "they are learned again after: DEL {key}"),
    "journal": ("the entry cannot be read", "to remove it: XDEL {key} {field}"),
}
"""By name of `Keys`: what is wrong with a value, and what repairs it."""

_DECIDING = ("workers", "beats", "cordons", "incarnations", "held", "paused", "lanes")

_TYPE_REMEDY = "another program uses this key: choose another database or `namespace`, or rename the key"


class BrokenValues:
    """What could not be read, of each key the first few values."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._found: dict[tuple[str, str], BrokenValue] = {}
        self._more: Counter[str] = Counter()

    def __iter__(self) -> Iterator[BrokenValue]:
        yield from self._found.values()
        for key, count in self._more.items():
            yield BrokenValue(key, "", f"{count_of(count, 'more value')} cannot be read", "see the values above")

    def value(self, name: str, field: bytes | str = "", key: str = "") -> None:
        """Add one value of the key that `Keys` calls `name`; `key` is the key itself where `Keys` has many of them."""
        reason, remedy = _VALUES[name]
        key, field = key or str(getattr(self._keys, name)), text_of(field)[:_LONGEST]
        found = BrokenValue(key, field, reason, remedy.format(key=key, field=field))
        if (key, field) in self._found:
            return
        if sum(known == key for known, _ in self._found) < _SHOWN:
            self._found[key, field] = found
        else:
            self._more[key] += 1

    def key(self, key: str, answer: Exception) -> None:
        """Add a key that has another type than ours. Raises the error of the server if it is another one."""
        if not is_wrong_type(answer):
            raise answer
        self._found[key, ""] = BrokenValue(key, "", "the key has another type than ours", _TYPE_REMEDY)

    def part(self, answer: _T | Exception, key: str, empty: Any = ()) -> _T:
        """Return the answer of one command of a script or pipeline: `empty` for a key of another type."""
        if isinstance(answer, Exception):
            self.key(key, answer)
            return empty  # type: ignore[no-any-return]
        return answer

    def read(self, key: str, function: Callable[[], _T], empty: Any) -> _T:
        """Return what the function reads of the key: `empty` for a key of another type."""
        from redis.exceptions import ResponseError

        try:
            return function()
        except ResponseError as error:
            return self.part(error, key, empty)

    def clear(self) -> None:
        """Forget what was found, so that a value that is repaired is not reported for ever."""
        self._found.clear()
        self._more.clear()

    def update(self, found: "BrokenValues") -> None:
        self._found |= found._found
        self._more |= found._more

    def refuse_wrong_types(self) -> None:
        """Raise BrokerError if a key that decisions depend on has another type."""
        deciding = {getattr(self._keys, name) for name in _DECIDING}
        for found in self._found.values():
            if found.remedy == _TYPE_REMEDY and found.key in deciding:
                raise BrokerError(f"{found}; nothing was changed by this step")


def is_wrong_type(error: Exception) -> bool:
    return "WRONGTYPE" in str(error)
