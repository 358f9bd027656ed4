"""Edits of single tasks as data: the task, the closed union of steps, the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

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
    """Move a waiting message behind those of another lane or level. `fields` change in its header and its record."""

    lane: str
    level: int
    fields: Mapping[str, str | None]
    outcome: Literal["moved", "changed"]
    detail: str


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
class NoChange:
    """The task already is as requested."""

    task_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class RefusedEdit:
    """The task cannot be edited as requested."""

    task_id: str
    detail: str


EditStep = CancelTask | RewriteTask | RevokeTask | ReviveTask | ResubmitTask | NoChange | RefusedEdit


@dataclass(frozen=True, slots=True)
class EditPlan:
    """One step for each task. `taken_at` is the time of the snapshot, seconds since the epoch."""

    plan_id: str
    taken_at: float
    steps: tuple[EditStep, ...]
