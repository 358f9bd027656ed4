"""journal: list the changes, find one by its id, and undo it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from morag_queue.broker.contract import Broker
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.edits import rules
from morag_queue.core.edits.rules import EditContext, Rule
from morag_queue.core.edits.steps import EditableTask, EditStep, NoChange, RefusedEdit, RewriteTask
from morag_queue.core.lanes import queue_of, split
from morag_queue.core.levels import readable
from morag_queue.core.model import Frozen, JournalEntry, TaskState, WorkerStatus
from morag_queue.core.routing.types import Refusal
from morag_queue.core.task import TaskFilter
from morag_queue.core.words import count_of, some
from morag_queue.errors import ExitStatus, Refused, UsageError
from morag_queue.settings import Settings

from .agentless import cordon_any, uncordon_any
from .names import NAMES_LISTED
from .pause import pause, resume
from .task_editor import TaskEditor
from .tasks import Tasks

_SEARCHED = 10_000
"""Entries searched for an id or a verb; the journal keeps about this many."""

_VERB = "journal undo"


def latest(broker: Broker, limit: int, verb: str | None = None) -> list[JournalEntry]:
    """Return the latest changes, newest first, optionally of one verb only."""
    with broker.translated():
        if verb is None:
            return broker.journal.latest(limit)
        return [change for change in broker.journal.latest(_SEARCHED) if change.verb == verb][:limit]


def entry(broker: Broker, name: str) -> JournalEntry | None:
    """Return the entry with this id, or with this unique prefix of its id or plan id; None if there is none.

    Raises UsageError if several match.
    """
    with broker.translated():
        entries = broker.journal.latest(_SEARCHED)
    found = [known for known in entries if known.entry_id == name] or [
        known for known in entries if known.entry_id.startswith(name) or known.plan_id.startswith(name)
    ]
    if len(found) > 1:
        candidates = some((known.entry_id for known in found), NAMES_LISTED)
        raise UsageError(f"journal entry {name!r} is ambiguous: {candidates}")
    return found[0] if found else None


class UndoFailure(Frozen):
    subject: str
    reason: str


class UndoResult(Frozen):
    """`undone` counts the changes that were reverted, `unchanged` those that were as before already."""

    entry_id: str
    verb: str
    undone: int = 0
    unchanged: int = 0
    not_undone: tuple[UndoFailure, ...] = ()
    dry_run: bool = False

    @property
    def exit_status(self) -> ExitStatus:
        if not self.not_undone:
            return ExitStatus.OK
        return ExitStatus.PARTIAL if self.undone or self.unchanged else ExitStatus.REFUSED


class Undo:
    """Reverts one journal entry on behalf of `who`."""

    def __init__(
        self,
        broker: RedisBroker,
        settings: Settings,
        *,
        who: str,
        reason: str = "",
        dry_run: bool = False,
    ) -> None:
        self._broker, self._settings = broker, settings
        self._who, self._reason, self._dry_run = who, reason, dry_run

    def __call__(self, entry: JournalEntry) -> UndoResult:
        """Revert the entry. Raises Refused for a change that cannot be undone at all."""
        match entry.verb:
            case "pause" | "resume":
                opposite = resume if entry.verb == "pause" else pause
                changed = opposite(self._broker, entry.subject, **self._by(entry)).changed
                return self._answer(entry, changed)
            case "cordon" | "uncordon" | "drain":
                return self._worker(entry)
            case "submit":
                return self._submission(entry)
            case "task cancel":
                return self._tasks(entry, _only("cancelled", _uncancelled(partial(rules.retry, reset=True))))
            case "task retry" | "dead requeue":
                return self._tasks(entry, _only("queued", _unqueued(self._reason)))
            case "task prio" | "task move" | "rebalance" | "watch" | "journal undo":
                return self._tasks(entry, _moved_back)
        raise _not_undoable(entry)

    def _submission(self, entry: JournalEntry) -> UndoResult:
        """Cancel what waits of a submission. Tasks that were cancelled before count as unchanged."""
        submission = entry.changes.get("submission")
        if not isinstance(submission, str):
            raise _not_undoable(entry)
        options = self._by(entry)
        editor = TaskEditor(self._broker, self._settings, _VERB, **options)
        cancelled = TaskFilter(submission=submission, state=TaskState.CANCELLED)
        before = sum(1 for _ in Tasks(self._broker, self._settings, editor.snapshot).all(cancelled))
        report = editor.run(editor.select(TaskFilter(submission=submission)), _unqueued(options["reason"]))
        if not self._dry_run:
            editor.refresh()  # workers may have taken tasks meanwhile
        undone, held = len(report.changed), editor.count_held(submission)
        ended = max(int(entry.changes.get("submitted") or 0) - undone - before - held, 0)
        order = f"morag-queue task cancel --submission {submission} --state running"
        stays = [
            UndoFailure(subject=count_of(number, "task"), reason=reason)
            for number, reason in ((held, f"held by workers already; to revoke: {order}"), (ended, "ended already"))
            if number
        ]
        return UndoResult(
            entry_id=entry.entry_id, verb=entry.verb, undone=undone, unchanged=before, not_undone=tuple(stays),
            dry_run=self._dry_run,
        )  # fmt: skip

    def _by(self, entry: JournalEntry) -> dict[str, Any]:
        reason = self._reason or f"undo of {entry.entry_id}"
        return {"who": self._who, "reason": reason, "dry_run": self._dry_run}

    def _answer(self, entry: JournalEntry, changed: bool, *not_undone: UndoFailure) -> UndoResult:
        return UndoResult(
            entry_id=entry.entry_id, verb=entry.verb, undone=int(changed), unchanged=int(not changed),
            not_undone=not_undone, dry_run=self._dry_run,
        )  # fmt: skip

    def _worker(self, entry: JournalEntry) -> UndoResult:
        before = entry.changes.get("before")
        state = before.get("state") if isinstance(before, dict) else None
        if state in (WorkerStatus.DRAINING, WorkerStatus.DRAINED) and entry.verb != "drain":
            raise Refused(f"{entry.subject} was {state} before: morag-queue drain {entry.subject} does that again")
        opposite = cordon_any if state == WorkerStatus.CORDONED and entry.verb == "uncordon" else uncordon_any
        changed = opposite(self._broker, entry.subject, **self._by(entry)).changed
        stays = [UndoFailure(subject=entry.subject, reason="the tasks that it moved stay where they are")]
        return self._answer(entry, changed, *(stays if entry.changes.get("moved_tasks") else []))

    def _tasks(self, entry: JournalEntry, rule: "_JournalRule") -> UndoResult:
        recorded = entry.changes.get("tasks")
        tasks: Mapping[str, Any] = recorded if isinstance(recorded, dict) else {}
        if not tasks and not entry.changes.get("lanes"):
            raise _not_undoable(entry)
        options = self._by(entry)
        editor = TaskEditor(self._broker, self._settings, _VERB, **options)
        report = editor.run(list(tasks), _each(tasks, rule))
        not_undone = [UndoFailure(subject=refused.task_id, reason=refused.detail) for refused in report.refused]
        if unnamed := entry.changes.get("unnamed"):
            reason = "counted in the journal entry, but not named"
            not_undone.append(UndoFailure(subject=count_of(unnamed, "more task"), reason=reason))
        for source, level, target, count, *_ in entry.changes.get("lanes") or []:
            reason = f"the whole lane ({count_of(count, 'task')}) was moved to {target}, where other tasks wait too"
            not_undone.append(UndoFailure(subject=f"{source}, level {level}", reason=reason))
        changed = len(report.changed)
        return UndoResult(
            entry_id=entry.entry_id, verb=entry.verb, undone=changed,
            unchanged=len(report.tasks) - changed - len(report.refused), not_undone=tuple(not_undone),
            dry_run=self._dry_run,
        )  # fmt: skip


def _not_undoable(entry: JournalEntry) -> Refused:
    return Refused(f"{entry.verb} of {entry.subject} cannot be undone: the journal does not record the state before it")


_JournalRule = Callable[[Any, EditContext, EditableTask], EditStep]
"""A rule that also receives the record of the task in the journal entry."""


def _each(tasks: Mapping[str, Any], rule: _JournalRule) -> Rule:
    return lambda context, editable: rule(tasks.get(editable.task.task_id), context, editable)


def _only(outcome: str, rule: Rule) -> _JournalRule:
    """Apply the rule only to tasks with this outcome: a revoke, for example, cannot be undone."""

    def checked_rule(recorded: Any, context: EditContext, editable: EditableTask) -> EditStep:
        if not isinstance(recorded, dict) or recorded.get("outcome") != outcome:
            return RefusedEdit(editable.task.task_id, "an order to a worker cannot be undone")
        return rule(context, editable)

    return checked_rule


def _uncancelled(retry: Rule) -> Rule:
    def decide(context: EditContext, editable: EditableTask) -> EditStep:
        task = editable.task
        if task.has_ended and task.state is not TaskState.CANCELLED:
            return RefusedEdit(task.task_id, f"was queued again since, and has ended ({task.state})")
        return retry(context, editable)

    return decide


def _unqueued(reason: str) -> Rule:
    cancel = partial(rules.cancel, reason=reason or "its retry was undone", terminate=False)

    def decide(context: EditContext, editable: EditableTask) -> EditStep:
        task = editable.task
        if task.claimed_at is not None:
            return RefusedEdit(task.task_id, f"{task.worker} has it already")
        return cancel(context, editable)

    return decide


def _moved_back(recorded: Any, context: EditContext, editable: EditableTask) -> EditStep:
    """Move a task back, if it still waits where the change put it."""
    task = editable.task
    match recorded:
        case [str() as lane, int() as level, str() as to_lane, int() as to_level, *_]:
            before: dict[str, Any] = {"lane": lane, "level": level}
            after: dict[str, Any] = {"lane": to_lane, "level": to_level}
        case {"before": {"lane": str(), "level": int()} as before, "after": {"lane": str()} as after}:
            pass
        case _:
            return RefusedEdit(task.task_id, "the journal does not record its state before the change")
    if task.has_ended or task.claimed_at is not None or not task.is_on_broker:
        return RefusedEdit(task.task_id, "it no longer waits")
    now = {"lane": task.lane, "level": task.level, "priority": task.priority.name, "worker": task.pinned_to}
    if all(now[name] == value for name, value in before.items() if name in now):
        return NoChange(task.task_id, "is as before the change already")
    if any(now[name] != value for name, value in after.items() if name in now):
        return RefusedEdit(task.task_id, "it has been changed again since")
    queue, owner = queue_of(before["lane"]), split(before["lane"])[1]
    if before["lane"] != task.lane:
        place = context.place(task, worker=owner, queue=queue)
        if isinstance(place, Refusal):
            return RefusedEdit(task.task_id, place.message)
    fields: dict[str, Any] = {name: before[name] for name in ("priority", "worker") if name in before}
    if queue is not None:
        fields["queue"] = queue.value
    level = readable(before["level"], context.steps(before["lane"]))
    return RewriteTask(task, before["lane"], level, fields, "moved", f"back to {before['lane']}")
