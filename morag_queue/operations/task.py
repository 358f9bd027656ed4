"""Find tasks by id or id prefix, show one with all its details, and explain its state."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from morag_queue.broker.codec import read_arguments, read_message
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.broker.task_lookup import TaskLookup
from morag_queue.core.explain.eta import RunTime
from morag_queue.core.explain.explain import Explanation, ReasonCode, explain
from morag_queue.core.histogram import Window
from morag_queue.core.model import Frozen, JournalEntry, QueuePriority, QueueType, TaskState
from morag_queue.core.snapshot import Snapshot, Totals
from morag_queue.core.task import Task
from morag_queue.core.words import count_of, is_are
from morag_queue.errors import BrokerError, BrokerUnreachable, NotFound, UsageError
from morag_queue.settings import Settings

from .liveness import count_connections

WINDOW_S = 3600.0
"""Run times of the last hour predict when a task starts."""


NAMED_AHEAD = 5
"""Tasks ahead of a task that are named."""


@dataclass(frozen=True, slots=True)
class NameProblem:
    """A name that matches no task, or more than one."""

    name: str
    error: NotFound | UsageError


_REVOKED = "; it was cancelled: its worker was asked to drop it"


class WorkerScore(Frozen):
    """`expected_minutes` is the run time on this worker, `start_at` the start there if no other worker takes it."""

    worker: str
    verdict: str
    score: float
    expected_minutes: float | None
    start_at: float | None = None


class TaskAhead(Frozen):
    """A task that is taken before another one."""

    task_id: str
    priority: QueuePriority
    lane: str


class RecordedDecision(Frozen):
    """A decision about a task: at submit, or by the command that wrote the journal entry `entry_id`."""

    at: float | None
    who: str = ""
    verb: str
    reason: str
    detail: Mapping[str, Any] = {}
    entry_id: str = ""


class TaskExplanation(Frozen):
    """The answer of `task why`. `position` is that in its lane, 1 is next; `is_estimated`: by its enqueue time.

    `waiting_ahead` counts the tasks that the next worker to take it takes before; `tasks_ahead` names the first of
    them. `ahead` counts what all workers take before, in the simulation of the expected start.
    """

    task_id: str
    state: TaskState
    lane: str
    position: int | None
    reason_code: ReasonCode
    reason: str
    workers: tuple[WorkerScore, ...]
    expected_start: float | None
    earliest_start_at: float | None
    latest_start_at: float | None
    ahead: int | None
    decisions: tuple[RecordedDecision, ...]
    waiting_ahead: int = 0
    tasks_ahead: tuple[TaskAhead, ...] = ()
    is_estimated: bool = False


class TaskExplainer:
    """Finds and explains tasks on one snapshot of the fleet."""

    def __init__(self, broker: RedisBroker, settings: Settings) -> None:
        self._broker, self.settings = broker, settings
        self.snapshot: Snapshot
        self.totals: Mapping[QueueType, Totals]
        self.snapshot, self.totals = broker.observe(partial=True)
        self.snapshot = count_connections(broker, self.snapshot)
        self.lookup = TaskLookup(broker.client, broker.keys, self.snapshot, broker.broken)

    def find(self, name: str, *, may_estimate: bool = False) -> TaskHit:
        """Find a task by its id or id prefix. Raises NotFound, or UsageError that lists the candidates.

        `may_estimate`: see `TaskLookup.task`.
        """
        with self._broker.translated():
            found = self.lookup.task(name, known_only=True, may_estimate=may_estimate)
            if found is not None:
                return found
            ids = self.lookup.ids(name) if name else []
            unread = self.lookup.unreached if not self.lookup.is_unique(name, ids) else 0
            found = None
            if len(ids) == 1 and not unread:
                found = self.lookup.task(ids[0], may_estimate=may_estimate)
        if found is not None:
            return found
        more = f"; {count_of(unread, 'task')} deep in long lists {is_are(unread)} not searched" if unread else ""
        if len(ids) > 1:
            raise UsageError(f"task {name!r} is ambiguous: {', '.join(ids)}{more}; give more of the id")
        if ids and unread:
            raise UsageError(f"task {name!r} may be ambiguous: {ids[0]}{more}; give the whole id")
        warning = unseen_tasks(self._broker)
        raise NotFound(
            f"no task {name!r}: neither on the broker nor in the ledger; `morag-queue tasks` lists them"
            + (f"{more}, but for a whole UUID they are" if unread else "")
            + (f"; {warning}" if warning else "")
        )

    def find_all(self, names: Iterable[str]) -> Iterator[TaskHit | NameProblem]:
        """Find each of these, in their order. Any number of whole ids costs one pass through the lanes."""
        wanted = list(dict.fromkeys(names))
        with self._broker.translated():
            known = self.lookup.tasks(wanted)
        for name in wanted:
            if name in known:
                yield known[name]
                continue
            try:
                yield self.find(name)
            except (NotFound, UsageError) as error:
                yield NameProblem(name, error)

    def explain(self, task: Task) -> Explanation:
        """Explain the state of a task."""
        windows = self._broker.windows(self.snapshot.taken_at, WINDOW_S)
        estimated = task.estimated_duration
        runs = {
            queue: RunTime.of(windows.get(queue, Window()), self.totals.get(queue, Totals()), estimated)
            for queue in QueueType
        }
        return explain(task, self.snapshot, self.settings.policy, self.settings.queues, runs)

    def why(self, name: str) -> TaskExplanation:
        """Answer `task why`. Raises NotFound, UsageError."""
        found = self.find(name, may_estimate=True)
        explanation, task = self.explain(found.task), found.task
        expected = explanation.expected
        starts: Mapping[str, float] = expected.by_worker if expected else {}
        with self._broker.translated():
            ahead = self.lookup.first_in(explanation.ahead, NAMED_AHEAD)
        return TaskExplanation(
            task_id=task.task_id,
            state=task.state,
            lane=task.lane,
            position=task.position,
            reason_code=explanation.code,
            reason=explanation.reason + (_REVOKED if found.is_revoked else ""),
            workers=tuple(
                WorkerScore(**dict(score), start_at=starts.get(score.worker)) for score in explanation.workers
            ),
            expected_start=expected.start if expected else None,
            earliest_start_at=expected.earliest if expected else None,
            latest_start_at=expected.latest if expected else None,
            ahead=expected.ahead if expected else None,
            decisions=self.decisions(found),
            waiting_ahead=sum(count for _, count in explanation.ahead),
            is_estimated=task.is_estimated,
            tasks_ahead=tuple(TaskAhead(task_id=one.task_id, priority=one.priority, lane=one.lane) for one in ahead),
        )

    def details(self, name: str) -> "TaskDetails":
        """Answer `task show`. Raises NotFound, UsageError."""
        found = self.find(name, may_estimate=True)
        explanation, task_id = self.explain(found.task), found.task.task_id
        message = read_message(found.raw)
        stored = found.record.arguments if found.record is not None else None
        args, kwargs = stored or read_arguments(message) or (None, None)
        result, problem = self._result(task_id)
        with self._broker.translated():
            story = (found.dead.story if found.dead is not None else ()) or self.lookup.story(task_id)
        return TaskDetails(
            now_at=self.snapshot.taken_at,
            task=found.task,
            reason_code=explanation.code,
            reason=explanation.reason,
            args=args,
            kwargs=kwargs,
            decisions=self.decisions(found),
            story=tuple(story),
            result=result,
            result_problem=problem,
            message=message,
        )

    def _result(self, task_id: str) -> tuple[dict[str, Any] | None, str]:
        """Return the result of Celery's backend, if there is one, or why it could not be read."""
        try:
            found = self._broker.results.get(task_id)
        except (BrokerUnreachable, BrokerError) as error:
            return None, str(error)
        if found is None:
            return None, ""
        return {"status": found.status, "result": found.result, "date_done": found.date_done}, ""

    def decisions(self, found: TaskHit) -> tuple[RecordedDecision, ...]:
        """Return the decisions about a task, oldest first: the one at submit, then those of the journal."""
        decision = found.record.decision if found.record is not None else None
        first = [] if decision is None else [_submitted(decision, found.task)]
        with self._broker.translated():
            entries = self._broker.journal.about(found.task.task_id)
        later = [_from_journal(entry, found.task.task_id) for entry in reversed(entries)]
        return (*first, *later)


def unseen_tasks(broker: RedisBroker) -> str:
    """Return a warning if workers without the agent are connected, whose tasks are not visible; else ""."""
    with broker.translated():
        agentless = broker.evidence.connected().agentless_workers
    if not agentless:
        return ""
    return f"the running tasks of {count_of(agentless, 'worker')} without the agent are not visible"


def _submitted(decision: Mapping[str, Any], task: Task) -> RecordedDecision:
    return RecordedDecision(
        at=task.enqueued_at, verb="submit", reason=str(decision.get("reason") or ""), detail=decision
    )


def _from_journal(entry: JournalEntry, task_id: str) -> RecordedDecision:
    """Reduce a journal entry to one task; the entry may name a thousand others."""
    tasks = entry.changes.get("tasks")
    of_this = tasks.get(task_id) if isinstance(tasks, dict) else None
    detail = {name: value for name, value in entry.changes.items() if not isinstance(value, list | dict)}
    reason = entry.reason
    match of_this:
        case [source, level, target, to_level, why]:  # a move by the balancing loop
            detail = {"from": source, "level": level, "to": target, "to_level": to_level}
            reason = str(why)
        case dict():
            detail = of_this
    return RecordedDecision(
        at=entry.at, who=entry.who, verb=entry.verb, reason=reason or entry.subject, detail=detail,
        entry_id=entry.entry_id,
    )  # fmt: skip


class TaskDetails(Frozen):
    """The answer of `task show`. `args` and `kwargs` are None for a body that is not JSON, without a ledger record.

    `result` is that of Celery's backend, see the settings `results`; `result_problem` is why it could not be read.
    `message` is the decoded text on the broker, None for a task that waits deep in a long list (`Task.is_estimated`);
    `story` has (seconds since the epoch, worker, reason) of each failed or lost attempt.
    """

    now_at: float
    task: Task
    reason_code: ReasonCode
    reason: str
    args: Any = None
    kwargs: Any = None
    decisions: tuple[RecordedDecision, ...] = ()
    story: tuple[tuple[float | None, str, str], ...] = ()
    result: dict[str, Any] | None = None
    result_problem: str = ""
    message: dict[str, Any] | None = None


def task_details(broker: RedisBroker, settings: Settings, name: str) -> TaskDetails:
    """Answer `task show`. Raises NotFound, UsageError."""
    return TaskExplainer(broker, settings).details(name)
