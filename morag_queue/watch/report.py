"""What the loop tells of what it sees and does: news, reports and figures as events."""

from collections.abc import Iterable, Mapping

from morag_queue.core.fleet_poll import STALLED_AFTER_S, ChangeKind, FleetChange, PollHistory
from morag_queue.core.model import FleetStats, WorkerStatus
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.worker_status import SERVING

from .events import Event, EventSink
from .turn import TurnReport

_REFUSALS_TOLD = 5


_PLAIN = {
    ChangeKind.JOINED: Event.JOINED,
    ChangeKind.RETURNED: Event.RETURNED,
    ChangeKind.LEFT: Event.LEFT,
    ChangeKind.GONE: Event.GONE,
    ChangeKind.IN_SERVICE: Event.IN_SERVICE,
}


def report_changes(tell: EventSink, changes: Iterable[FleetChange], history: PollHistory) -> None:
    """What concerns a worker. That one is overdue, idle or stalled shows in the turn that it calls for."""
    for one in changes:
        if one.kind in _PLAIN:
            tell(_PLAIN[one.kind], worker=one.worker)
        elif one.kind is ChangeKind.OUT_OF_SERVICE:
            tell(Event.OUT_OF_SERVICE, worker=one.worker, state=one.detail)
        elif one.kind is ChangeKind.SILENT and history.last is not None:
            tell(Event.SILENT, worker=one.worker, seconds=history.last.at - history.last.beats[one.worker].at)


def trigger_of(changes: Iterable[FleetChange]) -> str:
    """In words, why a turn is made now."""
    return ", ".join(dict.fromkeys(f"{one.worker} {one.kind.value}".strip() for one in changes))


def report_turn(tell: EventSink, report: TurnReport, flapping: Mapping[str, int], breaker_seconds: float) -> None:
    """One line for a turn that changed something, and none for one that did not."""
    for worker in report.opened_breakers:
        tell(Event.FLAPPING, worker=worker, starts=flapping.get(worker, 0), seconds=breaker_seconds)
    failed = report.failed_over
    if failed is not None and not report.dry_run:
        gone = [one for one in failed.workers if one.done == "failed over"]
        if gone:
            tell(
                Event.FAILED_OVER, workers=[one.worker for one in gone],
                evidence=[sign for one in gone for sign in one.evidence], taken_back=failed.requeued_tasks,
                moved=failed.moved_tasks, quarantined=failed.quarantined_tasks, seconds=failed.seconds,
            )  # fmt: skip
    if report.dry_run:
        if report.decisions:
            told = [f"{one.task_id or one.source_lane}: {one.reason}" for one in report.decisions]
            tell(
                Event.PLANNED, trigger=report.trigger, plan_id=report.plan_id, decisions=told, seconds=report.seconds
            )  # fmt: skip
    elif report.has_changed:
        tell(
            Event.TURN, trigger=report.trigger, plan_id=report.plan_id, moved=report.moved,
            taken_back=report.taken_back, resent=report.resent, quarantined=report.quarantined,
            refused=len(report.rejected), rules=report.rules, seconds=report.seconds,
        )  # fmt: skip
    for one in report.rejected[:_REFUSALS_TOLD]:
        tell(Event.REFUSED, task_id=one.task_id, reason=one.reason)


def report_fleet(tell: EventSink, found: FleetStats, turns: int) -> None:
    """The heartbeat, and the lanes that nobody in service reads although work waits there."""
    online = sum(worker.status in SERVING for worker in found.workers)
    tell(
        Event.FLEET,
        pending=sum(queue.pending_tasks for queue in found.queues),
        processing=sum(queue.processing_tasks for queue in found.queues),
        workers=sum(worker.status is not WorkerStatus.OFFLINE for worker in found.workers),
        serving=online,
        backlog_minutes=max((queue.backlog_time for queue in found.queues), default=0.0),
        oldest_minutes=max((queue.oldest_wait_time for queue in found.queues), default=0.0),
        turns=turns,
        leader=found.leader.who if found.leader else "",
    )
    for queue in found.queues:
        if queue.pending_tasks and not queue.worker_count:
            reason = "no worker in service reads it"
            tell(Event.LANE_STALLED, lane=queue.queue_type.value, waiting=queue.pending_tasks, reason=reason)


class Stalls:
    """Workers that take nothing: idle for long while work waits for them, and no task has ended there meanwhile."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[float, int]] = {}  # since when it is idle, and how many tasks had ended then
        self.workers: set[str] = set()

    def ended(self, history: PollHistory, tell: EventSink) -> None:
        """After a look: who is no longer idle, or has nothing to wait for it any more."""
        for worker in sorted(self.workers - history.idle.keys()):
            tell(Event.MOVING_AGAIN, worker=worker)
        self.workers &= history.idle.keys()

    def look(self, snapshot: Snapshot, history: PollHistory, tell: EventSink) -> None:
        """After a turn, on its picture."""
        now = history.last.at if history.last is not None else 0.0
        marks = self._marks
        self._marks = {}
        for worker, since in history.idle.items():
            view = snapshot.worker_by_id.get(worker)
            if view is None:
                continue
            ended = view.totals.completed + view.totals.failed
            self._marks[worker] = known = marks.get(worker, (since, ended))
            if known != (since, ended):
                self._marks[worker] = (since, ended)
            elif now - since >= STALLED_AFTER_S and worker not in self.workers and not snapshot.held_count(view):
                self.workers.add(worker)
                waiting = {queue: snapshot.pending[queue] for queue in snapshot.pending if queue in view.info.queues}
                tell(
                    Event.STALLED, worker=worker, queues=[queue.value for queue, count in waiting.items() if count],
                    waiting=sum(waiting.values()), seconds=now - since,
                )  # fmt: skip
