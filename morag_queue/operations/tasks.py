"""tasks: what runs and what waits, page by page. A page costs by its length, not by the backlog."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any

from morag_queue.broker.codec import HEADER, waiting_task
from morag_queue.broker.connection import translated
from morag_queue.broker.lane_search import WaitingMessage
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_lookup import TaskLookup, buried_task, unwrapped
from morag_queue.core.model import Frozen, TaskState
from morag_queue.core.task import Task, TaskFilter
from morag_queue.errors import UsageError
from morag_queue.settings import Settings

_PAGE = 500
"""Tasks whose ledger entries are read at once."""


_GRAVES = (TaskState.FAILED, TaskState.QUARANTINED)


_BY_ID_ONLY = (TaskState.COMPLETED, TaskState.CANCELLED)


class TaskPage(Frozen):
    """`waiting` is the length of the whole line, whatever the filter says; `has_more` says that the limit cut."""

    tasks: tuple[Task, ...]
    waiting: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class SelectedTask:
    """A waiting task and its message, for the verbs that change many of them."""

    task: Task
    waiting: WaitingMessage


class Tasks:
    """Tasks of one fleet, on one picture of it."""

    def __init__(self, broker: RedisBroker, settings: Settings) -> None:
        self._broker, self._url = broker, settings.redis_url
        self.snapshot, _ = broker.observe()
        self._locate = TaskLookup(broker.client, broker.keys, self.snapshot)

    def page(self, wanted: TaskFilter, *, limit: int, newest: bool = False) -> TaskPage:
        """At most `limit` tasks, the running ones first, then in the order in which they are taken, or newest first."""
        found = list(islice(self.all(wanted, newest=newest), limit + 1))
        waiting = sum(view.length for view in self.snapshot.lanes)
        return TaskPage(tasks=tuple(found[:limit]), waiting=waiting, has_more=len(found) > limit)

    def all(self, wanted: TaskFilter, *, newest: bool = False) -> Iterator[Task]:
        """As `page`, without a limit: read on while it is consumed. Raises UsageError for what only an id finds."""
        if wanted.state in _BY_ID_ONLY:
            raise UsageError(f"--state {wanted.state}: an ended task is found by its id only: morag-queue task show ID")
        if wanted.state in _GRAVES:
            yield from self._buried(wanted)
            return
        now = self.snapshot.taken_at
        if wanted.state in (None, TaskState.RUNNING):
            held = sorted(self._held(), key=lambda task: task.claimed_at or 0.0, reverse=newest)
            yield from (task for task in held if wanted.matches(task, now))
        if wanted.state is not TaskState.RUNNING:
            yield from self._with_sources(one.task for one in self.waiting(wanted, newest=newest))

    def waiting(self, wanted: TaskFilter, *, newest: bool = False) -> Iterator[SelectedTask]:
        """The waiting tasks that are meant, with their messages."""
        by_level: dict[int, list[Iterator[SelectedTask]]] = {}
        for lane, level, length in self._locate.lists():
            if wanted.may_match_in(lane, self.snapshot.lane_by_name[lane].queue):
                stream = self._read(lane, level, length, wanted, newest)
                by_level.setdefault(0 if newest else level, []).append(stream)
        for level in sorted(by_level):
            yield from merge(*by_level[level], key=_newest if newest else _oldest)

    def _read(self, lane: str, level: int, length: int, wanted: TaskFilter, newest: bool) -> Iterator[SelectedTask]:
        windows = self._locate.search.windows(lane, level, length, newest=newest)
        before = self._locate.position(lane, level, 0)
        may_fit = _glance(wanted)
        while True:
            with translated(self._url):
                window = next(windows, None)
            if window is None:
                return
            for one in window:
                if not may_fit(one.raw):
                    continue
                task = waiting_task(one.raw, lane, level, one.depth, before + one.depth)
                if task is not None and wanted.matches(task, self.snapshot.taken_at):
                    yield SelectedTask(task, one)

    def _held(self) -> list[Task]:
        held = self.snapshot.held
        if not held:
            return []
        with translated(self._url):
            texts: Sequence[bytes | None] = self._broker.client.hmget(  # type: ignore[assignment]
                self._broker.keys.unacked, [one.tag for one in held]
            )
            records = self._broker.records(one.task_id for one in held)
        tasks = []
        for one, text in zip(held, texts, strict=True):
            raw = unwrapped(text)
            task = waiting_task(raw, one.lane, one.level) if raw is not None else None
            task = task or Task(task_id=one.task_id, state=TaskState.RUNNING, lane=one.lane, level=one.level)
            more = {"state": TaskState.RUNNING, "worker": one.worker, "claimed_at": one.claimed_at}
            tasks.append(_sourced(task.model_copy(update=more), records.get(one.task_id)))
        return tasks

    def _buried(self, wanted: TaskFilter) -> Iterator[Task]:
        with translated(self._url):
            graves = list(self._broker.dead.all())
        for grave in graves:
            task = buried_task(grave.task_id, grave.fields)
            if wanted.matches(task, self.snapshot.taken_at):
                yield task

    def _with_sources(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The ledger knows what a task works on; a message only has its arguments as text."""
        remaining = iter(tasks)
        size = 50
        while page := list(islice(remaining, size)):
            records = self._broker.records(task.task_id for task in page)
            yield from (_sourced(task, records.get(task.task_id)) for task in page)
            size = _PAGE


def _glance(wanted: TaskFilter) -> Callable[[bytes], bool]:
    """Whether a message may be meant, by its text: most of a long lane need not be decoded. Never wrongly no."""
    name, word = wanted.name or "", wanted.priority.name if wanted.priority else ""
    in_text = name.encode() if json.dumps(name) == f'"{name}"' else b""
    any_word = f'"{HEADER}": {{"priority": "'.encode()
    this_word = any_word + f'{word}"'.encode() if word else b""

    def may_fit(raw: bytes) -> bool:
        return in_text in raw and (this_word in raw or any_word not in raw)

    return may_fit


def _sourced(task: Task, record: dict[str, Any] | None) -> Task:
    if record is None:
        return task
    source = str(record.get("source") or "") or task.source
    return task.model_copy(update={"source": source, "is_known": True})


def _oldest(one: SelectedTask) -> float:
    return one.task.enqueued_at or 0.0


def _newest(one: SelectedTask) -> float:
    return -(one.task.enqueued_at or 0.0)
