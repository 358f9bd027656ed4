"""Enumerations shared by all modules; their values also appear in JSON output and on the broker.

Apart from the models, because the workers' agent needs no pydantic: its import would cost every worker 8 MB.
"""

from enum import IntEnum, StrEnum


class QueuePriority(IntEnum):
    """Priority of a task in words; the value is its weight. On the broker it becomes a kombu level, see `levels`."""

    URGENT = 10
    HIGH = 8
    NORMAL = 5
    LOW = 3
    BATCH = 1


class QueueType(StrEnum):
    """The four queues. Each has a shared lane of the same name and one lane per worker."""

    GPU_PRIORITY = "gpu_priority"
    GPU_FALLBACK = "gpu_fallback"
    CPU_STANDARD = "cpu_standard"
    CPU_BATCH = "cpu_batch"


class Capability(StrEnum):
    """Hardware of a worker; a `hybrid` worker has a GPU and takes CPU work as well."""

    CPU = "cpu"
    GPU = "gpu"
    HYBRID = "hybrid"

    @property
    def has_gpu(self) -> bool:
        return self is not Capability.CPU


class Requires(StrEnum):
    """Hardware that a task needs to run at all (`gpu`) or to run fast (`gpu_preferred`)."""

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


class AclRole(StrEnum):
    """A login's part on the fleet, see `morag-queue acl`."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PRODUCER = "producer"
    WORKER = "worker"
    WATCH = "watch"


class TaskComplexity(StrEnum):
    """Class of the estimated minutes: low < 1, medium < 10, high < 60, very_high."""

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
