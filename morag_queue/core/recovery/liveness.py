"""Proving that a worker is dead, and what is done with what it leaves behind.

Proof, not guesswork: a broker lists the connections of a killed process no more within milliseconds, while a stopped or
a busy one stays in the list however long it is silent. So absence proves, and silence does not.
"""

from dataclasses import dataclass
from enum import StrEnum

from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import Snapshot, WorkerView


class Liveness(StrEnum):
    """`unproven`: it is silent, and nothing proves that it is dead. `unknown`: nobody registered in that name."""

    DEAD = "dead"
    ALIVE = "alive"
    UNPROVEN = "unproven"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LivenessEvidence:
    """What was seen of a worker besides its beat.

    `answered` is None where it was not asked; `process_is_gone` is only ever seen on the worker's own machine.
    """

    connections: int = 0
    answered: bool | None = None
    process_is_gone: bool = False


@dataclass(frozen=True, slots=True)
class LivenessVerdict:
    worker: str
    life: Liveness
    evidence: tuple[str, ...]


def assess_liveness(worker: str, view: WorkerView | None, signs: LivenessEvidence, now: float) -> LivenessVerdict:
    """Whether a worker is dead, and why that is believed. `now` is the server's clock."""
    answer = {True: "it answers on the control channel", False: "no answer on the control channel"}.get(
        signs.answered  # type: ignore[arg-type]
    )
    if view is None:
        evidence = ("it has not registered: it runs without the agent, or not at all", *filter(None, [answer]))
        return LivenessVerdict(worker, Liveness.ALIVE if signs.answered else Liveness.UNKNOWN, evidence)
    if view.fenced:
        return LivenessVerdict(worker, Liveness.DEAD, ("it was fenced by an earlier failover and has not come back",))
    beat, age = _beat(view, now)
    if not signs.connections and view.info.client_name:
        listed = f"no connection named {view.info.client_name} in CLIENT LIST"
        gone = f"its process {view.info.pid} is gone from this machine" if signs.process_is_gone else None
        return LivenessVerdict(worker, Liveness.DEAD, tuple(filter(None, [listed, gone, beat, answer])))
    listed = f"{signs.connections} connections named {view.info.client_name} in CLIENT LIST"
    lively = signs.answered or (age is not None and age <= 2 * view.info.beat_seconds)
    return LivenessVerdict(
        worker, Liveness.ALIVE if lively else Liveness.UNPROVEN, tuple(filter(None, [listed, beat, answer]))
    )


def is_overdue(snapshot: Snapshot, view: WorkerView, policy: Policy) -> bool:
    """Whether a worker that is not connected is failed over without a person asking for it.

    It has left something behind, and it is not just coming back: a crashed one has missed two beats; one that shut down
    in good order has been away for longer than a restart takes, and is not drained (such a one is expected to come back
    and find its pins).
    """
    left = snapshot.waiting_count(view.worker)
    if snapshot.held_by_worker.get(view.worker):
        return view.fenced or _silent_for(view, snapshot.taken_at) > 2 * view.info.beat_seconds
    if not left or (view.cordon is not None and view.cordon.state == "drained"):
        return False
    return view.fenced or _silent_for(view, snapshot.taken_at) > policy.offline_after_seconds


def _silent_for(view: WorkerView, now: float) -> float:
    since = view.beat.at if view.beat else view.info.started_at
    return now - since


def _beat(view: WorkerView, now: float) -> tuple[str, float | None]:
    """In words, and the age of a beat that promises another one."""
    if view.beat is None:
        return "it has sent no heartbeat", None
    age = max(now - view.beat.at, 0.0)
    if view.beat.stopped:
        return f"it said goodbye {age:.1f} s ago", None
    return f"its last heartbeat was {age:.1f} s ago", age
