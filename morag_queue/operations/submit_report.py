"""What a submit has done: its report, and its entry of the journal."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from morag_queue.broker.contract import Broker, JournalNote
from morag_queue.core.model import ContentType, Frozen, LoadBalancingDecision
from morag_queue.core.words import count_of
from morag_queue.errors import ExitStatus, Interrupted, MoragQueueError, Refused

from .submit_rows import PreparedTask, RowFailure

_JOURNALED_TASKS = 20
"""Ids that the journal entry of a bulk submit names."""


class SubmittedTask(Frozen):
    """One queued task in the JSON answer. `estimated_duration` is in minutes at factor 1."""

    task_id: str
    source: str
    content_type: ContentType
    queue: str
    lane: str
    worker: str | None
    priority: str
    estimated_duration: float
    decision: LoadBalancingDecision


@dataclass(slots=True)
class SubmitReport:
    """The result for all rows.

    `broken` is the error that stopped the submit; `uncertain` are ids that were sent but not confirmed. `submission_id`
    is in each task that was queued; None in a dry run. `is_journaled`: the entry of the journal is written.
    `allow_cpu`: the rule for work that requires a GPU was lifted.
    """

    submission_id: str | None = None
    allow_cpu: bool = False
    submitted: int = 0
    tasks: list[SubmittedTask] = field(default_factory=list)
    failed: list[RowFailure] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    broken: MoragQueueError | None = None
    is_journaled: bool = False

    @property
    def exit_status(self) -> ExitStatus:
        if self.broken is not None:
            return self.broken.exit_status
        if not self.failed:
            return ExitStatus.OK
        kinds = {failure.exit_status for failure in self.failed}
        return ExitStatus.PARTIAL if self.submitted else kinds.pop() if len(kinds) == 1 else ExitStatus.FAILED

    def add(self, sent: Sequence[PreparedTask], answers: Sequence[bool], details: bool) -> None:
        """Add the broker's answer for each task that was sent: whether it is queued."""
        for task, is_queued in zip(sent, answers, strict=True):
            if not is_queued:
                self.failed.append(_still_open(task))
                continue
            self.submitted += 1
            if details:
                self.tasks.append(submitted(task))

    def note(self, ready: Sequence[PreparedTask], who: str, reason: str, details: bool) -> JournalNote:
        """The entry of the journal once `ready` is queued, too: the count and the first ids."""
        count = self.submitted + len(ready)
        tasks = [(task.task_id, task.source) for task in self.tasks]
        tasks += [(task.entry.task_id, task.entry.source) for task in ready if details]
        changes = {
            "submission": self.submission_id,
            "submitted": count,
            "failed": len(self.failed),
            "task_ids": [task_id for task_id, _ in tasks[:_JOURNALED_TASKS]],
            **({"allow_cpu": True} if self.allow_cpu else {}),
        }
        subject = tasks[0][1] if len(tasks) == 1 else count_of(count, "task")
        return JournalNote(who, "submit", subject, reason, changes=changes)


def note_submit(broker: Broker, report: SubmitReport, who: str, reason: str) -> None:
    """Write the entry of the journal if it is not written, unless nothing was queued or the broker failed."""
    if report.is_journaled or not report.submitted:
        return
    if report.broken is None or isinstance(report.broken, Interrupted):
        note = report.note((), who, reason, details=True)
        with broker.translated():
            broker.journal.write(note.who, note.verb, note.subject, reason=note.reason, changes=note.changes)


def submitted(task: PreparedTask) -> SubmittedTask:
    """Describe a task that was queued, or would be in a dry run."""
    entry, decision = task.entry, task.routed.decision
    return SubmittedTask(
        task_id=entry.task_id,
        source=entry.source,
        content_type=task.classification.content_type,
        queue=entry.queue.value,
        lane=entry.lane,
        worker=decision.worker_id,
        priority=entry.priority.name,
        estimated_duration=entry.estimated_duration,
        decision=decision,
    )


def _still_open(task: PreparedTask) -> RowFailure:
    task_id = task.entry.task_id
    error = Refused(f"task id {task_id} is still open, so it was not queued again; choose another --id or wait")
    return RowFailure.of(task.line, task.row.source, error)
