"""Counts of each queue by the minute, and the totals of all finished tasks."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

from morag_queue.core.histogram import Window, bucket, merge
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import Totals

_KEPT_MINUTES = 25 * 60


class MemoryCounters:
    def __init__(self) -> None:
        self.totals: defaultdict[str, Totals] = defaultdict(Totals)
        self._minutes: dict[tuple[int, QueueType], Window] = {}

    def arrived(self, queue: QueueType, now: float) -> None:
        self._add(now, queue, Window(arrivals=1))

    def ended(
        self, queue: QueueType | None, worker: str, now: float, *, good: bool, wait_seconds: float, run_seconds: float
    ) -> None:
        """Count a task that ended on a worker; `queue` is None for a lane that is not ours."""
        one = Totals(completed=int(good), failed=int(not good), run_seconds=run_seconds)
        for name in (worker, f"|{queue}"):
            known = self.totals[name]
            self.totals[name] = replace(
                known, completed=known.completed + one.completed, failed=known.failed + one.failed,
                run_seconds=known.run_seconds + run_seconds,
            )  # fmt: skip
        if queue is not None:
            ran = Window(run_seconds=run_seconds, runs=Counter([bucket(run_seconds)])) if good else Window()
            waited = Window(
                completed=int(good),
                failed=int(not good),
                wait_seconds=wait_seconds,
                waits=Counter([bucket(wait_seconds)]),
            )
            self._add(now, queue, merge([ran, waited]))

    def windows(self, now: float, seconds: float) -> Mapping[QueueType, Window]:
        """The counts of the last `seconds`, to a minute."""
        minutes = range(int(now - seconds) // 60 + 1, int(now) // 60 + 1)
        covered = now - minutes.start * 60
        return {
            queue: replace(
                merge(self._minutes[one, queue] for one in minutes if (one, queue) in self._minutes), seconds=covered
            )
            for queue in QueueType
        }

    def _add(self, now: float, queue: QueueType, happened: Window) -> None:
        minute = int(now) // 60
        known = self._minutes.get((minute, queue))
        self._minutes[minute, queue] = happened if known is None else merge([known, happened])
        if known is None and len(self._minutes) > _KEPT_MINUTES * len(QueueType):
            del self._minutes[next(iter(self._minutes))]
