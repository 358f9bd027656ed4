"""Edits of single tasks as data: the task, the closed union of steps, the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, assert_never

from morag_queue.core.task import Task


class RestartSource(StrEnum):
    """The best source from which an ended task can be queued again."""

    DEAD_LETTER = "dead_letter"
    MESSAGE = "message"
    ARGUMENTS = "arguments"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class EditableTask:
    """A task with all that an edit depends on. `is_revoked`: it was cancelled while a worker held it."""

    task: Task
    is_revoked: bool = False
    is_dead_letter: bool = False
    restart: RestartSource = RestartSource.NOTHING


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """What a change recorded of one task for its undo; texts are "" where there was none.

    `outcome` is that of the change. `text` and `record` are its message and its ledger record before the change,
    `letter` its dead letter, in `dead` since `letter_at`. `place` is the depth at which its message was, `deaths` and
    `story` its attempts. Entries of earlier versions have only the outcome and the fields `before` and `after`.
    `at` is when the whole change was done, None where that is not known.
    """

    outcome: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    text: str = ""
    record: str = ""
    letter: str = ""
    letter_at: float = 0.0
    place: int | None = None
    deaths: int = 0
    story: str = ""
    at: float | None = None


@dataclass(frozen=True, slots=True)
class _TaskStep:
    task: Task

    @property
    def task_id(self) -> str:
        return self.task.task_id


@dataclass(frozen=True, slots=True)
class CancelTask(_TaskStep):
    """Remove a waiting message from its lane."""

    reason: str


@dataclass(frozen=True, slots=True)
class RewriteTask(_TaskStep):
    """Move a waiting message to another lane or level. `fields` change in its header and its record.

    It goes behind those that wait there, or to its `place`: the depth that it had, as its enqueue time allows.
    """

    lane: str
    level: int
    fields: Mapping[str, str | None]
    outcome: Literal["moved", "changed"]
    detail: str
    place: int | None = None


@dataclass(frozen=True, slots=True)
class RevokeTask(_TaskStep):
    """Ask the worker that holds it, by its Celery node name, to drop or terminate it; nothing confirms it."""

    node: str
    worker: str
    terminate: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ReviveTask(_TaskStep):
    """Move a task out of `dead` into a lane. Without `reset` its retries count on, and so do its lost workers."""

    lane: str
    level: int
    reset: bool


@dataclass(frozen=True, slots=True)
class ResubmitTask(_TaskStep):
    """Send an ended task again, from its kept message or its arguments."""

    lane: str
    level: int
    enqueued_at: float


@dataclass(frozen=True, slots=True)
class RestoreTask(_TaskStep):
    """Put a message that a change took out of its lane back to its place, with the ledger record that it had."""

    lane: str
    level: int
    taken: "RecordedTask"


@dataclass(frozen=True, slots=True)
class ReturnTask(_TaskStep):
    """Take a waiting message that a change had queued again out of its lane, and return its task to that end."""

    ended: "RecordedTask"


@dataclass(frozen=True, slots=True)
class NoChange:
    """The task already is as requested."""

    task_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class RefusedEdit:
    """The task cannot be edited as requested."""

    task_id: str
    detail: str


EditStep = (
    CancelTask
    | RewriteTask
    | RevokeTask
    | ReviveTask
    | ResubmitTask
    | RestoreTask
    | ReturnTask
    | NoChange
    | RefusedEdit
)


def outcome_of(step: EditStep) -> str:
    """Return the outcome of an applied step: the name of a count of `Applied`, or "refused"."""
    match step:
        case CancelTask():
            return "cancelled"
        case RewriteTask():
            return step.outcome
        case RevokeTask():
            return "revoked"
        case ReviveTask() | ResubmitTask() | RestoreTask():
            return "queued"
        case ReturnTask():
            return "returned"
        case NoChange():
            return "unchanged"
        case RefusedEdit():
            return "refused"
        case _:
            assert_never(step)


@dataclass(frozen=True, slots=True)
class EditPlan:
    """One step for each task. `taken_at` is the time of the snapshot, seconds since the epoch."""

    plan_id: str
    taken_at: float
    steps: tuple[EditStep, ...]
