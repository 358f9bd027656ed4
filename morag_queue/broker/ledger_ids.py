"""Find tasks of the ledger by the beginning of their ids, without a scan of all keys; see `lua/lib/ids.lua`."""

from dataclasses import dataclass
from typing import ClassVar

from redis import Redis
from redis.exceptions import ResponseError

from .keys import Keys
from .scripts import Call, Script

_WINDOW = 5000
"""Ids per call: 1 ms of the server's time. Of 1,000,000 random ids, a list has 62,500."""

_BURST = 16
"""Calls in flight at once."""


@dataclass(frozen=True)
class FindIdsCall(Call):
    """`first` and `last` are indices."""

    SCRIPT: ClassVar = "find_ids"
    KEYS: ClassVar = ("ids", "tasks")

    beginning: str
    first: int
    last: int
    limit: int


class LedgerIds:
    """The ids of one fleet's ledger."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._lists = client, keys.ids("").encode()
        self._find = Script(client, keys, FindIdsCall)

    def starting(self, beginning: str, limit: int) -> set[str]:
        """Up to `limit` ids of open and ended tasks with that beginning (at least one character).

        Tasks that a version without the lists of ids has submitted are missing, and all where another program uses
        the key of the list.
        """
        try:
            length = self._client.llen(self._lists + beginning.encode()[:1])
        except ResponseError:
            return set()
        found: set[str] = set()
        starts = range(0, length, _WINDOW)
        for burst in range(0, len(starts), _BURST):
            pipe = self._client.pipeline(transaction=False)
            for start in starts[burst : burst + _BURST]:
                self._find(FindIdsCall(beginning, start, start + _WINDOW - 1, limit), pipe)
            found |= {task_id.decode(errors="replace") for answer in pipe.execute() for task_id in answer}
            if len(found) >= limit:
                break
        return found
