"""Find lost work: unacked messages without an owner, and open ledger entries without a message; send it again.

Every call is bounded and can be continued in the next turn. Only `resend` and `close` write, and both check again that
the record is unchanged.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from morag_queue.core.lanes import queue_of
from morag_queue.core.recovery.sweep import OpenTask, StaleMessage

from .codec import LedgerRecord, escaped, read_held, read_result, text_of, unacked_task_id
from .keys import Keys
from .ledger import END_KEYS, ExternalCompletion, ExternalCompletions
from .scripts import Call, Key, Script

if TYPE_CHECKING:
    from redis import Redis

WINDOW = 1000
"""Messages per call: 1 to 2 ms of the server's time."""

_KEYS_A_CALL = 100

_SEARCH_BURST = 16
"""Calls in flight at once."""

_ENDED = {"SUCCESS": "completed", "FAILURE": "failed", "REVOKED": "cancelled"}
"""States of Celery's results that end a task, and ours."""

_PAGES = 10

_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class ResendRequest:
    """A task to send again: the record as it was read (`seen`), the new one, the message and its place."""

    task_id: str
    seen: str
    record: str
    text: str
    lane: str
    level: int
    why: str


@dataclass(frozen=True)
class FindUntouchedCall(Call):
    SCRIPT: ClassVar = "find_untouched"
    KEYS: ClassVar = ("unacked", "unacked_index", "held")

    before: float
    offset: int
    limit: int


@dataclass(frozen=True)
class FindOpenCall(Call):
    SCRIPT: ClassVar = "find_open"

    before: float
    tasks: Sequence[Key]


@dataclass(frozen=True)
class FindPresentCall(Call):
    SCRIPT: ClassVar = "find_present"

    list: Key
    first: int
    last: int
    ids: Sequence[str]


@dataclass(frozen=True)
class ResendCall(Call):
    SCRIPT: ClassVar = "resend"
    KEYS: ClassVar = ("lease", *END_KEYS)

    list: Key
    task: Key
    task_id: str
    seen: str
    record: str
    message: str
    lane: str
    level: int
    queue: str
    max_losses: int
    why: str
    retention: int
    term: str


class LostWork:
    """Search one fleet for lost work, and send it again."""

    def __init__(self, client: "Redis", keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._find_untouched = Script(client, keys, FindUntouchedCall)
        self._find_open = Script(client, keys, FindOpenCall)
        self._find_present = Script(client, keys, FindPresentCall)
        self._resend = Script(client, keys, ResendCall)
        self._completions = ExternalCompletions(client, keys, retention_seconds)

    def untouched(self, before: float, passed: int, limit: int) -> list[StaleMessage]:
        """Up to `limit` messages not touched since `before` (server's clock), the longest untouched first.

        `passed` skips that number of them.
        """
        return [_untouched(*row) for row in self._find_untouched(FindUntouchedCall(before, passed, limit))]

    def open_tasks(self, cursor: int, before: float) -> tuple[int, list[OpenTask]]:
        """One step through the ledger: the next cursor (0 at the end), and the open tasks enqueued before that time."""
        prefix = self._keys.task("")
        answer: Any = self._client.scan(cursor, match=_literal(prefix) + "*", count=WINDOW, _type="string")
        following, names = answer
        found: list[OpenTask] = []
        for start in range(0, len(names), _KEYS_A_CALL):
            chunk = names[start : start + _KEYS_A_CALL]
            for place, at, queue, level in self._find_open(FindOpenCall(before, chunk)):
                task_id = text_of(chunk[place - 1]).removeprefix(prefix)
                with suppress(ValueError):  # Lua reads more forms of numbers
                    found.append(OpenTask(task_id, float(at), text_of(queue), min(max(level, 0), 9)))
        return int(following), found

    def present(self, task_ids: Collection[str], lists: Iterable[tuple[str, int, int]]) -> set[str]:
        """The tasks that have a message in the lists, given as (lane, level, length).

        Each list is searched from its newest to its oldest message. Messages are taken from the end that is read last,
        so one that is taken or pushed meanwhile cannot be missed.
        """
        words = {escaped(task_id): task_id for task_id in task_ids}
        found: set[str] = set()
        for lane, level, length in lists:
            key = self._keys.list(lane, level)
            starts = range(-length, 0, WINDOW)
            for first in range(0, len(starts), _SEARCH_BURST):
                pipe = self._client.pipeline(transaction=False)
                for start in starts[first : first + _SEARCH_BURST]:
                    self._find_present(FindPresentCall(key, start, min(start + WINDOW - 1, -1), tuple(words)), pipe)
                found |= {words[word.decode()] for answer in pipe.execute() for word in answer}
        return found

    def unacked_ids(self) -> set[str]:
        """The ids of all tasks taken by any worker, from the records of holders and from the messages themselves."""
        held = self._client.hscan_iter(self._keys.held, count=WINDOW)
        ids = {message.task_id for tag, record in held if (message := read_held(tag, record)) is not None}
        unacked = self._client.hscan_iter(self._keys.unacked, count=_KEYS_A_CALL)
        return ids | {task_id for _, text in unacked if (task_id := unacked_task_id(text)) is not None}

    def results(self, task_ids: Sequence[str]) -> dict[str, str]:
        """How tasks ended (completed, failed, cancelled), by Celery's results in this database."""
        found: Any = self._client.mget([self._keys.result(task_id) for task_id in task_ids]) if task_ids else []
        ended: dict[str, str] = {}
        for task_id, text in zip(task_ids, found, strict=True):
            result = read_result(text)
            if result is not None and result.status in _ENDED:
                ended[task_id] = _ENDED[result.status]
        return ended

    def keeps_results(self) -> bool:
        """Whether this database holds any result of Celery; of a very large one only a part is searched."""
        cursor, pattern = 0, _literal(self._keys.result("")) + "*"
        for _ in range(_PAGES):
            answer: Any = self._client.scan(cursor, match=pattern, count=_PAGE)
            cursor, names = answer
            if names or not cursor:
                return bool(names)
        return False

    def resend(self, request: ResendRequest, max_losses: int, *, term: str = "") -> str:
        """Queue the task first in its lane. Return 'resent', 'quarantined' or 'changed', see resend.lua.

        Raises ResponseError on a stale term.
        """
        call = ResendCall(
            list=self._keys.list(request.lane, request.level), task=self._keys.task(request.task_id),
            task_id=request.task_id, seen=request.seen, record=request.record, message=request.text,
            lane=request.lane, level=request.level, queue=queue_of(request.lane) or "", max_losses=max_losses,
            why=request.why, retention=self._retention, term=term,
        )  # fmt: skip
        answer: bytes = self._resend(call)
        return answer.decode()

    def close(self, task_id: str, record: LedgerRecord, state: str) -> bool:
        """End an open entry as its result says. False where it has changed since it was read as `record`."""
        return self._completions.end(ExternalCompletion(task_id, state), record)


def _untouched(tag: bytes, holder: bytes, lane: bytes, task_id: bytes, level: int) -> StaleMessage:
    held = read_held(tag, holder) if holder else None
    worker, incarnation = (held.worker, held.incarnation) if held is not None else ("", "")
    return StaleMessage(text_of(tag), worker, incarnation, text_of(lane), text_of(task_id), min(max(level, 0), 9))


def _literal(text: str) -> str:
    """Escape the text for a pattern of SCAN."""
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in text)
