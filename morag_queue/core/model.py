"""Models shared by all modules, and their enumerations; the values also appear in JSON output and on the broker.

`estimated_duration` and the `…_time` fields are minutes; other durations carry their unit in the name. Times (`at`,
`…_at`, `since`, `until`) are seconds since the epoch on the Redis server's clock; views print them as ISO 8601.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .enums import (
    Capability,
    ContentType,
    DecisionAction,
    QueuePriority,
    QueueType,
    Requires,
    ResourceRequirement,
    TaskComplexity,
    TaskState,
    WorkerStatus,
)
from .worker_records import LARGEST, HeldMessage, WorkerInfo

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
"""A stored number of seconds or percent."""

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""A stored number of things."""

__all__ = [
    "Capability",
    "Classification",
    "ContentType",
    "Cordon",
    "DecisionAction",
    "Facts",
    "Frozen",
    "Heartbeat",
    "HeldMessage",
    "JournalEntry",
    "Lease",
    "LoadBalancingDecision",
    "Pause",
    "QueuePriority",
    "QueueType",
    "Requires",
    "ResourceRequirement",
    "Stored",
    "TaskComplexity",
    "TaskQueueEntry",
    "TaskState",
    "WorkerInfo",
    "WorkerStatus",
]


class Frozen(BaseModel):
    """An immutable value, compared by content; unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stored(Frozen):
    """A value stored on the broker; unknown fields are ignored, since other versions may have written it."""

    model_config = ConfigDict(extra="ignore")


class Facts(Frozen):
    """Facts that a probe read from a source. None means unknown."""

    source: str
    is_url: bool = False
    content_type: ContentType | None = Field(None, description="detected from the content")
    declared_type: ContentType | None = Field(None, description="claimed by the file name or URL")
    mime: str | None = None
    size_bytes: int | None = None
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    characters: int | None = None
    problems: tuple[str, ...] = Field((), description="what could not be read or is inconsistent, in words")


class Classification(Frozen):
    """Expected needs of a task. `estimated_minutes` is at factor 1, see `estimate`."""

    source: str
    content_type: ContentType
    requires: Requires
    priority: QueuePriority
    complexity: TaskComplexity
    requirements: tuple[ResourceRequirement, ...]
    estimated_minutes: float
    memory_gb: float
    disk_gb: float
    confidence: float = Field(ge=0, le=1)
    reasons: tuple[str, ...]
    facts: Facts | None = None


class LoadBalancingDecision(Frozen):
    """Queue and worker chosen for a task, and why. `estimated_improvement` is the flow time saved, in minutes."""

    action: DecisionAction
    source_queue: QueueType
    target_queue: QueueType
    worker_id: str | None
    reason: str
    confidence: float = Field(ge=0, le=1)
    estimated_improvement: float = 0.0


class TaskQueueEntry(Frozen):
    """A waiting task as stored in message headers and in the ledger."""

    task_id: str
    task: str = Field(description="name of the Celery task")
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    source: str = ""
    content_type: ContentType | None = None
    priority: QueuePriority = QueuePriority.NORMAL
    requires: Requires = Requires.CPU
    queue: QueueType
    lane: str
    level: int = Field(ge=0, le=9, description="kombu priority; 0 is taken first")
    estimated_duration: float = Field(0.0, description="minutes at factor 1")
    enqueued_at: float = 0.0
    worker: str | None = Field(None, description="the worker that it is pinned to")
    retry_count: int = Field(0, description="times it was requeued from a dead worker")
    max_retries: int = Field(3, description="requeues from dead workers before it is quarantined")
    submission: str | None = Field(None, description="id of the `submit` that queued it")

    @property
    def queue_type(self) -> QueueType:
        return self.queue

    @property
    def worker_id(self) -> str | None:
        return self.worker

    @property
    def submitted_at(self) -> datetime:
        """In UTC."""
        return datetime.fromtimestamp(self.enqueued_at, UTC)

    @property
    def resource_requirements(self) -> tuple[ResourceRequirement, ...]:
        """The hardware it needs. Its memory and disk are known when it is classified, and are not stored."""
        if self.requires is Requires.GPU:
            return (ResourceRequirement.GPU_REQUIRED,)
        if self.requires is Requires.GPU_PREFERRED:
            return (ResourceRequirement.GPU_PREFERRED,)
        is_light = self.content_type is ContentType.WEB
        return (ResourceRequirement.CPU_LIGHT if is_light else ResourceRequirement.CPU_INTENSIVE,)


class Heartbeat(Stored):
    """Heartbeat of a worker, every `beat_seconds`. Percentages are 0–100."""

    at: Number
    clock: Number | None = Field(None, description="the same moment on the worker's clock")
    cpu_percent: Number = 0.0
    memory_percent: Number = 0.0
    gpu_percent: Number | None = None
    active: Count = 0
    reserved: Count = Field(0, description="prefetched: claimed and not started")
    stopped: bool = Field(False, description="last heartbeat of a clean shutdown")


class Cordon(Stored):
    """Record of a worker taken out of service: by whom, when and why."""

    state: WorkerStatus
    reason: str = ""
    who: str = ""
    at: Number = 0.0
    deadline: Number | None = Field(None, description="of a drain: when the waiting command gives up")
    until: Number | None = Field(None, description="when it expires, as for an open circuit breaker")
    restarts: Count | None = Field(None, description="of a circuit breaker: the unexpected starts that opened it")

    def is_in_force(self, now: float) -> bool:
        """Whether it still holds at this time (seconds since the epoch, server's clock)."""
        return self.until is None or self.until > now


class Pause(Stored):
    """Record of a paused queue: by whom, when and why. Earlier versions wrote none: then `at` is 0."""

    who: str = ""
    at: Number = 0.0
    reason: str = ""


class Lease(Stored):
    """The leader's lease. `term` grows each time the lease is taken and is never reused."""

    holder: str = Field(description="unique id of the leading process")
    term: Count
    who: str
    verb: str
    since: Number
    until: Number


class JournalEntry(Stored):
    """One change. Entries are ordered by `entry_id`; `at` is the server's clock, seconds since the epoch."""

    entry_id: str
    at: float
    who: str
    verb: str
    subject: str
    reason: str = ""
    plan_id: str = ""
    changes: dict[str, Any] = Field(default_factory=dict, description="what was done, in counts and ids")
