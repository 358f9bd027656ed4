"""stats --live: one frame after another. The cost of a frame depends on the fleet, not on the backlog."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import basename

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Finding
from morag_queue.core.doctor.service import check_service
from morag_queue.core.histogram import Window, merge
from morag_queue.core.model import HeldMessage, JournalEntry, QueueType
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.stats import RATE_SECONDS, FleetStats, fleet_stats
from morag_queue.settings import Settings

from .liveness import count_connections

HISTORY = 60
"""Minutes of a sparkline."""

_JOURNAL_ENTRIES = 50

_LABELLED = 1000
"""Running tasks whose sources are looked up; the rest are shown by id."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker holds. `label` is its source, else its id; `seconds` is the time since it was claimed."""

    task_id: str
    label: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One frame of the live screen.

    `history` has the tasks of each queue that ended in each of `HISTORY` minutes; `running` lists the tasks of each
    worker, the earliest claim first. A heartbeat older than `late_after_seconds` is late.
    """

    stats: FleetStats
    fleet: str = ""
    history: Mapping[QueueType, tuple[int, ...]] = field(default_factory=dict)
    running: Mapping[str, tuple[RunningTask, ...]] = field(default_factory=dict)
    journal: tuple[JournalEntry, ...] = ()
    alerts: tuple[Finding, ...] = ()
    late_after_seconds: float = 5.0


class FleetWatcher:
    """Observes a fleet repeatedly and keeps what does not change between frames. Not thread-safe."""

    def __init__(self, broker: RedisBroker, settings: Settings, *, window_seconds: float = 3600.0) -> None:
        self._broker, self._settings, self._window_s = broker, settings, window_seconds
        self._minutes: dict[int, Mapping[QueueType, Window]] = {}
        self._merged: tuple[int, Mapping[QueueType, Window]] | None = None
        self._labels: dict[str, str] = {}

    def observe(self) -> LiveFrame:
        """Return the next frame. Raises BrokerUnreachable or BrokerError; a later call may succeed."""
        snapshot, totals = self._broker.observe(partial=True)
        snapshot = count_connections(self._broker, snapshot)
        self._read_minutes(snapshot.taken_at)
        policy = self._settings.policy
        with self._broker.translated():
            journal = tuple(self._broker.journal.latest(_JOURNAL_ENTRIES))
            last_led_at = self._broker.leases.last_led_at()
        return LiveFrame(
            stats=fleet_stats(
                snapshot,
                self._windows(snapshot.taken_at),
                totals,
                policy,
                window_seconds=self._window_s,
                recent=self._broker.windows(snapshot.taken_at, RATE_SECONDS),
            ),
            fleet=self._broker.fleet,
            history={queue: self._ended(queue) for queue in QueueType},
            running=self._running(snapshot),
            late_after_seconds=policy.suspect_after_seconds / 2,
            journal=journal,
            alerts=tuple(check_service(snapshot, policy, last_led_at=last_led_at)),
        )

    def _read_minutes(self, now: float) -> None:
        """Read the minutes that are not cached, and again the current and the previous one, whose counts may change."""
        last = int(now) // 60
        wanted = range(last - HISTORY + 1, last + 1)
        missing = [number for number in wanted if number not in self._minutes or number >= last - 1]
        known = {number: self._minutes[number] for number in wanted if number in self._minutes}
        self._minutes = known | dict(zip(missing, self._broker.minutes(missing), strict=True))

    def _windows(self, now: float) -> Mapping[QueueType, Window]:
        """Return the counters of the window; those of one hour come from the cached minutes."""
        if self._window_s != HISTORY * 60:
            return self._broker.windows(now, self._window_s)
        last = int(now) // 60
        if self._merged is None or self._merged[0] != last:
            old = [minute for number, minute in self._minutes.items() if number < last - 1]
            self._merged = last, {queue: merge([minute[queue] for minute in old]) for queue in QueueType}
        recent = [self._minutes[number] for number in (last - 1, last)]
        return {queue: merge([self._merged[1][queue], *(minute[queue] for minute in recent)]) for queue in QueueType}

    def _ended(self, queue: QueueType) -> tuple[int, ...]:
        return tuple(self._minutes[number][queue].ended for number in sorted(self._minutes))

    def _running(self, snapshot: Snapshot) -> Mapping[str, tuple[RunningTask, ...]]:
        held = {
            worker: sorted(messages, key=lambda message: message.claimed_at)
            for worker, messages in snapshot.held_by_worker.items()
        }
        self._read_labels([message for messages in held.values() for message in messages])
        return {
            worker: tuple(
                RunningTask(
                    message.task_id,
                    self._labels.get(message.task_id) or message.task_id,
                    snapshot.taken_at - message.claimed_at,
                )
                for message in messages
            )
            for worker, messages in held.items()
        }

    def _read_labels(self, held: Sequence[HeldMessage]) -> None:
        """Look up the sources of new tasks in one round trip, and drop those of tasks that are no longer held."""
        ids = [message.task_id for message in held[:_LABELLED]]
        new = [task_id for task_id in ids if task_id not in self._labels]
        self._labels = {task_id: self._labels[task_id] for task_id in ids if task_id in self._labels}
        for task_id, record in self._broker.records(new).items():
            self._labels[task_id] = _label(record.source)


def _label(source: str) -> str:
    """Return the file name of a path; a URL stays whole."""
    return source if "://" in source else basename(source)
