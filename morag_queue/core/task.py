"""One task as an operator sees it: what it is, where it is now, and its position in its lane."""

from pydantic import Field

from .lanes import split
from .model import ContentType, Frozen, QueuePriority, QueueType, Requires, TaskState

ENDED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.QUARANTINED})


class Task(Frozen):
    """Combined from the message, the ledger entry and the record of the claim; a field that none of them has is None.

    Times (`…_at`) are seconds since the epoch on the server's clock.
    """

    task_id: str
    state: TaskState
    task: str = Field("", description="the Celery task's name")
    source: str = Field("", description="input of the task; its arguments as text where the ledger has no entry")
    priority: QueuePriority = QueuePriority.NORMAL
    requires: Requires = Requires.CPU
    content_type: ContentType | None = None
    queue: QueueType | None = None
    lane: str = ""
    level: int | None = None
    depth: int | None = Field(None, description="position in the list of its level; 1 is taken next")
    position: int | None = Field(None, description="position in its lane, urgent levels first; 1 is taken next")
    is_estimated: bool = Field(
        False, description="whether depth and position follow from its enqueue time; its message was not read"
    )
    worker: str | None = Field(None, description="the worker that holds it or ran it")
    pinned_to: str | None = Field(None, description="the worker it was pinned to; it may have been moved since")
    enqueued_at: float | None = None
    eta_at: float | None = Field(None, description="earliest start")
    claimed_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    estimated_duration: float | None = Field(None, description="minutes at factor 1")
    attempts: int = Field(0, description="times it was requeued from a dead worker")
    retries: int = Field(0, description="Celery's own retries")
    wait_seconds: float | None = None
    run_seconds: float | None = None
    error: str = ""
    submission: str | None = Field(None, description="id of the `submit` that queued it")
    is_on_broker: bool = Field(True, description="whether its message is in a lane or unacked")
    is_known: bool = Field(False, description="whether it has a ledger entry, so was submitted through morag-queue")

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def lane_owner(self) -> str | None:
        """The worker in whose lane it waits. A task that was moved elsewhere keeps the pin of its submit."""
        return split(self.lane)[1]


class TaskFilter(Frozen):
    """Select tasks: all conditions have to hold; a condition that is None is ignored."""

    queue: QueueType | None = None
    lane: str | None = None
    worker: str | None = Field(None, description="held by it, run by it, or in its lanes")
    state: TaskState | None = None
    priority: QueuePriority | None = None
    older_than_seconds: float | None = Field(None, description="waiting, held or ended for at least this long")
    name: str | None = Field(None, description="part of the Celery task's name or of its source")
    submission: str | None = Field(None, description="id of the `submit` that queued it")

    @property
    def is_empty(self) -> bool:
        return self == TaskFilter()

    def matches(self, task: Task, now: float) -> bool:
        """Return whether the task is selected at `now`, the server's clock. A task of unknown age is not old."""
        conditions = (self.queue, self.lane, self.state, self.priority, self.submission)
        actual = (task.queue, task.lane, task.state, task.priority, task.submission)
        if any(wanted not in (None, found) for wanted, found in zip(conditions, actual, strict=True)):
            return False
        if self.worker is not None and self.worker not in (task.worker, task.lane_owner):
            return False
        if self.older_than_seconds is not None:
            since = task.ended_at or task.claimed_at or task.enqueued_at
            if since is None or now - since < self.older_than_seconds:
                return False
        return self.name is None or self.name in task.task or self.name in task.source

    def may_match_in(self, lane: str, queue: QueueType) -> bool:
        """Return whether a waiting task of that lane could be selected."""
        return self.queue in (None, queue) and self.lane in (None, lane) and self.worker in (None, split(lane)[1])
