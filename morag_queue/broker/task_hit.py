"""One task as it was found, with the texts that it was read from."""

from dataclasses import dataclass
from typing import NamedTuple

from morag_queue.core.edits.steps import EditableTask, RestartSource
from morag_queue.core.task import ENDED, Task

from .codec import DeadLetter, LedgerRecord, dead_task, ended_task, read_message


@dataclass(frozen=True, slots=True)
class TaskHit:
    """One task and the texts from which it was read.

    `raw` is its message (None for one that was not read), `tag` the delivery tag of a held one, `dead` its dead letter.
    `is_revoked`: it was cancelled while a worker held it.
    """

    task: Task
    raw: str | None = None
    record: LedgerRecord | None = None
    tag: str | None = None
    dead: DeadLetter | None = None
    is_revoked: bool = False

    @property
    def editable(self) -> EditableTask:
        """The task as `core.edits` plans with it."""
        return EditableTask(self.task, self.is_revoked, self.dead is not None, self._restart)

    @property
    def restart_record(self) -> LedgerRecord | None:
        """The record from which an ended task can be queued again without a dead letter."""
        records = [self.record, self.dead.record if self.dead is not None else None]
        return next((one for one in records if one is not None and (one.message or one.arguments)), None)

    @property
    def _restart(self) -> RestartSource:
        if self.dead is not None and read_message(self.dead.message) is not None:
            return RestartSource.DEAD_LETTER
        record = self.restart_record
        if record is None:
            return RestartSource.NOTHING
        return RestartSource.MESSAGE if read_message(record.message) is not None else RestartSource.ARGUMENTS


class TaskRecords(NamedTuple):
    """The ledger record of a task, its dead letter, and how many workers died over it."""

    record: LedgerRecord | None
    dead: DeadLetter | None
    attempts: int


def ended_hit(task_id: str, written: TaskRecords) -> TaskHit | None:
    """The task, if it has ended: by its dead letter or its record."""
    record, dead, _ = written
    state = record.state if record is not None else None
    if dead is not None and (record is None or state is None or state in ENDED):
        return TaskHit(dead_task(dead, record), dead.message, record, dead=dead)
    if record is not None and state in ENDED:
        return TaskHit(ended_task(task_id, state, record), record=record)
    return None
