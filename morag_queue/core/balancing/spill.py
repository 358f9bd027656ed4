"""Rules between the pools: work that prefers a GPU spills to idle CPUs when the GPUs are overloaded, and returns."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from morag_queue.core.levels import LEVELS
from morag_queue.core.model import QueueType, Requires
from morag_queue.core.plan import Declined, MoveTask
from morag_queue.core.words import count_of, is_are

from .context import Candidate, RuleContext, RuleResult
from .state import Pool

SPILL, RETURN = "spill", "return"

_TARGET = QueueType.CPU_STANDARD


@dataclass(frozen=True, slots=True)
class SpillEstimate:
    """The options of one entry, in seconds: the `wait` until a GPU starts it, and its run time on a GPU and a CPU."""

    wait: float
    on_gpu: float
    on_cpu: float

    @property
    def by_gpu(self) -> float:
        """The time until it would end on a GPU."""
        return self.wait + self.on_gpu

    @property
    def words(self) -> str:
        return f"it would end in {_minutes(self.by_gpu)} on a GPU, in {_minutes(self.on_cpu)} on a CPU"


def spill(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """Move work that prefers a GPU to an idle CPU where it ends earlier by a margin; the largest gain first.

    Within a level the newest entry goes first, because it would wait longest. A tenth of the CPU slots stays free, and
    nothing spills while CPU work waits. gain = w² (W + p_gpu − 1.25 p_cpu) / p_cpu, where w is the weight of the
    priority, W the wait, and p the run time.
    """
    rows = [list(row) for row in _rows(context)]
    if rows and (obstacle := _obstacle(context)):
        return RuleResult(declined=(Declined(subject=_TARGET.value, reason=f"spill: {obstacle}"),))
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    gone = dict.fromkeys(LEVELS, 0.0)
    free = context.capacity.spare_idle - context.policy.balancing.spill_idle_share * context.capacity.spare
    heap: list[tuple[float, tuple[int, float, str], int]] = []

    def offer(n: int) -> None:
        """Add the newest entry of a row that may be moved. Its gain only falls while others spill."""
        while rows[n]:
            task = rows[n][0]
            why = context.resting(task.head, chosen)
            if not why:
                heappush(heap, (-_gain(context, task, gone)[0], task.tie, n))
                return
            declined.append(Declined(subject=task.where, reason=f"spill: {why}"))
            rows[n].pop(0)

    for n in range(len(rows)):
        offer(n)
    while heap and free > len(steps) < limit:
        known, tie, n = heappop(heap)
        task = rows[n][0]
        gain, choice = _gain(context, task, gone)
        if gain <= 0:
            declined.append(Declined(subject=task.where, reason=f"spill: no gain: {choice.words}"))
        elif gain < -known:
            heappush(heap, (-gain, tie, n))
        else:
            steps.append(_moved(context, task, _TARGET, SPILL, choice, choice.by_gpu - choice.on_cpu))
            gone[task.level] += choice.on_gpu
            rows[n].pop(0)
            offer(n)
    return RuleResult(tuple(steps), tuple(declined))


def unspill(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """Move spilled work that still waits back once a GPU would end it in half the time.

    Spilled work is recognised by its header: it was submitted to a GPU queue and is in a CPU lane.
    """
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    added = dict.fromkeys(LEVELS, 0.0)
    for task in sorted(context.candidates([_TARGET]), key=lambda row: row.tie):
        home = task.head.queue
        if task.head.requires is not Requires.GPU_PREFERRED or home is None or context.pools[home] is not Pool.GPU:
            continue
        choice = _choice(context, task, {level: -seconds for level, seconds in added.items()})
        share = context.policy.balancing.return_below
        if why := context.resting(task.head, chosen) or _too_early(context, task) or _closed(context, home):
            declined.append(Declined(subject=task.where, reason=f"return: {why}"))
        elif choice.by_gpu >= share * choice.on_cpu:
            declined.append(Declined(subject=task.where, reason=f"return: the gain is too small: {choice.words}"))
        elif len(steps) < limit:
            added[task.level] += choice.on_gpu
            steps.append(_moved(context, task, home, RETURN, choice, choice.on_cpu - choice.by_gpu))
    return RuleResult(tuple(steps), tuple(declined))


def _rows(context: RuleContext) -> Iterator[list[Candidate]]:
    """Yield the entries that prefer a GPU, one row per lane and level, the newest first."""
    rows: dict[tuple[str, int], list[Candidate]] = {}
    for task in context.candidates(context.of_pool(Pool.GPU)):
        if task.head.requires is Requires.GPU_PREFERRED:
            rows.setdefault((task.lane.lane, task.level), []).append(task)
    yield from (row[::-1] for row in rows.values())


def _obstacle(context: RuleContext) -> str:
    """Return why nothing can spill now, or ""."""
    capacity = context.capacity
    if _TARGET in context.snapshot.paused:
        return f"{_TARGET} is paused"
    registered = {None, *context.snapshot.worker_by_id}  # lanes of unregistered workers do not compete for the slots
    waiting = sum(
        view.length for queue in context.of_pool(Pool.CPU) for view in context.snapshot.lanes_by_queue[queue]
        if view.worker in registered
    )  # fmt: skip
    if waiting:
        return f"{count_of(waiting, 'task')} already wait{'s' if waiting == 1 else ''} in the CPU lanes"
    share = context.policy.balancing.spill_idle_share
    if capacity.spare_idle <= share * capacity.spare:
        idle = f"{capacity.spare_idle} of {count_of(capacity.spare, 'CPU slot')} {is_are(capacity.spare_idle)} idle"
        return f"{idle}, and {share:.0%} stay free"
    return ""


def _gain(context: RuleContext, task: Candidate, gone: dict[int, float]) -> tuple[float, SpillEstimate]:
    choice = _choice(context, task, gone)
    if choice.on_cpu <= 0:
        return 0.0, choice
    margin = 1 + context.policy.balancing.spill_margin
    return int(task.head.priority) ** 2 * (choice.by_gpu - margin * choice.on_cpu) / choice.on_cpu, choice


def _choice(context: RuleContext, task: Candidate, gone: dict[int, float]) -> SpillEstimate:
    """Return the estimate with `gone` seconds of GPU work removed by level; an entry does not wait for itself."""
    on_gpu = context.seconds(task.head, Pool.GPU)
    own = on_gpu if context.pools[task.lane.queue] is Pool.GPU else 0.0
    away = own + sum(gone[level] for level in LEVELS[: task.level + 1])
    return SpillEstimate(context.ahead(Pool.GPU, task.level, away), on_gpu, context.seconds(task.head, Pool.CPU))


def _too_early(context: RuleContext, task: Candidate) -> str:
    balancing = context.policy.balancing
    mark = context.state.moved.get(task.head.task_id)
    since = mark.at if mark else task.head.enqueued_at
    due = balancing.return_ticks * balancing.interval_seconds
    return f"it has waited there for only {context.now - since:.0f} s" if 0 <= context.now - since < due else ""


def _closed(context: RuleContext, queue: QueueType) -> str:
    return f"{queue} is paused" if queue in context.snapshot.paused else ""


def _moved(
    context: RuleContext, task: Candidate, queue: QueueType, rule: str, choice: SpillEstimate, saved: float
) -> MoveTask:
    longer = max(choice.by_gpu, choice.on_cpu)
    return MoveTask(
        task_id=task.head.task_id, source=task.lane.lane, target=queue.value, level=task.level,
        to_level=context.readers.polled[queue][task.level], reason=f"{rule}: {choice.words}", rule=rule,
        keeps_gpu=queue in context.readers.unsafe,
        confidence=min(max(saved / longer, 0.0), 1.0) if longer else 0.0, estimated_improvement=saved / 60,
    )  # fmt: skip


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 86_400 else "days"
