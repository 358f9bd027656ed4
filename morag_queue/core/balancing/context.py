"""The input and the result of the balancing rules. Values that several rules need are computed once."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

from morag_queue.core.histogram import Window
from morag_queue.core.levels import LEVELS, level
from morag_queue.core.model import ContentType, QueuePriority, QueueType, Requires
from morag_queue.core.plan import Declined, MoveTask, Step
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import LaneReaders, readers_in
from morag_queue.core.routing.score_table import Corrections, WorkClass
from morag_queue.core.snapshot import LaneEntry, LaneView, Snapshot
from morag_queue.core.stats import ASSUMED_RUN_S

from .capacity import FleetCapacity, fleet_capacity, pool_of
from .state import BalancerState, Pool, advanced, resting

NEVER_S = 30 * 86_400.0
"""Wait in seconds for a pool without slots: longer than any estimate, but finite."""


class Candidate(NamedTuple):
    """An entry of a shared lane that a rule may move. `seconds` is its run time on the hardware that suits it best."""

    head: LaneEntry
    lane: LaneView
    level: int
    seconds: float

    @property
    def tie(self) -> tuple[int, float, str]:
        """Sort key where a rule has no preference: level, enqueue time and id."""
        return self.level, self.head.enqueued_at, self.head.task_id

    @property
    def where(self) -> str:
        return f"task {self.head.task_id}"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The steps and declined options of one rule, and the fields of the balancer state that it changes."""

    steps: tuple[Step, ...] = ()
    declined: tuple[Declined, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task_ids(self) -> frozenset[str]:
        return frozenset(step.task_id for step in self.steps if isinstance(step, MoveTask))


@dataclass(frozen=True)
class RuleContext:
    """The input of the rules. `only` limits moves to the lanes of one queue; `windows` has recent counts by queue.

    `before` is the state after the last turn; `state` adds the tokens earned since.
    """

    snapshot: Snapshot
    before: BalancerState
    policy: Policy
    queues: Queues
    windows: Mapping[QueueType, Window] = field(default_factory=dict)
    corrections: Corrections | None = None
    only: QueueType | None = None

    @property
    def now(self) -> float:
        return self.snapshot.taken_at

    @cached_property
    def capacity(self) -> FleetCapacity:
        return fleet_capacity(self.snapshot, self.policy, self.queues, self.pace)

    @cached_property
    def readers(self) -> LaneReaders:
        return readers_in(self.snapshot, self.queues)

    @cached_property
    def state(self) -> BalancerState:
        return advanced(self.before, self.now, self.capacity.slots, self.policy.balancing)

    @cached_property
    def shared(self) -> Mapping[QueueType, LaneView]:
        """Shared lanes with waiting work, by queue."""
        return {view.queue: view for view in self.snapshot.lanes if view.worker is None and view.length}

    @cached_property
    def queued(self) -> Mapping[Pool, tuple[float, ...]]:
        """Seconds of work that wait for each pool, up to each level: length times the mean of the visible entries."""
        sums = {pool: [0.0] * len(LEVELS) for pool in Pool}
        for view in self.snapshot.lanes:
            pool = self.pools[view.queue]
            for n, length in enumerate(view.lengths):
                if length:
                    sums[pool][n] += length * self._mean_seconds(view, n, pool)
        return {pool: tuple(accumulate(seconds)) for pool, seconds in sums.items()}

    @cached_property
    def pools(self) -> Mapping[QueueType, Pool]:
        return {queue: pool_of(queue, self.queues) for queue in QueueType}

    def pace(self, queue: QueueType) -> float:
        """Return the usual run time of a queue's tasks in seconds."""
        window = self.windows.get(queue)
        return (window.mean_run_seconds if window else None) or ASSUMED_RUN_S

    def seconds(self, head: LaneEntry, pool: Pool) -> float:
        """Return the run time of an entry in a pool, in seconds; infinite if it cannot run there."""
        return head.minutes * self._rates(head)[0 if pool is Pool.GPU else 1]

    def best_seconds(self, head: LaneEntry) -> float:
        """Return the run time of an entry on the hardware that suits it best, in seconds."""
        return head.minutes * min(self._rates(head))

    def _rates(self, head: LaneEntry) -> tuple[float, float]:
        """Return (seconds on a GPU, seconds on a CPU) for each minute at factor 1; cached by kind of entry."""
        kind = head.requires, head.content_type
        rates = self._known_rates.get(kind)
        if rates is None:
            work = WorkClass(*kind, memory_gb=0.0)
            rates = 60.0 * work.factor(True, self.corrections), 60.0 * work.factor(False, self.corrections)
            self._known_rates[kind] = rates
        return rates

    @cached_property
    def _known_rates(self) -> dict[tuple[Requires, ContentType | None], tuple[float, float]]:
        return {}

    @cached_property
    def patience(self) -> Mapping[QueuePriority, float]:
        """The maximum wait in seconds, by priority; a task that exceeds it is starving."""
        return {priority: 60.0 * self.policy.balancing.max_wait_minutes.of(priority) for priority in QueuePriority}

    def ahead(self, pool: Pool, at_level: int, gone: float = 0.0) -> float:
        """Return in how many seconds a new entry of this level would start, if `gone` seconds of work were removed."""
        slots = self.capacity.slots[pool]
        if not slots:
            return NEVER_S
        queued = max(self.queued[pool][at_level] - gone, 0.0)
        if not queued and self.capacity.idle[pool]:
            return 0.0
        return min((queued + (self.capacity.running if pool is Pool.GPU else 0.0)) / slots, NEVER_S)

    @cached_property
    def lifted(self) -> Mapping[QueueType, int]:
        """The level of a promoted entry, by queue: the first polled level after that of URGENT."""
        return {queue: steps[min(1, len(steps) - 1)] for queue, steps in self.readers.steps.items()}

    def level(self, head: LaneEntry, queue: QueueType) -> int:
        """Return the level that an entry would get now, including its wait."""
        waited = max(self.now - head.enqueued_at, 0.0) if head.enqueued_at else 0.0
        minutes, steps = self.best_seconds(head) / 60, self.readers.steps[queue]
        return level(head.priority, minutes, self.policy.order, wait_s=waited, steps=steps)

    def candidates(self, queues: Iterable[QueueType]) -> Iterator[Candidate]:
        """Yield the visible entries of shared lanes that are not paused, each once, by lane, level and age."""
        for queue in queues:
            yield from self._visible.get(queue, ())

    @cached_property
    def _visible(self) -> Mapping[QueueType, tuple[Candidate, ...]]:
        open_lanes = {
            queue: view
            for queue, view in self.shared.items()
            if queue not in self.snapshot.paused and self.only in (None, queue)
        }
        return {queue: tuple(self._entries(view)) for queue, view in open_lanes.items()}

    def _entries(self, view: LaneView) -> Iterator[Candidate]:
        for n in LEVELS:
            heads, tails = view.heads[n], view.tails[n]
            if tails and view.lengths[n] < len(heads) + len(tails):  # a short list has entries in both ends
                seen = {head.task_id for head in heads}
                tails = tuple(head for head in tails if head.task_id not in seen)
            for head in (*heads, *reversed(tails)):
                yield Candidate(head, view, n, self.best_seconds(head))

    def of_pool(self, pool: Pool) -> tuple[QueueType, ...]:
        """Return the queues that a pool serves."""
        return tuple(queue for queue, served_by in self.pools.items() if served_by is pool)

    def resting(self, head: LaneEntry, chosen: Collection[str]) -> str:
        """Return why an entry may not be moved, or "". `chosen` are the tasks that this plan moves already."""
        if head.task_id in chosen:
            return "this plan moves it already"
        return resting(self.state, head.task_id, self.now, self.policy.balancing)

    def _mean_seconds(self, view: LaneView, at_level: int, pool: Pool) -> float:
        known = [self.seconds(head, pool) for head in (*view.heads[at_level], *view.tails[at_level])]
        finite = [seconds for seconds in known if seconds < inf]
        return sum(finite) / len(finite) if finite else self.pace(view.queue)
