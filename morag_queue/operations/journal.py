"""journal: list the changes, find one by its id, and undo it."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from morag_queue.broker.contract import Broker
from morag_queue.broker.journal import BEGUN
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.edits.rules import EditContext, cancel
from morag_queue.core.edits.steps import EditableTask, EditStep, RecordedTask, RefusedEdit
from morag_queue.core.edits.undo import undo
from morag_queue.core.model import Frozen, JournalEntry, TaskState, WorkerStatus
from morag_queue.core.task import TaskFilter
from morag_queue.core.words import count_of, some
from morag_queue.errors import ExitStatus, Refused, UsageError
from morag_queue.settings import Settings

from .agentless import cordon_any, uncordon_any
from .dead_letters import drop_letters, restore_letters
from .names import NAMES_LISTED
from .pause import pause, resume
from .task_editor import TaskEditor, in_parts
from .tasks import Tasks
from .undo_items import recorded_tasks

_SEARCHED = 10_000
"""Entries searched for an id or a verb; the journal keeps about this many."""

_VERB = "journal undo"

_PART = 2_000
"""Tasks that are undone at once: what was recorded of them is in memory, besides their messages."""

Recorded = tuple[str, RecordedTask]
"""A task id, and what a change recorded of the task."""


def latest(broker: Broker, limit: int, verb: str | None = None) -> list[JournalEntry]:
    """Return the latest changes, newest first, optionally of one verb only."""
    with broker.translated():
        if verb is None:
            return broker.journal.latest(limit)
        return [change for change in broker.journal.latest(_SEARCHED) if change.verb == verb][:limit]


def entry(broker: Broker, name: str) -> JournalEntry | None:
    """Return the entry with this id, or with this unique prefix of its id or plan id; None if there is none.

    An entry that was written when its change began is also found by the id that it had then.

    Raises UsageError if several match.
    """
    with broker.translated():
        entries = broker.journal.latest(_SEARCHED)
    found = [known for known in entries if name in (known.entry_id, known.changes.get("begun"))] or [
        known for known in entries if known.entry_id.startswith(name) or known.plan_id.startswith(name)
    ]
    if len(found) > 1:
        candidates = some((known.entry_id for known in found), NAMES_LISTED)
        raise UsageError(f"journal entry {name!r} is ambiguous: {candidates}")
    return found[0] if found else None


def is_begun(entry: JournalEntry) -> bool:
    """Return whether the command of the change has not ended, or was killed."""
    return entry.changes.get("state") == BEGUN


def in_full(broker: RedisBroker, entry: JournalEntry) -> JournalEntry:
    """Return the entry with all tasks that its change recorded: it names only the first itself, a begun one none."""
    if not is_begun(entry) and not entry.changes.get("unnamed"):
        return entry
    tasks = {
        task_id: {"outcome": one.outcome, "before": one.before, "after": one.after}
        for task_id, one in recorded_tasks(broker, entry)
    }
    changes = {**entry.changes, "count": len(tasks), "tasks": dict(reversed(tasks.items()))}
    return entry.model_copy(update={"changes": changes})


class UndoFailure(Frozen):
    subject: str
    reason: str


class UndoResult(Frozen):
    """`undone` counts the changes that were reverted, `unchanged` those that were as before already.

    `undone_before` is the entry of an earlier undo of the same change; what that one could not undo is no news.
    """

    entry_id: str
    verb: str
    undone: int = 0
    unchanged: int = 0
    not_undone: tuple[UndoFailure, ...] = ()
    undone_before: str | None = None
    journal: str | None = None
    dry_run: bool = False

    @property
    def is_repeated(self) -> bool:
        """Whether an earlier undo has left nothing to do."""
        return self.undone_before is not None and not self.undone

    @property
    def exit_status(self) -> ExitStatus:
        if not self.not_undone or self.is_repeated:
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
        result = self._undo(entry)
        if result.not_undone and not result.undone:
            result = result.model_copy(update={"undone_before": self._undone_before(entry)})
        return result

    def _undo(self, entry: JournalEntry) -> UndoResult:
        match entry.verb:
            case "pause" | "resume":
                opposite = resume if entry.verb == "pause" else pause
                changed = opposite(self._broker, entry.subject, **self._by(entry)).changed
                return self._answer(entry, changed)
            case "cordon" | "uncordon" | "drain":
                return self._worker(entry)
            case "submit":
                return self._submission(entry)
        recorded = recorded_tasks(self._broker, entry)
        first = next(recorded, None)
        if first is None:
            return self._without_tasks(entry)
        recorded = chain([first], recorded)
        return self._letters(entry, recorded) if first[1].outcome in _LETTERS else self._tasks(entry, recorded)

    def _without_tasks(self, entry: JournalEntry) -> UndoResult:
        if not is_begun(entry) and not entry.changes.get("lanes"):
            raise _not_undoable(entry)
        if is_begun(entry) and self._broker.now() - entry.at > self._settings.ledger.retention_seconds:
            raise Refused(f"{entry.verb} of {entry.subject} cannot be undone any more: its record has expired")
        return UndoResult(
            entry_id=entry.entry_id, verb=entry.verb, not_undone=tuple(_whole_lanes(entry)), dry_run=self._dry_run
        )  # fmt: skip

    def _undone_before(self, entry: JournalEntry) -> str | None:
        """Return the latest entry by which the change was undone."""
        with self._broker.translated():
            others = self._broker.journal.about(entry.entry_id)
        return next((one.entry_id for one in others if one.changes.get("undoes") == entry.entry_id), None)

    def _submission(self, entry: JournalEntry) -> UndoResult:
        """Cancel what waits of a submission. Tasks that were cancelled before count as unchanged."""
        submission = entry.changes.get("submission")
        if not isinstance(submission, str):
            raise _not_undoable(entry)
        options = self._by(entry)
        editor = TaskEditor(self._broker, self._settings, _VERB, **options)
        cancelled = TaskFilter(submission=submission, state=TaskState.CANCELLED)
        before = sum(1 for _ in Tasks(self._broker, self._settings, editor.snapshot).all(cancelled))
        editor.note(undoes=entry.entry_id)
        rule = partial(_cancelled, reason=options["reason"])
        report = editor.run(editor.choose(TaskFilter(submission=submission)).tasks, rule)
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
            journal=report.entry_id or None, dry_run=self._dry_run,
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

    def _tasks(self, entry: JournalEntry, recorded: Iterable[Recorded]) -> UndoResult:
        options = self._by(entry)
        editor = TaskEditor(self._broker, self._settings, _VERB, **options)
        editor.note(undoes=entry.entry_id)
        report = editor.run_parts(
            (list(editor.lookup(part)), partial(_undo_recorded, recorded=dict(part), reason=options["reason"]))
            for part in in_parts(recorded, _PART)
        )
        not_undone = [UndoFailure(subject=refused.task_id, reason=refused.detail) for refused in report.refused]
        changed = len(report.changed)
        known = len(report.tasks)
        if (unnamed := int(entry.changes.get("count") or 0) - known) > 0:
            reason = "counted in the journal entry, but no longer recorded"
            not_undone.append(UndoFailure(subject=count_of(unnamed, "more task"), reason=reason))
        return UndoResult(
            entry_id=entry.entry_id, verb=entry.verb, undone=changed, unchanged=known - changed - len(report.refused),
            not_undone=(*not_undone, *_whole_lanes(entry)), journal=report.entry_id or None, dry_run=self._dry_run,
        )  # fmt: skip

    def _letters(self, entry: JournalEntry, recorded: Iterable[Recorded]) -> UndoResult:
        """Put dropped letters back; or, to undo that, drop them again."""
        tasks = list(recorded)[::-1]
        if self._dry_run:
            return self._answer(entry, False).model_copy(update={"undone": len(tasks), "unchanged": 0})
        options: dict[str, Any] = {"who": self._who, "reason": self._by(entry)["reason"], "undoes": entry.entry_id}
        letters = [(task_id, str(one.letter_at), one.letter) for task_id, one in tasks if one.letter]
        if letters:
            done, entry_id = restore_letters(self._broker, letters, _VERB, **options)
        else:
            done, entry_id = drop_letters(self._broker, [task_id for task_id, _ in tasks], _VERB, **options)
        left = {task_id for task_id, _ in tasks}.difference(done)
        with self._broker.translated():
            as_before = left & self._broker.dead.among(left) if letters else left
        reason = "it was queued again since"
        failures = tuple(UndoFailure(subject=task_id, reason=reason) for task_id in sorted(left - as_before))
        return UndoResult(
            entry_id=entry.entry_id, verb=entry.verb, undone=len(done), unchanged=len(as_before), not_undone=failures,
            journal=entry_id,
        )  # fmt: skip


_LETTERS = ("dropped", "restored")


def _cancelled(context: EditContext, editable: EditableTask, *, reason: str) -> EditStep:
    """Cancel a waiting task of a submission."""
    task = editable.task
    if task.claimed_at is not None:
        return RefusedEdit(task.task_id, f"{task.worker} has it already")
    return cancel(context, editable, reason=reason, terminate=False)


def _undo_recorded(
    context: EditContext, editable: EditableTask, *, recorded: Mapping[str, RecordedTask], reason: str
) -> EditStep:
    return undo(context, editable, recorded.get(editable.task.task_id), reason=reason)


def _whole_lanes(entry: JournalEntry) -> Iterator[UndoFailure]:
    for source, level, target, count, *_ in entry.changes.get("lanes") or []:
        reason = f"the whole lane ({count_of(count, 'task')}) was moved to {target}, where other tasks wait too"
        yield UndoFailure(subject=f"{source}, level {level}", reason=reason)


def _not_undoable(entry: JournalEntry) -> Refused:
    return Refused(f"{entry.verb} of {entry.subject} cannot be undone: the journal does not record the state before it")
