"""Finding tasks on the broker by id, and reading lanes a window at a time: never a whole backlog for one answer."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from redis import Redis

from . import scripts
from .codec import task_id_in
from .keys import Keys

WINDOW = 1000
"""Messages looked at a call: 2 ms of the server's time."""


_FIRST_WINDOW = 100
"""Messages that are read first where a list is read in order: a page seldom needs more."""


_BURST = 16
"""Calls on their way at once."""


_NEAR = (100, 2000)
"""Messages around the place where a task should be that are looked at first, and then."""


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message in a lane; `depth` counts from the end where the next to run is, which has 1."""

    lane: str
    level: int
    depth: int
    raw: bytes


class LaneSearch:
    """Reads lists of one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._find = scripts.script(client, "find")
        self._guess = scripts.script(client, "guess")

    def by_id(self, task_id: str, lane: str, level: int, enqueued_at: float) -> WaitingMessage | None:
        """Where the ledger says it is, near the place where its enqueue time says."""
        key = self._keys.list(lane, level)
        depth = -int(self._guess(keys=[key], args=[repr(enqueued_at)]))
        for near in _NEAR:
            around = (-depth - near, min(-depth + near, -1))
            found = self._find(keys=[key], args=[*_wanted(task_id, whole=True), *around, 1])
            if found:
                return WaitingMessage(lane, level, -found[0][0], found[0][1])
        return None

    def by_ids(self, task_ids: Iterable[str], lists: Iterable[tuple[str, int, int]]) -> dict[str, WaitingMessage]:
        """Many at once: one way through the lists, until all are found."""
        wanted, found = set(task_ids), dict[str, WaitingMessage]()
        for lane, level, length in lists:
            for window in self.windows(lane, level, length, first=WINDOW):
                for one in window:
                    name = task_id_in(one.raw)
                    if name in wanted:
                        found.setdefault(name, one)
                if len(found) == len(wanted):
                    return found
        return found

    def by_beginning(
        self, beginning: str, lists: Iterable[tuple[str, int, int]], *, whole: bool, limit: int
    ) -> list[WaitingMessage]:
        """Looks through lists of (lane, level, length), in that order, until `limit` tasks are found."""
        found: list[WaitingMessage] = []
        wanted = _wanted(beginning, whole=whole)
        for lane, level, length in lists:
            key = self._keys.list(lane, level)
            starts = list(range(-length, 0, WINDOW))
            for first in range(0, len(starts), _BURST):
                pipe = self._client.pipeline(transaction=False)
                for start in starts[first : first + _BURST]:
                    self._find(keys=[key], args=[*wanted, start, min(start + WINDOW - 1, -1), limit], client=pipe)
                for answer in pipe.execute():
                    found += (WaitingMessage(lane, level, -index, raw) for index, raw in answer)
                if len(found) >= limit:
                    return found[:limit]
        return found

    def read(
        self, lane: str, level: int, length: int, *, newest: bool = False, window: int = 250
    ) -> Iterator[WaitingMessage]:
        """The messages of one list, next to run first or newest first; what is not consumed is not read."""
        for part in self.windows(lane, level, length, newest=newest, first=window):
            yield from part

    def windows(
        self, lane: str, level: int, length: int, *, newest: bool = False, first: int = _FIRST_WINDOW
    ) -> Iterator[list[WaitingMessage]]:
        """As `read`, by windows: a small one at the beginning, and then larger ones."""
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

    def ledger_ids(self, beginning: str, limit: int) -> list[str]:
        """Ids in the ledger that begin so, open and ended ones. Costs by the ledger's size: 0.3 µs an entry."""
        prefix = self._keys.task("")
        pattern = prefix.translate(_GLOB) + beginning.translate(_GLOB) + "*"
        found = []
        for key in self._client.scan_iter(match=pattern, count=10_000, _type="string"):
            found.append(key.decode(errors="replace").removeprefix(prefix))
            if len(found) >= limit:
                break
        return found


_GLOB = {ord(sign): f"\\{sign}" for sign in "*?[]\\"}


def _wanted(beginning: str, *, whole: bool) -> list[str]:
    return [json.dumps(beginning)[1:-1], beginning, "1" if whole else ""]
