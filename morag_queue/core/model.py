"""The vocabulary of the project: the words that users, scripts and every other module share.

Durations are minutes where the original models say so (`estimated_duration`, `average_wait_time`, …) and carry
their unit in the name everywhere else. Times are seconds since the epoch (UTC, the Redis server's clock); views
turn them into ISO 8601.
"""

from enum import IntEnum, StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class QueuePriority(IntEnum):
    """How urgent a person says a task is. On the broker it becomes a kombu level, see `levels`."""

    URGENT = 10
    HIGH = 8
    NORMAL = 5
    LOW = 3
    BATCH = 1


class QueueType(StrEnum):
    """The four queues. Each is a shared lane of the same name and one lane a worker."""

    GPU_PRIORITY = "gpu_priority"
    GPU_FALLBACK = "gpu_fallback"
    CPU_STANDARD = "cpu_standard"
    CPU_BATCH = "cpu_batch"


class Capability(StrEnum):
    """What a worker is: `hybrid` has a GPU and takes CPU work as well."""

    CPU = "cpu"
    GPU = "gpu"
    HYBRID = "hybrid"

    @property
    def has_gpu(self) -> bool:
        return self is not Capability.CPU


class Requires(StrEnum):
    """What a task needs in order to run at all (`gpu`), or to run well (`gpu_preferred`)."""

    GPU = "gpu"
    GPU_PREFERRED = "gpu_preferred"
    CPU = "cpu"


class ContentType(StrEnum):
    AUDIO = "audio"
    VIDEO = "video"
    IMAGE = "image"
    DOCUMENT = "document"
    WEB = "web"
    YOUTUBE = "youtube"


class TaskComplexity(StrEnum):
    """By estimated minutes: low < 1, medium < 10, high < 60, very_high."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    VERY_HIGH = "very_high"


class ResourceRequirement(StrEnum):
    CPU_LIGHT = "cpu_light"
    CPU_INTENSIVE = "cpu_intensive"
    GPU_PREFERRED = "gpu_preferred"
    GPU_REQUIRED = "gpu_required"
    MEMORY_INTENSIVE = "memory_intensive"
    DISK_INTENSIVE = "disk_intensive"


class DecisionAction(StrEnum):
    ASSIGN = "assign"
    REDISTRIBUTE = "redistribute"
    HOLD = "hold"
    FALLBACK = "fallback"


class WorkerStatus(StrEnum):
    ONLINE = "online"
    BUSY = "busy"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DRAINED = "drained"
    SUSPECT = "suspect"
    OFFLINE = "offline"


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


class Frozen(BaseModel):
    """A value: compared by content, never changed after it was made, no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stored(Frozen):
    """A value that is kept on the broker: other versions read it as well, and pass over what they do not know."""

    model_config = ConfigDict(extra="ignore")


class Facts(Frozen):
    """What a probe read of a source, without judgement. `None` is "not known", never "none"."""

    source: str
    is_url: bool = False
    content_type: ContentType | None = Field(None, description="by what the content is")
    declared_type: ContentType | None = Field(None, description="by what the name or the URL claims")
    mime: str | None = None
    size_bytes: int | None = None
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    characters: int | None = None
    problems: tuple[str, ...] = Field((), description="what could not be read or does not fit, in words for a person")


class Classification(Frozen):
    """What a task is expected to need. `estimated_minutes` is at factor 1, see `estimate`."""

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
    """Where a task goes and why. `estimated_improvement` is in minutes of expected flow time saved."""

    action: DecisionAction
    source_queue: QueueType
    target_queue: QueueType
    worker_id: str | None
    reason: str
    confidence: float = Field(ge=0, le=1)
    estimated_improvement: float = 0.0


class TaskQueueEntry(Frozen):
    """A task that waits, as it travels in the message's headers and in the ledger."""

    task_id: str
    task: str = Field(description="the Celery task's name")
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    source: str = ""
    content_type: ContentType | None = None
    priority: QueuePriority = QueuePriority.NORMAL
    requires: Requires = Requires.CPU
    queue: QueueType
    lane: str
    level: int = Field(ge=0, le=9, description="kombu's level: 0 is taken first")
    estimated_duration: float = Field(0.0, description="minutes at factor 1")
    enqueued_at: float = Field(0.0, description="seconds since the epoch, the server's clock")
    worker: str | None = Field(None, description="the worker it is pinned to")
    attempts: int = 0


class WorkerInfo(Stored):
    """What a worker says of itself once, when it registers."""

    worker: str
    incarnation: str = Field(description="one run of one process: `<host>.<pid>.<random>`")
    host: str
    pid: int
    capability: Capability
    queues: tuple[str, ...] = Field(description="queues it serves; its lanes follow from them")
    slots: int = Field(description="pool size: tasks it runs at once")
    pool: str = "prefork"
    cores: int = 0
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    gpus: int = 0
    gpu_memory_gb: float = 0.0
    location: str = ""
    tags: tuple[str, ...] = ()
    content_types: tuple[ContentType, ...] = Field((), description="empty: all")
    priority_steps: tuple[int, ...] = tuple(range(10))
    client_name: str = Field("", description="the CLIENT LIST name of its broker connections")
    node: str = Field("", description="its Celery node name, `worker@host`, by which it is told things")
    beat_seconds: float = Field(2.0, description="how often it beats")
    claims: bool = Field(True, description="whether it takes messages by the atomic claim")
    version: str = ""
    settings: dict[str, Any] = Field({}, description="Celery settings that reliability hangs on, for `doctor`")
    started_at: float = 0.0


class Heartbeat(Stored):
    """What a worker says of itself every few seconds. Percentages are 0–100."""

    at: float = Field(description="seconds since the epoch, the server's clock")
    clock: float | None = Field(None, description="the same moment by the worker's own clock")
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    gpu_percent: float | None = None
    active: int = 0
    reserved: int = Field(0, description="taken and not begun")
    stopped: bool = Field(False, description="it said goodbye: a clean shutdown")


class HeldMessage(Frozen):
    """One message in a worker's hands: in kombu's `unacked`, with the owner that the claim wrote."""

    tag: str
    worker: str
    incarnation: str
    task_id: str
    lane: str
    level: int
    claimed_at: float


class Cordon(Stored):
    """A worker taken out of service: who did it, when and why. Times are seconds since the epoch."""

    state: WorkerStatus
    reason: str = ""
    who: str = ""
    at: float = 0.0
    deadline: float | None = Field(None, description="of a drain: when the one who waits for it gives up")
    until: float | None = Field(None, description="when it ends by itself, as an open circuit breaker does")

    def is_in_force(self, now: float) -> bool:
        """Whether it still holds at this time (seconds since the epoch, server's clock)."""
        return self.until is None or self.until > now


class QueueStats(Frozen):
    """One queue. Times are minutes; `backlog_time` is the queued work divided by the slots that serve it."""

    queue_type: QueueType
    total_tasks: int
    pending_tasks: int
    processing_tasks: int
    completed_tasks: int
    failed_tasks: int
    average_wait_time: float
    average_processing_time: float
    p95_wait_time: float
    worker_count: int
    oldest_wait_time: float
    backlog_time: float
    pending_by_priority: dict[str, int] = {}
    arrivals_per_minute: float = 0.0
    completions_per_minute: float = 0.0
    paused: bool = Field(False, description="it hands out nothing until `resume`")


class WorkerStats(Frozen):
    worker: str
    capability: Capability
    status: WorkerStatus
    active_tasks: int
    assigned_tasks: int
    max_concurrent_tasks: int
    completed_tasks: int
    failed_tasks: int
    last_heartbeat_seconds: float | None
    reason: str
    host: str = ""
    queues: tuple[str, ...] = ()
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    gpu_percent: float | None = None
    average_processing_time: float = 0.0
    success_rate: float | None = Field(None, description="completed of all that ended, 0..1; None before the first")
    failures_in_a_row: int = 0


class Lease(Stored):
    """Who leads. `term` grows with every taking and is never given twice; times are the server's clock, seconds."""

    holder: str = Field(description="one process: nobody else has this word")
    term: int
    who: str
    verb: str
    since: float
    until: float


class FleetStats(Frozen):
    taken_at: float
    window_seconds: float
    queues: tuple[QueueStats, ...]
    workers: tuple[WorkerStats, ...]
    leader: Lease | None = None
    foreign_messages: int = 0
