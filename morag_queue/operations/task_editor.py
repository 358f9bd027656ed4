"""Edit tasks for an operator: look up → plan → journal the intent → apply → journal the result.

`core.edits` plans, `apply_edits` applies. A task that is taken or moved between its lookup and its edit is looked up
and planned again, a few times.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.core.edits.rules import EditContext, Rule, plan_edits
from morag_queue.core.edits.steps import (
    CancelTask,
    EditPlan,
    EditStep,
    NoChange,
    RecordedTask,
    RefusedEdit,
    RestoreTask,
    ResubmitTask,
    ReturnTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
    outcome_of,
)
from morag_queue.core.model import Frozen, TaskState
from morag_queue.core.plan import Applied, Rejected
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import TaskFilter
from morag_queue.core.words import count_of
from morag_queue.errors import ExitStatus
from morag_queue.settings import Settings

from .apply_edits import AppliedEdits, apply_edits
from .change import Change
from .task import NameProblem, TaskExplainer
from .tasks import SelectedTask, Tasks
from .undo_items import states, taken_task

JOURNALED_TASKS = 1000
"""Tasks of one change that its journal entry names. The undo has all of them, see `broker.undo`."""

PREVIEWED = 10
"""Tasks of a selection that are shown before it is changed."""

_ATTEMPTS = 3
"""Lookups of a task that keeps changing between lookup and edit."""

PART = 10_000
"""Tasks that are edited at once: their messages are in memory meanwhile, 50 MB."""

_BATCH = 500
"""Tasks whose ledger records are read in one call."""


T = TypeVar("T")


class TaskChange(Frozen):
    """The result for one task.

    `outcome`: cancelled, revoked, moved, changed, queued, returned (to how it had ended), unchanged or refused.
    """

    task_id: str
    outcome: str
    detail: str
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)


@dataclass(slots=True)
class Selection:
    """The tasks that a filter has selected. Of more than `PART` only the ids are kept, and they are read again."""

    tasks: list[TaskHit] | list[str]
    first: list[TaskHit]
    held: int

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(slots=True)
class EditReport:
    """The result of one edit. `entry_id` is the journal entry, "" if nothing was changed.

    In a dry run it reports what the edit would change.
    """

    verb: str
    dry_run: bool
    applied: Applied
    tasks: list[TaskChange] = field(default_factory=list)
    entry_id: str = ""
    _statuses: set[ExitStatus] = field(default_factory=set)

    @property
    def changed(self) -> list[TaskChange]:
        return [task for task in self.tasks if task.outcome not in ("unchanged", "refused")]

    @property
    def refused(self) -> list[TaskChange]:
        return [task for task in self.tasks if task.outcome == "refused"]

    @property
    def exit_status(self) -> ExitStatus:
        if not self.applied.rejected:
            return ExitStatus.OK
        if len(self.applied.rejected) < len(self.tasks):
            return ExitStatus.PARTIAL
        return next(iter(self._statuses)) if len(self._statuses) == 1 else ExitStatus.FAILED

    def add(self, plan: EditPlan, result: AppliedEdits) -> None:
        """Add the steps that were applied, or refused by the plan."""
        self.tasks += (_described(step) for step, done in zip(plan.steps, result.done, strict=True) if done)
        self.applied += result.applied
        if result.applied.rejected:
            self._statuses.add(ExitStatus.REFUSED)

    def refuse(self, task_id: str, detail: str, status: ExitStatus = ExitStatus.REFUSED) -> None:
        """Add a task that no plan contains."""
        self.tasks.append(TaskChange(task_id=task_id, outcome="refused", detail=detail))
        self.applied += Applied(plan_id="", rejected=(Rejected(task_id=task_id, reason=detail),))
        self._statuses.add(status)

    def as_json(self) -> dict[str, Any]:
        done = self.applied
        return {
            "verb": self.verb,
            "dry_run": self.dry_run,
            "changed": done.cancelled + done.revoked + done.moved + done.changed + done.queued + done.returned,
            "unchanged": done.unchanged,
            "refused": len(done.rejected),
            "tasks": self.tasks,
            "journal": self.entry_id or None,
        }


class TaskEditor:
    """One edit of one or many tasks, on one snapshot of the fleet."""

    def __init__(
        self, broker: RedisBroker, settings: Settings, verb: str, *, who: str, reason: str = "", dry_run: bool = False
    ) -> None:
        self._broker, self._settings, self._verb = broker, settings, verb
        self._who, self.reason, self._dry_run = who, reason, dry_run
        self._notes: dict[str, Any] = {}

    @property
    def snapshot(self) -> Snapshot:
        return self._explainer.snapshot

    @cached_property
    def _explainer(self) -> TaskExplainer:
        return TaskExplainer(self._broker, self._settings)

    def note(self, **facts: Any) -> None:
        """Add facts to the entry of the journal."""
        self._notes |= facts

    def refresh(self) -> None:
        """Observe the fleet again: it may have changed during a prompt, or while tasks were edited."""
        self.__dict__.pop("_explainer", None)

    def select(self, wanted: TaskFilter) -> Iterator[TaskHit]:
        """Yield the tasks that a filter matches: waiting tasks, unless it selects another state.

        They are read as the iterator is consumed, so make a list of them before a change that moves them.
        """
        tasks = Tasks(self._broker, self._settings, self.snapshot)
        if wanted.state in (TaskState.RUNNING, TaskState.FAILED, TaskState.QUARANTINED):
            found = self._explainer.find_all(task.task_id for task in tasks.all(wanted))
            yield from (hit for hit in found if isinstance(hit, TaskHit))
        else:
            yield from self._with_records(tasks.waiting(wanted))

    def count_held(self, submission: str) -> int:
        """Count the tasks of a submission that workers hold."""
        tasks = Tasks(self._broker, self._settings, self.snapshot)
        return sum(1 for _ in tasks.all(TaskFilter(submission=submission, state=TaskState.RUNNING)))

    def choose(self, wanted: TaskFilter) -> Selection:
        """Select the tasks that a filter matches, as `select` does."""
        hits, ids, held = list[TaskHit](), list[str](), 0
        for hit in self.select(wanted):
            ids.append(hit.task.task_id)
            held += hit.task.claimed_at is not None and not hit.task.has_ended
            if len(hits) < PART:
                hits.append(hit)
        return Selection(hits if len(ids) <= PART else ids, hits[:PREVIEWED], held)

    def lookup(self, recorded: Sequence[tuple[str, RecordedTask]]) -> Iterator[TaskHit | str]:
        """Find the tasks of a recorded change. Those that only the record knows have ended; others are left as ids."""
        with self._broker.translated():
            known = self._explainer.lookup.tasks([task_id for task_id, _ in recorded])
        for task_id, one in recorded:
            yield known.get(task_id) or taken_task(task_id, one) or task_id

    def run(self, tasks: Iterable[str | TaskHit], rule: Rule) -> EditReport:
        """Edit tasks, given by id, by id prefix or as found by `select`. A task that is not found is refused alone.

        If the broker fails midway the error is raised. The edits made until then stay; the journal has the intent, by
        which they can be undone.
        """
        return self.run_parts((part, rule) for part in in_parts(tasks, PART))

    def run_parts(self, parts: Iterable[tuple[Sequence[str | TaskHit], Rule]]) -> EditReport:
        """Edit tasks in parts, each by a rule of its own. A part is read when the one before it is done."""
        self._change = Change(self._broker, self._verb, who=self._who, reason=self.reason)
        report = EditReport(self._verb, self._dry_run, Applied(plan_id=self._change.change_id))
        for n, (part, rule) in enumerate(parts):
            if n:
                self.refresh()
            self._edit(report, list(self._resolve(report, part)), rule)
        self._finish(report)
        return report

    def _edit(self, report: EditReport, hits: list[TaskHit], rule: Rule) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt and hits:
                self.refresh()
                hits = list(self._resolve(report, [hit.task.task_id for hit in hits]))
            hits = self._plan_and_apply(report, hits, rule)
        for hit in hits:
            report.refuse(hit.task.task_id, "it changed again before each attempt: try again")

    def _resolve(self, report: EditReport, tasks: Iterable[str | TaskHit]) -> Iterator[TaskHit]:
        given = list(tasks)
        names = dict.fromkeys(task for task in given if isinstance(task, str))
        named = dict(zip(names, self._explainer.find_all(names), strict=True))
        seen = set[str]()
        for task in given:
            found = named[task] if isinstance(task, str) else task
            if isinstance(found, NameProblem):
                report.refuse(found.name, str(found.error), found.error.exit_status)
            elif found.task.task_id not in seen:
                seen.add(found.task.task_id)
                yield found

    def _with_records(self, waiting: Iterator[SelectedTask]) -> Iterator[TaskHit]:
        while batch := list(islice(waiting, _BATCH)):
            with self._broker.translated():
                records = self._explainer.lookup.records(selected.task.task_id for selected in batch)
            for selected in batch:
                yield TaskHit(selected.task, selected.waiting.raw.decode(), records.get(selected.task.task_id))

    def _plan_and_apply(self, report: EditReport, hits: list[TaskHit], rule: Rule) -> list[TaskHit]:
        """Edit the tasks. Return those that have changed since they were read: nothing of them was edited."""
        context = EditContext(self.snapshot, self._settings.policy, self._settings.queues)
        plan = plan_edits(context, (hit.editable for hit in hits), rule, plan_id=report.applied.plan_id)
        if not self._dry_run and any(not isinstance(step, NoChange | RefusedEdit) for step in plan.steps):
            self._change.begin(_subject([step.task_id for step in plan.steps]), self._notes)
        change_id = self._change.change_id
        result = apply_edits(self._broker, plan, hits, change_id=change_id, dry_run=self._dry_run)
        report.add(plan, result)
        return [hit for hit, done in zip(hits, result.done, strict=True) if not done]

    def _finish(self, report: EditReport) -> None:
        changed = report.changed
        if not changed:
            self._change.withdraw()
        if self._dry_run or not changed:
            return
        tasks = {
            task.task_id: {"outcome": task.outcome, "before": task.before, "after": task.after}
            for task in changed[:JOURNALED_TASKS]
        }
        unnamed = max(len(changed) - JOURNALED_TASKS, 0)
        changes = {"count": len(changed), "unnamed": unnamed, "tasks": tasks, **self._notes}
        report.entry_id = self._change.finish(_subject([task.task_id for task in changed]), changes)


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of up to `size`."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _subject(task_ids: Sequence[str]) -> str:
    return task_ids[0] if len(task_ids) == 1 else count_of(len(task_ids), "task")


def _described(step: EditStep) -> TaskChange:
    match step:
        case CancelTask(task=task):
            detail = f"out of {task.lane}"
        case RewriteTask() | RevokeTask() | NoChange() | RefusedEdit():
            detail = step.detail
        case ReviveTask():
            detail = f"out of dead, to {step.lane}"
        case ResubmitTask():
            detail = f"to {step.lane}"
        case RestoreTask():
            detail = f"back to its place in {step.lane}"
        case ReturnTask(task=task):
            detail = f"out of {task.lane}, {states(step)[1]['state']} as before"
    before, after = states(step)
    outcome = outcome_of(step)
    return TaskChange(task_id=step.task_id, outcome=outcome, detail=detail, before=dict(before), after=dict(after))
