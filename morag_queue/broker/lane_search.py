"""Find tasks on the broker by id, and read lanes a window at a time: never a whole backlog for one answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from redis import Redis

from .codec import escaped, task_id_in
from .keys import Keys
from .scripts import Call, Key, Script

WINDOW = 1000
"""Messages per call: 2 ms of the server's time."""

_FIRST_WINDOW = 100
"""Size of the first window where a list is read in order: a page seldom needs more."""

_BURST = 16
"""Calls in flight at once."""

_NEAR = (100, 2000)
"""Messages on each side of the guessed place that are searched first, and then."""


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message in a lane; `depth` 1 is the next to run."""

    lane: str
    level: int
    depth: int
    raw: bytes


@dataclass(frozen=True)
class FindTasksCall(Call):
    """`first` and `last` are indices from the end where the next to run is (-1)."""

    SCRIPT: ClassVar = "find_tasks"

    list: Key
    needle: str
    id: str
    is_whole: bool
    first: int
    last: int
    limit: int


@dataclass(frozen=True)
class FindMarkedCall(Call):
    """As `FindTasksCall`."""

    SCRIPT: ClassVar = "find_marked"

    list: Key
    needle: str
    first: int
    last: int


@dataclass(frozen=True)
class GuessIndexCall(Call):
    SCRIPT: ClassVar = "guess_index"

    list: Key
    enqueued_at: float


class LaneSearch:
    """Searches the lists of one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._find = Script(client, keys, FindTasksCall)
        self._find_marked = Script(client, keys, FindMarkedCall)
        self._guess = Script(client, keys, GuessIndexCall)

    def by_id(self, task_id: str, lane: str, level: int, enqueued_at: float) -> WaitingMessage | None:
        """Search one list around the place that the enqueue time suggests."""
        key = self._keys.list(lane, level)
        index = int(self._guess(GuessIndexCall(key, enqueued_at)))
        for near in _NEAR:
            found = self._find(_find_call(key, task_id, index - near, min(index + near, -1), whole=True, limit=1))
            if found:
                return WaitingMessage(lane, level, -found[0][0], found[0][1])
        return None

    def by_ids(self, task_ids: Iterable[str], lists: Iterable[tuple[str, int, int]]) -> dict[str, WaitingMessage]:
        """Find many tasks in one pass through the lists, which ends when all are found."""
        wanted, found = set(task_ids), dict[str, WaitingMessage]()
        for lane, level, length in lists:
            for window in self.windows(lane, level, length, first=WINDOW):
                for message in window:
                    task_id = task_id_in(message.raw)
                    if task_id in wanted:
                        found.setdefault(task_id, message)
                if len(found) == len(wanted):
                    return found
        return found

    def by_beginning(
        self, beginning: str, lists: Iterable[tuple[str, int, int]], *, whole: bool, limit: int
    ) -> list[WaitingMessage]:
        """Search lists of (lane, level, length), in that order, until `limit` tasks are found."""
        found: list[WaitingMessage] = []
        for lane, level, length in lists:
            key = self._keys.list(lane, level)
            starts = list(range(-length, 0, WINDOW))
            for first in range(0, len(starts), _BURST):
                pipe = self._client.pipeline(transaction=False)
                for start in starts[first : first + _BURST]:
                    last = min(start + WINDOW - 1, -1)
                    self._find(_find_call(key, beginning, start, last, whole=whole, limit=limit), pipe)
                for answer in pipe.execute():
                    found += (WaitingMessage(lane, level, -index, raw) for index, raw in answer)
                if len(found) >= limit:
                    return found[:limit]
        return found

    def marked(self, text: str, lane: str, level: int, length: int) -> list[WaitingMessage]:
        """The messages of one list that contain the JSON string `text`, next to run first.

        The server searches them: only the messages found travel. 200,000 messages take half a second.
        """
        key, needle = self._keys.list(lane, level), f'"{escaped(text)}"'
        found: dict[bytes, WaitingMessage] = {}  # one that moves up while windows are read may be found twice
        starts = range(-length, 0, WINDOW)
        for first in range(0, len(starts), _BURST):
            pipe = self._client.pipeline(transaction=False)
            for start in starts[first : first + _BURST]:
                self._find_marked(FindMarkedCall(key, needle, start, min(start + WINDOW - 1, -1)), pipe)
            for answer in pipe.execute():
                found |= {raw: WaitingMessage(lane, level, -index, raw) for index, raw in answer}
        return sorted(found.values(), key=lambda message: message.depth)

    def read(
        self, lane: str, level: int, length: int, *, newest: bool = False, window: int = 250
    ) -> Iterator[WaitingMessage]:
        """The messages of one list, next to run first or newest first; read lazily."""
        for part in self.windows(lane, level, length, newest=newest, first=window):
            yield from part

    def windows(
        self, lane: str, level: int, length: int, *, newest: bool = False, first: int = _FIRST_WINDOW
    ) -> Iterator[list[WaitingMessage]]:
        """As `read`, by windows: a small one first, then larger ones."""
        key = self._keys.list(lane, level)
        start, size = 0, first
        while start < length:
            size = min(size, length - start)
            chunk: Sequence[bytes]
            if newest:
                chunk = self._client.lrange(key, start, start + size - 1)  # type: ignore[assignment]
                yield [WaitingMessage(lane, level, length - start - n, raw) for n, raw in enumerate(chunk)]
            else:
                chunk = self._client.lrange(key, -start - size, -start - 1)  # type: ignore[assignment]
                yield [WaitingMessage(lane, level, start + 1 + n, raw) for n, raw in enumerate(reversed(chunk))]
            start += size
            size = max(first, WINDOW)


def _find_call(key: str, beginning: str, first: int, last: int, *, whole: bool, limit: int) -> FindTasksCall:
    return FindTasksCall(key, escaped(beginning), id=beginning, is_whole=whole, first=first, last=last, limit=limit)
