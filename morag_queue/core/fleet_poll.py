"""Detect changes between polls of a fleet. Pure, so that tests can simulate a fleet.

A poll is small and taken several times a second: acting runs, connections, heartbeats, cordons and queue lengths.
Changes decide when to make a turn; the turn itself decides on a full snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .model import WorkerInfo
from .policy import Policy

FENCED = "fenced"
"""The incarnation that a failover writes for a worker."""

GONE_AFTER_S = 0.4
"""A worker without a connection for this long is gone: a live worker reconnects sooner."""

IDLE_AFTER_S = 1.0
"""A worker that takes messages is free for less than this while messages wait."""

IDLE_AGAIN_S = 5.0
"""Minimum time between IDLE changes: in a fleet with little work a worker is free every other second."""

STALLED_AFTER_S = 15.0
"""A worker that is free this long while messages wait for it has stalled: several beats, longer than any claim."""


class ChangeKind(StrEnum):
    JOINED = "joined"
    RETURNED = "returned"
    LEFT = "left"
    GONE = "gone"
    OVERDUE = "overdue"
    SILENT = "silent"
    OUT_OF_SERVICE = "out of service"
    IN_SERVICE = "in service"
    IDLE = "idle while work waits"
    STALLED = "takes nothing"
    FLAPPING = "flapping"


@dataclass(frozen=True, slots=True)
class LastBeat:
    """Last heartbeat of a worker: `at` by the server's clock, `busy` held tasks, `stopped` after a clean shutdown."""

    at: float
    busy: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class FleetPoll:
    """One poll. Times are the server's clock; `up_since` is the server's start.

    `names` are the names in CLIENT LIST, or None if the ACL forbids the command. `acting` maps worker to incarnation,
    `cordons` worker to state. `waiting` has only shared lanes that are not empty and not paused.
    """

    at: float
    up_since: float
    names: frozenset[str] | None
    acting: Mapping[str, str] = field(default_factory=dict)
    beats: Mapping[str, LastBeat] = field(default_factory=dict)
    cordons: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetChange:
    """One change. `detail` is the state of a worker out of service, `count` the number of starts of a flapping one."""

    kind: ChangeKind
    worker: str = ""
    detail: str = ""
    count: int = 0


@dataclass(frozen=True)
class PollHistory:
    """What the polls have shown so far. Times are the server's clock.

    `since` is the start of uninterrupted polling. `absent` maps acting workers without a connection, and `idle` free
    workers with messages waiting in their queues, to the time this began. `free_since` is when some worker became
    free while any message waited. `reported` holds the reported conditions that still hold, `starts` the times of
    unexpected starts of each worker, `idle_reported_at` the last IDLE change.
    """

    last: FleetPoll | None = None
    since: float | None = None
    absent: Mapping[str, float] = field(default_factory=dict)
    idle: Mapping[str, float] = field(default_factory=dict)
    free_since: float | None = None
    reported: frozenset[tuple[ChangeKind, str, str]] = frozenset()
    starts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    idle_reported_at: float | None = None

    def interrupted(self) -> "PollHistory":
        """Return the history after a failed poll: absence has to be observed anew."""
        return replace(self, since=None, absent={}, idle={}, free_since=None)

    def proved_absent(self, infos: Mapping[str, WorkerInfo]) -> frozenset[str]:
        """Return the dead workers: acting, and without a connection for longer than a live worker needs to reconnect.

        A live worker whose connections were cut beats again on a new one. It gets one and a half beats without a
        connection or, if it was silent before, the rest of two beats.
        """
        return frozenset(worker for worker in self.absent if worker in infos and self._is_dead(worker, infos[worker]))

    def _is_dead(self, worker: str, info: WorkerInfo) -> bool:
        assert self.last is not None, "absence comes from a poll"
        beat, away = self.last.beats.get(worker), self.last.at - self.absent[worker]
        silence = self.last.at - (beat.at if beat is not None else info.started_at)
        overdue = away > 1.5 * info.beat_seconds or (away >= GONE_AFTER_S and silence > 2 * info.beat_seconds)
        return overdue and self._is_conclusive(info)

    def silent(self, infos: Mapping[str, WorkerInfo], policy: Policy) -> frozenset[str]:
        """Return the acting workers that are connected but sent no heartbeat within the heartbeat timeout."""
        if self.last is None:
            return frozenset()
        return frozenset(
            worker
            for worker, beat in self.last.beats.items()
            if worker in infos
            and self.last.acting.get(worker) == infos[worker].incarnation
            and not beat.stopped
            and worker not in self.absent
            and self.last.at - beat.at > policy.offline_after_seconds
            and self._is_conclusive(infos[worker])
        )

    def _is_conclusive(self, info: WorkerInfo) -> bool:
        """Whether server and polling have been up long enough for a live worker to be back."""
        return (
            self.since is not None and self.last is not None and self.last.at - self.since > 2 * info.beat_seconds + 1
        )


def detect_changes(
    history: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo], policy: Policy
) -> tuple[PollHistory, tuple[FleetChange, ...]]:
    """Return the history with this poll added, and the changes. `infos` are the workers of the last snapshot."""
    before = history.last
    absent = _absent(history, now, infos)
    idle = _idle(history, now, infos)
    free_since = (history.free_since or now.at) if _is_any_free(now, infos) else None
    after = replace(history, last=now, since=_since(history, now), absent=absent, idle=idle, free_since=free_since)
    changes = _starts(before, now) if before is not None else []
    conditions = [*_gone(after, now, infos), *_out_of_service(now), *_stalled(after, now)]
    conditions += [FleetChange(ChangeKind.SILENT, worker) for worker in sorted(after.silent(infos, policy))]
    reported = {(change.kind, change.worker, change.detail): change for change in conditions}
    if before is not None:
        changes += [change for key, change in reported.items() if key not in history.reported]
        cordoned = {worker for kind, worker, _ in history.reported if kind is ChangeKind.OUT_OF_SERVICE}
        changes += [FleetChange(ChangeKind.IN_SERVICE, worker) for worker in sorted(cordoned - now.cordons.keys())]
    else:  # the first poll reports workers that are absent or silent already, but not cordoned ones
        changes += [change for change in conditions if change.kind is not ChangeKind.OUT_OF_SERVICE]
    starts, flapping = _flapping(history, changes, now, policy)
    if _is_idle_due(after, now):
        changes.append(FleetChange(ChangeKind.IDLE))
        after = replace(after, idle_reported_at=now.at)
    return replace(after, reported=frozenset(reported), starts=starts), (*changes, *flapping)


def _since(history: PollHistory, now: FleetPoll) -> float:
    return max(now.at if history.since is None else history.since, now.up_since)


def _is_up(worker: str, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> bool:
    """Return whether the run of the last snapshot still acts for the worker and has not shut down."""
    beat = now.beats.get(worker)
    return now.acting.get(worker) == infos[worker].incarnation and not (beat is not None and beat.stopped)


def _absent(history: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> dict[str, float]:
    """Only workers with a client name can be absent: others cannot be found in CLIENT LIST."""
    if now.names is None:
        return {}
    return {
        worker: history.absent.get(worker, now.at)
        for worker, info in infos.items()
        if info.client_name and info.client_name not in now.names and _is_up(worker, now, infos)
    }


def _idle(history: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> dict[str, float]:
    """Free workers, while messages wait in a queue that they read."""
    return {
        worker: history.idle.get(worker, now.at)
        for worker, info in infos.items()
        if not now.waiting.keys().isdisjoint(info.queues) and _is_free(worker, now, infos)
    }


def _is_any_free(now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> bool:
    return bool(now.waiting) and any(_is_free(worker, now, infos) for worker in infos)


def _is_free(worker: str, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> bool:
    """In service, beating, and holding no task."""
    beat = now.beats.get(worker)
    if beat is None or beat.busy or worker in now.cordons:
        return False
    return now.at - beat.at <= 3 * infos[worker].beat_seconds and _is_up(worker, now, infos)


def _starts(before: FleetPoll, now: FleetPoll) -> list[FleetChange]:
    changes = []
    for worker, run in now.acting.items():
        previous = before.acting.get(worker)
        if run not in (previous, FENCED):
            changes.append(FleetChange(ChangeKind.JOINED if previous is None else ChangeKind.RETURNED, worker))
        beat, last_beat = now.beats.get(worker), before.beats.get(worker)
        if beat is not None and beat.stopped and not (last_beat is not None and last_beat.stopped):
            changes.append(FleetChange(ChangeKind.LEFT, worker))
    return changes


def _gone(after: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> list[FleetChange]:
    gone = [
        FleetChange(ChangeKind.GONE, worker) for worker, since in after.absent.items() if now.at - since >= GONE_AFTER_S
    ]
    return gone + [FleetChange(ChangeKind.OVERDUE, worker) for worker in sorted(after.proved_absent(infos))]


def _out_of_service(now: FleetPoll) -> list[FleetChange]:
    return [FleetChange(ChangeKind.OUT_OF_SERVICE, worker, state) for worker, state in sorted(now.cordons.items())]


def _stalled(after: PollHistory, now: FleetPoll) -> list[FleetChange]:
    return [
        FleetChange(ChangeKind.STALLED, worker)
        for worker, since in after.idle.items()
        if now.at - since >= STALLED_AFTER_S
    ]


def _is_idle_due(after: PollHistory, now: FleetPoll) -> bool:
    """Return whether to report that a worker is idle while work waits: once per period, and not too often."""
    since = after.free_since
    if since is None or now.at - since < IDLE_AFTER_S:
        return False
    last = after.idle_reported_at
    return last is None or (last < since and now.at - last >= IDLE_AGAIN_S)


def _flapping(
    history: PollHistory, changes: list[FleetChange], now: FleetPoll, policy: Policy
) -> tuple[dict[str, tuple[float, ...]], list[FleetChange]]:
    """Count starts without a clean shutdown before. The count of a worker restarts when its breaker opens."""
    recovery = policy.recovery
    before = history.last
    shut_down = {worker for worker, beat in before.beats.items() if beat.stopped} if before is not None else set()
    starts = {
        worker: recent
        for worker, times in history.starts.items()
        if (recent := tuple(at for at in times if now.at - at < recovery.breaker_seconds))
    }
    flapping = []
    for change in changes:
        if change.kind is ChangeKind.RETURNED and change.worker not in shut_down:
            starts[change.worker] = (*starts.get(change.worker, ()), now.at)
            if len(starts[change.worker]) >= recovery.breaker_failures:
                flapping.append(FleetChange(ChangeKind.FLAPPING, change.worker, count=len(starts.pop(change.worker))))
    return starts, flapping
