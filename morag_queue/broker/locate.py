"""Where one task is: its ledger entry, its message, who holds it, its grave; whatever there is of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import Held, TaskState
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task

from . import message as messages
from .keys import Keys
from .search import Search, Waiting

CANDIDATES = 10
"""How many tasks of one beginning are looked for: enough to say that it is ambiguous, and with what."""


@dataclass(frozen=True, slots=True)
class Found:
    """One task and what is known of it. `raw` is its message's text, where there is one; `tag` where it is held."""

    task: Task
    raw: str | None = None
    record: dict[str, Any] | None = None
    tag: str | None = None
    grave: dict[str, Any] | None = None


class Locate:
    """Finds tasks on one fleet, with a picture of it at hand."""

    def __init__(self, client: Redis, keys: Keys, picture: Snapshot) -> None:
        self._client, self._keys, self._picture = client, keys, picture
        self.search = Search(client, keys)

    def task(self, task_id: str) -> Found | None:
        """By its whole id. None for a task that neither the ledger nor the broker knows."""
        record, grave, taken_back = self._written(task_id)
        state = record.get("state") if record else None
        if grave is not None and state in (None, *_CLOSED):
            return _buried(task_id, record, grave)
        if record is not None and state in _CLOSED:
            return Found(_ended(task_id, record), record=record)
        held = next((one for one in self._picture.held if one.task_id == task_id), None)
        if held is not None:
            return self._in_hands(held, record, taken_back)
        waiting = self._waiting(task_id, record)
        if waiting is not None:
            return self._in_lane(waiting, record, taken_back)
        return self._missing(task_id, record, taken_back)

    def ids(self, beginning: str) -> list[str]:
        """The ids that begin so, sorted, at most `CANDIDATES`; the whole id alone where a task has just that."""
        if any(self._written(beginning)[:2]) or any(one.task_id == beginning for one in self._picture.held):
            return [beginning]
        found = set(self.search.ledger_ids(beginning, CANDIDATES))
        found |= {one.task_id for one in self._picture.held if one.task_id.startswith(beginning)}
        graves: Any = self._client.hkeys(self._keys.dead)
        found |= {name for name in (key.decode() for key in graves) if name.startswith(beginning)}
        if len(found) < CANDIDATES:
            waiting = self.search.by_beginning(beginning, self.lists(), whole=False, limit=CANDIDATES)
            tasks = [messages.waiting_task(one.raw, one.lane, one.level) for one in waiting]
            found |= {one.task_id for one in tasks if one is not None}
        return [beginning] if beginning in found else sorted(found)[:CANDIDATES]

    def lists(self) -> Iterator[tuple[str, int, int]]:
        """(lane, level, length) of every list that is not empty, the urgent ones first."""
        for level in range(10):
            for view in self._picture.lanes:
                if view.lengths[level]:
                    yield view.lane, level, view.lengths[level]

    def position(self, lane: str, level: int, depth: int) -> int:
        """In its lane, the more urgent levels before it; 1 is the next."""
        view = self._picture.lane_by_name.get(lane)
        return depth + (sum(view.lengths[:level]) if view is not None else 0)

    # -- what is written down

    def _written(self, task_id: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None, int]:
        pipe = self._client.pipeline(transaction=False)
        pipe.get(self._keys.task(task_id))
        pipe.hget(self._keys.dead, task_id)
        pipe.hget(self._keys.attempts, task_id)
        record, grave, taken_back = pipe.execute()
        return _object(record), _object(grave), int(taken_back or 0)

    # -- where its message is

    def _waiting(self, task_id: str, record: dict[str, Any] | None) -> Waiting | None:
        guess = _place(record)
        if guess is not None:
            waiting = self.search.by_id(task_id, *guess)
            if waiting is not None:
                return waiting
        lists = sorted(self.lists(), key=lambda one: guess is None or one[:2] != guess[:2])
        found = self.search.by_beginning(task_id, lists, whole=True, limit=1)
        return found[0] if found else None

    def _in_lane(self, waiting: Waiting, record: dict[str, Any] | None, taken_back: int) -> Found:
        task = messages.waiting_task(waiting.raw, waiting.lane, waiting.level, waiting.depth)
        assert task is not None, "the script has parsed it"
        more = {"position": self.position(waiting.lane, waiting.level, waiting.depth), "attempts": taken_back}
        return Found(_with(task, record, more), waiting.raw.decode(), record)

    def _in_hands(self, held: Held, record: dict[str, Any] | None, taken_back: int) -> Found:
        raw = unwrapped(self._client.hget(self._keys.unacked, held.tag))  # type: ignore[arg-type]
        task = messages.waiting_task(raw, held.lane, held.level) if raw is not None else None
        if task is None:  # acknowledged before it ran
            fields = messages.entry_fields(record or {}, held.lane, held.level)
            task = Task(task_id=held.task_id, state=TaskState.RUNNING, lane=held.lane, level=held.level, **fields)
        more = {
            "state": TaskState.RUNNING, "worker": held.worker, "claimed_at": held.claimed_at, "attempts": taken_back,
        }  # fmt: skip
        return Found(_with(task, record, more), raw, record, held.tag)

    def _missing(self, task_id: str, record: dict[str, Any] | None, taken_back: int) -> Found | None:
        """Not where it was in the picture: taken or ended meanwhile, or lost."""
        written, grave, _ = self._written(task_id)
        if written is not None and written.get("state") in _CLOSED:
            return _buried(task_id, written, grave) if grave else Found(_ended(task_id, written), record=written)
        for tag, text in self._client.hscan_iter(self._keys.held, count=1000):
            worker, incarnation, held_id, lane, level, ms = json.loads(text)
            if held_id == task_id:
                held = Held(
                    tag=tag.decode(), worker=worker, incarnation=incarnation, task_id=held_id, lane=lane, level=level,
                    claimed_at=ms / 1000,
                )  # fmt: skip
                return self._in_hands(held, record, taken_back)
        if record is None:
            return None
        lane, level = str(record.get("lane") or ""), int(record.get("level") or 0)
        fields = messages.entry_fields(record, lane, level)
        task = Task(task_id=task_id, state=TaskState.QUEUED, lane=lane, level=level, is_on_broker=False, **fields)
        return Found(_with(task, record, {"attempts": taken_back}), record=record)


_CLOSED = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.QUARANTINED)


def unwrapped(unacked: bytes | None) -> str | None:
    """The message's own text out of kombu's `[message, exchange, routing key]`; None where it is of another form."""
    if unacked is None:
        return None
    text = unacked.decode()
    inner = text[1:].lstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(inner)
    except ValueError:
        return None
    return inner[:end]


def buried_task(task_id: str, grave: dict[str, Any], record: dict[str, Any] | None = None) -> Task:
    """A task in `dead`. Whatever is missing there comes from its message, or its ledger entry."""
    lane, level = str(grave.get("lane") or ""), int(grave.get("level") or 0)
    message = grave.get("message")
    task = messages.waiting_task(message, lane, level) if isinstance(message, str) else None
    if task is None:
        task = Task(task_id=task_id, state=TaskState.FAILED, **messages.entry_fields(record or {}, lane, level))
    state = TaskState.QUARANTINED if grave.get("state") == TaskState.QUARANTINED else TaskState.FAILED
    story = grave.get("story") or [[None, None, ""]]
    more = {
        "task_id": task_id, "state": state, "lane": lane, "level": level, "ended_at": messages.number(grave.get("at")),
        "error": str(grave.get("reason") or ""), "worker": story[-1][1] or None, "attempts": len(story),
    }  # fmt: skip
    return _with(task, record, more)


def _buried(task_id: str, record: dict[str, Any] | None, grave: dict[str, Any]) -> Found:
    return Found(buried_task(task_id, grave, record), grave.get("message"), record, grave=grave)


def _ended(task_id: str, record: dict[str, Any]) -> Task:
    entry = record.get("entry")
    known = {**(entry if isinstance(entry, dict) else {}), **record}
    lane, level = str(known.get("lane") or ""), known.get("level")
    level = level if isinstance(level, int) else None
    # "worker" is who ran it in the record, and who it was pinned to in the entry.
    pinned = entry.get("worker") if isinstance(entry, dict) else None
    fields = messages.entry_fields({**known, "worker": pinned}, lane, level or 0)
    task = Task(task_id=task_id, state=TaskState(record["state"]), lane=lane, level=level, **fields)
    times = ("started_at", "ended_at", "wait_seconds", "run_seconds")
    more = {name: messages.number(record.get(name)) for name in times}
    ran_by = record.get("worker") if record.get("started_at") is not None else None
    return _with(task, known, {**more, "worker": ran_by, "error": str(record.get("error") or "")})


def _with(task: Task, record: dict[str, Any] | None, more: dict[str, Any]) -> Task:
    if record is not None:
        more = {"is_known": True, "task": task.task or str(record.get("task") or ""), **more}
        if record.get("source"):
            more["source"] = str(record["source"])
    return task.model_copy(update=more)


def _place(record: dict[str, Any] | None) -> tuple[str, int, float] | None:
    if record is None:
        return None
    lane, level, at = record.get("lane"), record.get("level"), messages.number(record.get("enqueued_at"))
    if not isinstance(lane, str) or not isinstance(level, int) or at is None or lanes.queue_of(lane) is None:
        return None
    return lane, level, at


def _object(text: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
