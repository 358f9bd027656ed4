"""Edit tasks for an operator: look up → plan → apply → journal.

`core.edits` plans, `apply_edits` applies. A task that is taken or moved between its lookup and its edit is looked up
and planned again, a few times.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any
from uuid import uuid4

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.core.edits.rules import EditContext, Rule, plan_edits
from morag_queue.core.edits.steps import (
    CancelTask,
    EditPlan,
    EditStep,
    NoChange,
    RefusedEdit,
    ResubmitTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
)
from morag_queue.core.model import Frozen, TaskState
from morag_queue.core.plan import Applied, Rejected
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import TaskFilter
from morag_queue.errors import ExitStatus
from morag_queue.settings import Settings

from .apply_edits import AppliedEdits, apply_edits, outcome_of
from .task import NameProblem, TaskExplainer
from .tasks import SelectedTask, Tasks

JOURNALED_TASKS = 1000
"""Tasks of one edit that the journal names, and that can be undone; the others are only counted."""

_ATTEMPTS = 3
"""Lookups of a task that keeps changing between lookup and edit."""

_PART = 10_000
"""Tasks that are edited at once: their messages are in memory meanwhile."""

_BATCH = 500
"""Tasks whose ledger records are read in one call."""


class TaskChange(Frozen):
    """The result for one task. `outcome`: cancelled, revoked, moved, changed, queued, unchanged or refused."""

    task_id: str
    outcome: str
    detail: str
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)


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
        self.tasks += (_change(step) for step, done in zip(plan.steps, result.done, strict=True) if done)
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
            "changed": done.cancelled + done.revoked + done.moved + done.changed + done.queued,
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

    def run(self, tasks: Iterable[str] | Iterable[TaskHit], rule: Rule) -> EditReport:
        """Edit tasks, given by id, by id prefix or as found by `select`. A task that is not found is refused alone.

        If the broker fails midway the error is raised. The edits made until then stay, without a journal entry.
        """
        report = EditReport(self._verb, self._dry_run, Applied(plan_id=str(uuid4())))
        hits = self._resolve(report, tasks)
        while part := list(islice(hits, _PART)):
            self._edit(report, part, rule)
        self._write_journal(report)
        return report

    def _edit(self, report: EditReport, hits: list[TaskHit], rule: Rule) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt and hits:
                self.refresh()
                hits = list(self._resolve(report, [hit.task.task_id for hit in hits]))
            hits = self._plan_and_apply(report, hits, rule)
        for hit in hits:
            report.refuse(hit.task.task_id, "it changed again before each attempt: try again")

    def _resolve(self, report: EditReport, tasks: Iterable[str] | Iterable[TaskHit]) -> Iterator[TaskHit]:
        names = list[str]()
        for task in tasks:
            if isinstance(task, TaskHit):
                yield task
            else:
                names.append(task)
        seen = set[str]()
        for found in self._explainer.find_all(names):
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
        result = apply_edits(self._broker, plan, hits, dry_run=self._dry_run)
        report.add(plan, result)
        return [hit for hit, done in zip(hits, result.done, strict=True) if not done]

    def _write_journal(self, report: EditReport) -> None:
        changed = report.changed
        if self._dry_run or not changed:
            return
        subject = changed[0].task_id if len(changed) == 1 else f"{len(changed)} tasks"
        tasks = {
            task.task_id: {"outcome": task.outcome, "before": task.before, "after": task.after}
            for task in changed[:JOURNALED_TASKS]
        }
        unnamed = max(len(changed) - JOURNALED_TASKS, 0)
        changes = {"count": len(changed), "unnamed": unnamed, "tasks": tasks, **self._notes}
        with self._broker.translated():
            report.entry_id = self._broker.journal.write(
                self._who, self._verb, subject, reason=self.reason, changes=changes
            )


def _change(step: EditStep) -> TaskChange:
    """Describe one step. `before` and `after` are what an undo compares and restores."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    match step:
        case CancelTask(task=task):
            detail, before = f"out of {task.lane}", {"lane": task.lane, "level": task.level}
        case RewriteTask(task=task):
            detail = step.detail
            before = {"lane": task.lane, "level": task.level, "priority": task.priority.name, "worker": task.pinned_to}
            fields = {name: value for name, value in step.fields.items() if name in before}
            after = {**before, "lane": step.lane, "level": step.level, **fields}
        case RevokeTask():
            detail, before = step.detail, {"worker": step.worker}
        case ReviveTask(task=task):
            detail, before, after = f"out of dead, to {step.lane}", {"state": task.state.value}, {"lane": step.lane}
        case ResubmitTask(task=task):
            detail, before, after = f"to {step.lane}", {"state": task.state.value}, {"lane": step.lane}
        case NoChange() | RefusedEdit():
            detail = step.detail
    return TaskChange(task_id=step.task_id, outcome=outcome_of(step), detail=detail, before=before, after=after)
