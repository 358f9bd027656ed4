"""Prove that a worker is dead.

The connections of a killed process disappear from the server's client list within milliseconds. A stopped or busy
process stays in the list, however long it is silent. So absence proves death, and silence does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.words import count_of
from morag_queue.core.worker_status import may_be_dead, silence_seconds


class Liveness(StrEnum):
    """`unproven`: silent, without proof of death. `unknown`: no worker of that name is registered."""

    DEAD = "dead"
    ALIVE = "alive"
    UNPROVEN = "unproven"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LivenessEvidence:
    """Evidence on a worker besides its heartbeat.

    `answered` is None if the worker was not asked; `process_is_gone` is known only on the worker's own machine.
    """

    connections: int = 0
    answered: bool | None = None
    process_is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Connections:
    """Number of open connections by name, and the time of the server's start in seconds since the epoch."""

    by_name: Mapping[str, int]
    server_up_since: float


@dataclass(frozen=True, slots=True)
class LivenessVerdict:
    """The verdict on one worker, with the evidence in words."""

    worker: str
    liveness: Liveness
    evidence: tuple[str, ...]


def assess_liveness(worker: str, view: WorkerView | None, seen: LivenessEvidence, now: float) -> LivenessVerdict:
    """Judge whether a worker is dead, with the evidence in words. `now` is the server's clock."""
    answer = {True: "it answers on the control channel", False: "no answer on the control channel"}.get(
        seen.answered  # type: ignore[arg-type]
    )
    if view is None:
        evidence = ("it is not registered: it runs without the agent, or not at all", *filter(None, [answer]))
        return LivenessVerdict(worker, Liveness.ALIVE if seen.answered else Liveness.UNKNOWN, evidence)
    if view.fenced:
        return LivenessVerdict(worker, Liveness.DEAD, ("it was fenced by an earlier failover and has not come back",))
    beat, age = _beat(view, now)
    if not seen.connections and view.info.client_name:
        listed = f"no connection named {view.info.client_name} in CLIENT LIST"
        gone = f"its process {view.info.pid} is gone from this machine" if seen.process_is_gone else None
        return LivenessVerdict(worker, Liveness.DEAD, tuple(filter(None, [listed, gone, beat, answer])))
    listed = f"{count_of(seen.connections, 'connection')} named {view.info.client_name} in CLIENT LIST"
    is_alive = seen.answered or (age is not None and age <= 2 * view.info.beat_seconds)
    return LivenessVerdict(
        worker, Liveness.ALIVE if is_alive else Liveness.UNPROVEN, tuple(filter(None, [listed, beat, answer]))
    )


def with_connections(snapshot: Snapshot, seen: Connections, policy: Policy) -> Snapshot:
    """Return the snapshot with the number of connections of each worker whose heartbeat is overdue.

    After a restart of the server, a worker that has sent no heartbeat yet may be about to reconnect: its number stays
    unknown for `suspect_after_seconds`.
    """

    def is_conclusive(view: WorkerView) -> bool:
        has_returned = view.beat is not None and view.beat.at > seen.server_up_since
        return has_returned or snapshot.taken_at - seen.server_up_since > policy.suspect_after_seconds

    def counted(view: WorkerView) -> WorkerView:
        if not may_be_dead(view, snapshot.taken_at) or not is_conclusive(view):
            return view
        return replace(view, connections=seen.by_name.get(view.info.client_name, 0))

    return replace(snapshot, workers=tuple(map(counted, snapshot.workers)))


def is_overdue(snapshot: Snapshot, view: WorkerView, policy: Policy) -> bool:
    """Return whether a worker without connections should be failed over automatically.

    It must have left work behind, and not be about to return. One that holds messages is overdue after two missed
    heartbeats. One that only has work in its lanes gets the time of a restart, `offline_after_seconds`; a drained one
    is never overdue, because it is expected to come back for its pinned tasks.
    """
    waiting = snapshot.waiting_count(view.worker)
    if snapshot.held_by_worker.get(view.worker):
        return view.fenced or silence_seconds(view, snapshot.taken_at) > 2 * view.info.beat_seconds
    if not waiting or (view.cordon is not None and view.cordon.state == "drained"):
        return False
    return view.fenced or silence_seconds(view, snapshot.taken_at) > policy.offline_after_seconds


def _beat(view: WorkerView, now: float) -> tuple[str, float | None]:
    """Return the heartbeat in words, and its age in seconds, None if no other heartbeat will follow."""
    if view.beat is None:
        return "it has sent no heartbeat", None
    age = max(now - view.beat.at, 0.0)
    if view.beat.stopped:
        return f"it shut down {age:.1f} s ago", None
    return f"its last heartbeat was {age:.1f} s ago", age
