"""One task, found by its id or the beginning of it, and explained."""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from morag_queue.broker.codec import decoded
from morag_queue.broker.connection import translated
from morag_queue.broker.contract import JournalEntry
from morag_queue.broker.dead_letters import DeadLetter
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_lookup import TaskHit, TaskLookup
from morag_queue.core.explain.eta import RunTime
from morag_queue.core.explain.explain import Explanation, ReasonCode, explain
from morag_queue.core.histogram import Window
from morag_queue.core.model import Frozen, QueueType, TaskState
from morag_queue.core.snapshot import Snapshot, Totals
from morag_queue.core.task import Task
from morag_queue.errors import NotFound, UsageError
from morag_queue.settings import Settings

WINDOW_S = 3600.0
"""Run times of the last hour tell how long a run takes."""


@dataclass(frozen=True, slots=True)
class NameProblem:
    """A name that is no task's, or of several."""

    name: str
    error: NotFound | UsageError


class WorkerScore(Frozen):
    worker: str
    verdict: str
    score: float
    expected_minutes: float | None


class RecordedDecision(Frozen):
    """What was decided about a task: at submit, or by a verb, see the journal's entry of that id."""

    at: float | None
    who: str = ""
    verb: str
    reason: str
    detail: Mapping[str, Any] = {}
    entry_id: str = ""


class TaskExplanation(Frozen):
    """The answer of `task why`. `position` is in the task's lane, 1 is the next; `ahead` is in all lanes."""

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


class TaskExplainer:
    """One picture of the fleet, and tasks looked up on it."""

    def __init__(self, broker: RedisBroker, settings: Settings) -> None:
        self._broker, self.settings = broker, settings
        self.snapshot: Snapshot
        self.totals: Mapping[QueueType, Totals]
        self.snapshot, self.totals = broker.observe()
        self.locate = TaskLookup(broker.client, broker.keys, self.snapshot)

    def find(self, name: str) -> TaskHit:
        """By an id or its beginning. Raises NotFound, or UsageError that lists the candidates."""
        with translated(self.settings.redis_url):
            found = self.locate.task(name, known_only=True)
            if found is not None:
                return found
            ids = self.locate.ids(name) if name else []
            whole = ids[0] if len(ids) == 1 else name
            found = self.locate.task(whole) if ids else None
            if found is None and len(ids) > 1:
                raise UsageError(f"task {name!r} is ambiguous: {', '.join(ids)}; give more of the id")
        if found is None:
            blind = not_seen(self._broker)
            raise NotFound(
                f"no task {name!r}: neither on the broker nor in the ledger; `morag-queue tasks` lists them"
                + (f"; {blind}" if blind else "")
            )
        return found

    def find_all(self, names: Iterable[str]) -> Iterator[TaskHit | NameProblem]:
        """Each of these, in their order; many whole ids cost one way through the lanes."""
        wanted = list(dict.fromkeys(names))
        with translated(self.settings.redis_url):
            known = self.locate.tasks(wanted)
        for name in wanted:
            if name in known:
                yield known[name]
                continue
            try:
                yield self.find(name)
            except (NotFound, UsageError) as error:
                yield NameProblem(name, error)

    def grave(self, task_id: str) -> DeadLetter | None:
        """Its entry in `dead`, as it is now."""
        with translated(self.settings.redis_url):
            return self._broker.dead.get(task_id)

    def explain(self, task: Task) -> Explanation:
        """Why it is where it is, on this picture."""
        windows = self._broker.windows(self.snapshot.taken_at, WINDOW_S)
        estimated = task.estimated_duration
        runs = {
            queue: RunTime.of(windows.get(queue, Window()), self.totals.get(queue, Totals()), estimated)
            for queue in QueueType
        }
        return explain(task, self.snapshot, self.settings.policy, self.settings.queues, runs)

    def why(self, name: str) -> TaskExplanation:
        """The contract's answer for one task."""
        found = self.find(name)
        explanation, task = self.explain(found.task), found.task
        expected = explanation.expected
        return TaskExplanation(
            task_id=task.task_id,
            state=task.state,
            lane=task.lane,
            position=task.position,
            reason_code=explanation.code,
            reason=explanation.reason + (_REVOKED if found.is_revoked else ""),
            workers=tuple(WorkerScore(**dict(one)) for one in explanation.workers),
            expected_start=expected.start if expected else None,
            earliest_start_at=expected.earliest if expected else None,
            latest_start_at=expected.latest if expected else None,
            ahead=expected.ahead if expected else None,
            decisions=self.decisions(found),
        )

    def decisions(self, found: TaskHit) -> tuple[RecordedDecision, ...]:
        """What was decided of it, oldest first: the ledger's own note, then what the journal says of its id."""
        noted = (found.record or {}).get("decision") or (found.record or {}).get("entry", {}).get("decision")
        first = [_submitted(noted, found.task)] if isinstance(noted, dict) else []
        with translated(self.settings.redis_url):
            entries = self._broker.journal.about(found.task.task_id)
        later = [_from_journal(entry, found.task.task_id) for entry in reversed(entries)]
        return (*first, *later)


def not_seen(broker: RedisBroker) -> str:
    """What nobody can tell of workers without the agent; '' where there are none."""
    with broker.translated():
        agentless = broker.evidence.connected().agentless_connections
    if not agentless:
        return ""
    return f"{agentless} connections are of workers without the agent, and what these have in hand is not seen"


_REVOKED = "; it was cancelled: its worker was told to drop it"


def _submitted(decision: Mapping[str, Any], task: Task) -> RecordedDecision:
    return RecordedDecision(
        at=task.enqueued_at, verb="submit", reason=str(decision.get("reason") or ""), detail=decision
    )


def _from_journal(entry: JournalEntry, task_id: str) -> RecordedDecision:
    """An entry by what it says of this task; the ids of a thousand others are left out."""
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
    """`args` and `kwargs` are None where nothing tells them (a serializer other than JSON, without a ledger entry).

    `result` is what Celery's result backend has, where that is the broker's own database; `message` the text on the
    broker, decoded; `story` how workers died over the task or failed it, `[at, worker, why]` each.
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
    message: dict[str, Any] | None = None


def task_details(broker: RedisBroker, settings: Settings, name: str) -> TaskDetails:
    """By an id or its beginning. Raises NotFound, or UsageError for an ambiguous one."""
    look = TaskExplainer(broker, settings)
    found = look.find(name)
    explanation = look.explain(found.task)
    message = decoded(found.raw) if found.raw is not None else None
    args, kwargs = _arguments(found.record, message)
    with translated(settings.redis_url):
        result: Any = broker.client.get(f"celery-task-meta-{found.task.task_id}")
        known: Any = broker.client.hget(broker.keys.attempts, f"story|{found.task.task_id}")
    story = (found.grave or {}).get("story") or (json.loads(known) if known else [])
    return TaskDetails(
        now_at=look.snapshot.taken_at,
        task=found.task,
        reason_code=explanation.code,
        reason=explanation.reason,
        args=args,
        kwargs=kwargs,
        decisions=look.decisions(found),
        story=tuple((at, str(worker or ""), str(why or "")) for at, worker, why in story),
        result=_result(result),
        message=message,
    )


def _arguments(record: dict[str, Any] | None, message: dict[str, Any] | None) -> tuple[Any, Any]:
    """As the ledger has them, else out of the message's body."""
    for known in (record or {}, (record or {}).get("entry") or {}):
        if "args" in known:
            return known["args"], known.get("kwargs")
    try:
        if message is None or message.get("content-type") != "application/json":
            return None, None
        args, kwargs, _ = json.loads(b64decode(message["body"]))
    except (ValueError, TypeError):
        return None, None
    return args, kwargs


def _result(text: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return {name: found.get(name) for name in ("status", "result", "date_done")} if isinstance(found, dict) else None
