"""The discrete-event loop: arrivals, starts, ends, outages and the ticks of a policy, in the order of their times.

A worker with a free slot is idle. Idle workers wait in the order in which they became idle, and a policy says which of
them may take new work. Events at the same time happen in the order in which they were scheduled, so a run depends on
its input alone.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

from morag_queue.core.model import Capability

from .model import Outage, SimTask, SimWorker

TICK_SECONDS = 30.0
SEEN_AFTER_SECONDS = 60.0
"""Time between the fall of a worker and the moment at which a policy that watches the workers sees it."""

GIVE_UP_SECONDS = 6 * 3600.0
"""A run ends when nothing has arrived, started or ended for so long: what is still open cannot run on this fleet."""

Handle = Any
"""What a policy needs to end a run."""


class Scheduler(Protocol):
    """A policy as the engine drives it. `now` is in seconds since the start."""

    moves: int

    def arrive(self, task: SimTask, now: float) -> Iterable[Capability | str]:
        """Queue a task. Returns who may take it: capabilities, or single workers."""
        ...

    def take(self, worker: SimWorker, now: float) -> tuple[int, Handle] | None:
        """Return the number of the task that a worker with a free slot takes, if any."""
        ...

    def end(self, worker: SimWorker, task: SimTask, handle: Handle, seconds: float, now: float) -> None:
        """A task ended after this run time."""
        ...

    def fall(self, worker: SimWorker, handles: Sequence[Handle], now: float) -> None:
        """A worker stopped; `handles` are those of the tasks that it ran."""
        ...

    def rise(self, worker: SimWorker, now: float) -> None:
        """A worker started again."""
        ...

    def tick(self, now: float) -> None:
        """Called every `TICK_SECONDS`, and when the fall of a worker is seen or a worker starts."""
        ...


class Run:
    """One task on one worker."""

    __slots__ = ("handle", "is_over", "started_s", "task")

    def __init__(self, task: SimTask, handle: Handle, started_s: float) -> None:
        self.task, self.handle, self.started_s, self.is_over = task, handle, started_s, False


@dataclass(slots=True)
class Outcome:
    """The result of a run, by task number: the first start, the last start and the end, NaN where there is none.

    `starts` counts how often each task was started, `interrupted` how often an outage ended its run. `busy_s` are the
    slot-seconds of each worker, in the order of the fleet; `makespan_s` is the last end.
    """

    first_start: "array[float]"
    last_start: "array[float]"
    end: "array[float]"
    starts: "array[int]"
    interrupted: "array[int]"
    busy_s: "array[float]"
    makespan_s: float = 0.0
    moves: int = 0
    events: int = 0


class Engine:
    """One simulation. `at` lets a scheduler act later."""

    def __init__(self, workload: Sequence[SimTask], fleet: Sequence[SimWorker], outages: Sequence[Outage] = ()) -> None:
        self._workload, self._fleet = workload, fleet
        self._index = {worker.worker: n for n, worker in enumerate(fleet)}
        self._outages = outages
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = count()
        self._idle: dict[Capability, dict[int, None]] = {capability: {} for capability in Capability}
        self._runs: list[dict[int, Run]] = [{} for _ in fleet]
        self._is_up = [True] * len(fleet)
        self._open = len(workload)
        self.now = self._last_s = 0.0
        nan = array("d", [float("nan")]) * len(workload)
        zero = array("H", [0]) * len(workload)
        self.outcome = Outcome(nan[:], nan[:], nan[:], zero[:], zero[:], array("d", [0.0]) * len(fleet))

    def at(self, time: float, call: Callable[..., None], *args: Any) -> None:
        """Call this at a time that is not in the past."""
        heappush(self._events, (time, next(self._sequence), call, args))

    def run(
        self, scheduler: Scheduler, on_progress: Callable[[float, int], None] = lambda _now, _open: None
    ) -> Outcome:
        """Run until each task has ended, or nothing can happen any more.

        `on_progress` is called at each tick with the time and the number of open tasks.
        """
        self._scheduler, self._on_progress = scheduler, on_progress
        for n, worker in enumerate(self._fleet):
            self._idle[worker.capability][n] = None
        for outage in self._outages:
            self.at(outage.down_s, self._fall, self._index[outage.worker])
            self.at(outage.up_s, self._rise, self._index[outage.worker])
        self.at(0.0, self._tick)
        self._schedule_arrival(0)
        events, outcome = self._events, self.outcome
        while self._open and self.now - self._last_s < GIVE_UP_SECONDS:
            self.now, _, call, args = heappop(events)
            call(*args)
            outcome.events += 1
        outcome.moves = scheduler.moves
        return outcome

    def offer(self, to: Iterable[Capability | str]) -> None:
        """Let one idle worker of the first of these capabilities that takes work, or these workers, take it."""
        for one in to:
            if isinstance(one, Capability):
                idle = self._idle[one]
                if idle and self._take(next(iter(idle))):
                    return
            elif (n := self._index[one]) in self._idle[self._fleet[n].capability] and self._take(n):
                return

    def offer_all(self) -> None:
        """Let idle workers take shared work: those of one capability read the same lanes."""
        for idle in self._idle.values():
            while idle and self._take(next(iter(idle))):
                pass

    def _schedule_arrival(self, number: int) -> None:
        if number < len(self._workload):
            self.at(self._workload[number].arrival_s, self._arrive, number)

    def _arrive(self, number: int) -> None:
        self._last_s = self.now
        self._schedule_arrival(number + 1)
        self.offer(self._scheduler.arrive(self._workload[number], self.now))

    def _take(self, n: int) -> bool:
        """Start the next task of a worker with a free slot. It goes behind the other idle ones while a slot is left."""
        worker = self._fleet[n]
        taken = self._scheduler.take(worker, self.now)
        if taken is None:
            return False
        number, handle = taken
        task, idle, runs = self._workload[number], self._idle[worker.capability], self._runs[n]
        runs[number] = run = Run(task, handle, self.now)
        del idle[n]
        if len(runs) < worker.slots:
            idle[n] = None
        outcome = self.outcome
        outcome.starts[number] += 1
        outcome.last_start[number] = self.now
        if outcome.starts[number] == 1:
            outcome.first_start[number] = self.now
        self.at(self.now + task.seconds_on(worker.capability), self._end, n, run)
        return True

    def _end(self, n: int, run: Run) -> None:
        if run.is_over:
            return
        worker, number, seconds = self._fleet[n], run.task.number, self.now - run.started_s
        del self._runs[n][number]
        self._open -= 1
        self._last_s = self.now
        self.outcome.end[number] = self.outcome.makespan_s = self.now
        self.outcome.busy_s[n] += seconds
        self._scheduler.end(worker, run.task, run.handle, seconds, self.now)
        self._idle[worker.capability][n] = None
        self._take(n)

    def _fall(self, n: int) -> None:
        if not self._is_up[n]:
            return
        self._is_up[n] = False
        worker, runs = self._fleet[n], self._runs[n]
        self._idle[worker.capability].pop(n, None)
        for number, run in runs.items():
            run.is_over = True
            self.outcome.interrupted[number] += 1
            self.outcome.busy_s[n] += self.now - run.started_s
        handles = [run.handle for run in runs.values()]
        runs.clear()
        self._scheduler.fall(worker, handles, self.now)
        self.at(self.now + SEEN_AFTER_SECONDS, self._act)

    def _rise(self, n: int) -> None:
        if self._is_up[n]:
            return
        self._is_up[n] = True
        worker = self._fleet[n]
        self._idle[worker.capability][n] = None
        self._scheduler.rise(worker, self.now)
        while len(self._runs[n]) < worker.slots and self._take(n):
            pass
        self._act()

    def _tick(self) -> None:
        self.at(self.now + TICK_SECONDS, self._tick)
        self._on_progress(self.now, self._open)
        self._act()

    def _act(self) -> None:
        self._scheduler.tick(self.now)
        self.offer_all()
