"""One task as an operator sees it: what it is, where it is now, and how far down the line."""

from pydantic import Field

from .lanes import split
from .model import ContentType, Frozen, QueuePriority, QueueType, Requires, TaskState

ENDED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.QUARANTINED})


class Task(Frozen):
    """Put together from its message, its ledger entry and the record of who holds it; what none of them says is None.

    Times are seconds since the epoch by the server's clock.
    """

    task_id: str
    state: TaskState
    task: str = Field("", description="the Celery task's name")
    source: str = Field("", description="what it works on; the arguments as text, where no ledger entry says")
    priority: QueuePriority = QueuePriority.NORMAL
    requires: Requires = Requires.CPU
    content_type: ContentType | None = None
    queue: QueueType | None = None
    lane: str = ""
    level: int | None = None
    depth: int | None = Field(None, description="in the list of its level; 1 is the next to be taken")
    position: int | None = Field(None, description="in its lane, the more urgent levels before it; 1 is the next")
    worker: str | None = Field(None, description="who holds it, or ran it")
    pinned_to: str | None = None
    enqueued_at: float | None = None
    eta_at: float | None = Field(None, description="not to be run before")
    claimed_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    estimated_duration: float | None = Field(None, description="minutes at factor 1")
    attempts: int = Field(0, description="how often it was taken back from a dead worker")
    retries: int = Field(0, description="how often the task itself asked to be run again")
    wait_seconds: float | None = None
    run_seconds: float | None = None
    error: str = ""
    is_on_broker: bool = Field(True, description="whether its message is in a lane or in a worker's hands")
    is_known: bool = Field(False, description="whether the ledger has an entry: it was submitted through morag-queue")

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class TaskFilter(Frozen):
    """Which tasks a person means; what is None does not matter. All conditions have to hold."""

    queue: QueueType | None = None
    lane: str | None = None
    worker: str | None = Field(None, description="in its hands, in its lanes, or pinned to it")
    state: TaskState | None = None
    priority: QueuePriority | None = None
    older_than_seconds: float | None = Field(None, description="waits, or is in hand, at least so long")
    name: str | None = Field(None, description="a part of the Celery task's name, or of what it works on")

    @property
    def is_empty(self) -> bool:
        return self == TaskFilter()

    def fits(self, task: Task, now: float) -> bool:
        """Whether the task is meant; `now` is the server's clock. A task whose age is not known is not old."""
        wanted = (self.queue, self.lane, self.state, self.priority)
        actual = (task.queue, task.lane, task.state, task.priority)
        if any(want is not None and want != have for want, have in zip(wanted, actual, strict=True)):
            return False
        if self.worker is not None and self.worker not in (task.worker, task.pinned_to, split(task.lane)[1]):
            return False
        if self.older_than_seconds is not None:
            since = task.claimed_at or task.enqueued_at
            if since is None or now - since < self.older_than_seconds:
                return False
        return self.name is None or self.name in task.task or self.name in task.source

    def looks_at(self, lane: str, queue: QueueType) -> bool:
        """Whether any task of that lane could be meant. A pinned task may wait in any lane."""
        return self.queue in (None, queue) and self.lane in (None, lane)
