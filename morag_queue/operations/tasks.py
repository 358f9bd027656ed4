"""tasks: list open or ended tasks page by page. The cost depends on the page, not on the backlog."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import merge
from itertools import islice

from morag_queue.broker.codec import LedgerRecord, dead_task, text_filter, waiting_task, with_record, with_run_times
from morag_queue.broker.lane_search import WaitingMessage
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_lookup import TaskLookup
from morag_queue.core.model import Frozen, TaskState
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import ENDED, Task, TaskFilter
from morag_queue.settings import Settings

from .agentless_tasks import AgentlessTasks, agentless_tasks

_FIRST_BATCH, _BATCH = 50, 500
"""Tasks whose ledger records are read in one call: few at first, because a page is short."""

_IN_DEAD = (TaskState.FAILED, TaskState.QUARANTINED)

_INDEXED = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED)


class TaskPage(Frozen):
    """One page. `waiting` counts all waiting tasks, also those outside the filter; `has_more`: more tasks match."""

    tasks: tuple[Task, ...]
    waiting: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class SelectedTask:
    """A waiting task and its message."""

    task: Task
    waiting: WaitingMessage


class Tasks:
    """Lists the tasks of one fleet on one snapshot; without one it observes the fleet.

    `only_shows`: nothing is changed by what it lists. Then keys of another type are left out, and the tasks that
    workers without the agent report are listed too.
    """

    def __init__(
        self, broker: RedisBroker, settings: Settings, snapshot: Snapshot | None = None, *, only_shows: bool = False
    ) -> None:
        self._broker, self._only_shows = broker, only_shows
        self.snapshot = broker.observe(partial=only_shows)[0] if snapshot is None else snapshot
        self._lookup = TaskLookup(broker.client, broker.keys, self.snapshot, broker.broken)

    @cached_property
    def agentless(self) -> AgentlessTasks:
        """What workers without the agent report, asked once."""
        return agentless_tasks(self._broker, self.snapshot) if self._only_shows else AgentlessTasks()

    def page(self, wanted: TaskFilter, *, limit: int, newest: bool = False, slowest: bool = False) -> TaskPage:
        """Return up to `limit` tasks: running tasks, then waiting tasks, next to run (or newest) first.

        If the filter names a state of ended tasks: those, the latest (or slowest) first.
        """
        found = list(islice(self.all(wanted, newest=newest, slowest=slowest), limit + 1))
        waiting = sum(view.length for view in self.snapshot.lanes)
        return TaskPage(tasks=tuple(found[:limit]), waiting=waiting, has_more=len(found) > limit)

    def all(self, wanted: TaskFilter, *, newest: bool = False, slowest: bool = False) -> Iterator[Task]:
        """Yield the tasks of `page` without a limit; they are read as the iterator is consumed."""
        if wanted.state in ENDED:
            yield from self._ended(wanted.state, wanted, slowest)
            return
        now = self.snapshot.taken_at
        if wanted.state in (None, TaskState.RUNNING):
            with self._broker.translated():
                held = self._lookup.held_tasks()
            held.sort(key=lambda task: task.claimed_at or 0.0, reverse=newest)
            yield from (task for task in (*held, *self.agentless.tasks) if wanted.matches(task, now))
        if wanted.state is not TaskState.RUNNING:
            yield from self._with_records(selected.task for selected in self.waiting(wanted, newest=newest))

    def _ended(self, state: TaskState, wanted: TaskFilter, slowest: bool) -> Iterator[Task]:
        """Yield ended tasks: dead letters, and what else the ledger has."""
        now = self.snapshot.taken_at
        dead = dead_tasks(self._broker, wanted, now) if state in _IN_DEAD else []
        dead_ids = {task.task_id for task in dead}
        if slowest:
            dead = sorted(self._with_run_times(dead), key=_slowest)
        others = (task for task in self._in_ledger(state, wanted, slowest) if task.task_id not in dead_ids)
        yield from merge(dead if slowest else self._with_run_times(dead), others, key=_slowest if slowest else _latest)

    def _in_ledger(self, state: TaskState, wanted: TaskFilter, slowest: bool) -> Iterator[Task]:
        if state not in _INDEXED:
            return
        batches = self._broker.ended.matching(state, wanted, self.snapshot.taken_at, slowest=slowest)
        while True:
            with self._broker.translated():
                batch = next(batches, None)
            if batch is None:
                return
            yield from batch

    def _with_run_times(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for batch, records in self._batches(tasks):
            yield from (with_run_times(task, records.get(task.task_id)) for task in batch)

    def waiting(self, wanted: TaskFilter, *, newest: bool = False) -> Iterator[SelectedTask]:
        """Yield the waiting tasks that match, with their messages."""
        by_level: dict[int, list[Iterator[SelectedTask]]] = {}
        for lane, level, length in self._lookup.lists():
            if wanted.may_match_in(lane, self.snapshot.lane_by_name[lane].queue):
                stream = self._read(lane, level, length, wanted, newest)
                by_level.setdefault(0 if newest else level, []).append(stream)
        for level in sorted(by_level):
            yield from merge(*by_level[level], key=_newest if newest else _oldest)

    def _read(self, lane: str, level: int, length: int, wanted: TaskFilter, newest: bool) -> Iterator[SelectedTask]:
        windows = self._windows(lane, level, length, wanted, newest)
        before = self._lookup.position(lane, level, 0)
        may_match = text_filter(wanted.name, wanted.priority)
        while True:
            with self._broker.translated():
                window = next(windows, None)
            if window is None:
                return
            for message in window:
                if not may_match(message.raw):
                    continue
                task = waiting_task(message.raw, lane, level, message.depth, before + message.depth)
                if task is not None and wanted.matches(task, self.snapshot.taken_at):
                    yield SelectedTask(task, message)

    def _windows(
        self, lane: str, level: int, length: int, wanted: TaskFilter, newest: bool
    ) -> Iterator[Sequence[WaitingMessage]]:
        search = self._lookup.search
        if wanted.submission is None:
            yield from search.windows(lane, level, length, newest=newest)
        else:
            found = search.marked(wanted.submission, lane, level, length)
            yield found[::-1] if newest else found

    def _with_records(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for batch, records in self._batches(tasks):
            yield from (with_record(task, records.get(task.task_id)) for task in batch)

    def _batches(self, tasks: Iterable[Task]) -> Iterator[tuple[list[Task], Mapping[str, LedgerRecord]]]:
        remaining = iter(tasks)
        size = _FIRST_BATCH
        while batch := list(islice(remaining, size)):
            with self._broker.translated():
                records = self._lookup.records(task.task_id for task in batch)
            yield batch, records
            size = _BATCH


def dead_tasks(broker: RedisBroker, wanted: TaskFilter, now: float) -> list[Task]:
    """Return the matching tasks in `dead`, the latest first."""
    with broker.translated():
        tasks = [dead_task(dead) for dead in broker.dead.all()]
    return [task for task in tasks if wanted.matches(task, now)]


def _latest(task: Task) -> float:
    return -(task.ended_at or 0.0)


def _slowest(task: Task) -> float:
    return 0.0 if task.run_seconds is None else -task.run_seconds


def _oldest(selected: SelectedTask) -> float:
    return selected.task.enqueued_at or 0.0


def _newest(selected: SelectedTask) -> float:
    return -(selected.task.enqueued_at or 0.0)
