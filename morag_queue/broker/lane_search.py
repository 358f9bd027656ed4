"""Find tasks on the broker by id, and read lanes a window at a time: never a whole backlog for one answer."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from redis import Redis

from .codec import escaped, task_id_in, waiting_task
from .keys import Keys
from .scripts import Call, Key, Script

WINDOW = 1000
"""Messages per call: 2 ms of the server's time."""

_SEARCHED = 500
"""Messages per call that searches for one task: 1 ms of the server's time."""

_FIRST_WINDOW = 100
"""Size of the first window where a list is read in order: a page seldom needs more."""

_BURST = 16
"""Calls in flight at once."""

_ENDS = 4
"""Values before the tasks in the answer of find_tasks.lua."""

_NEAR = 100
"""Messages on each side of a place that are searched together."""

_WIDE = 2000
"""Messages on each side of the last place that are searched if the task is not where it should be."""

_GUESSES = 4
"""Places found by interpolation; then the part that is left is halved. A steady stream of tasks takes one or two."""

_PROBES = 20
"""Places at most: halving takes 13 in a list of 1,000,000."""

REACH = 100_000
"""Redis walks to a place from the nearer end of its list, 10 to 30 ns a message: this far in 1 to 2 ms."""


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


class _Point(NamedTuple):
    """A depth in a list, and how much later than the wanted task its message was queued, in seconds."""

    depth: int
    later: float


class _Bracket:
    """The part of a list in which a task must be, by its enqueue time; the depths at both ends are excluded."""

    def __init__(self, length: int) -> None:
        self._low, self._high = _Point(0, -math.inf), _Point(length + 1, math.inf)
        self._last_side = 0

    def narrow(self, points: Sequence[_Point]) -> bool:
        """Use these points; False if they exclude nothing more."""
        low = max((self._low, *(point for point in points if point.later < 0)))
        high = min((self._high, *(point for point in points if point.later > 0)))
        below, above = low.depth > self._low.depth, high.depth < self._high.depth
        side = above - below
        # The Illinois rule: an end that stays a second time counts half, so that the next place lies nearer to it.
        if side and side == self._last_side:
            low = low if below else _Point(low.depth, low.later / 2)
            high = high if above else _Point(high.depth, high.later / 2)
        self._low, self._high, self._last_side = low, high, side
        return (below or above) and high.depth - low.depth > 1

    def place(self, *, halve: bool = False) -> int:
        """The probable depth, or the middle."""
        (low, before), (high, after) = self._low, self._high
        if halve or math.isinf(before) or math.isinf(after):
            return (low + high) // 2
        return low + round((high - low) * -before / (after - before))


class LaneSearch:
    """Searches the lists of one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._find = Script(client, keys, FindTasksCall)
        self._find_marked = Script(client, keys, FindMarkedCall)

    def by_id(self, task_id: str, lane: str, level: int, length: int, enqueued_at: float) -> WaitingMessage | None:
        """Search one list where the enqueue time suggests: a list is nearly in that order."""
        bracket, places = _Bracket(length), [1, length]
        for probe in range(_PROBES):
            found, ends = self._near(task_id, lane, level, places)
            if found is not None:
                return found
            if not bracket.narrow([_Point(depth, at - enqueued_at) for depth, at in ends]):
                break  # it is not there, or many were queued at that very time
            places = [bracket.place(halve=probe >= _GUESSES)]
        wide = range(max(places[0] - _WIDE, 1), min(places[0] + _WIDE, length), 2 * _NEAR)
        return self._near(task_id, lane, level, wide)[0]

    def probable_depth(self, lane: str, level: int, length: int, enqueued_at: float) -> int | None:
        """Where in a long list a message of that enqueue time is; None if it may be within `REACH` of an end.

        Bursts in the part between make this an estimate.
        """
        if length <= 2 * REACH:
            return None
        key, times = self._keys.list(lane, level), list[float | None]()
        for raw in (self._client.lindex(key, -REACH), self._client.lindex(key, REACH - length)):
            task = waiting_task(raw, lane, level) if raw is not None else None
            times.append(task.enqueued_at if task is not None else None)
        before, after = times
        if before is None or after is None or not before < enqueued_at < after:
            return None
        return REACH + round((length - 2 * REACH) * (enqueued_at - before) / (after - before))

    def _near(
        self, task_id: str, lane: str, level: int, depths: Iterable[int]
    ) -> tuple[WaitingMessage | None, list[tuple[int, float]]]:
        """Search around these depths: the task, or the ends of the parts that were searched: (depth, queued at)."""
        pipe, key = self._client.pipeline(transaction=False), self._keys.list(lane, level)
        for depth in depths:
            first, last = -depth - _NEAR, min(-depth + _NEAR, -1)
            self._find(_find_call(key, task_id, first, last, whole=True, limit=1), pipe)
        ends: list[tuple[int, float]] = []
        for deepest, deepest_at, nearest, nearest_at, *found in pipe.execute():
            if found:
                return WaitingMessage(lane, level, -found[0][0], found[0][1]), ends
            ends += ((-index, float(at)) for index, at in ((deepest, deepest_at), (nearest, nearest_at)) if at)
        return None, ends

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
        self, beginning: str, lists: Iterable[tuple[str, int, int]], *, whole: bool, limit: int, near_ends: bool = False
    ) -> list[WaitingMessage]:
        """Search lists of (lane, level, length), in that order, until `limit` tasks are found.

        `near_ends` leaves out what is farther than `REACH` from both ends of its list, see `unreached`.
        """
        found: list[WaitingMessage] = []
        for lane, level, length in lists:
            key = self._keys.list(lane, level)
            starts = [
                start
                for start in range(-length, 0, _SEARCHED)
                if not near_ends or start + _SEARCHED > -REACH or start < REACH - length
            ]
            for first in range(0, len(starts), _BURST):
                pipe = self._client.pipeline(transaction=False)
                for start in starts[first : first + _BURST]:
                    last = min(start + _SEARCHED - 1, -1)
                    self._find(_find_call(key, beginning, start, last, whole=whole, limit=limit), pipe)
                for answer in pipe.execute():
                    found += (WaitingMessage(lane, level, -index, raw) for index, raw in answer[_ENDS:])
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


def unreached(lengths: Iterable[int]) -> int:
    """The number of messages in lists of these lengths that are farther than `REACH` from both ends."""
    return sum(max(length - 2 * REACH, 0) for length in lengths)
