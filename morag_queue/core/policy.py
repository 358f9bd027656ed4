"""The policy as values: queue table, content estimates, balancing. Every number is a setting."""

from dataclasses import dataclass
from enum import StrEnum

from .enums import Capability, ContentType, QueuePriority, QueueType, Requires
from .failure import RecoveryPolicy
from .setting import Table, setting


class Binding(StrEnum):
    """When a task is bound to a worker: `late` when a worker claims it from the shared lane, `early` at submit."""

    LATE = "late"
    EARLY = "early"


class Order(StrEnum):
    """`strict`: a priority never overtakes a higher one. `weighted`: by weight² over length, see `levels`."""

    STRICT = "strict"
    WEIGHTED = "weighted"


@dataclass(frozen=True, kw_only=True)
class QueuePolicy(Table):
    """A queue: its workers, limits and fallback.

    No decision depends on `weight` or on `timeout_minutes`.
    """

    served_by: tuple[Capability, ...] = setting(description="capabilities of workers that read the queue by default")
    max_tasks_per_worker: int = setting(ge=1, description="tasks assigned to one worker with early binding, at most")
    weight: float = setting(gt=0, description="importance relative to other queues")
    timeout_minutes: float = setting(gt=0, description="run time from which a task counts as stuck")
    fallback: QueueType = setting(description="queue that takes tasks while no worker serves this one; itself: none")


_GPU = (Capability.GPU, Capability.HYBRID)
_CPU = (Capability.CPU, Capability.HYBRID)


@dataclass(frozen=True, kw_only=True)
class Queues(Table):
    """The queues, most powerful first."""

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
        """Return the queues that a worker of this capability reads, in the order of the table."""
        return tuple(queue for queue in QueueType if capability in self.of(queue).served_by)


@dataclass(frozen=True, kw_only=True)
class ContentPolicy(Table):
    """Starting estimates of one content type: minutes at factor 1, memory, what it needs, and what makes it longer.

    A field named `…_factor` multiplies the minutes if its option or condition holds; 1 means no effect.
    """

    requires: Requires = setting(description="what a task needs")
    memory_gb: float = setting(gt=0, description="memory, before additions by size")
    minutes_per_minute: float = setting(0.0, ge=0, description="audio and video: minutes per minute of playing time")
    minutes_per_page: float = setting(0.0, ge=0, description="documents: minutes per page")
    minutes: float = setting(0.0, ge=0, description="fixed part, whatever the length")
    light: bool = setting(False, description="CPU work that mostly waits, for a web page for instance")
    diarization_factor: float = setting(1.0, gt=0, description="option diarization")
    segmentation_factor: float = setting(1.0, gt=0, description="option topic segmentation")
    thumbnails_factor: float = setting(1.0, gt=0, description="option thumbnails")
    docling_factor: float = setting(1.0, gt=0, description="option docling")
    high_resolution_factor: float = setting(1.0, gt=0, description="video: shorter side above `high_resolution_lines`")
    large_image_factor: float = setting(1.0, gt=0, description="image above `large_image_megapixels`")
    huge_image_factor: float = setting(
        1.0, gt=0, description="image above `huge_image_megapixels`, replaces the former"
    )
    megabytes_per_minute: float = setting(1.0, gt=0, description="derives an unknown playing time from the size")
    megabytes_per_page: float = setting(0.1, gt=0, description="derives an unknown page count from the size")
    assumed_length: float = setting(10.0, gt=0, description="minutes or pages if neither length nor size is known")


@dataclass(frozen=True, kw_only=True)
class ContentPolicies(Table):
    """Starting estimates by content type; measured run times correct them, see `estimate.learn`.

    Megabytes and gigabytes are decimal. `megabytes_per_minute` is that of common encodings: 128 kbit/s for audio,
    1.3 Mbit/s for video. 3,000 characters are a densely printed page.
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

    high_resolution_lines: int = setting(1080, gt=0, description="video: shorter side above which it is slower")
    large_image_megapixels: float = setting(3.0, gt=0, description="size above which an image is large")
    huge_image_megapixels: float = setting(12.0, gt=0, description="size above which an image is huge")
    characters_per_page: int = setting(3000, gt=0, description="text: characters that count as a page")
    complexity_minutes: tuple[float, float, float] = setting(
        (1.0, 10.0, 60.0), description="lower bounds of medium, high and very_high"
    )
    memory_step_mb: float = setting(100.0, gt=0, description="file size that adds `memory_gb` once more")
    memory_steps_max: float = setting(5.0, ge=0, description="limit for these additions")
    disk_factor: float = setting(3.0, ge=0, description="disk space for working copies, as a multiple of the file size")
    memory_intensive_gb: float = setting(4.0, gt=0, description="memory from which a task is memory_intensive")
    disk_intensive_gb: float = setting(10.0, gt=0, description="disk space from which a task is disk_intensive")

    def of(self, content_type: ContentType) -> ContentPolicy:
        row: ContentPolicy = getattr(self, content_type.value)
        return row


@dataclass(frozen=True, kw_only=True)
class MaxWaits(Table):
    """Minutes of waiting from which a task counts as starving, by priority. Lower priorities wait longer by design."""

    urgent: float = setting(15.0, gt=0, description="URGENT tasks")
    high: float = setting(30.0, gt=0, description="HIGH tasks")
    normal: float = setting(60.0, gt=0, description="NORMAL tasks")
    low: float = setting(120.0, gt=0, description="LOW tasks")
    batch: float = setting(240.0, gt=0, description="BATCH tasks")

    def of(self, priority: QueuePriority) -> float:
        minutes: float = getattr(self, priority.name.lower())
        return minutes


@dataclass(frozen=True, kw_only=True)
class BalancingPolicy(Table):
    """How `watch` moves waiting tasks.

    A tick is `interval_seconds`; a pool is all GPU slots or all CPU slots of the fleet. The defaults are the constants
    under which the policy was simulated. In overload, promotion of starving tasks without a limit on their work turns
    the order into FIFO; limited to 5 % of a pool, it costs the other tasks at most 5 %. Spill and return have
    different thresholds (`spill_margin`, `return_below`) so that no task moves back and forth.
    """

    interval_seconds: float = setting(30.0, gt=0, description="length of a tick, the unit of all limits per tick")
    settle_seconds: float = setting(5.0, ge=0, description="pause after moves, so that workers claim first")
    moves_min: int = setting(10, ge=0, description="limit for optional moves per tick in a small fleet")
    moves_per_worker: float = setting(0.25, ge=0, description="limit for optional moves per tick and worker")
    moves_per_task: int = setting(2, ge=1, description="optional moves of one task in its lifetime")
    rest_seconds: float = setting(60.0, ge=0, description="cool-down of a task after a move")
    refused_seconds: float = setting(300.0, ge=0, description="cool-down of a task whose move was rejected")
    max_wait_minutes: MaxWaits = MaxWaits()
    starving_share: float = setting(0.05, ge=0, le=1, description="share of a pool's slot-seconds for starving tasks")
    starving_span_seconds: float = setting(1800.0, ge=0, description="time over which unused share accumulates")
    ending_share: float = setting(0.2, ge=0, le=1, description="a batch is ending below this share of new work")
    ending_ticks: int = setting(20, ge=1, description="ticks over which new work is averaged")
    long_seconds: float = setting(120.0, ge=0, description="shorter tasks are never promoted at the end of a batch")
    slots_per_long_task: int = setting(16, ge=1, description="slots of a pool per long task promoted per tick")
    spill_idle_share: float = setting(0.1, ge=0, le=1, description="share of CPU slots kept free of spilled work")
    spill_margin: float = setting(0.25, ge=0, description="gain a spill needs, as a share of its time on a CPU")
    return_below: float = setting(0.5, ge=0, le=1, description="a spill is undone if a GPU ends it in this share of it")
    return_ticks: int = setting(2, ge=0, description="ticks a spilled task waits before it can return")


@dataclass(frozen=True, kw_only=True)
class Policy(Table):
    """How work is ordered, bound, balanced and recovered.

    Strict order is the default, although weighted order has the lower mean flow time, so that no NORMAL task overtakes
    a HIGH one. Late binding is the default: in simulation, binding tasks to workers ahead of time raised the weighted
    flow time 2.4-fold with 4 workers and by 13 % with 32.
    A worker sends a heartbeat every 2 s: it is suspect after 5 missed ones and offline after 30.
    """

    binding: Binding = setting(Binding.LATE, description="when a task is bound to a worker, at its claim or at submit")
    order: Order = setting(Order.STRICT, description="order of waiting tasks, by priority or by weight over run time")
    hybrid_penalty: float = setting(0.2, ge=0, description="extra load of a hybrid in scores: specialists come first")
    max_retries: int = setting(3, ge=0, description="requeues from dead workers before a task is quarantined")
    suspect_after_seconds: float = setting(10.0, gt=0, description="heartbeat age from which a worker is suspect")
    offline_after_seconds: float = setting(60.0, gt=0, description="heartbeat age from which a worker is offline")
    forgotten_after_seconds: float = setting(
        3600.0, gt=0, description="age of a pause or cordon at which `doctor` warns"
    )
    recovery: RecoveryPolicy = RecoveryPolicy()
    balancing: BalancingPolicy = BalancingPolicy()
