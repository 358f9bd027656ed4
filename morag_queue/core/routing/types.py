"""Input and results of routing: a task, its placement or a refusal."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from morag_queue.core.model import ContentType, Frozen, LoadBalancingDecision, QueuePriority, QueueType, Requires

from .feasibility import Score


class Routable(Protocol):
    """The fields of a task that routing reads; `Classification` has them. `estimated_minutes` is at factor 1."""

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
    """A task without a classification, described by its producer."""

    requires: Requires = Requires.CPU
    priority: QueuePriority = QueuePriority.NORMAL
    content_type: ContentType | None = None
    estimated_minutes: float = 0.0
    memory_gb: float = 0.0
    confidence: float = 1.0


class Placement(NamedTuple):
    """Where a task goes. All workers of the lane poll `level`; `scores` is empty unless requested.

    `decision.confidence` is that of the classification times the certainty of the place: 1 in a worker's own lane, in
    a shared lane the score of the worker expected to take the task, 0.5 without an expected worker.
    """

    decision: LoadBalancingDecision
    queue: QueueType
    lane: str
    level: int
    scores: tuple[Score, ...] = ()


class RefusalCode(StrEnum):
    """Why routing refuses a pin or a queue. Codes that are also a `Feasibility` have the same value."""

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


class Override(StrEnum):
    """The flag that overrides a refusal. Only `--allow-cpu` overrides the GPU safety rule, see `gpu_safety`."""

    FORCE = "--force"
    ALLOW_CPU = "--allow-cpu"


class Refusal(Frozen):
    """Why a task is not placed as requested, and what to do. `override` is the flag that places it nevertheless."""

    code: RefusalCode
    subject: str
    message: str
    override: Override | None = None
