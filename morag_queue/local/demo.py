"""The demo: start a fleet, submit work, kill a worker and restart it, and account for every task.

`Demo.run()` yields `DemoMessage` sentences and `DemoUpdate`s of the fleet; `result()` returns the account afterwards.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.estimate import estimate
from morag_queue.core.model import Capability, QueuePriority, Requires
from morag_queue.core.stats import FleetStats
from morag_queue.core.words import count_of
from morag_queue.errors import SourceError
from morag_queue.operations.stats import stats
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_report import SubmittedTask
from morag_queue.operations.submit_rows import PreparedTask, Row, RowFailure
from morag_queue.probe import expand
from morag_queue.settings import Settings

from .account import Account, Progress, account, stuck_tags
from .cluster import Cluster
from .media import make_media
from .waiting import DeadlineError, until

WORKERS = {
    "worker-gpu-1": Capability.GPU,
    "worker-gpu-2": Capability.GPU,
    "worker-hybrid-1": Capability.HYBRID,
    "worker-cpu-1": Capability.CPU,
}
VICTIM = "worker-gpu-1"
SIMULATED = (
    "GPUs are simulated by speed: each task reads its file, then sleeps in proportion to its estimate; gpu and hybrid "
    "workers sleep a fifth as long for work that prefers a GPU."
)

_URGENT, _HIGH, _NORMAL, _LOW, _BATCH = QueuePriority
_PRIORITIES = (_NORMAL, _BATCH, _URGENT, _NORMAL, _HIGH, _LOW, _NORMAL, _BATCH, _NORMAL, _LOW)
_POLL_SECONDS = 0.05
_UPDATE_SECONDS = 0.5
_WINDOW_SECONDS = 120.0
_KILL_AFTER = 0.25
"""Share of the tasks that have ended when the worker is killed."""
_AWAY_SECONDS = 6.0
_PATIENCE_SECONDS = 90.0
"""The demo ends when no task ended for this long; longer than any simulated task."""


@dataclass(frozen=True, slots=True)
class DemoMessage:
    text: str


@dataclass(frozen=True, slots=True)
class DemoUpdate:
    """The statistics of the fleet, and how many of the `total` tasks have ended."""

    stats: FleetStats
    ended: int
    total: int


DemoEvent = DemoMessage | DemoUpdate


@dataclass(frozen=True, slots=True)
class DemoResult:
    """`waits`: mean seconds until the first start, by priority; `interrupted`: task ids that the killed worker held."""

    account: Account
    waits: dict[str, float]
    killed: str | None
    interrupted: tuple[str, ...]
    failed: tuple[RowFailure, ...]
    seconds: float

    @property
    def is_good(self) -> bool:
        """Nothing is lost or stuck, and the kill explains every duplicate."""
        found = self.account
        return not (found.lost or found.stuck or found.unexpected or found.duplicated - set(self.interrupted))

    def as_json(self) -> dict[str, Any]:
        counts = self.account.counts()
        words = ("attempted", "executed", "lost", "duplicated", "stuck")
        urgent, batch = (self.waits.get(one.name) for one in (QueuePriority.URGENT, QueuePriority.BATCH))
        return {
            "account": {
                **{word: counts[word] for word in words},
                "urgent_wait_seconds": urgent,
                "batch_wait_seconds": batch,
            },
            "killed_worker": self.killed,
            "interrupted_tasks": list(self.interrupted),
            "lost_tasks": sorted(self.account.lost),
            "duplicated_tasks": sorted(self.account.duplicated),
            "wait_seconds_by_priority": self.waits,
            "refused": [{"source": one.source, "error": one.error} for one in self.failed],
            "workers": {worker: capability.value for worker, capability in WORKERS.items()},
            "simulated": SIMULATED,
            "seconds": round(self.seconds, 1),
        }


@dataclass(slots=True)
class Demo:
    """One run. `work_seconds`: approximate length of the simulated work; `source`: the user's directory of files."""

    cluster: Cluster
    source: Path | None = None
    work_seconds: float = 24.0
    seed: int = 0
    _broker: RedisBroker = field(init=False)
    _progress: Progress = field(init=False)
    _settings: Settings = field(init=False)
    _tasks: list[SubmittedTask] = field(default_factory=list)
    _failed: list[RowFailure] = field(default_factory=list)
    _interrupted: tuple[str, ...] = ()
    _is_killed: bool = False
    _began: float = field(default_factory=time.monotonic)
    _submitted_at: float = 0.0

    def __post_init__(self) -> None:
        self._settings = Settings(redis_url=self.cluster.url)
        self._broker = RedisBroker(self._settings)
        events = self.cluster.dir / "events.jsonl"
        self.cluster.env["MORAG_LOCAL_EVENTS"] = str(events)
        self._progress = Progress(events)

    @property
    def media(self) -> Path:
        return self.source or self.cluster.dir / "media"

    def run(self) -> Iterator[DemoEvent]:
        """Run from the first worker to the last task. Raises SourceError if there is no file to submit."""
        sources = self._sources()
        for worker, capability in WORKERS.items():
            self.cluster.start_worker(worker, capability, wait=False)
        self.cluster.start_watch()
        port = self.cluster.server.port
        yield DemoMessage(f"Valkey runs on port {port}; starting {len(WORKERS)} Celery workers and a watch …")
        self.cluster.wait_for(*WORKERS)
        self._submit(sources)
        yield DemoMessage(f"Submitted {count_of(len(self._tasks), 'task')} of all priorities from {self._origin()}.")
        yield from (DemoMessage(f"Refused: {one.error}") for one in self._failed)
        yield from self._watch()
        self._settle()

    def result(self) -> DemoResult:
        """Return the account of all tasks."""
        self._progress.read()
        ids = [task.task_id for task in self._tasks]
        stuck = stuck_tags(self.cluster.redis, self._broker.keys)
        return DemoResult(
            account=account(ids, ids, self._progress.ended.elements(), stuck),
            waits=self._waits(),
            killed=VICTIM if self._is_killed else None,
            interrupted=self._interrupted,
            failed=tuple(self._failed),
            seconds=time.monotonic() - self._began,
        )

    # -- submitting

    def _origin(self) -> str:
        return str(self.source) if self.source else f"{self.media} (generated)"

    def _sources(self) -> list[str]:
        if self.source is None:
            sources = make_media(self.media, self.seed)
        else:
            found = list(expand([str(self.source)], recursive=True))
            self._failed += [RowFailure.of(0, one.source, one) for one in found if isinstance(one, SourceError)]
            sources = [one for one in found if isinstance(one, str)]
        if not sources:
            raise SourceError(f"no file in {self.source}: pass --input a directory that contains files")
        Random(self.seed).shuffle(sources)
        return sources

    def _submit(self, sources: Sequence[str]) -> None:
        """Submit through the code of `submit`; rows probed for the pace are not probed again."""
        submitter = Submitter(self._broker, self._settings)
        rows = [
            Row(source=source, priority=_PRIORITIES[number % len(_PRIORITIES)]) for number, source in enumerate(sources)
        ]
        prepared = list(submitter.prepare(enumerate(rows, 1)))
        pace = self.work_seconds / (_makespan(one for one in prepared if isinstance(one, PreparedTask)) or 1.0)
        timed = [_timed(one, pace) if isinstance(one, PreparedTask) else (one.line, one) for one in prepared]
        self._submitted_at = time.time()
        report = submitter.submit(timed)
        if report.broken is not None:
            raise report.broken
        self._tasks, self._failed = report.tasks, [*self._failed, *report.failed]

    # -- running

    def _watch(self) -> Iterator[DemoEvent]:
        total, progress = len(self._tasks), self._progress
        killed_at, is_back, is_reported = float("inf"), False, False
        ended, last_end, last_update = 0, time.monotonic(), 0.0
        while True:
            progress.read()
            now = time.monotonic()
            if len(progress.ended) > ended:
                ended, last_end = len(progress.ended), now
            if not self._is_killed and self._is_time_to_kill(total):
                yield DemoMessage(self._kill())
                killed_at = now
            elif not is_back and now - killed_at >= _AWAY_SECONDS:
                is_back = True
                self.cluster.start_worker(VICTIM, WORKERS[VICTIM], wait=False)
                yield DemoMessage(f"Restarted {VICTIM}.")
            is_over = (ended == total and is_back is self._is_killed) or now - last_end > _PATIENCE_SECONDS
            if is_over or now - last_update >= _UPDATE_SECONDS:
                last_update = now
                if self._is_killed and not is_reported and (report := self._failover()):
                    is_reported = True
                    yield DemoMessage(report)
                fleet = stats(self._broker, self._settings, window_seconds=_WINDOW_SECONDS)
                yield DemoUpdate(fleet, ended, total)
            if is_over:
                return
            time.sleep(_POLL_SECONDS)

    def _is_time_to_kill(self, total: int) -> bool:
        """Kill while the worker runs a task: after a share of all tasks, or when none waits any more."""
        progress = self._progress
        is_late = len(progress.ended) >= _KILL_AFTER * total or len(progress.first_start) == total
        return bool(progress.running[VICTIM]) and is_late

    def _kill(self) -> str:
        self.cluster.kill(VICTIM)
        self._is_killed = True
        self._progress.running.pop(VICTIM, None)
        # Held rather than running: it may have died between the end of a task and its acknowledgement.
        held = self._broker.observe()[0].held
        self._interrupted = tuple(sorted(one.task_id for one in held if one.worker == VICTIM))
        return f"Killed {VICTIM} (SIGKILL); it held {count_of(len(self._interrupted), 'task')}."

    def _failover(self) -> str:
        """The sentence about the watch's failover, once the journal has it; else empty."""
        found = (one for one in self._broker.journal.latest(10) if (one.verb, one.subject) == ("failover", VICTIM))
        return next((f"The watch failed over {VICTIM}: other workers take over its tasks." for _ in found), "")

    def _settle(self) -> None:
        """Wait for the last acknowledgement, which follows the last end of a task."""
        try:
            until(lambda: not self.cluster.redis.exists(self._broker.keys.held, self._broker.keys.unacked), 10, "")
        except DeadlineError:
            return  # the account lists what is stuck

    def _waits(self) -> dict[str, float]:
        waits: dict[str, list[float]] = {one.name: [] for one in QueuePriority}
        for task in self._tasks:
            if (start := self._progress.first_start.get(task.task_id)) is not None:
                waits[task.priority].append(max(start - self._submitted_at, 0.0))
        return {word: round(sum(some) / len(some), 2) for word, some in waits.items() if some}


def _timed(one: PreparedTask, pace: float) -> tuple[int, Row]:
    """Return the row with its simulated time, which is also its estimate, so that the forecasts of the tables hold."""
    seconds = round(one.classification.estimated_minutes * pace, 3)
    simulated = {"options": {**one.row.options, "simulate_seconds": seconds}, "estimated_duration": seconds / 60}
    return one.line, one.row.model_copy(update=simulated)


def _makespan(prepared: Iterable[PreparedTask]) -> float:
    """Lower bound of the run in minutes: work divided by the workers that serve it, and the longest task."""
    gpu = cpu = longest = 0.0
    for one in prepared:
        requires = one.classification.requires
        minutes = estimate(one.classification.estimated_minutes, requires, Capability.GPU)
        longest = max(longest, minutes)
        if requires is Requires.CPU:
            cpu += minutes
        else:
            gpu += minutes
    with_gpu = sum(capability.has_gpu for capability in WORKERS.values())
    with_cpu = sum(capability is not Capability.GPU for capability in WORKERS.values())
    return max(gpu / with_gpu, cpu / with_cpu, (gpu + cpu) / len(WORKERS), longest)
