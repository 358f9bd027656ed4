"""Emit the events of the loop: changes of the fleet, turns, fleet statistics, stalled workers."""

from collections.abc import Iterable, Mapping

from morag_queue.core.fleet_poll import STALLED_AFTER_S, ChangeKind, FleetChange, PollHistory
from morag_queue.core.model import WorkerStatus
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.stats import FleetStats
from morag_queue.core.worker_status import SERVING

from .events import Event, EventSink
from .turn import TurnReport

_REFUSALS_EMITTED = 5
"""Maximum number of REFUSED events per turn; `refused` of the TURN event counts them all."""

_EVENT_OF_CHANGE = {
    ChangeKind.JOINED: Event.JOINED,
    ChangeKind.RETURNED: Event.RETURNED,
    ChangeKind.LEFT: Event.LEFT,
    ChangeKind.GONE: Event.GONE,
    ChangeKind.IN_SERVICE: Event.IN_SERVICE,
}


def report_changes(emit: EventSink, changes: Iterable[FleetChange], history: PollHistory) -> None:
    """Emit changes of workers. OVERDUE, IDLE and STALLED have no event: the turn that they trigger names them."""
    for change in changes:
        if change.kind in _EVENT_OF_CHANGE:
            emit(_EVENT_OF_CHANGE[change.kind], worker=change.worker)
        elif change.kind is ChangeKind.OUT_OF_SERVICE:
            emit(Event.OUT_OF_SERVICE, worker=change.worker, state=change.detail)
        elif change.kind is ChangeKind.SILENT and history.last is not None:
            silence = history.last.at - history.last.beats[change.worker].at
            emit(Event.SILENT, worker=change.worker, seconds=silence)


def trigger_of(changes: Iterable[FleetChange]) -> str:
    """Return the trigger of a turn as text, such as `worker-cpu-1 overdue, worker-cpu-2 joined`."""
    return ", ".join(dict.fromkeys(f"{change.worker} {change.kind.value}".strip() for change in changes))


def report_turn(emit: EventSink, report: TurnReport, flapping: Mapping[str, int], breaker_seconds: float) -> None:
    """Emit what a turn or a sweep changed. `flapping` maps a worker to its number of starts."""
    for worker in report.opened_breakers:
        emit(Event.FLAPPING, worker=worker, starts=flapping.get(worker, 0), seconds=breaker_seconds)
    if report.dry_run:
        _report_plan(emit, report)
    else:
        _report_failover(emit, report)
        if report.has_changed:
            emit(
                Event.TURN, trigger=report.trigger, plan_id=report.plan_id, moved=report.moved,
                taken_back=report.taken_back, resent=report.resent, quarantined=report.quarantined,
                refused=len(report.rejected), rules=report.rules, seconds=report.seconds,
            )  # fmt: skip
    for rejected in report.rejected[:_REFUSALS_EMITTED]:
        emit(Event.REFUSED, task_id=rejected.task_id, reason=rejected.reason)


def _report_plan(emit: EventSink, report: TurnReport) -> None:
    if report.decisions:
        decisions = [f"{decision.task_id or decision.source_lane}: {decision.reason}" for decision in report.decisions]
        emit(
            Event.PLANNED, trigger=report.trigger, plan_id=report.plan_id, decisions=decisions, seconds=report.seconds
        )  # fmt: skip


def _report_failover(emit: EventSink, report: TurnReport) -> None:
    result = report.failed_over
    dead = [worker for worker in result.workers if worker.is_failed_over] if result is not None else []
    if result is not None and dead:
        emit(
            Event.FAILED_OVER, workers=[worker.worker for worker in dead],
            evidence=[evidence for worker in dead for evidence in worker.evidence], taken_back=result.requeued_tasks,
            moved=result.moved_tasks, quarantined=result.quarantined_tasks, seconds=result.seconds,
        )  # fmt: skip


def report_fleet(emit: EventSink, stats: FleetStats, turns: int) -> None:
    """Emit the state of the fleet, and the queues with waiting tasks that no worker in service reads."""
    emit(
        Event.FLEET,
        pending=sum(queue.pending_tasks for queue in stats.queues),
        processing=sum(queue.processing_tasks for queue in stats.queues),
        workers=sum(worker.status is not WorkerStatus.OFFLINE for worker in stats.workers),
        serving=sum(worker.status in SERVING for worker in stats.workers),
        backlog_minutes=max((queue.backlog_time for queue in stats.queues), default=0.0),
        oldest_minutes=max((queue.oldest_wait_time for queue in stats.queues), default=0.0),
        turns=turns,
        leader=stats.leader.who if stats.leader else "",
    )
    for queue in stats.queues:
        if queue.pending_tasks and not queue.worker_count:
            reason = "no worker in service reads it"
            emit(Event.LANE_STALLED, lane=queue.queue_type.value, waiting=queue.pending_tasks, reason=reason)


class StallDetector:
    """Finds stalled workers: idle for a long time while messages wait for them, with no task ended meanwhile.

    The count of ended tasks distinguishes a stalled worker from one that is idle at each poll because its tasks are
    short.
    """

    def __init__(self, emit: EventSink) -> None:
        self._emit = emit
        self._stalled: set[str] = set()
        self._idle_marks: dict[str, tuple[float, int]] = {}
        """Worker → the start of its idle time, and its number of ended tasks at the last turn."""

    def after_poll(self, history: PollHistory) -> None:
        """Report stalled workers that are no longer idle, or for which no messages wait."""
        for worker in sorted(self._stalled - history.idle.keys()):
            self._emit(Event.MOVING_AGAIN, worker=worker)
        self._stalled &= history.idle.keys()

    def after_turn(self, snapshot: Snapshot, history: PollHistory) -> None:
        """Report workers that have stalled according to the snapshot of a turn."""
        now = history.last.at if history.last is not None else 0.0
        previous, self._idle_marks = self._idle_marks, {}
        for worker, since in history.idle.items():
            view = snapshot.worker_by_id.get(worker)
            if view is None:
                continue
            mark = self._idle_marks[worker] = (since, view.totals.completed + view.totals.failed)
            takes_nothing = previous.get(worker, mark) == mark and not snapshot.held_count(view)
            if takes_nothing and now - since >= STALLED_AFTER_S and worker not in self._stalled:
                self._stalled.add(worker)
                self._emit_stalled(worker, view.info.queues, snapshot, now - since)

    def _emit_stalled(self, worker: str, queues: Iterable[str], snapshot: Snapshot, seconds: float) -> None:
        waiting = {queue.value: count for queue, count in snapshot.pending.items() if count and queue.value in queues}
        self._emit(
            Event.STALLED, worker=worker, queues=list(waiting), waiting=sum(waiting.values()), seconds=seconds
        )  # fmt: skip
