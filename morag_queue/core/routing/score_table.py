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

from .feasibility import Score, Seat, Verdict, in_service, is_full, score, suits

# What was learned of this type and class, with or without a GPU.
Corrections = Mapping[tuple[ContentType, Requires, bool], Correction]


_WORDS = {
    Verdict.NO_GPU: "without a GPU",
    Verdict.CONTENT_TYPE: "not for this content type",
    Verdict.MEMORY: "with too little memory",
    Verdict.NOT_SERVED: "not reading the queue",
}


@dataclass(frozen=True, slots=True)
class Class:
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


class Table:
    """Who could take work of one class from one queue. `Seat.take` keeps it up to date.

    `servers` is how many will take such work, now or when a slot is free again. A suspect worker counts: it may be
    back in seconds, and until then nobody else need do its work ten times slower. `best_factor` is what the minutes
    are multiplied with on the capability that suits the work best, whether the fleet has it or not.
    """

    def __init__(
        self,
        seats: Iterable[Seat],
        queue: QueueType,
        work: Class,
        policy: Policy,
        queues: Queues,
        corrections: Corrections | None,
    ) -> None:
        self.queue = queue
        self._policy, self._queues = policy, queues
        self._factors = (work.factor(False, corrections), work.factor(True, corrections))
        self.best_factor = min(self._factors)
        self._verdicts = {seat.worker: (seat, _standing(seat, queue, work)) for seat in seats}
        able = [seat for seat, verdict in self._verdicts.values() if verdict is Verdict.FIT]
        suspects = sum(verdict is Verdict.SUSPECT for _, verdict in self._verdicts.values())
        self.servers = len(able) + suspects
        self._kinds = Counter(seat.has_gpu for seat in able if not self._full(seat))
        self._heap = [(-self._score(seat), seat.worker, seat) for seat in able]
        heapify(self._heap)

    def best(self) -> tuple[Seat, float] | None:
        """The best worker with room and its score; ties go by the worker's id. None while all are full."""
        while self._heap:
            known, worker, seat = self._heap[0]
            if self._full(seat):
                heappop(self._heap)
                continue
            present = -self._score(seat)
            if present == known:
                return seat, -present
            heapreplace(self._heap, (present, worker, seat))
        return None

    def minutes(self, estimated: float, on_gpu: bool) -> float | None:
        """What the work takes on a worker with or without a GPU; None where it cannot run."""
        factor = self._factors[on_gpu]
        return None if factor == inf else estimated * factor

    def saved_minutes(self, seat: Seat, estimated: float) -> float:
        """What the best worker saves against the next one: both start at once, so it is their run times that differ.

        0 where another of its kind is free, and where there is no other.
        """
        mine, other = self._factors[seat.has_gpu], self._factors[not seat.has_gpu]
        alone = self._kinds[seat.has_gpu] <= 1 and self._kinds[not seat.has_gpu] > 0
        return max(other - mine, 0.0) * estimated if alone and other != inf else 0.0

    def scores(self, estimated: float) -> tuple[Score, ...]:
        """The whole table, best first; costs O(workers)."""
        rows = []
        for seat, standing in self._verdicts.values():
            full = standing is Verdict.FIT and self._full(seat)
            verdict = Verdict.FULL if full else standing
            worth = self._score(seat) if verdict is Verdict.FIT else 0.0
            minutes = self.minutes(estimated, seat.has_gpu)
            rows.append(Score(worker=seat.worker, verdict=verdict, score=worth, expected_minutes=minutes))
        return tuple(sorted(rows, key=lambda row: (-row.score, row.worker)))

    @cached_property
    def obstacles(self) -> str:
        """Why nobody can take it, counted, in words: `1 offline, 3 without a GPU`. The same for a whole batch."""
        counts = Counter(verdict for _, verdict in self._verdicts.values())
        told = (f"{counts[one]} {_WORDS.get(one, one.value)}" for one in Verdict if counts[one])
        return ", ".join(told) or "no worker is registered"

    def _full(self, seat: Seat) -> bool:
        return is_full(seat, self.queue, self._policy, self._queues)

    def _score(self, seat: Seat) -> float:
        return score(seat, self.best_factor / self._factors[seat.has_gpu], self._policy)


def _standing(seat: Seat, queue: QueueType, work: Class) -> Verdict:
    """The verdict but for `full`, which changes inside a batch."""
    unsuited = suits(seat, work.requires, work.content_type, work.memory_gb)
    if unsuited is not Verdict.FIT:
        return unsuited
    if queue not in seat.queues:
        return Verdict.NOT_SERVED
    return in_service(seat)
