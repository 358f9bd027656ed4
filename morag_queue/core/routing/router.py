"""Where a task goes: queue, lane, level, the worker expected to take it, and the reason in words.

    queue       by what the task needs and how urgent it is; a person may name another
    candidates  the queue, then what it falls back to, without those where the work could meet a worker it must not
    decision    assign    a worker is free for it         hold    it waits: all are full, or nobody can take it
                fallback  another queue than the first, for nobody serves that one
    lane        late binding: the shared one;  early: the best worker's own, up to the queue's limit;  a pin: that one's

One rule stands above the rest: work that needs a GPU never enters a lane that a worker without one reads, or may read
by the table of queues. Only a pin that is forced is stronger, for there a person has named the worker.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from math import inf

from morag_queue.core.lanes import lane
from morag_queue.core.levels import level
from morag_queue.core.model import DecisionAction, LoadBalancingDecision, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.snapshot import Snapshot

from .feasibility import WorkerLoad, worker_loads
from .lane_readers import fallbacks, lane_readers, polled_levels
from .pin import forced_although, pinned_queue, refused_pin
from .score_table import Corrections, ScoreTable, WorkClass
from .types import Placement, Refusal, RefusalCode, Routable

_OPEN = 0.5  # how sure a place is where it is not known who will take the task


def choose_queue(requires: Requires, priority: QueuePriority) -> QueueType:
    """The queue of a task by the contract's rule."""
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
    corrections: Corrections | None = None,
) -> Placement | Refusal:
    """Routes one task, with its score table. For many, a `Router` shares what they have in common."""
    return Router(snapshot, policy, queues, corrections).route(task, pin=pin, queue=queue, force=force, explain=True)


class Router:
    """Routes a batch on one snapshot. What it has assigned counts as load of the worker for the tasks after it."""

    def __init__(
        self, snapshot: Snapshot, policy: Policy, queues: Queues, corrections: Corrections | None = None
    ) -> None:
        self._policy, self._queues = policy, queues
        self._corrections = corrections = snapshot.corrections if corrections is None else corrections
        self._paused = snapshot.paused
        self._seats = worker_loads(snapshot, policy)
        self._readers = lane_readers(self._seats.values(), queues)
        self._chains = {queue: fallbacks(queue, queues) for queue in QueueType}
        self._tables: dict[tuple[QueueType, WorkClass], ScoreTable] = {}
        # Tasks that no worker tells apart share a table: a type matters where someone is choosy or has learned of it,
        # memory by which workers it rules out.
        self._by_type = bool(corrections) or any(load.content_types for load in self._seats.values())
        self._memories = sorted({load.memory_gb for load in self._seats.values()})

    def route(
        self,
        task: Routable,
        *,
        pin: str | None = None,
        queue: QueueType | None = None,
        force: bool = False,
        explain: bool = False,
    ) -> Placement | Refusal:
        """Never raises. `pin` names a worker, `queue` a queue; `force` grants a pin that would be refused.

        With `explain` the answer carries the score table of the chosen queue, which costs O(workers).
        """
        wanted = queue or choose_queue(task.requires, task.priority)
        chain: Sequence[QueueType] = self._chains[wanted] if queue is None else (wanted,)
        if pin is not None:
            return self._pinned(task, pin, chain, queue is not None, force, explain)
        if task.requires is Requires.GPU and self._readers.unsafe:
            chain = [one for one in chain if one not in self._readers.unsafe]
            if not chain:
                return self._unlawful(wanted, queue is not None)
        return self._placed(task, wanted, chain, explain)

    def _placed(self, task: Routable, wanted: QueueType, chain: Sequence[QueueType], explain: bool) -> Placement:
        work = self._class(task)
        table = self._first_serving(chain, work)
        if chain[0] in self._paused or table is None:
            table = self._table(chain[0], work)
            why = f"{chain[0]} is paused" if chain[0] in self._paused else f"nobody can take it ({table.obstacles})"
            return self._held(task, table, wanted, f"{why}: it waits in {chain[0]}", explain)
        why = "" if table.queue is wanted else f"{self._why_not(wanted, work)}: "
        found = table.best()
        if found is None:
            why += f"every worker that could take it ({table.servers}) is full or suspect: it waits in {table.queue}"
            return self._held(task, table, wanted, why, explain)
        return self._assigned(task, table, *found, wanted, why, explain)

    def _held(self, task: Routable, table: ScoreTable, wanted: QueueType, why: str, explain: bool) -> Placement:
        served_elsewhere = table.queue is not wanted and table.servers
        action = DecisionAction.FALLBACK if served_elsewhere else DecisionAction.HOLD
        decision = _decision(action, wanted, table.queue, None, why, task.confidence * _OPEN)
        scores = table.scores(task.estimated_minutes) if explain else ()
        polled = self._readers.polled[table.queue]
        return Placement(decision, table.queue, lane(table.queue), polled[self._level(task, table)], scores)

    def _assigned(
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
        bound = self._policy.binding is Binding.EARLY
        why += self._why_assigned(load, table.queue, bound)
        action = DecisionAction.ASSIGN if table.queue is wanted else DecisionAction.FALLBACK
        certainty = task.confidence * (1.0 if bound else score)
        saved = table.saved_minutes(load, task.estimated_minutes)
        decision = _decision(action, wanted, table.queue, load.worker, why, certainty, saved)
        load.take(table.queue)
        where = lane(table.queue, load.worker if bound else None)
        polled = polled_levels([load]) if bound else self._readers.polled[table.queue]
        return Placement(decision, table.queue, where, polled[self._level(task, table)], scores)

    def _pinned(
        self, task: Routable, worker: str, chain: Sequence[QueueType], named: bool, force: bool, explain: bool
    ) -> Placement | Refusal:
        load, work = self._seats.get(worker), self._class(task)
        refusal = refused_pin(worker, load, work)
        if refusal is not None and not force:
            return refusal
        queue = pinned_queue(worker, load, work, chain, self._readers, named=named, force=force)
        if isinstance(queue, Refusal):
            return queue
        table = self._table(queue, work)
        scores = table.scores(task.estimated_minutes) if explain else ()
        why = f"pinned to {worker}" + (f" {forced_although(refusal)}" if refusal else "")
        decision = _decision(DecisionAction.ASSIGN, chain[0], queue, worker, why, task.confidence)
        polled = polled_levels([load] if load else [])
        if load is not None:
            load.take(queue)
        return Placement(decision, queue, lane(queue, worker), polled[self._level(task, table)], scores)

    def _unlawful(self, wanted: QueueType, named: bool) -> Refusal:
        unsafe = self._readers.unsafe
        if named:
            message = f"the task needs a GPU and {unsafe[wanted]}: choose a queue that only GPU workers read"
            return Refusal(code=RefusalCode.CPU_WOULD_RUN_IT, subject=wanted.value, message=message, overridable=False)
        reasons = "; ".join(unsafe[queue] for queue in self._chains[wanted])
        message = f"the task needs a GPU and has no queue of its own ({reasons}): take these workers off {wanted}"
        return Refusal(code=RefusalCode.NO_SAFE_LANE, subject=wanted.value, message=message, overridable=False)

    def _first_serving(self, chain: Sequence[QueueType], work: WorkClass) -> ScoreTable | None:
        for queue in chain:
            if queue not in self._paused and self._table(queue, work).servers:
                return self._table(queue, work)
        return None

    def _why_not(self, wanted: QueueType, work: WorkClass) -> str:
        if work.requires is Requires.GPU and wanted in self._readers.unsafe:
            return self._readers.unsafe[wanted]
        return f"nobody can take it from {wanted} ({self._table(wanted, work).obstacles})"

    def _why_assigned(self, load: WorkerLoad, queue: QueueType, bound: bool) -> str:
        if bound:
            limit = self._queues.of(queue).max_tasks_per_worker
            return f"{load.worker} fits best, with {load.assigned[queue]} of at most {limit} assigned"
        return f"{load.worker} is expected to take it, with {load.load} of {load.slots} slots in use"

    def _class(self, task: Routable) -> WorkClass:
        ruled_out = bisect_left(self._memories, task.memory_gb)
        needs = self._memories[ruled_out] if ruled_out < len(self._memories) else inf
        return WorkClass(task.requires, task.content_type if self._by_type else None, needs)

    def _table(self, queue: QueueType, work: WorkClass) -> ScoreTable:
        table = self._tables.get((queue, work))
        if table is None:
            worker_loads = self._seats.values()
            table = ScoreTable(worker_loads, queue, work, self._policy, self._queues, self._corrections)
            self._tables[queue, work] = table
        return table

    def _level(self, task: Routable, table: ScoreTable) -> int:
        return level(task.priority, task.estimated_minutes * table.best_factor, self._policy.order)


@lru_cache(maxsize=1024)  # tasks of one class that meet the same picture get the same decision, thousands in a row
def _decision(
    action: DecisionAction,
    wanted: QueueType,
    target: QueueType,
    worker: str | None,
    why: str,
    confidence: float,
    saved: float = 0.0,
) -> LoadBalancingDecision:
    return LoadBalancingDecision(
        action=action,
        source_queue=wanted,
        target_queue=target,
        worker_id=worker,
        reason=why,
        confidence=min(1.0, max(0.0, confidence)),
        estimated_improvement=saved,
    )
