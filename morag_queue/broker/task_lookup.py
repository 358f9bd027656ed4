"""Where one task is: its ledger entry, its message, who holds it, its grave; whatever there is of it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import HeldMessage, TaskState
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task

from . import codec as messages
from .keys import Keys
from .lane_search import LaneSearch, WaitingMessage

CANDIDATES = 10
"""How many tasks of one beginning are looked for: enough to say that it is ambiguous, and with what."""


_GUESSES = 12
"""Lists in which a task is looked for by its enqueue time, before they are read: a few ms each."""


_FEW = 20
"""From so many on, one way through all lanes is cheaper than to look for each."""


_READ = 500
"""Tasks of which the ledger is asked at once."""


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""As Celery and `submit` make ids: random."""


_ENOUGH = 8
"""Signs of a random id that no other one shares, but for once in four thousand million."""


@dataclass(frozen=True, slots=True)
class TaskHit:
    """One task and what is known of it. `raw` is its message's text, where there is one; `tag` where it is held.

    `is_revoked`: its worker was told to drop it.
    """

    task: Task
    raw: str | None = None
    record: dict[str, Any] | None = None
    tag: str | None = None
    grave: dict[str, Any] | None = None
    is_revoked: bool = False


class TaskLookup:
    """Finds tasks on one fleet, with a picture of it at hand."""

    def __init__(self, client: Redis, keys: Keys, snapshot: Snapshot) -> None:
        self._client, self._keys, self._snapshot = client, keys, snapshot
        self._held = {one.task_id: one for one in snapshot.held}
        self.search = LaneSearch(client, keys)

    def task(self, task_id: str, *, known_only: bool = False) -> TaskHit | None:
        """By its whole id. None for a task that neither the ledger nor the broker knows.

        `known_only` leaves out waiting tasks that are not in the ledger: to find one means to look everywhere.
        """
        written = self._written(task_id)
        found = self._at_once(task_id, written)
        if found is not None:
            return found
        if known_only and written.record is None:
            return None
        waiting = self._waiting(task_id, written.record)
        if waiting is not None:
            return self._in_lane(waiting, written)
        return self._missing(task_id, written)

    def tasks(self, task_ids: Sequence[str]) -> dict[str, TaskHit]:
        """Many by their whole ids, with one way through the lanes; those that are not there are left out."""
        if len(task_ids) <= _FEW:
            found = {one: self.task(one) for one in task_ids}
            return {one: task for one, task in found.items() if task is not None}
        written: dict[str, _TaskRecords] = {}
        for start in range(0, len(task_ids), _READ):
            part = task_ids[start : start + _READ]
            written |= zip(part, self._all_written(part), strict=True)
        at_once = {one: self._at_once(one, written[one]) for one in written}
        waiting = self.search.by_ids((one for one, task in at_once.items() if task is None), self.lists())
        answer = {}
        for one, known in at_once.items():
            if known is None:
                place = waiting.get(one)
                known = self._in_lane(place, written[one]) if place else self._missing(one, written[one])
            if known is not None:
                answer[one] = known
        return answer

    def _at_once(self, task_id: str, written: "_TaskRecords") -> TaskHit | None:
        """Where that is known without a look into the lanes: an ended task, and one in somebody's hands."""
        record, grave, _ = written
        state = record.get("state") if record else None
        if grave is not None and state in (None, *_CLOSED):
            return _buried(task_id, record, grave)
        if record is not None and state in _CLOSED:
            return TaskHit(_ended(task_id, record), record=record)
        held = self._held.get(task_id)
        return None if held is None else self._in_hands(held, written)

    def ids(self, beginning: str) -> list[str]:
        """The ids that begin so, sorted, at most `CANDIDATES`; the whole id alone where a task has just that.

        To look for what is not in the ledger means to read all lanes, half a second for 200,000 tasks. That is left out
        where `_ENOUGH` of a random id have been found.
        """
        if any(self._written(beginning)[:2]) or beginning in self._held:
            return [beginning]
        found = set(self.search.ledger_ids(beginning, CANDIDATES))
        found |= {name for name in self._held if name.startswith(beginning)}
        graves: Any = self._client.hkeys(self._keys.dead)
        found |= {name for name in (key.decode() for key in graves) if name.startswith(beginning)}
        if len(found) == 1 and len(beginning) >= _ENOUGH and all(map(_UUID.fullmatch, found)):
            return [*found]
        if len(found) < CANDIDATES:
            waiting = self.search.by_beginning(beginning, self.lists(), whole=False, limit=CANDIDATES)
            tasks = [messages.waiting_task(one.raw, one.lane, one.level) for one in waiting]
            found |= {one.task_id for one in tasks if one is not None}
        return [beginning] if beginning in found else sorted(found)[:CANDIDATES]

    def lists(self) -> Iterator[tuple[str, int, int]]:
        """(lane, level, length) of every list that is not empty, the urgent ones first."""
        for level in range(10):
            for view in self._snapshot.lanes:
                if view.lengths[level]:
                    yield view.lane, level, view.lengths[level]

    def position(self, lane: str, level: int, depth: int) -> int:
        """In its lane, the more urgent levels before it; 1 is the next."""
        view = self._snapshot.lane_by_name.get(lane)
        return depth + (sum(view.lengths[:level]) if view is not None else 0)

    # -- what is written down

    def _written(self, task_id: str) -> "_TaskRecords":
        return self._all_written([task_id])[0]

    def _all_written(self, task_ids: Sequence[str]) -> list["_TaskRecords"]:
        pipe = self._client.pipeline(transaction=False)
        pipe.mget([self._keys.task(one) for one in task_ids])
        pipe.hmget(self._keys.dead, list(task_ids))
        pipe.hmget(self._keys.attempts, list(task_ids))
        records, graves, taken_back = pipe.execute()
        return [
            _TaskRecords(_object(record), _object(grave), int(count or 0))
            for record, grave, count in zip(records, graves, taken_back, strict=True)
        ]

    # -- where its message is

    def _waiting(self, task_id: str, record: dict[str, Any] | None) -> WaitingMessage | None:
        guess = _place(record)
        lists = sorted(self.lists(), key=lambda one: _unlikely(one, guess))
        if guess is not None:
            for lane, level, _ in lists[:_GUESSES]:
                waiting = self.search.by_id(task_id, lane, level, guess[2])
                if waiting is not None:
                    return waiting
        found = self.search.by_beginning(task_id, lists, whole=True, limit=1)
        return found[0] if found else None

    def _in_lane(self, waiting: WaitingMessage, written: "_TaskRecords") -> TaskHit:
        task = messages.waiting_task(waiting.raw, waiting.lane, waiting.level, waiting.depth)
        assert task is not None, "the script has parsed it"
        more = {"position": self.position(waiting.lane, waiting.level, waiting.depth), "attempts": written.taken_back}
        return TaskHit(_with(task, written.record, more), waiting.raw.decode(), written.record)

    def _in_hands(self, held: HeldMessage, written: "_TaskRecords") -> TaskHit:
        record = written.record
        raw = unwrapped(self._client.hget(self._keys.unacked, held.tag))  # type: ignore[arg-type]
        task = messages.waiting_task(raw, held.lane, held.level) if raw is not None else None
        if task is None:  # acknowledged before it ran
            fields = messages.entry_fields(record or {}, held.lane, held.level)
            task = Task(task_id=held.task_id, state=TaskState.RUNNING, lane=held.lane, level=held.level, **fields)
        more = {
            "state": TaskState.RUNNING, "worker": held.worker, "claimed_at": held.claimed_at,
            "attempts": written.taken_back,
        }  # fmt: skip
        is_revoked = self._client.zscore(self._keys.revoked, held.tag) is not None
        return TaskHit(_with(task, record, more), raw, record, held.tag, is_revoked=is_revoked)

    def _missing(self, task_id: str, written: "_TaskRecords") -> TaskHit | None:
        """Not where it was in the picture: taken or ended meanwhile, or lost."""
        record, grave, taken_back = self._written(task_id)
        if record is not None and record.get("state") in _CLOSED:
            return _buried(task_id, record, grave) if grave else TaskHit(_ended(task_id, record), record=record)
        record = written.record
        for tag, text in self._client.hscan_iter(self._keys.held, count=1000):
            worker, incarnation, held_id, lane, level, ms = json.loads(text)
            if held_id == task_id:
                held = HeldMessage(
                    tag=tag.decode(), worker=worker, incarnation=incarnation, task_id=held_id, lane=lane, level=level,
                    claimed_at=ms / 1000,
                )  # fmt: skip
                return self._in_hands(held, written)
        if record is None:
            return None
        lane, level = str(record.get("lane") or ""), int(record.get("level") or 0)
        fields = messages.entry_fields(record, lane, level)
        task = Task(task_id=task_id, state=TaskState.QUEUED, lane=lane, level=level, is_on_broker=False, **fields)
        return TaskHit(_with(task, record, {"attempts": taken_back}), record=record)


class _TaskRecords(NamedTuple):
    """What the ledger, `dead` and the attempts say of a task."""

    record: dict[str, Any] | None
    grave: dict[str, Any] | None
    taken_back: int


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


def _buried(task_id: str, record: dict[str, Any] | None, grave: dict[str, Any]) -> TaskHit:
    return TaskHit(buried_task(task_id, grave, record), grave.get("message"), record, grave=grave)


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


def _unlikely(one: tuple[str, int, int], guess: tuple[str, int, float] | None) -> tuple[bool, ...]:
    """Where the ledger says first; then where moves of whole lanes put it: they keep the level, to shared lanes."""
    if guess is None:
        return ()
    return one[:2] != guess[:2], one[1] != guess[1], lanes.split(one[0])[1] is not None


def _object(text: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
