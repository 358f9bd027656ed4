"""The score table of one queue for one class of work: who could take it, best first, and why the others cannot.

It is computed once a class and batch and then only kept up to date, so that routing the next task of the class costs
O(log workers) at most. Loads only grow inside a batch and scores only fall: a heap whose top is re-scored when it is
looked at is exact.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heapreplace
from math import inf

from morag_queue.core.estimate import Correction, estimate
from morag_queue.core.model import Capability, ContentType, QueueType, Requires
from morag_queue.core.policy import Policy, Queues

from .feasibility import Feasibility, Score, WorkerLoad, in_service, is_full, score, suits

# What was learned of this type and class, with or without a GPU.
Corrections = Mapping[tuple[ContentType, Requires, bool], Correction]


_WORDS = {
    Feasibility.NO_GPU: "without a GPU",
    Feasibility.CONTENT_TYPE: "not for this content type",
    Feasibility.MEMORY: "with too little memory",
    Feasibility.NOT_SERVED: "not reading the queue",
}


@dataclass(frozen=True, slots=True)
class WorkClass:
    """A class of work: what tells one task from another as far as workers are concerned."""

    requires: Requires
    content_type: ContentType | None
    memory_gb: float

    def factor(self, on_gpu: bool, corrections: Corrections | None = None) -> float:
        """What its minutes are multiplied with on such a worker; infinite where it cannot run."""
        capability = Capability.GPU if on_gpu else Capability.CPU
        learned = None
        if corrections and self.content_type is not None:
            learned = corrections.get((self.content_type, self.requires, on_gpu))
        return estimate(1.0, self.requires, capability, learned)


class ScoreTable:
    """Who could take work of one class from one queue. `WorkerLoad.take` keeps it up to date.

    `servers` is how many will take such work, now or when a slot is free again. A suspect worker counts: it may be
    back in seconds, and until then nobody else need do its work ten times slower. `best_factor` is what the minutes
    are multiplied with on the capability that suits the work best, whether the fleet has it or not.
    """

    def __init__(
        self,
        loads: Iterable[WorkerLoad],
        queue: QueueType,
        work: WorkClass,
        policy: Policy,
        queues: Queues,
        corrections: Corrections | None,
    ) -> None:
        self.queue = queue
        self._policy, self._queues = policy, queues
        self._factors = (work.factor(False, corrections), work.factor(True, corrections))
        self.best_factor = min(self._factors)
        self._verdicts = {load.worker: (load, _standing(load, queue, work)) for load in loads}
        able = [load for load, verdict in self._verdicts.values() if verdict is Feasibility.FIT]
        suspects = sum(verdict is Feasibility.SUSPECT for _, verdict in self._verdicts.values())
        self.servers = len(able) + suspects
        self._kinds = Counter(load.has_gpu for load in able if not self._full(load))
        self._heap = [(-self._score(load), load.worker, load) for load in able]
        heapify(self._heap)

    def best(self) -> tuple[WorkerLoad, float] | None:
        """The best worker with room and its score; ties go by the worker's id. None while all are full."""
        while self._heap:
            known, worker, load = self._heap[0]
            if self._full(load):
                heappop(self._heap)
                continue
            present = -self._score(load)
            if present == known:
                return load, -present
            heapreplace(self._heap, (present, worker, load))
        return None

    def minutes(self, estimated: float, on_gpu: bool) -> float | None:
        """What the work takes on a worker with or without a GPU; None where it cannot run."""
        factor = self._factors[on_gpu]
        return None if factor == inf else estimated * factor

    def saved_minutes(self, load: WorkerLoad, estimated: float) -> float:
        """What the best worker saves against the next one: both start at once, so it is their run times that differ.

        0 where another of its kind is free, and where there is no other.
        """
        mine, other = self._factors[load.has_gpu], self._factors[not load.has_gpu]
        alone = self._kinds[load.has_gpu] <= 1 and self._kinds[not load.has_gpu] > 0
        return max(other - mine, 0.0) * estimated if alone and other != inf else 0.0

    def scores(self, estimated: float) -> tuple[Score, ...]:
        """The whole table, best first; costs O(workers)."""
        rows = []
        for load, standing in self._verdicts.values():
            full = standing is Feasibility.FIT and self._full(load)
            verdict = Feasibility.FULL if full else standing
            worth = self._score(load) if verdict is Feasibility.FIT else 0.0
            minutes = self.minutes(estimated, load.has_gpu)
            rows.append(Score(worker=load.worker, verdict=verdict, score=worth, expected_minutes=minutes))
        return tuple(sorted(rows, key=lambda row: (-row.score, row.worker)))

    @cached_property
    def obstacles(self) -> str:
        """Why nobody can take it, counted, in words: `1 offline, 3 without a GPU`. The same for a whole batch."""
        counts = Counter(verdict for _, verdict in self._verdicts.values())
        told = (f"{counts[one]} {_WORDS.get(one, one.value)}" for one in Feasibility if counts[one])
        return ", ".join(told) or "no worker is registered"

    def _full(self, load: WorkerLoad) -> bool:
        return is_full(load, self.queue, self._policy, self._queues)

    def _score(self, load: WorkerLoad) -> float:
        return score(load, self.best_factor / self._factors[load.has_gpu], self._policy)


def _standing(load: WorkerLoad, queue: QueueType, work: WorkClass) -> Feasibility:
    """The verdict but for `full`, which changes inside a batch."""
    unsuited = suits(load, work.requires, work.content_type, work.memory_gb)
    if unsuited is not Feasibility.FIT:
        return unsuited
    if queue not in load.queues:
        return Feasibility.NOT_SERVED
    return in_service(load)
