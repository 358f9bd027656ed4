"""What each change did, for its undo: recorded on the server by the script that makes the change, in the same step.

A change of 100,000 tasks is too much for one journal entry, and for a client's memory. So each call of a script appends
one part to the list of the change: what it found of each task, and the items that the client sent along, compressed.
The list expires with the ledger's records of ended tasks.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from .keys import Keys

if TYPE_CHECKING:
    from redis import Redis

_WINDOW = 50
"""Parts per call: up to 250 tasks each, compressed to a tenth."""

UndoItem = Mapping[str, Any]
"""A task before and after the change, as JSON."""


@dataclass(frozen=True, slots=True)
class DoneItem:
    """One task that was changed: its item, and what the script found of it."""

    item: UndoItem
    found: Any

    @property
    def place(self) -> int | None:
        """The depth at which the message was in its list; None for a task without one."""
        place = self.found[0] if isinstance(self.found, list) and self.found else None
        return place if isinstance(place, int) else None


def packed(items: Sequence[UndoItem | None]) -> bytes:
    """Compress the items of one call; messages of one kind differ little."""
    return zlib.compress(json.dumps(items, separators=(",", ":")).encode(), 1)


class UndoRecords:
    """The records of all changes of one fleet."""

    def __init__(self, client: "Redis", keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))

    def append(self, change_id: str, items: Sequence[UndoItem]) -> None:
        """Record tasks that were changed otherwise than by a script."""
        key = self._keys.undo(change_id)
        self._client.rpush(key, json.dumps([True] * len(items)).encode() + b"\n" + packed(items))
        self._client.expire(key, self._retention)

    def done(self, change_id: str) -> Iterator[DoneItem]:
        """Yield the tasks that were changed, the last call first."""
        key = self._keys.undo(change_id)
        last = -1
        while parts := self._parts(key, last):
            for part in reversed(parts):
                yield from _read(part)
            last -= len(parts)

    def exists(self, change_id: str) -> bool:
        return bool(change_id) and bool(self._client.llen(self._keys.undo(change_id)))

    def first(self, change_id: str, limit: int) -> list[DoneItem]:
        """Return up to `limit` of the tasks that were changed."""
        return list(islice(self.done(change_id), limit))

    def _parts(self, key: str, last: int) -> list[bytes]:
        parts: list[bytes] = self._client.lrange(key, last - _WINDOW + 1, last)  # type: ignore[assignment]
        return parts


def _read(part: bytes) -> list[DoneItem]:
    """Read one part; the script may have ended before the last items. A broken part has none.

    Messages of a list come in its order: put back one after the other, each is where it was before the call.
    """
    head, _, body = part.partition(b"\n")
    try:
        found, items = json.loads(head), json.loads(zlib.decompress(body))
    except (ValueError, zlib.error, RecursionError):
        return []
    done = [DoneItem(item, one) for one, item in zip(found, items, strict=False) if one and isinstance(item, dict)]
    return sorted(done, key=lambda one: one.place or 0)
