"""The score table of one queue for one class of work: which workers can take it, best first, and why others cannot.

A table is computed once per class and batch and kept up to date, so routing the next task of the class costs at most
O(log workers). Inside a batch loads only grow and scores only fall: a heap whose top is re-scored on access is exact.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from functools import cached_property
from heapq import heapify, heappop, heapreplace
from math import inf
from typing import NamedTuple

from morag_queue.core.estimate import Correction, estimate
from morag_queue.core.model import Capability, ContentType, QueueType, Requires
from morag_queue.core.policy import Policy, Queues

from .feasibility import Feasibility, Score, WorkerLoad, count_verdicts, in_service, is_full, score, suits

_ELIGIBLE = (Feasibility.FIT, Feasibility.SUSPECT)

# Learned corrections by content type, class and "on a GPU".
Corrections = Mapping[tuple[ContentType, Requires, bool], Correction]


class WorkClass(NamedTuple):
    """The properties of a task on which workers differ. Tasks of one class share a score table."""

    requires: Requires
    content_type: ContentType | None
    memory_gb: float

    def factor(self, on_gpu: bool, corrections: Corrections | None = None) -> float:
        """Return the multiplier of its minutes with or without a GPU; infinite where it cannot run."""
        capability = Capability.GPU if on_gpu else Capability.CPU
        learned = None
        if corrections and self.content_type is not None:
            learned = corrections.get((self.content_type, self.requires, on_gpu))
        return estimate(1.0, self.requires, capability, learned)


class ScoreTable:
    """The workers for one class of work in one queue. Keep it up to date with `WorkerLoad.take`.

    `best_factor` is the multiplier of the minutes on the capability that suits the work best, whether the fleet has
    such a worker or not. The rest is computed when it is asked for: a place in a shared lane needs little of it.
    """

    def __init__(
        self,
        loads: Collection[WorkerLoad],
        queue: QueueType,
        work: WorkClass,
        policy: Policy,
        queues: Queues,
        corrections: Corrections | None,
    ) -> None:
        self.queue, self._work, self._loads = queue, work, loads
        self._policy, self._queues = policy, queues
        self._factors = (work.factor(False, corrections), work.factor(True, corrections))
        self.best_factor = min(self._factors)

    @cached_property
    def is_served(self) -> bool:
        """Whether any worker is eligible. Reads the workers up to the first one."""
        return any(_verdict(load, self.queue, self._work) in _ELIGIBLE for load in self._loads)

    @cached_property
    def eligible(self) -> int:
        """The number of workers that take such work now or when a slot is free. Constant inside a batch.

        A suspect worker is eligible: it may be back in seconds, and running its work on a CPU would take ten times as
        long.
        """
        return sum(verdict in _ELIGIBLE for _, verdict in self._rows)

    @cached_property
    def _rows(self) -> list[tuple[WorkerLoad, Feasibility]]:
        return [(load, _verdict(load, self.queue, self._work)) for load in self._loads]

    @cached_property
    def _fit(self) -> list[WorkerLoad]:
        return [load for load, verdict in self._rows if verdict is Feasibility.FIT]

    @cached_property
    def _heap(self) -> list[tuple[float, str, WorkerLoad]]:
        heap = [(-self._score(load), load.worker, load) for load in self._fit]
        heapify(heap)
        return heap

    @cached_property
    def _free_by_gpu(self) -> Counter[bool]:
        return Counter(load.has_gpu for load in self._fit if not self._full(load))

    def best(self) -> tuple[WorkerLoad, float] | None:
        """Return the best worker with room and its score, the first id of equal ones; None while all are full."""
        while self._heap:
            stored, worker, load = self._heap[0]
            if self._full(load):
                heappop(self._heap)
                continue
            current = -self._score(load)
            if current == stored:
                return load, -current
            heapreplace(self._heap, (current, worker, load))
        return None

    def minutes(self, estimated: float, on_gpu: bool) -> float | None:
        """Return the expected minutes on a worker with or without a GPU; None where the work cannot run."""
        factor = self._factors[on_gpu]
        return None if factor == inf else estimated * factor

    def saved_minutes(self, load: WorkerLoad, estimated: float) -> float:
        """Return the run time saved against the other kind of worker, in minutes; both could start at once.

        0 if another worker of the same kind is free, or none of the other kind is.
        """
        own, other = self._factors[load.has_gpu], self._factors[not load.has_gpu]
        only_one = self._free_by_gpu[load.has_gpu] <= 1 and self._free_by_gpu[not load.has_gpu] > 0
        return max(other - own, 0.0) * estimated if only_one and other != inf else 0.0

    def scores(self, estimated: float) -> tuple[Score, ...]:
        """Return all rows, best first. Costs O(workers)."""
        rows = []
        for load, lasting in self._rows:
            full = lasting is Feasibility.FIT and self._full(load)
            verdict = Feasibility.FULL if full else lasting
            value = self._score(load) if verdict is Feasibility.FIT else 0.0
            minutes = self.minutes(estimated, load.has_gpu)
            rows.append(Score(worker=load.worker, verdict=verdict, score=value, expected_minutes=minutes))
        return tuple(sorted(rows, key=lambda row: (-row.score, row.worker)))

    @cached_property
    def obstacles(self) -> str:
        """Why no worker can take the work, in words: `1 offline, 3 without a GPU`. Constant inside a batch."""
        return count_verdicts(verdict for _, verdict in self._rows)

    def _full(self, load: WorkerLoad) -> bool:
        return is_full(load, self.queue, self._policy, self._queues)

    def _score(self, load: WorkerLoad) -> float:
        return score(load, self.best_factor / self._factors[load.has_gpu], self._policy)


def _verdict(load: WorkerLoad, queue: QueueType, work: WorkClass) -> Feasibility:
    """Return the verdict except for `full`, which changes inside a batch."""
    suitability = suits(load, work.requires, work.content_type, work.memory_gb)
    if suitability is not Feasibility.FIT:
        return suitability
    if queue not in load.queues:
        return Feasibility.NOT_SERVED
    return in_service(load)
