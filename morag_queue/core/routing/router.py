"""Routing: the queue, lane and level of a task, the worker expected to take it, and the reason in words.

    queue       from what the task needs and its priority, unless the user names one
    candidates  the queue and its fallbacks, without those where a worker might take work that it cannot run
    action      assign    a worker is free for it
                fallback  it goes to another queue, because no worker serves the first one
                hold      it waits: all workers are full, or no worker can take it
    lane        late binding: the shared lane;  early binding: the lane of the best worker;  pin: the pinned worker's

Above all other rules: GPU-only work never enters a lane that a worker without a GPU reads, or may read according to
the queue table. Only `allow_cpu` overrides this, for a worker or a queue that a person has named.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import inf

from morag_queue.core.lanes import lane
from morag_queue.core.levels import level as level_of
from morag_queue.core.model import DecisionAction, LoadBalancingDecision, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.words import count_of

from .feasibility import WorkerLoad, worker_loads
from .lane_readers import fallbacks, lane_readers, steps_of
from .pin import check_pin, forced_because, pinned_queue
from .score_table import Corrections, ScoreTable, WorkClass
from .types import Override, Placement, Refusal, RefusalCode, Routable, TaskProfile

_CERTAINTY_WITHOUT_WORKER = 0.5  # of a place for which no worker can be named yet


def choose_queue(requires: Requires, priority: QueuePriority) -> QueueType:
    """Return the queue of a task: gpu_priority, gpu_fallback (may fall back to a CPU), cpu_standard or cpu_batch."""
    if requires is Requires.CPU:
        return QueueType.CPU_BATCH if priority is QueuePriority.BATCH else QueueType.CPU_STANDARD
    first = requires is Requires.GPU or priority >= QueuePriority.HIGH
    return QueueType.GPU_PRIORITY if first else QueueType.GPU_FALLBACK


def route(
    task: Routable,
    snapshot: Snapshot,
    policy: Policy,
    queues: Queues,
    *,
    pin: str | None = None,
    queue: QueueType | None = None,
    force: bool = False,
    allow_cpu: bool = False,
    corrections: Corrections | None = None,
) -> Placement | Refusal:
    """Route one task, with its score table. For a batch use a `Router`, which shares the tables between tasks."""
    router = Router(snapshot, policy, queues, corrections)
    return router.route(task, pin=pin, queue=queue, force=force, allow_cpu=allow_cpu, explain=True)


class Router:
    """Route a batch of tasks on one snapshot. Each assignment counts as load of its worker for the tasks after it."""

    def __init__(
        self,
        snapshot: Snapshot,
        policy: Policy,
        queues: Queues,
        corrections: Corrections | None = None,
        *,
        loads: Mapping[str, WorkerLoad] | None = None,
    ) -> None:
        """`loads` are the `worker_loads` of the snapshot, where the caller has them."""
        self._policy, self._queues = policy, queues
        self._corrections = corrections = snapshot.corrections if corrections is None else corrections
        self._paused = snapshot.paused
        self._loads = worker_loads(snapshot, policy) if loads is None else loads
        self._steps = snapshot.steps
        self._readers = lane_readers(self._loads.values(), queues, self._steps)
        self._chains = {queue: fallbacks(queue, queues) for queue in QueueType}
        self._tables: dict[tuple[QueueType, WorkClass], ScoreTable] = {}
        # Tasks share a table if workers do not differ on them. The content type matters only if a worker restricts it
        # or a correction was learned; memory matters only by which workers it rules out.
        self._type_matters = bool(corrections) or any(load.content_types for load in self._loads.values())
        self._memory_sizes = sorted({load.memory_gb for load in self._loads.values()})

    def route(
        self,
        task: Routable,
        *,
        pin: str | None = None,
        queue: QueueType | None = None,
        force: bool = False,
        allow_cpu: bool = False,
        explain: bool = False,
    ) -> Placement | Refusal:
        """Route one task. Never raises.

        `pin` names a worker, `queue` a queue; `force` overrides a refused pin, but not the GPU safety rule, which
        `allow_cpu` lifts for the named place. With `explain` the placement carries the score table of the chosen
        queue, which costs O(workers).
        """
        wanted = queue or choose_queue(task.requires, task.priority)
        chain: Sequence[QueueType] = self._chains[wanted] if queue is None else (wanted,)
        if allow_cpu and task.requires is Requires.GPU and (pin is not None or queue is not None):
            return _with_note(self._route_to(_preferring_gpu(task), pin, queue, wanted, chain, force, explain))
        return self._route_to(task, pin, queue, wanted, chain, force, explain)

    def _route_to(
        self,
        task: Routable,
        pin: str | None,
        queue: QueueType | None,
        wanted: QueueType,
        chain: Sequence[QueueType],
        force: bool,
        explain: bool,
    ) -> Placement | Refusal:
        if pin is not None:
            return self._place_pinned(task, pin, chain, queue is not None, force, explain)
        safe = self._safe(task, chain)
        return self._place(task, wanted, safe, explain) if safe else self._refuse_unsafe(wanted, queue is not None)

    def place(self, task: Routable) -> tuple[QueueType, str, int] | Refusal:
        """Return the queue, lane and level of a task, as `route` does, at a third of its cost in late binding.

        Then no worker is chosen, and so none is expected to have more load afterwards.
        """
        if self._policy.binding is Binding.EARLY:
            placed = self.route(task)
            return placed if isinstance(placed, Refusal) else (placed.queue, placed.lane, placed.level)
        wanted = choose_queue(task.requires, task.priority)
        chain = self._safe(task, self._chains[wanted])
        if not chain:
            return self._refuse_unsafe(wanted, False)
        table, _ = self._table_of(chain, self._work_class(task))
        return table.queue, lane(table.queue), self._level(task, table, self._readers.steps[table.queue])

    def _safe(self, task: Routable, chain: Sequence[QueueType]) -> Sequence[QueueType]:
        """Return the queues without those where a worker might take work that it cannot run."""
        if task.requires is not Requires.GPU or not self._readers.unsafe:
            return chain
        return [queue for queue in chain if queue not in self._readers.unsafe]

    def _place(self, task: Routable, wanted: QueueType, chain: Sequence[QueueType], explain: bool) -> Placement:
        work = self._work_class(task)
        table, is_served = self._table_of(chain, work)
        if not is_served:
            why = f"{chain[0]} is paused" if chain[0] in self._paused else f"no worker can take it ({table.obstacles})"
            return self._hold(task, table, wanted, f"{why}: it waits in {chain[0]}", explain)
        why = "" if table.queue is wanted else f"{self._why_not(wanted, work)}: "
        found = table.best()
        if found is None:
            eligible = count_of(table.eligible, "worker")
            why += f"{eligible} could take it, all full or suspect: it waits in {table.queue}"
            return self._hold(task, table, wanted, why, explain)
        return self._assign(task, table, *found, wanted, why, explain)

    def _table_of(self, chain: Sequence[QueueType], work: WorkClass) -> tuple[ScoreTable, bool]:
        """Return the score table of the queue for the work, and whether a worker takes it from there."""
        if chain[0] not in self._paused:
            for queue in chain:
                if queue not in self._paused and (table := self._table(queue, work)).is_served:
                    return table, True
        return self._table(chain[0], work), False

    def _hold(self, task: Routable, table: ScoreTable, wanted: QueueType, why: str, explain: bool) -> Placement:
        is_fallback = table.queue is not wanted and table.is_served
        action = DecisionAction.FALLBACK if is_fallback else DecisionAction.HOLD
        confidence = task.confidence * _CERTAINTY_WITHOUT_WORKER
        decision = _decision(action, wanted, table.queue, None, why, confidence)
        scores = table.scores(task.estimated_minutes) if explain else ()
        level = self._level(task, table, self._readers.steps[table.queue])
        return Placement(decision, table.queue, lane(table.queue), level, scores)

    def _assign(
        self,
        task: Routable,
        table: ScoreTable,
        load: WorkerLoad,
        score: float,
        wanted: QueueType,
        why: str,
        explain: bool,
    ) -> Placement:
        scores = table.scores(task.estimated_minutes) if explain else ()
        early = self._policy.binding is Binding.EARLY
        why += self._why_assigned(load, table.queue)
        action = DecisionAction.ASSIGN if table.queue is wanted else DecisionAction.FALLBACK
        confidence = task.confidence * (1.0 if early else score)
        saved = table.saved_minutes(load, task.estimated_minutes)
        decision = _decision(action, wanted, table.queue, load.worker, why, confidence, saved)
        load.take(table.queue)
        target = lane(table.queue, load.worker if early else None)
        steps = steps_of(load.priority_steps, self._steps) if early else self._readers.steps[table.queue]
        return Placement(decision, table.queue, target, self._level(task, table, steps), scores)

    def _place_pinned(
        self, task: Routable, worker: str, chain: Sequence[QueueType], is_named: bool, force: bool, explain: bool
    ) -> Placement | Refusal:
        load, work = self._loads.get(worker), self._work_class(task)
        refusal = check_pin(worker, load, work)
        if refusal is not None and not (force and refusal.override is Override.FORCE):
            return refusal
        queue = pinned_queue(worker, load, work, chain, self._readers, is_named=is_named)
        if isinstance(queue, Refusal):
            return queue
        table = self._table(queue, work)
        scores = table.scores(task.estimated_minutes) if explain else ()
        why = f"pinned to {worker}" + (f" {forced_because(refusal)}" if refusal else "")
        decision = _decision(DecisionAction.ASSIGN, chain[0], queue, worker, why, task.confidence)
        steps = steps_of(load.priority_steps if load else None, self._steps)
        if load is not None:
            load.take(queue)
        return Placement(decision, queue, lane(queue, worker), self._level(task, table, steps), scores)

    def _refuse_unsafe(self, wanted: QueueType, is_named: bool) -> Refusal:
        unsafe = self._readers.unsafe
        if is_named:
            remedy = f"choose a queue that only GPU workers read, or add {Override.ALLOW_CPU}"
            message = f"the task needs a GPU, and {unsafe[wanted]}: {remedy}"
            return Refusal(
                code=RefusalCode.CPU_WOULD_RUN_IT, subject=wanted.value, message=message, override=Override.ALLOW_CPU
            )  # fmt: skip
        reasons = "; ".join(unsafe[queue] for queue in self._chains[wanted])
        message = f"the task needs a GPU, and no queue is safe for it ({reasons}): take these workers off {wanted}"
        return Refusal(code=RefusalCode.NO_SAFE_LANE, subject=wanted.value, message=message)

    def _why_not(self, wanted: QueueType, work: WorkClass) -> str:
        if work.requires is Requires.GPU and wanted in self._readers.unsafe:
            return self._readers.unsafe[wanted]
        return f"no worker can take it from {wanted} ({self._table(wanted, work).obstacles})"

    def _why_assigned(self, load: WorkerLoad, queue: QueueType) -> str:
        if self._policy.binding is Binding.EARLY:
            limit = self._queues.of(queue).max_tasks_per_worker
            return f"{load.worker} fits best, with {load.assigned[queue]} of at most {count_of(limit, 'task')} assigned"
        return f"{load.worker} is expected to take it, with {load.load} of {count_of(load.slots, 'slot')} in use"

    def _work_class(self, task: Routable) -> WorkClass:
        """Round the memory up to the next size that a worker has: all sizes between two rule out the same workers."""
        index = bisect_left(self._memory_sizes, task.memory_gb)
        memory_gb = self._memory_sizes[index] if index < len(self._memory_sizes) else inf
        return WorkClass(task.requires, task.content_type if self._type_matters else None, memory_gb)

    def _table(self, queue: QueueType, work: WorkClass) -> ScoreTable:
        table = self._tables.get((queue, work))
        if table is None:
            table = ScoreTable(self._loads.values(), queue, work, self._policy, self._queues, self._corrections)
            self._tables[queue, work] = table
        return table

    def _level(self, task: Routable, table: ScoreTable, steps: Sequence[int]) -> int:
        return level_of(task.priority, task.estimated_minutes * table.best_factor, self._policy.order, steps=steps)


def _preferring_gpu(task: Routable) -> TaskProfile:
    return TaskProfile(
        Requires.GPU_PREFERRED, task.priority, task.content_type, task.estimated_minutes, task.memory_gb,
        task.confidence,
    )  # fmt: skip


def _with_note(placed: Placement | Refusal) -> Placement | Refusal:
    """Say in the reason that a person has allowed a place without a GPU."""
    if isinstance(placed, Refusal):
        return placed
    reason = f"{placed.decision.reason}; it requires a GPU, but {Override.ALLOW_CPU} allows a worker without one"
    return placed._replace(decision=placed.decision.model_copy(update={"reason": reason}))


@lru_cache(maxsize=1024)  # in a batch, thousands of tasks of one class get the same decision
def _decision(
    action: DecisionAction,
    wanted: QueueType,
    target: QueueType,
    worker: str | None,
    why: str,
    confidence: float,
    saved_minutes: float = 0.0,
) -> LoadBalancingDecision:
    return LoadBalancingDecision(
        action=action,
        source_queue=wanted,
        target_queue=target,
        worker_id=worker,
        reason=why,
        confidence=min(1.0, max(0.0, confidence)),
        estimated_improvement=saved_minutes,
    )
