"""Find one task by its id or id prefix: in the ledger, in a lane, in `unacked`, or in `dead`."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import HeldMessage
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task

from .broken import BrokenValues
from .codec import (
    LedgerRecord,
    Story,
    held_task,
    lost_task,
    read_dead_letter,
    read_held,
    read_record,
    read_story,
    read_unacked,
    text_of,
    unread_task,
    waiting_task,
    whole_number,
    with_record,
)
from .keys import Keys
from .lane_search import LaneSearch, WaitingMessage, unreached
from .ledger import read_records
from .ledger_ids import LedgerIds
from .task_hit import TaskHit, TaskRecords, ended_hit

CANDIDATES = 10
"""How many ids of one prefix are collected: enough to report that it is ambiguous, with examples."""


_GUESSES = 12
"""Lists in which a task is searched by its enqueue time (a few ms each) before the lists are read from end to end."""


_FEW = 20
"""Up to this many tasks are searched one by one; for more, one pass through all lanes is cheaper."""


_BATCH = 500
"""Tasks whose ledger records are read in one call."""


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Form of the ids that Celery and `submit` generate at random."""


_UNIQUE_PREFIX = 8
"""Characters of a random id that are taken to be unique: a collision has a chance of 1 in 4 * 10^9."""


class TaskLookup:
    """Finds tasks of one fleet. Places are those of the snapshot; records are read when they are needed."""

    def __init__(self, client: Redis, keys: Keys, snapshot: Snapshot, broken: BrokenValues) -> None:
        self._client, self._keys, self._snapshot, self._broken = client, keys, snapshot, broken
        self._held = {one.task_id: one for one in snapshot.held}
        self.search = LaneSearch(client, keys)

    def task(
        self, task_id: str, *, known_only: bool = False, most: int | None = None, may_estimate: bool = False
    ) -> TaskHit | None:
        """Find a task by its whole id; None where neither the ledger nor the broker has it.

        `known_only` excludes waiting tasks without a ledger record: to find one, all lanes have to be read. Where more
        than `most` tasks wait, a task with a record is searched only where its enqueue time suggests. `may_estimate`
        leaves a message unread that must be deep in the list of its record, see `lane_search.REACH`.
        """
        written = self._written(task_id)
        found = self._outside_lanes(task_id, written)
        if found is not None:
            return found
        if known_only and written.record is None:
            return None
        if may_estimate and (unread := self._unread(task_id, written)) is not None:
            return unread
        waiting = self._waiting(task_id, written.record, most)
        if waiting is not None:
            return self._in_lane(waiting, written)
        return self._missing(task_id, written)

    def first_in(self, lists: Iterable[tuple[tuple[str, int], int]], limit: int) -> list[Task]:
        """Read the first tasks in these lists, ((lane, level), messages of it), in the order in which they are taken.

        Messages that are not Celery's are left out.
        """
        found: list[Task] = []
        for (lane, level), count in lists:
            if (wanted := min(count, limit - len(found))) <= 0:
                break
            raws = self._client.lrange(self._keys.list(lane, level), -wanted, -1)
            found += filter(None, (waiting_task(raw, lane, level) for raw in reversed(raws)))
        return found

    def tasks(self, task_ids: Sequence[str]) -> dict[str, TaskHit]:
        """Find many tasks by their whole ids, in one pass through the lanes; unknown ids are left out.

        Of few, also those without a ledger record: to find them one by one, `ids` is cheaper.
        """
        if len(task_ids) <= _FEW:
            found = {task_id: self.task(task_id, known_only=True) for task_id in task_ids}
            return {task_id: hit for task_id, hit in found.items() if hit is not None}
        written = dict(zip(task_ids, self._all_written(task_ids), strict=True))
        outside = {task_id: self._outside_lanes(task_id, written[task_id]) for task_id in written}
        waiting = self.search.by_ids((task_id for task_id, hit in outside.items() if hit is None), self.lists())
        answer = {}
        for task_id, hit in outside.items():
            if hit is None:
                place = waiting.get(task_id)
                hit = self._in_lane(place, written[task_id]) if place else self._missing(task_id, written[task_id])
            if hit is not None:
                answer[task_id] = hit
        return answer

    def ids(self, prefix: str) -> list[str]:
        """Return up to `CANDIDATES` ids of this prefix, sorted; an id that equals the prefix is returned alone.

        The ledger lists its ids. Tasks that are not in it are found by reading the lanes, half a second for 200,000
        tasks, but not what is deep in long lists, see `unreached`. This is skipped once `_UNIQUE_PREFIX` characters of
        a random id have matched.
        """
        if any(self._written(prefix)[:2]) or prefix in self._held or _UUID.fullmatch(prefix):
            return [prefix]
        found = LedgerIds(self._client, self._keys).starting(prefix, CANDIDATES)
        found |= {task_id for task_id in self._held if task_id.startswith(prefix)}
        dead: Any = self._broken.read(self._keys.dead, lambda: self._client.hkeys(self._keys.dead), ())
        found |= {task_id for task_id in map(text_of, dead) if task_id.startswith(prefix)}
        if not self.is_unique(prefix, found) and len(found) < CANDIDATES:
            waiting = self.search.by_beginning(prefix, self.lists(), whole=False, limit=CANDIDATES, near_ends=True)
            tasks = [waiting_task(one.raw, one.lane, one.level) for one in waiting]
            found |= {task.task_id for task in tasks if task is not None}
        return [prefix] if prefix in found else sorted(found)[:CANDIDATES]

    @staticmethod
    def is_unique(prefix: str, found: Collection[str]) -> bool:
        """Return whether the one id that was found is the only one of that prefix, wherever others may wait."""
        return len(found) == 1 and all(one == prefix or _is_long(prefix, one) for one in found)

    @property
    def unreached(self) -> int:
        """The number of messages that `ids` does not read."""
        return unreached(length for _, _, length in self.lists())

    def lists(self) -> Iterator[tuple[str, int, int]]:
        """Yield (lane, level, length) of every list that is not empty, the most urgent level first."""
        for level in range(10):
            for view in self._snapshot.lanes:
                if view.lengths[level]:
                    yield view.lane, level, view.lengths[level]

    def position(self, lane: str, level: int, depth: int) -> int:
        """Convert a depth in one list to the position in its lane, behind all more urgent levels; 1 is the next."""
        view = self._snapshot.lane_by_name.get(lane)
        return depth + (sum(view.lengths[:level]) if view is not None else 0)

    def held_tasks(self) -> list[Task]:
        """Return all tasks that workers hold."""
        held = self._snapshot.held
        if not held:
            return []
        tags = [one.tag for one in held]
        unacked = self._unacked(tags)
        records = self.records(one.task_id for one in held)
        return [
            held_task(one, _text_of(value), records.get(one.task_id)) for one, value in zip(held, unacked, strict=True)
        ]

    def records(self, task_ids: Iterable[str]) -> dict[str, LedgerRecord]:
        """Return the ledger records of those tasks that have one."""
        return read_records(self._client, self._keys, task_ids)

    def story(self, task_id: str) -> Story:
        """Return the attempts of an open task that cost a worker, or after which it was lost."""
        key, field = self._keys.attempts, f"story|{task_id}"
        text: Any = self._broken.read(key, lambda: self._client.hget(key, field), None)
        return read_story(text)

    # -- what is written down

    def _written(self, task_id: str) -> TaskRecords:
        return self._all_written([task_id])[0]

    def _all_written(self, task_ids: Sequence[str]) -> list[TaskRecords]:
        found: list[TaskRecords] = []
        for start in range(0, len(task_ids), _BATCH):
            part = task_ids[start : start + _BATCH]
            pipe = self._client.pipeline(transaction=False)
            pipe.mget([self._keys.task(task_id) for task_id in part])
            hashes = (self._keys.dead, self._keys.attempts)
            for key in hashes:
                pipe.hmget(key, list(part))
            records, *found_in = pipe.execute(raise_on_error=False)
            if isinstance(records, Exception):
                raise records
            nothing = [None] * len(part)
            others = [self._broken.part(one, key, nothing) for one, key in zip(found_in, hashes, strict=True)]
            found += (
                TaskRecords(
                    read_record(record),
                    read_dead_letter(task_id, dead) if dead else None,
                    whole_number(attempts or b"") or 0,
                )
                for task_id, record, dead, attempts in zip(part, records, *others, strict=True)
            )
        return found

    # -- where its message is

    def _outside_lanes(self, task_id: str, written: TaskRecords) -> TaskHit | None:
        """Find an ended task, or one that a worker holds, without reading any lane."""
        ended = ended_hit(task_id, written)
        if ended is not None:
            return ended
        held = self._held.get(task_id)
        return None if held is None else self._of_worker(held, written)

    def _waiting(self, task_id: str, record: LedgerRecord | None, most: int | None) -> WaitingMessage | None:
        guess = _place(record)
        lists = sorted(self.lists(), key=lambda one: _unlikely(one, guess))
        if guess is not None:
            for lane, level, length in lists[:_GUESSES]:
                waiting = self.search.by_id(task_id, lane, level, length, guess[2])
                if waiting is not None:
                    return waiting
            if most is not None and sum(length for _, _, length in lists) > most:
                return None
        found = self.search.by_beginning(task_id, lists, whole=True, limit=1, near_ends=True)
        if not found and self.unreached:
            found = self.search.by_beginning(task_id, lists, whole=True, limit=1)
        return found[0] if found else None

    def _unread(self, task_id: str, written: TaskRecords) -> TaskHit | None:
        """Estimate the depth of a task in the list of its record, if that is too long to read its middle."""
        place, record = _place(written.record), written.record
        if place is None or record is None:
            return None
        lane, level, at = place
        view = self._snapshot.lane_by_name.get(lane)
        depth = self.search.probable_depth(lane, level, view.lengths[level], at) if view is not None else None
        if depth is None:
            return None
        position = self.position(lane, level, depth)
        return TaskHit(unread_task(task_id, record, depth, position, written.attempts), record=record)

    def _in_lane(self, waiting: WaitingMessage, written: TaskRecords) -> TaskHit | None:
        position = self.position(waiting.lane, waiting.level, waiting.depth)
        task = waiting_task(waiting.raw, waiting.lane, waiting.level, waiting.depth, position)
        if task is None:  # Lua reads a few texts that Python does not
            return None
        task = with_record(task, written.record, attempts=written.attempts)
        return TaskHit(task, text_of(waiting.raw), written.record)

    def _of_worker(self, held: HeldMessage, written: TaskRecords) -> TaskHit:
        raw = _text_of(self._unacked([held.tag])[0])
        task = held_task(held, raw, written.record, attempts=written.attempts)
        revoked_at = self._broken.read(
            self._keys.revoked, lambda: self._client.zscore(self._keys.revoked, held.tag), None
        )
        return TaskHit(task, raw, written.record, held.tag, is_revoked=revoked_at is not None)

    def _unacked(self, tags: Sequence[str]) -> list[bytes | None]:
        key, nothing = self._keys.unacked, [None] * len(tags)
        found: Any = self._broken.read(key, lambda: self._client.hmget(key, list(tags)), nothing)
        return list(found)

    def _missing(self, task_id: str, before: TaskRecords) -> TaskHit | None:
        """Find a task that is not where the snapshot had it: taken or ended since, or lost."""
        written = self._written(task_id)
        if written.record is not None and (ended := ended_hit(task_id, written)) is not None:
            return ended
        key = self._keys.held
        rows = self._broken.read(key, lambda: list(self._client.hscan_iter(key, count=1000)), ())
        for tag, text in rows:
            held = read_held(tag, text)
            if held is not None and held.task_id == task_id:
                return self._of_worker(held, before)
        if before.record is None:
            return None
        return TaskHit(lost_task(task_id, before.record, written.attempts), record=before.record)


def _is_long(prefix: str, task_id: str) -> bool:
    return len(prefix) >= _UNIQUE_PREFIX and _UUID.fullmatch(task_id) is not None


def _text_of(unacked: bytes | None) -> str | None:
    found = read_unacked(unacked)
    return None if found is None else found.text


def _place(record: LedgerRecord | None) -> tuple[str, int, float] | None:
    """Return lane, level and enqueue time of a record that names a lane of ours."""
    if record is None or record.level is None or record.enqueued_at is None or lanes.queue_of(record.lane) is None:
        return None
    return record.lane, record.level, record.enqueued_at


def _unlikely(one: tuple[str, int, int], guess: tuple[str, int, float] | None) -> tuple[bool, ...]:
    """Sort key: first the recorded list, then where a move of a whole lane puts it (same level, a shared lane)."""
    if guess is None:
        return ()
    return one[:2] != guess[:2], one[1] != guess[1], lanes.split(one[0])[1] is not None
