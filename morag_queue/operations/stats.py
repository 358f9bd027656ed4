"""stats: one picture and the counters; costs by the size of the fleet, not of the backlog."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import basename
from typing import TYPE_CHECKING

from morag_queue.broker.contract import JournalEntry
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Finding
from morag_queue.core.doctor.service import check_service
from morag_queue.core.histogram import Window, merge
from morag_queue.core.model import FleetStats, HeldMessage, QueueType
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.stats import fleet_stats
from morag_queue.settings import Settings

if TYPE_CHECKING:
    from morag_queue.broker.contract import Broker


def stats(broker: "Broker", settings: Settings, *, window_seconds: float = 3600.0) -> FleetStats:
    """Queues and workers now, with averages and rates of the last `window_seconds`."""
    snapshot, totals = broker.observe()
    windows = broker.windows(snapshot.taken_at, window_seconds)
    return fleet_stats(snapshot, windows, totals, settings.policy, window_seconds=window_seconds)


HISTORY = 60
"""Minutes of a sparkline."""


RATE_MINUTES = 5
"""What the rates of arrival and completion are of: short enough to see a change."""


_JOURNAL = 50


_NAMED = 1000
"""Running tasks whose names are looked up; a fleet with more of them shows ids."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task in a worker's hands. `label` is what it works on, else its id; `seconds` since it was taken."""

    task_id: str
    label: str
    seconds: float


@dataclass(frozen=True, slots=True)
class QueueFlow:
    """One queue lately: tasks a minute in and out, and how many ended in each of the last `HISTORY` minutes."""

    arrivals: float = 0.0
    ended: float = 0.0
    history: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """All that one picture shows. `running` has the one that was taken first, first."""

    stats: FleetStats
    fleet: str = ""
    flows: Mapping[QueueType, QueueFlow] = field(default_factory=dict)
    running: Mapping[str, tuple[RunningTask, ...]] = field(default_factory=dict)
    journal: tuple[JournalEntry, ...] = ()
    alerts: tuple[Finding, ...] = ()
    paused: frozenset[QueueType] = frozenset()


class FleetWatcher:
    """Looks again and again. Not for two threads at once."""

    def __init__(self, broker: RedisBroker, settings: Settings, *, window_seconds: float = 3600.0) -> None:
        self._broker, self._settings, self._window_s = broker, settings, window_seconds
        self._minutes: dict[int, Mapping[QueueType, Window]] = {}
        self._merged: tuple[int, Mapping[QueueType, Window]] | None = None
        self._labels: dict[str, str] = {}

    def look(self) -> LiveFrame:
        """Raises BrokerUnreachable or BrokerError; the next look may work again."""
        snapshot, totals = self._broker.observe()
        self._read_minutes(snapshot.taken_at)
        policy = self._settings.policy
        with self._broker.translated():
            journal, led = tuple(self._broker.journal.latest(_JOURNAL)), self._broker.leases.was_led()
        return LiveFrame(
            stats=fleet_stats(
                snapshot, self._windows(snapshot.taken_at), totals, policy, window_seconds=self._window_s
            ),
            fleet=self._broker.fleet,
            flows={queue: self._flow(queue, snapshot.taken_at) for queue in QueueType},
            running=self._running(snapshot),
            journal=journal,
            alerts=tuple(check_service(snapshot, policy, leader_expected=led)),
            paused=snapshot.paused,
        )

    # -- figures

    def _read_minutes(self, now: float) -> None:
        """The present minute and the one before (its last figures may come late), and what is not known yet."""
        last = int(now) // 60
        wanted = range(last - HISTORY + 1, last + 1)
        missing = [number for number in wanted if number not in self._minutes or number >= last - 1]
        known = {number: self._minutes[number] for number in wanted if number in self._minutes}
        self._minutes = known | dict(zip(missing, self._broker.minutes(missing), strict=True))

    def _windows(self, now: float) -> Mapping[QueueType, Window]:
        """The figures of the window asked for; of the hour from what is in hand."""
        if self._window_s != HISTORY * 60:
            return self._broker.windows(now, self._window_s)
        last = int(now) // 60
        if self._merged is None or self._merged[0] != last:
            old = [found for number, found in self._minutes.items() if number < last - 1]
            self._merged = last, {queue: merge([one[queue] for one in old]) for queue in QueueType}
        recent = [self._minutes[number] for number in (last - 1, last)]
        return {queue: merge([self._merged[1][queue], *(one[queue] for one in recent)]) for queue in QueueType}

    def _flow(self, queue: QueueType, now: float) -> QueueFlow:
        windows = [self._minutes[number][queue] for number in sorted(self._minutes)]
        lately = windows[-RATE_MINUTES - 1 :]
        minutes = RATE_MINUTES + now % 60 / 60
        return QueueFlow(
            arrivals=sum(one.arrivals for one in lately) / minutes,
            ended=sum(one.ended for one in lately) / minutes,
            history=tuple(one.ended for one in windows),
        )

    # -- what runs

    def _running(self, snapshot: Snapshot) -> Mapping[str, tuple[RunningTask, ...]]:
        held = snapshot.held_by_worker
        first = {worker: sorted(ones, key=lambda one: one.claimed_at) for worker, ones in held.items()}
        self._name([one for ones in first.values() for one in ones])
        return {
            worker: tuple(
                RunningTask(
                    one.task_id, self._labels.get(one.task_id) or one.task_id, snapshot.taken_at - one.claimed_at
                )
                for one in ones
            )
            for worker, ones in first.items()
        }

    def _name(self, held: Sequence[HeldMessage]) -> None:
        """Looks up what new tasks work on, in one round trip, and forgets those that are over."""
        ids = [one.task_id for one in held[:_NAMED]]
        new = [task_id for task_id in ids if task_id not in self._labels]
        self._labels = {task_id: self._labels[task_id] for task_id in ids if task_id in self._labels}
        for task_id, record in self._broker.records(new).items():
            source = record.get("source")
            self._labels[task_id] = _short(source) if isinstance(source, str) else ""


def _short(source: str) -> str:
    """The file's name of a path; a URL is shown whole."""
    return source if "://" in source else basename(source)
