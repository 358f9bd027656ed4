"""Prove that a worker is dead.

The connections of a killed process leave the server's client list within milliseconds, while a stopped or busy process
stays in the list however long it is silent. So absence is proof, and silence is not.
"""

from dataclasses import dataclass
from enum import StrEnum

from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import Snapshot, WorkerView


class Liveness(StrEnum):
    """`unproven`: silent, without proof of death. `unknown`: no worker of that name is registered."""

    DEAD = "dead"
    ALIVE = "alive"
    UNPROVEN = "unproven"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LivenessEvidence:
    """Evidence besides the heartbeat.

    `answered` is None if the worker was not asked; `process_is_gone` is known only on the worker's own machine.
    """

    connections: int = 0
    answered: bool | None = None
    process_is_gone: bool = False


@dataclass(frozen=True, slots=True)
class LivenessVerdict:
    worker: str
    liveness: Liveness
    evidence: tuple[str, ...]


def assess_liveness(worker: str, view: WorkerView | None, seen: LivenessEvidence, now: float) -> LivenessVerdict:
    """Judge whether a worker is dead, with the evidence in words. `now` is the server's clock."""
    answer = {True: "it answers on the control channel", False: "no answer on the control channel"}.get(
        seen.answered  # type: ignore[arg-type]
    )
    if view is None:
        evidence = ("it has not registered: it runs without the agent, or not at all", *filter(None, [answer]))
        return LivenessVerdict(worker, Liveness.ALIVE if seen.answered else Liveness.UNKNOWN, evidence)
    if view.fenced:
        return LivenessVerdict(worker, Liveness.DEAD, ("it was fenced by an earlier failover and has not come back",))
    beat, age = _beat(view, now)
    if not seen.connections and view.info.client_name:
        listed = f"no connection named {view.info.client_name} in CLIENT LIST"
        gone = f"its process {view.info.pid} is gone from this machine" if seen.process_is_gone else None
        return LivenessVerdict(worker, Liveness.DEAD, tuple(filter(None, [listed, gone, beat, answer])))
    listed = f"{seen.connections} connections named {view.info.client_name} in CLIENT LIST"
    lively = seen.answered or (age is not None and age <= 2 * view.info.beat_seconds)
    return LivenessVerdict(
        worker, Liveness.ALIVE if lively else Liveness.UNPROVEN, tuple(filter(None, [listed, beat, answer]))
    )


def is_overdue(snapshot: Snapshot, view: WorkerView, policy: Policy) -> bool:
    """Whether a worker without connections is failed over automatically.

    It must have left something behind, and not be about to return: a crashed worker has missed two heartbeats; one that
    shut down cleanly has been away for longer than a restart takes and is not drained (a drained worker is expected to
    come back and find its pins).
    """
    waiting = snapshot.waiting_count(view.worker)
    if snapshot.held_by_worker.get(view.worker):
        return view.fenced or _silent_for(view, snapshot.taken_at) > 2 * view.info.beat_seconds
    if not waiting or (view.cordon is not None and view.cordon.state == "drained"):
        return False
    return view.fenced or _silent_for(view, snapshot.taken_at) > policy.offline_after_seconds


def _silent_for(view: WorkerView, now: float) -> float:
    since = view.beat.at if view.beat else view.info.started_at
    return now - since


def _beat(view: WorkerView, now: float) -> tuple[str, float | None]:
    """The heartbeat in words, and its age in seconds; None when no other heartbeat will follow."""
    if view.beat is None:
        return "it has sent no heartbeat", None
    age = max(now - view.beat.at, 0.0)
    if view.beat.stopped:
        return f"it said goodbye {age:.1f} s ago", None
    return f"its last heartbeat was {age:.1f} s ago", age
