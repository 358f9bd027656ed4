"""Checks of what is not there: a leader, and workers that have left within the last day."""

from collections.abc import Iterator

from morag_queue.core.model import WorkerStatus
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.words import NAMES_SHOWN, span
from morag_queue.core.worker_status import is_suspect, silence_seconds, status_in

from .facts import FleetFacts
from .finding import Code, Finding, info
from .service import UNLED

RECENT_S = 86_400.0
"""The registry never forgets a worker: those that left earlier are not listed."""


def check_watch(facts: FleetFacts) -> Iterator[Finding]:
    """Report that no `watch` has led lately; `check_service` reports one that has."""
    if facts.snapshot.leader is None and facts.last_led_at is None:
        yield info(
            Code.LEADER_MISSING, "watch", f"no watch has led this fleet within the last day: {UNLED}",
            "start one: morag-queue watch",
        )  # fmt: skip


def check_gone(facts: FleetFacts) -> Iterator[Finding]:
    """List the workers that have left and hold no task; `check_service` reports those that hold some."""
    gone = [view for view in facts.snapshot.workers if _has_left(facts, view)]
    gone.sort(key=lambda view: silence_seconds(view, facts.snapshot.taken_at))
    stopped = [view for view in gone if view.beat is not None and view.beat.stopped]
    vanished = [view for view in gone if view not in stopped]
    if stopped:
        yield info(
            Code.WORKER_STOPPED, _names(stopped), f"stopped cleanly: {_listed(facts.snapshot, stopped)}",
            "start a worker again if the fleet needs it",
        )  # fmt: skip
    if vanished:
        yield info(
            Code.WORKER_VANISHED, _names(vanished),
            f"vanished without a clean stop (killed, or its machine failed): {_listed(facts.snapshot, vanished)}",
            f"see the log on {vanished[0].info.host}, and start the worker again if the fleet needs it",
        )  # fmt: skip


def _has_left(facts: FleetFacts, view: WorkerView) -> bool:
    snapshot, now = facts.snapshot, facts.snapshot.taken_at
    if snapshot.held_by_worker.get(view.worker) or silence_seconds(view, now) > RECENT_S:
        return False
    if is_suspect(view, now, facts.policy):
        return False
    is_stopped = view.beat is not None and view.beat.stopped  # a drained worker that has stopped stays `drained`
    return is_stopped or view.connections == 0 or status_in(snapshot, view, facts.policy)[0] is WorkerStatus.OFFLINE


def _names(views: list[WorkerView]) -> str:
    more = f" and {len(views) - NAMES_SHOWN} more" if len(views) > NAMES_SHOWN else ""
    return ", ".join(view.worker for view in views[:NAMES_SHOWN]) + more


def _listed(snapshot: Snapshot, views: list[WorkerView]) -> str:
    """Return the workers that left last, with the times since: `w1 (45 s ago), w2 (3 h ago) and 4 more`."""
    shown = (f"{view.worker} ({span(silence_seconds(view, snapshot.taken_at))} ago)" for view in views[:NAMES_SHOWN])
    more = f" and {len(views) - NAMES_SHOWN} more" if len(views) > NAMES_SHOWN else ""
    return ", ".join(shown) + more
