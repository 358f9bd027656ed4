"""The tasks that ended within the retention time of the ledger: the latest first, or the slowest first.

`lua/lib/end_task.lua` keeps one list for each outcome and minute, so that no answer scans the ledger.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from redis import Redis

from morag_queue.core.model import TaskState
from morag_queue.core.task import Task, TaskFilter

from .broken import BrokenValues
from .codec import ended_task, escaped, read_record, whole_number
from .keys import Keys

_WINDOW = 1000
"""Index entries per command: 0.1 ms of the server's time."""

_LISTS = 500
"""Lengths of lists that are read at once; an hour has 60."""

_FIRST_BATCH, _BATCH = 50, 500
"""Ledger records per command: few at first, because a page is short; 500 take 1 ms of the server's time."""


class EndedTasks:
    """The ended tasks of one fleet."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float, broken: BrokenValues) -> None:
        self._client, self._keys, self._retention, self._broken = client, keys, retention_seconds, broken

    def matching(
        self, outcome: TaskState, wanted: TaskFilter, now: float, *, slowest: bool = False
    ) -> Iterator[list[Task]]:
        """Yield the tasks of an outcome that match, in batches that are read as the iterator is consumed.

        Ordered by their ends, the latest first; `slowest`: by their run times, the longest first, unknown ones last.
        Tasks that have been queued again since are left out.
        """
        may_match = _text_filter(wanted)
        ids = self._by_run_time(outcome, now) if slowest else self._by_end(outcome, now)
        size = _FIRST_BATCH
        while batch := list(islice(ids, size)):
            texts: Any = self._client.mget([self._keys.task(task_id) for task_id in batch])
            tasks = (
                _task(task_id, outcome, text)
                for task_id, text in zip(batch, texts, strict=True)
                if text and may_match(text)
            )
            yield [task for task in tasks if task is not None and wanted.matches(task, now)]
            size = _BATCH

    def _by_end(self, outcome: TaskState, now: float) -> Iterator[str]:
        seen = set[str]()
        for task_id, _ in self._entries(outcome, now):
            if task_id not in seen:
                seen.add(task_id)
                yield task_id

    def _by_run_time(self, outcome: TaskState, now: float) -> Iterator[str]:
        runs: dict[str, int] = {}
        for task_id, run_ms in self._entries(outcome, now):
            runs.setdefault(task_id, run_ms)  # an earlier run of the same task does not count
        yield from sorted(runs, key=lambda task_id: -runs[task_id])

    def _entries(self, outcome: TaskState, now: float) -> Iterator[tuple[str, int]]:
        """Yield (task id, milliseconds of run time or -1), the latest end first."""
        oldest, latest = int((now - self._retention) // 60), int(now // 60)
        minutes = range(latest, oldest - 1, -1)
        for start in range(0, len(minutes), _LISTS):
            keys = [self._keys.ended(f"{outcome}:{minute}") for minute in minutes[start : start + _LISTS]]
            pipe = self._client.pipeline(transaction=False)
            for key in keys:
                pipe.llen(key)
            for key, answer in zip(keys, pipe.execute(raise_on_error=False), strict=True):
                length = self._broken.part(answer, key, 0)
                for end in range(length, 0, -_WINDOW):
                    chunk: Any = self._client.lrange(key, max(end - _WINDOW, 0), end - 1)
                    yield from map(_entry, reversed(chunk))


def _entry(text: bytes) -> tuple[str, int]:
    run_ms, _, task_id = text.partition(b" ")
    return task_id.decode(errors="replace"), -1 if (number := whole_number(run_ms)) is None else number


def _task(task_id: str, outcome: TaskState, text: bytes) -> Task | None:
    record = read_record(text)
    return ended_task(task_id, outcome, record) if record is not None and record.state is outcome else None


def _text_filter(wanted: TaskFilter) -> Callable[[bytes], bool]:
    """Return a cheap test of undecoded records: False means that the record cannot match."""
    words = (wanted.queue, wanted.lane, wanted.worker, wanted.name, wanted.submission)
    # Python and cjson write other texts than plain ones in different ways.
    plain = [word.encode() for word in words if word and escaped(word) == word and "/" not in word]
    return lambda record: all(word in record for word in plain)
