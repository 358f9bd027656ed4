"""What routing takes and gives: a task, a place, or a refusal."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from morag_queue.core.model import ContentType, Frozen, LoadBalancingDecision, QueuePriority, QueueType, Requires

from .feasibility import Score


class Routable(Protocol):
    """What routing reads of a task; a `Classification` is one. `estimated_minutes` is at factor 1."""

    @property
    def requires(self) -> Requires: ...
    @property
    def priority(self) -> QueuePriority: ...
    @property
    def content_type(self) -> ContentType | None: ...
    @property
    def estimated_minutes(self) -> float: ...
    @property
    def memory_gb(self) -> float: ...
    @property
    def confidence(self) -> float: ...


@dataclass(frozen=True, slots=True)
class TaskProfile:
    """A task that was not classified: what its producer says of it."""

    requires: Requires = Requires.CPU
    priority: QueuePriority = QueuePriority.NORMAL
    content_type: ContentType | None = None
    estimated_minutes: float = 0.0
    memory_gb: float = 0.0
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a task goes. `level` is one that every worker of the lane polls; `scores` is empty unless asked for.

    `decision.confidence` is the classification's own, times how sure the place is: 1 in a worker's own lane; in a
    shared lane the score of the worker that is expected to take it, 0.5 while nobody is.
    """

    decision: LoadBalancingDecision
    queue: QueueType
    lane: str
    level: int
    scores: tuple[Score, ...] = ()


class RefusalCode(StrEnum):
    """The closed list of why a wish is not granted; those that a verdict has too have its name."""

    UNKNOWN_WORKER = "unknown_worker"
    NO_GPU = "no_gpu"
    CONTENT_TYPE = "content_type"
    MEMORY = "memory"
    DRAINED = "drained"
    OFFLINE = "offline"
    DRAINING = "draining"
    CORDONED = "cordoned"
    NOT_SERVED = "not_served"
    NO_SAFE_LANE = "no_safe_lane"
    CPU_WOULD_RUN_IT = "cpu_would_run_it"


class Refusal(Frozen):
    """Why a wish is not granted, and what to do. `overridable`: `--force` grants it all the same."""

    code: RefusalCode
    subject: str
    message: str
    overridable: bool
