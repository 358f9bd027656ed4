"""Finding what nobody has: messages taken and in no hand, tasks of the ledger that are nowhere on the broker.

Everything here is bounded a call and can be gone on with in the next turn; nothing is changed but by `resend` and
`close`, which look again at what they change.
"""

import json
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from redis import Redis

from morag_queue.core.recovery.sweep import OpenTask, StaleMessage

from . import scripts
from .codec import read_held, read_result, unacked_task_id
from .keys import Keys

WINDOW = 1000
"""Messages looked at a call, 1 ms or 2 of the server's time."""


_KEYS_A_CALL = 250


_SEARCH_BURST = 16


_ENDED = {"SUCCESS": "completed", "FAILURE": "failed", "REVOKED": "cancelled"}


_PAGES = 10


_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class ResendRequest:
    """A task to be sent again: the record that was looked at, the new one, the message and its place."""

    task_id: str
    seen: str
    record: str
    text: str
    lane: str
    level: int
    why: str


class LostWork:
    """Searches on one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._orphans, self._opened, self._present, self._resend, self._close = (
            scripts.script(client, name) for name in ("orphans", "opened", "present", "resend", "close")
        )

    def untouched(self, before: float, passed: int, limit: int) -> list[StaleMessage]:
        """Up to `limit` messages that were not touched since `before` (server's clock), the longest untouched first."""
        k = self._keys
        found = self._orphans(keys=[k.unacked, k.unacked_index, k.held], args=[repr(before), passed, limit])
        return [_untouched(*row) for row in found]

    def open_tasks(self, cursor: int, before: float) -> tuple[int, list[OpenTask]]:
        """One step through the ledger: the next cursor (0 at the end), and open tasks queued before that time."""
        prefix = self._keys.task("")
        answer: Any = self._client.scan(cursor, match=_literal(prefix) + "*", count=WINDOW, _type="string")
        following, names = answer
        opened: list[OpenTask] = []
        for start in range(0, len(names), _KEYS_A_CALL):
            chunk = names[start : start + _KEYS_A_CALL]
            for place, at, queue, level in self._opened(keys=chunk, args=[repr(before)]):
                task_id = chunk[place - 1].decode().removeprefix(prefix)
                opened.append(OpenTask(task_id, float(at), queue.decode(), int(level)))
        return int(following), opened

    def present(self, task_ids: Collection[str], lists: Iterable[tuple[str, int, int]]) -> set[str]:
        """Which of them have a message in the lists, given as (lane, level, length); looked through from end to end.

        Each list is looked at from its newest to its oldest message, so that what is taken or pushed meanwhile does not
        slip past: taking is from the end that is read last.
        """
        words = {json.dumps(task_id)[1:-1]: task_id for task_id in task_ids}
        found: set[str] = set()
        for lane, level, length in lists:
            starts = range(-length, 0, WINDOW)
            for first in range(0, len(starts), _SEARCH_BURST):
                pipe = self._client.pipeline(transaction=False)
                for start in starts[first : first + _SEARCH_BURST]:
                    args: list[str | int] = [start, min(start + WINDOW - 1, -1), *words]
                    self._present(keys=[self._keys.list(lane, level)], args=args, client=pipe)
                found |= {words[word.decode()] for answer in pipe.execute() for word in answer}
        return found

    def in_flight(self) -> set[str]:
        """The ids of all tasks that any worker has, by the records of holders and by the messages themselves."""
        held = self._client.hscan_iter(self._keys.held, count=WINDOW)
        ids = {one.task_id for tag, record in held if (one := read_held(tag, record)) is not None}
        unacked = self._client.hscan_iter(self._keys.unacked, count=_KEYS_A_CALL)
        return ids | {task_id for _, text in unacked if (task_id := unacked_task_id(text)) is not None}

    def records(self, task_ids: Sequence[str]) -> dict[str, str]:
        """The ledger's records as they are stored, of those that have one."""
        found: Any = self._client.mget([self._keys.task(one) for one in task_ids]) if task_ids else []
        return {task_id: text.decode() for task_id, text in zip(task_ids, found, strict=True) if text}

    def results(self, task_ids: Sequence[str]) -> dict[str, str]:
        """How these ended (completed, failed, cancelled), by Celery's results in this database."""
        found: Any = self._client.mget([self._keys.result(one) for one in task_ids]) if task_ids else []
        ended: dict[str, str] = {}
        for task_id, text in zip(task_ids, found, strict=True):
            result = read_result(text)
            if result is not None and result.status in _ENDED:
                ended[task_id] = _ENDED[result.status]
        return ended

    def keeps_results(self) -> bool:
        """Whether any result is found in this database; of a very large one only a part is looked at."""
        cursor, pattern = 0, _literal(self._keys.result("")) + "*"
        for _ in range(_PAGES):
            answer: Any = self._client.scan(cursor, match=pattern, count=_PAGE)
            cursor, names = answer
            if names or not cursor:
                return bool(names)
        return False

    def resend(self, again: ResendRequest, max_losses: int, *, term: str = "") -> str:
        """Queues it first in its lane: 'resent', 'quarantined' or 'changed', see resend.lua."""
        k = self._keys
        keys = [k.task(again.task_id), k.list(again.lane, again.level), k.attempts, k.dead, k.lease, k.graves]
        args: list[str | int] = [
            again.seen, again.record, again.text, again.task_id, max_losses, again.why, again.lane, again.level, term,
            self._retention,
        ]  # fmt: skip
        answer: bytes = self._resend(keys=keys, args=args)
        return answer.decode()

    def close(self, task_id: str, seen: str, state: str) -> bool:
        """Ends an entry as its result says. False where the record is another one meanwhile."""
        record = json.loads(seen) | {"state": state}
        args: list[str | int] = [seen, json.dumps(record), state, record["queue"], self._retention]
        return bool(self._close(keys=[self._keys.task(task_id), self._keys.totals], args=args))


def _untouched(tag: bytes, holder: bytes, lane: bytes, task_id: bytes, level: int) -> StaleMessage:
    held = read_held(tag, holder) if holder else None
    worker, incarnation = (held.worker, held.incarnation) if held is not None else ("", "")
    return StaleMessage(tag.decode(), worker, incarnation, lane.decode(), task_id.decode(), min(max(level, 0), 9))


def _literal(text: str) -> str:
    """For a pattern of SCAN: nothing in it stands for anything else."""
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in text)


Outcome: TypeAlias = Literal["moved", "gone", "early", "foreign", "quarantined", "cancelled"]


REVOKED_S = 3 * 3600
"""How long a cancelled tag is remembered: as long as a worker of Celery's remembers what was revoked."""


_REQUEUE_BURST = 250
"""Calls on their way at once."""


@dataclass(frozen=True, slots=True)
class RequeueRequest:
    """One message to be put first in `lane`. `incarnation` is who is believed to hold it, '' for nobody.

    `max_deaths`: how many owners may die over the task before it is quarantined; None when this is none. With
    `untouched_since` (seconds, server's clock) it stays where it is if a worker has touched it since. `eta` is written
    into a message that has none.
    """

    tag: str
    incarnation: str
    task_id: str
    lane: str
    level: int
    why: str = ""
    max_deaths: int | None = None
    untouched_since: float | None = None
    eta: str = ""


class Requeues:
    """Returns on one fleet; each is one atomic step, and safe to try again."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._script = scripts.script(client, "takeback")

    def apply(self, returns: Iterable[RequeueRequest], *, term: str = "") -> list[Outcome]:
        """What became of each, in order; each goes before what waits in its lane. ResponseError: a stale term."""
        wanted: Sequence[RequeueRequest] = list(returns)
        outcomes: list[Outcome] = []
        for start in range(0, len(wanted), _REQUEUE_BURST):
            pipe = self._client.pipeline(transaction=False)
            for one in wanted[start : start + _REQUEUE_BURST]:
                self._script(keys=self._names(one), args=self._arguments(one, term), client=pipe)
            outcomes += (answer.decode() for answer in pipe.execute())
        return outcomes

    def revoke(self, tag: str) -> None:
        """Whoever takes it back ends it as cancelled, instead of giving it to somebody else."""
        now = time.time()
        pipe = self._client.pipeline(transaction=False)
        pipe.zremrangebyscore(self._keys.revoked, "-inf", now - REVOKED_S)
        pipe.zadd(self._keys.revoked, {tag: now})
        pipe.execute()

    def _names(self, one: RequeueRequest) -> list[str]:
        k = self._keys
        return [
            k.unacked, k.unacked_index, k.held, k.attempts, k.list(one.lane, one.level), k.task(one.task_id), k.dead,
            k.lease, k.graves, k.revoked,
        ]  # fmt: skip

    def _arguments(self, one: RequeueRequest, term: str) -> list[str | int]:
        return [
            one.tag, one.incarnation, str(uuid4()), one.lane, one.level,
            "" if one.max_deaths is None else one.max_deaths, one.why,
            "" if one.untouched_since is None else repr(one.untouched_since), one.eta, self._retention, term,
        ]  # fmt: skip
