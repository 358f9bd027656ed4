"""What the loop sees several times a second, and what is news in it: pure, so that a test can play a fleet by hand.

A glance is small: who acts in which name, who is connected, the beats, who is out of service, how much waits. It says
when to look properly; what is to be done is decided on a whole picture, which a turn takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from .model import WorkerInfo
from .policy import Policy

FENCED = "fenced"


GONE_AFTER_S = 0.4
"""A worker that reconnects is away for less."""


IDLE_AFTER_S = 1.0
"""Who takes work is not idle for so long while some waits."""


IDLE_AGAIN_S = 5.0
"""At most so often does an idle worker call for a turn: a fleet with little to do is idle every other second."""


STALLED_AFTER_S = 15.0
"""Idle while work waits for it all that time: several beats, and longer than any claim takes."""


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
    """The last beat of a worker: when (server's clock), what it had in hand, whether it said goodbye."""

    at: float
    busy: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class FleetPoll:
    """`names` are the CLIENT LIST names, None where they may not be read. `up_since` is when the server started.

    `waiting` has only the shared lanes in which something waits that may be taken.
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
    """One piece of news; `detail` is the state of who is out of service, `count` the starts of who flaps."""

    kind: ChangeKind
    worker: str = ""
    detail: str = ""
    count: int = 0


@dataclass(frozen=True)
class PollHistory:
    """What was seen so far. `since` is how long the looks were not interrupted, by the server's clock.

    `absent` are acting workers without a connection and since when, `idle` those with room while work waits for them.
    `free_since` is how long somebody has had nothing to do while something waited anywhere. `told` is what has been
    told and still holds; `starts` are unexpected starts of each worker.
    """

    last: FleetPoll | None = None
    since: float | None = None
    absent: Mapping[str, float] = field(default_factory=dict)
    idle: Mapping[str, float] = field(default_factory=dict)
    free_since: float | None = None
    told: frozenset[tuple[ChangeKind, str, str]] = frozenset()
    starts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    called_at: float | None = None

    def interrupted(self) -> "PollHistory":
        """After a look that failed: absence was not seen meanwhile, so it has to be seen anew."""
        return replace(self, since=None, absent={}, idle={}, free_since=None)

    def proved_absent(self, infos: Mapping[str, WorkerInfo]) -> frozenset[str]:
        """Acting workers that are dead: no connection, looked at all the time, for longer than a live one needs.

        A live one whose connections were cut beats again on a new one. So it is given a beat and a half without any
        connection, or, having been silent before that, the rest of two beats.
        """
        return frozenset(worker for worker in self.absent if worker in infos and self._is_dead(worker, infos[worker]))

    def _is_dead(self, worker: str, info: WorkerInfo) -> bool:
        assert self.last is not None, "who is absent was looked for"
        beat, away = self.last.beats.get(worker), self.last.at - self.absent[worker]
        silence = self.last.at - (beat.at if beat is not None else info.started_at)
        long = away > 1.5 * info.beat_seconds or (away >= GONE_AFTER_S and silence > 2 * info.beat_seconds)
        return long and self._steady(info)

    def silent(self, infos: Mapping[str, WorkerInfo], policy: Policy) -> frozenset[str]:
        """Acting workers that are connected and have missed every beat of the heartbeat timeout."""
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
            and self._steady(infos[worker])
        )

    def _steady(self, info: WorkerInfo) -> bool:
        """Whether the server, and our view of it, have been there for long enough that a live worker would be back."""
        return (
            self.since is not None and self.last is not None and self.last.at - self.since > 2 * info.beat_seconds + 1
        )


def detect_changes(
    history: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo], policy: Policy
) -> tuple[PollHistory, tuple[FleetChange, ...]]:
    """What was seen with this glance added, and what is news. `infos` is what the last picture knew of the workers."""
    before = history.last
    absent = _absent(history, now, infos)
    idle = _idle(history, now, infos)
    free_since = (history.free_since or now.at) if _is_somebody_free(now, infos) else None
    after = replace(history, last=now, since=_since(history, now), absent=absent, idle=idle, free_since=free_since)
    changes = _starts(before, now) if before is not None else []
    holds = [*_gone(after, now, infos), *_service(now), *_stalled(after, now)]
    holds += [FleetChange(ChangeKind.SILENT, worker) for worker in sorted(after.silent(infos, policy))]
    told = {(one.kind, one.worker, one.detail) for one in holds}
    if before is not None:
        changes += [one for one in holds if (one.kind, one.worker, one.detail) not in history.told]
        service = {worker for kind, worker, _ in history.told if kind is ChangeKind.OUT_OF_SERVICE} - now.cordons.keys()
        changes += [FleetChange(ChangeKind.IN_SERVICE, worker) for worker in sorted(service)]
    else:  # who is away or silent already is news as well; who is cordoned is not
        changes += [one for one in holds if one.kind is not ChangeKind.OUT_OF_SERVICE]
    starts, flapping = _flapping(history, changes, now, policy)
    called_at = history.called_at
    if _calls(after, now):
        changes.append(FleetChange(ChangeKind.IDLE))
        called_at = now.at
    return replace(after, told=frozenset(told), starts=starts, called_at=called_at), (*changes, *flapping)


def _since(history: PollHistory, now: FleetPoll) -> float:
    return max(now.at if history.since is None else history.since, now.up_since)


def _is_up(worker: str, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> bool:
    """Whether the run that the picture knew still acts in its name, and has not said goodbye."""
    beat = now.beats.get(worker)
    return now.acting.get(worker) == infos[worker].incarnation and not (beat is not None and beat.stopped)


def _absent(history: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> dict[str, float]:
    """A worker that has no name in CLIENT LIST (no agent's) cannot be seen to be absent."""
    if now.names is None:
        return {}
    return {
        worker: history.absent.get(worker, now.at)
        for worker, info in infos.items()
        if info.client_name and info.client_name not in now.names and _is_up(worker, now, infos)
    }


def _idle(history: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> dict[str, float]:
    """Workers with nothing in hand, while something waits in a queue that they read."""
    return {
        worker: history.idle.get(worker, now.at)
        for worker, info in infos.items()
        if not now.waiting.keys().isdisjoint(info.queues) and _is_free(worker, now, infos)
    }


def _is_somebody_free(now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> bool:
    return bool(now.waiting) and any(_is_free(worker, now, infos) for worker in infos)


def _is_free(worker: str, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> bool:
    """In service, beating, and with nothing in hand."""
    beat = now.beats.get(worker)
    if beat is None or beat.busy or worker in now.cordons:
        return False
    return now.at - beat.at <= 3 * infos[worker].beat_seconds and _is_up(worker, now, infos)


def _starts(before: FleetPoll, now: FleetPoll) -> list[FleetChange]:
    changes = []
    for worker, run in now.acting.items():
        was = before.acting.get(worker)
        if run not in (was, FENCED):
            changes.append(FleetChange(ChangeKind.JOINED if was is None else ChangeKind.RETURNED, worker))
        beat, known = now.beats.get(worker), before.beats.get(worker)
        if beat is not None and beat.stopped and not (known is not None and known.stopped):
            changes.append(FleetChange(ChangeKind.LEFT, worker))
    return changes


def _gone(after: PollHistory, now: FleetPoll, infos: Mapping[str, WorkerInfo]) -> list[FleetChange]:
    found = [
        FleetChange(ChangeKind.GONE, worker) for worker, since in after.absent.items() if now.at - since >= GONE_AFTER_S
    ]
    return found + [FleetChange(ChangeKind.OVERDUE, worker) for worker in sorted(after.proved_absent(infos))]


def _service(now: FleetPoll) -> list[FleetChange]:
    return [FleetChange(ChangeKind.OUT_OF_SERVICE, worker, state) for worker, state in sorted(now.cordons.items())]


def _stalled(after: PollHistory, now: FleetPoll) -> list[FleetChange]:
    return [
        FleetChange(ChangeKind.STALLED, one) for one, since in after.idle.items() if now.at - since >= STALLED_AFTER_S
    ]


def _calls(after: PollHistory, now: FleetPoll) -> bool:
    """Whether somebody has been free for a moment while work waits; once as long as that lasts, and not too often."""
    since = after.free_since
    if since is None or now.at - since < IDLE_AFTER_S:
        return False
    return after.called_at is None or (after.called_at < since and now.at - after.called_at >= IDLE_AGAIN_S)


def _flapping(
    history: PollHistory, changes: list[FleetChange], now: FleetPoll, policy: Policy
) -> tuple[dict[str, tuple[float, ...]], list[FleetChange]]:
    """Who starts again and again without having said goodbye. What is counted begins anew when the breaker opens."""
    recovery = policy.recovery
    before = history.last
    said_goodbye = {worker for worker, beat in before.beats.items() if beat.stopped} if before is not None else set()
    starts = {
        worker: recent
        for worker, times in history.starts.items()
        if (recent := tuple(at for at in times if now.at - at < recovery.breaker_seconds))
    }
    flapping = []
    for one in changes:
        if one.kind is ChangeKind.RETURNED and one.worker not in said_goodbye:
            starts[one.worker] = (*starts.get(one.worker, ()), now.at)
            if len(starts[one.worker]) >= recovery.breaker_failures:
                flapping.append(FleetChange(ChangeKind.FLAPPING, one.worker, count=len(starts.pop(one.worker))))
    return starts, flapping
