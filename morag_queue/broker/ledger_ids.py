"""Find tasks of the ledger by the beginning of their ids, without a scan of all keys; see `lua/lib/ids.lua`."""

from dataclasses import dataclass
from typing import ClassVar

from redis import Redis

from .keys import Keys
from .scripts import Call, Script

_WINDOW = 5000
"""Ids per call: 1 ms of the server's time. Of 1,000,000 random ids, a list has 3,900."""

_BURST = 16
"""Calls in flight at once."""


@dataclass(frozen=True)
class FindIdsCall(Call):
    """`first` and `last` are indices."""

    SCRIPT: ClassVar = "find_ids"
    KEYS: ClassVar = ("ids", "tasks")

    list: bytes
    rest: bytes
    first: int
    last: int
    limit: int


class LedgerIds:
    """The ids of one fleet's ledger."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._prefix = client, keys.ids("").encode()
        self._find = Script(client, keys, FindIdsCall)

    def starting(self, beginning: str, limit: int) -> set[str]:
        """The ids of open and ended tasks with that beginning; of more than `limit`, at least that number.

        Tasks that a version without the lists of ids has submitted are missing.
        """
        text = beginning.encode()
        calls = [
            FindIdsCall(first, text[2:], start, start + _WINDOW - 1, limit)
            for first, length in self._lists(text[:2])
            for start in range(0, length, _WINDOW)
        ]
        found: set[str] = set()
        for part in range(0, len(calls), _BURST):
            pipe = self._client.pipeline(transaction=False)
            for call in calls[part : part + _BURST]:
                self._find(call, pipe)
            found |= {task_id.decode(errors="replace") for answer in pipe.execute() for task_id in answer}
            if len(found) >= limit:
                break
        return found

    def _lists(self, first: bytes) -> list[tuple[bytes, int]]:
        """The two bytes of each list that has such ids, and its length; a key of another type has none."""
        names = [first] if len(first) == 2 else [first, *(first + bytes([second]) for second in range(256))]
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.llen(self._prefix + name)
        lengths = pipe.execute(raise_on_error=False)
        return [(name, length) for name, length in zip(names, lengths, strict=True) if isinstance(length, int)]
