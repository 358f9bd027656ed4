"""Dead letters: tasks that do not run again by themselves, because they failed or their workers died over them.

The latest 10,000 are kept, see dead_letter.lua. An operator retries or drops them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.lanes import split
from morag_queue.core.model import TaskState
from morag_queue.core.recovery.breaker import QuarantinedTask

from .broken import BrokenValues
from .codec import DeadLetter, read_dead_letter, text_of
from .keys import Keys
from .scripts import Call, Key, Script
from .undo import UndoItem, packed

_CHUNK = 20
"""Tasks per call: about 1 ms of the server's time."""


@dataclass(frozen=True, slots=True)
class Restart:
    """An ended task that is queued again: its message and its new record ("" for none).

    `letter` and `seen` are its dead letter and its record as they were read, "" for none: if they have changed since,
    nothing is done. `story` and `deaths` are the earlier attempts to keep. `place` and `undo` as for `LaneEdit`.
    """

    task_id: str
    lane: str
    level: int
    message: str
    record: str
    letter: bytes | str = ""
    seen: str = ""
    story: str = ""
    deaths: int = 0
    place: int | None = None
    undo: UndoItem | None = None


@dataclass(frozen=True)
class RestartedTask:
    """One task of a call; `worker_lane` is the lane it goes to where that is a worker's, else ''."""

    list: Key
    task: Key
    task_id: str
    letter: bytes | str
    seen: str
    message: str
    place: int | None
    record: str
    deaths: int
    story: str
    worker_lane: str


@dataclass(frozen=True)
class ReviveCall(Call):
    SCRIPT: ClassVar = "revive"
    KEYS: ClassVar = ("dead", "graves", "attempts", "lanes", "ids", "tasks")

    undo: Key
    retention: int
    items: bytes
    restarts: Sequence[RestartedTask]


@dataclass(frozen=True)
class DroppedLetter:
    task: Key
    id: str


@dataclass(frozen=True)
class DropDeadCall(Call):
    SCRIPT: ClassVar = "drop_dead"
    KEYS: ClassVar = ("dead", "graves")

    undo: Key
    retention: int
    items: bytes
    letters: Sequence[DroppedLetter]


@dataclass(frozen=True)
class RestoredLetter:
    """A letter that was dropped; `at` is its score in `graves`, as Redis writes it."""

    task: Key
    id: str
    at: str
    text: str


@dataclass(frozen=True)
class RestoreDeadCall(Call):
    SCRIPT: ClassVar = "restore_dead"
    KEYS: ClassVar = ("dead", "graves")

    undo: Key
    retention: int
    items: bytes
    letters: Sequence[RestoredLetter]


class DeadLetters:
    """The dead letters of one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float, broken: BrokenValues | None = None) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._broken = broken or BrokenValues(keys)
        self._revive = Script(client, keys, ReviveCall)
        self._drop = Script(client, keys, DropDeadCall)
        self._restore = Script(client, keys, RestoreDeadCall)

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

    def among(self, task_ids: Iterable[str]) -> set[str]:
        """Return those of these tasks that are in `dead`."""
        ids = list(task_ids)
        texts: Any = self._client.hmget(self._keys.dead, ids) if ids else []
        return {task_id for task_id, text in zip(ids, texts, strict=True) if text}

    def restart(self, restarts: Sequence[Restart], change_id: str = "") -> list[bool]:
        """Queue ended tasks again, in this order. False for each that has changed since it was read.

        With `change_id` they are recorded for the undo of that change.
        """
        done: list[bool] = []
        while len(done) < len(restarts):
            part = restarts[len(done) : len(done) + _CHUNK]
            items = packed([one.undo for one in part]) if change_id else b""
            tasks = [self._restarted(one) for one in part]
            done += map(bool, self._revive(ReviveCall(self._keys.undo(change_id), self._retention, items, tasks)))
        return done

    def _restarted(self, one: Restart) -> RestartedTask:
        return RestartedTask(
            list=self._keys.list(one.lane, one.level), task=self._keys.task(one.task_id), task_id=one.task_id,
            letter=one.letter, seen=one.seen, message=one.message, place=one.place, record=one.record,
            deaths=one.deaths, story=one.story, worker_lane=one.lane if split(one.lane)[1] is not None else "",
        )  # fmt: skip

    def drop(self, task_ids: Sequence[str], change_id: str = "") -> list[bool]:
        """Drop dead letters; False where there was none. Their ledger records expire after the retention time.

        With `change_id` they are kept for the undo of that change.
        """
        done: list[bool] = []
        for start in range(0, len(task_ids), _CHUNK):
            part = task_ids[start : start + _CHUNK]
            items = packed([{"id": one, "outcome": "dropped"} for one in part]) if change_id else b""
            letters = [DroppedLetter(self._keys.task(task_id), task_id) for task_id in part]
            done += map(bool, self._drop(DropDeadCall(self._keys.undo(change_id), self._retention, items, letters)))
        return done

    def restore(self, letters: Sequence[tuple[str, str, str]], change_id: str) -> list[bool]:
        """Put letters back: (task id, since when it was dead, text). False where the task has a newer state."""
        done: list[bool] = []
        for start in range(0, len(letters), _CHUNK):
            part = letters[start : start + _CHUNK]
            items = packed([{"id": task_id, "outcome": "restored"} for task_id, _, _ in part])
            restored = [RestoredLetter(self._keys.task(task_id), task_id, at, text) for task_id, at, text in part]
            call = RestoreDeadCall(self._keys.undo(change_id), self._retention, items, restored)
            done += map(bool, self._restore(call))
        return done
