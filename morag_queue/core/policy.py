"""The tables that decide, as values: the contract's table is the default, every number is configuration."""

from enum import StrEnum

from pydantic import Field

from .failure import RecoveryPolicy
from .model import Capability, ContentType, Frozen, QueuePriority, QueueType, Requires


class Binding(StrEnum):
    """When a task gets its worker: `late` waits in the shared lane, `early` is put in the worker's lane at submit."""

    LATE = "late"
    EARLY = "early"


class Order(StrEnum):
    """`strict`: a tier never overtakes a higher one. `weighted`: by weight over length (SJF within reason)."""

    STRICT = "strict"
    WEIGHTED = "weighted"


class QueuePolicy(Frozen):
    """One queue's row. `timeout_minutes` is how long a task of it may run before it counts as stuck."""

    served_by: tuple[Capability, ...]
    max_tasks_per_worker: int = Field(ge=1)
    weight: float = Field(gt=0)
    timeout_minutes: float = Field(gt=0)
    fallback: QueueType


_GPU = (Capability.GPU, Capability.HYBRID)
_CPU = (Capability.CPU, Capability.HYBRID)


class Queues(Frozen):
    gpu_priority: QueuePolicy = QueuePolicy(
        served_by=_GPU, max_tasks_per_worker=2, weight=1.0, timeout_minutes=120, fallback=QueueType.GPU_FALLBACK
    )
    gpu_fallback: QueuePolicy = QueuePolicy(
        served_by=_GPU, max_tasks_per_worker=3, weight=0.7, timeout_minutes=180, fallback=QueueType.CPU_STANDARD
    )
    cpu_standard: QueuePolicy = QueuePolicy(
        served_by=_CPU, max_tasks_per_worker=4, weight=0.5, timeout_minutes=60, fallback=QueueType.CPU_BATCH
    )
    cpu_batch: QueuePolicy = QueuePolicy(
        served_by=_CPU, max_tasks_per_worker=8, weight=0.2, timeout_minutes=300, fallback=QueueType.CPU_BATCH
    )

    def of(self, queue: QueueType) -> QueuePolicy:
        row: QueuePolicy = getattr(self, queue.value)
        return row

    def served_by(self, capability: Capability) -> tuple[QueueType, ...]:
        """The queues that a worker of this capability reads, in the order of the table."""
        return tuple(queue for queue in QueueType if capability in self.of(queue).served_by)


class ContentPolicy(Frozen):
    """Starting estimates of one content type: minutes, GB, what it needs, and what makes it longer.

    A field called `…_factor` multiplies the minutes where its condition holds; 1 is "makes no difference".
    """

    requires: Requires
    memory_gb: float = Field(gt=0)
    minutes_per_minute: float = Field(0.0, ge=0, description="audio and video: of their playing time")
    minutes_per_page: float = Field(0.0, ge=0)
    minutes: float = Field(0.0, ge=0, description="a fixed share")
    light: bool = Field(False, description="CPU work that leaves the CPU mostly idle, as waiting for a web page does")
    diarization_factor: float = Field(1.0, gt=0)
    segmentation_factor: float = Field(1.0, gt=0)
    thumbnails_factor: float = Field(1.0, gt=0)
    docling_factor: float = Field(1.0, gt=0)
    high_resolution_factor: float = Field(1.0, gt=0, description="shorter side above `high_resolution_lines`")
    large_image_factor: float = Field(1.0, gt=0, description="more pixels than `large_image_megapixels`")
    huge_image_factor: float = Field(1.0, gt=0, description="instead of it above `huge_image_megapixels`")
    megabytes_per_minute: float = Field(1.0, gt=0, description="for a playing time that is not known, from the size")
    megabytes_per_page: float = Field(0.1, gt=0, description="for pages that are not known, from the size")
    assumed_length: float = Field(10.0, gt=0, description="minutes of play, or pages, where nothing is known")


class ContentPolicies(Frozen):
    """Starting estimates by content type; the system learns from what it measures.

    Megabytes and gigabytes are decimal. The rates of `megabytes_per_minute` are those of common encodings: 128 kbit/s
    for audio, 1.3 Mbit/s for video; 3,000 characters are a closely printed page.
    """

    audio: ContentPolicy = ContentPolicy(
        requires=Requires.GPU_PREFERRED,
        memory_gb=0.5,
        minutes_per_minute=0.1,
        diarization_factor=2.0,
        segmentation_factor=1.5,
        megabytes_per_minute=1.0,
    )
    video: ContentPolicy = ContentPolicy(
        requires=Requires.GPU,
        memory_gb=2.0,
        minutes_per_minute=0.5,
        thumbnails_factor=1.3,
        high_resolution_factor=2.0,
        megabytes_per_minute=10.0,
    )
    image: ContentPolicy = ContentPolicy(
        requires=Requires.GPU_PREFERRED, memory_gb=0.5, minutes=0.5, large_image_factor=2.0, huge_image_factor=4.0
    )
    document: ContentPolicy = ContentPolicy(
        requires=Requires.CPU, memory_gb=1.0, minutes_per_page=0.1, docling_factor=2.0
    )
    web: ContentPolicy = ContentPolicy(requires=Requires.CPU, memory_gb=0.2, minutes=1.0, light=True)
    youtube: ContentPolicy = ContentPolicy(requires=Requires.GPU_PREFERRED, memory_gb=1.0, minutes=5.0)

    high_resolution_lines: int = Field(1080, gt=0)
    large_image_megapixels: float = Field(3.0, gt=0)
    huge_image_megapixels: float = Field(12.0, gt=0)
    characters_per_page: int = Field(3000, gt=0)
    complexity_minutes: tuple[float, float, float] = Field(
        (1.0, 10.0, 60.0), description="the first minute that is no longer low, medium, high"
    )
    memory_step_mb: float = Field(100.0, gt=0, description="each such step of the size adds `memory_gb` once more")
    memory_steps_max: float = Field(5.0, ge=0)
    disk_factor: float = Field(3.0, ge=0, description="disk for working copies, as a multiple of the size")
    memory_intensive_gb: float = Field(4.0, gt=0)
    disk_intensive_gb: float = Field(10.0, gt=0)

    def of(self, content_type: ContentType) -> ContentPolicy:
        row: ContentPolicy = getattr(self, content_type.value)
        return row


class MaxWaits(Frozen):
    """Minutes of waiting from which a task counts as starved, by its priority in words."""

    urgent: float = Field(15.0, gt=0)
    high: float = Field(30.0, gt=0)
    normal: float = Field(60.0, gt=0)
    low: float = Field(120.0, gt=0)
    batch: float = Field(240.0, gt=0)

    def of(self, priority: QueuePriority) -> float:
        minutes: float = getattr(self, priority.name.lower())
        return minutes


class BalancingPolicy(Frozen):
    """How the loop moves what waits. The constants are those under which the simulations of the policy were run."""

    interval_seconds: float = Field(30.0, gt=0, description="one tick; what is allowed a tick is allowed in this time")
    settle_seconds: float = Field(5.0, ge=0, description="after a turn that moved something: let the fleet pull first")
    moves_min: int = Field(10, ge=0, description="voluntary moves a tick, whatever the size of the fleet")
    moves_per_worker: float = Field(0.25, ge=0, description="voluntary moves a tick and worker, where that is more")
    moves_per_task: int = Field(2, ge=1, description="how often a task is moved in its life")
    rest_seconds: float = Field(60.0, ge=0, description="how long a moved task is left alone")
    refused_seconds: float = Field(300.0, ge=0, description="how long a task whose move was refused is left alone")
    max_wait_minutes: MaxWaits = MaxWaits()
    starving_share: float = Field(0.05, ge=0, le=1, description="of a pool's slots, for what would starve")
    starving_span_seconds: float = Field(1800.0, ge=0, description="how much of that share can be saved up")
    ending_share: float = Field(0.2, ge=0, le=1, description="less new work than this share: a batch is ending")
    ending_ticks: int = Field(20, ge=1, description="over how many ticks that is looked at")
    long_seconds: float = Field(120.0, ge=0, description="a shorter task never makes a batch end late")
    slots_per_long_task: int = Field(16, ge=1, description="each so many bring one long task forward a tick")
    spill_idle_share: float = Field(0.1, ge=0, le=1, description="of the cpu slots, kept free of GPU-preferred work")
    spill_margin: float = Field(0.25, ge=0, description="a spill has to win by this share of the time on a CPU")
    return_below: float = Field(0.5, ge=0, le=1, description="back, when a GPU would end it in this share of that time")
    return_ticks: int = Field(2, ge=0, description="how long a spilled task waits first")


class Policy(Frozen):
    """How work is ordered and bound."""

    binding: Binding = Binding.LATE
    order: Order = Order.STRICT
    hybrid_penalty: float = Field(0.2, ge=0, description="kept from taking work that a specialist could take")
    max_retries: int = Field(3, ge=0)
    suspect_after_seconds: float = Field(10.0, gt=0, description="a beat older than this is worth a question")
    offline_after_seconds: float = Field(60.0, gt=0, description="a beat older than this is not healthy")
    recovery: RecoveryPolicy = RecoveryPolicy()
    balancing: BalancingPolicy = BalancingPolicy()
