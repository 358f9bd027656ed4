"""The dead: tasks that are not run again unasked. Failed for good, or taken back from dead workers too often.

The latest 10,000 are kept, see grave.lua; a person decides what becomes of them.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from redis import Redis

from . import scripts
from .codec import DeadLetter, read_dead_letter
from .keys import Keys


class DeadLetters:
    """The graves of one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float = 3600) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._revive = scripts.script(client, "revive")
        self._drop = scripts.script(client, "drop")

    def all(self) -> Iterator[DeadLetter]:
        """Every grave, the latest first."""
        rows = self._client.hscan_iter(self._keys.dead, count=1000)
        found = [read_dead_letter(task_id.decode(), text) for task_id, text in rows]
        yield from sorted(found, key=lambda one: (-one.at, one.task_id))

    def get(self, task_id: str) -> DeadLetter | None:
        text: Any = self._client.hget(self._keys.dead, task_id)
        return read_dead_letter(task_id, text) if text else None

    def revive(
        self,
        grave: DeadLetter,
        text: str,
        record: str,
        lane: str,
        level: int,
        *,
        is_worker_lane: bool,
        story: Sequence[Any],
    ) -> bool:
        """Queues it again; `story` is what its attempts go on from. False when somebody else has been here first."""
        k = self._keys
        keys = [k.dead, k.graves, k.attempts, k.list(lane, level), k.task(grave.task_id), k.lanes]
        told = json.dumps(list(story)) if story else ""
        to = lane if is_worker_lane else ""
        return bool(self._revive(keys=keys, args=[grave.task_id, grave.text, text, record, len(story), told, to]))

    def drop(self, task_ids: Sequence[str]) -> int:
        """Forgets them; how many there were. The ledger forgets them too, after the retention time."""
        keys = [self._keys.dead, self._keys.graves, *map(self._keys.task, task_ids)]
        return int(self._drop(keys=keys, args=[self._retention, *task_ids]))
