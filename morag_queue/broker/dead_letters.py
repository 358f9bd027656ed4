"""Dead letters: tasks that do not run again by themselves, because they failed or their workers died over them.

The latest 10,000 are kept, see dead_letter.lua. An operator retries or drops them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.model import TaskState
from morag_queue.core.recovery.breaker import QuarantinedTask

from .broken import BrokenValues, text_of
from .codec import DeadLetter, Story, read_dead_letter, write_story
from .keys import Keys
from .scripts import Call, Key, Script


@dataclass(frozen=True)
class ReviveCall(Call):
    SCRIPT: ClassVar = "revive"
    KEYS: ClassVar = ("dead", "graves", "attempts", "lanes", "ids", "tasks")

    list: Key
    task: Key
    task_id: str
    seen: bytes
    message: str
    record: str
    deaths: int
    story: str
    worker_lane: str


@dataclass(frozen=True)
class DroppedLetter:
    task: Key
    id: str


@dataclass(frozen=True)
class DropDeadCall(Call):
    SCRIPT: ClassVar = "drop_dead"
    KEYS: ClassVar = ("dead", "graves")

    retention: int
    letters: Sequence[DroppedLetter]


class DeadLetters:
    """The dead letters of one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float, broken: BrokenValues) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._broken = broken
        self._revive = Script(client, keys, ReviveCall)
        self._drop = Script(client, keys, DropDeadCall)

    def all(self) -> Iterator[DeadLetter]:
        """Yield all dead letters, the latest first."""
        key = self._keys.dead
        rows = self._broken.read(key, lambda: list(self._client.hscan_iter(key, count=1000)), ())
        found = [read_dead_letter(text_of(task_id), text) for task_id, text in rows]
        yield from sorted(found, key=lambda letter: (-letter.at, letter.task_id))

    def quarantined_since(self, at: float) -> list[QuarantinedTask]:
        """The tasks that were quarantined at that time (seconds since the epoch) or later."""
        ids: Any = self._client.zrangebyscore(self._keys.graves, at, "+inf")
        texts: Any = self._client.hmget(self._keys.dead, ids) if ids else []
        letters = [read_dead_letter(text_of(one), text) for one, text in zip(ids, texts, strict=True) if text]
        return [
            QuarantinedTask(letter.task_id, [(when, worker) for when, worker, _ in letter.story if when is not None])
            for letter in letters
            if letter.state is TaskState.QUARANTINED
        ]

    def get(self, task_id: str) -> DeadLetter | None:
        key = self._keys.dead
        text: Any = self._broken.read(key, lambda: self._client.hget(key, task_id), None)
        return read_dead_letter(task_id, text) if text else None

    def revive(
        self,
        letter: DeadLetter,
        text: str,
        record: str,
        lane: str,
        level: int,
        *,
        is_worker_lane: bool,
        story: Story,
    ) -> bool:
        """Queue the task again with `text` as its message. False if the letter has changed since it was read.

        `story` are the earlier attempts to keep.
        """
        call = ReviveCall(
            list=self._keys.list(lane, level), task=self._keys.task(letter.task_id), task_id=letter.task_id,
            seen=letter.text, message=text, record=record, deaths=len(story),
            story=write_story(story), worker_lane=lane if is_worker_lane else "",
        )  # fmt: skip
        return bool(self._revive(call))

    def drop(self, task_ids: Sequence[str]) -> int:
        """Drop dead letters and return their number. Their ledger records expire after the retention time."""
        letters = [DroppedLetter(self._keys.task(task_id), task_id) for task_id in task_ids]
        return int(self._drop(DropDeadCall(self._retention, letters)))
