"""The status of a worker, with the reason.

The status combines whether a worker is alive, in service, and has room. The first rule that applies decides:

1. `drained`, whatever its heartbeat. A drained worker may be away, and comes back drained; the reason mentions its
   absence.
2. `offline` before `draining` and `cordoned`: its work may be lost, whether it is in service or not. A worker without
   connections is offline at once: see `core.recovery.liveness` for why that is a proof.
3. `draining` and `cordoned` before `suspect`: the reason adds the missing heartbeat.
4. `suspect`, then `busy`, then `online`.
"""

from .model import Cordon, WorkerInfo, WorkerStatus
from .policy import Policy
from .snapshot import Snapshot, WorkerView
from .words import count_of, span

SERVING = frozenset({WorkerStatus.ONLINE, WorkerStatus.BUSY})
"""Workers with this status claim from shared lanes. A suspect worker gets no new work until its next heartbeat."""


def status(
    view: WorkerView, held_count: int, now: float, policy: Policy, *, waiting_count: int = 0
) -> tuple[WorkerStatus, str]:
    """Return the status and the reason, "" for an online worker.

    `held_count` is the number of messages that its present run holds, `waiting_count` the number in its own lanes.
    `now` is seconds since the epoch, by the clock that stamped the heartbeats.
    """
    beat = view.beat
    if view.cordon is None and not view.fenced and view.connections != 0:
        if beat is not None and not beat.stopped and now - beat.at <= policy.suspect_after_seconds:
            return _in_service(view, in_flight(view, held_count))
        if beat is None and now - view.info.started_at <= policy.offline_after_seconds:
            return WorkerStatus.SUSPECT, "has just registered"  # its first heartbeat is on its way
    return _out_of_service(view, held_count, now, policy, waiting_count)


def status_in(snapshot: Snapshot, view: WorkerView, policy: Policy) -> tuple[WorkerStatus, str]:
    """Return `status` with the counts and the time of the snapshot."""
    waiting = snapshot.waiting_count(view.worker) if view.cordon is not None else 0
    return status(view, snapshot.held_count(view), snapshot.taken_at, policy, waiting_count=waiting)


def may_be_dead(view: WorkerView, now: float) -> bool:
    """Return whether its heartbeat is overdue, so that its connections tell whether it is dead.

    Only a worker with a client name can be found in CLIENT LIST.
    """
    if view.fenced or not view.info.client_name or (view.beat is not None and view.beat.stopped):
        return False
    return silence_seconds(view, now) > view.info.beat_seconds


def silence_seconds(view: WorkerView, now: float) -> float:
    """Return the age of the last heartbeat, or of the registration if there is none."""
    return max(now - (view.beat.at if view.beat is not None else view.info.started_at), 0.0)


def is_suspect(view: WorkerView, now: float, policy: Policy) -> bool:
    """Return whether heartbeats are missing without proof of death, in service or not.

    A worker whose connections are not known is only suspect until `offline_after_seconds`.
    """
    if view.fenced or view.connections == 0 or view.beat is None or view.beat.stopped:
        return False
    silence = silence_seconds(view, now)
    return silence > policy.suspect_after_seconds and (
        bool(view.connections) or silence <= policy.offline_after_seconds
    )


def in_flight(view: WorkerView, held_count: int) -> int:
    """Return the number of messages that a worker has claimed and not finished.

    Without the atomic claim, messages have no owner record: then the worker's own heartbeat counts them.
    """
    if view.info.claims or view.beat is None:
        return held_count
    return max(held_count, view.beat.active + view.beat.reserved)


def drain_state(view: WorkerView, held_count: int, waiting_count: int) -> WorkerStatus | None:
    """Return `cordoned`, `draining` or `drained`; None for a worker in service.

    A worker with the atomic claim is `drained` as soon as it holds nothing and nothing waits in its lanes, because the
    claim honours the cordon. Without the claim, kombu may still deliver a message, so the drain checks again and writes
    `drained`. Afterwards a forced pin in the worker's lane does not make it `draining` again; a held message does.
    """
    if view.cordon is None:
        return None
    state = view.cordon.state
    if state is WorkerStatus.CORDONED:
        return state
    written = state is WorkerStatus.DRAINED
    empty = held_count == 0 and (written or waiting_count == 0)
    return WorkerStatus.DRAINED if empty and (written or view.info.claims) else WorkerStatus.DRAINING


def _in_service(view: WorkerView, held: int) -> tuple[WorkerStatus, str]:
    if held >= view.info.slots:
        return WorkerStatus.BUSY, f"{held} of {count_of(view.info.slots, 'slot')} in use"
    return WorkerStatus.ONLINE, ""


def _out_of_service(
    view: WorkerView, held_count: int, now: float, policy: Policy, waiting_count: int
) -> tuple[WorkerStatus, str]:
    held = in_flight(view, held_count)
    state = drain_state(view, held, waiting_count)
    silence, age = _silence(view, now)
    offline = age is None or age > policy.offline_after_seconds
    quiet = age is not None and age > policy.suspect_after_seconds
    cordoned = _cordon_words(state, view.cordon)
    if state is WorkerStatus.DRAINED:
        return state, _join(cordoned, silence if offline else "")
    if offline:
        return WorkerStatus.OFFLINE, _join(silence, cordoned)
    if state is not None:
        return state, _join(cordoned, silence if quiet else "")
    return (WorkerStatus.SUSPECT, silence) if quiet else _in_service(view, held)


def _silence(view: WorkerView, now: float) -> tuple[str, float | None]:
    """Return why it may be gone, and the age of its heartbeat in seconds, None if no other heartbeat will follow."""
    if view.fenced:
        return "failed over", None
    age = silence_seconds(view, now)
    if view.beat is not None and view.beat.stopped:
        return f"shut down {span(age)} ago", None
    if view.connections == 0:
        return f"killed? no connection, and no heartbeat for {span(age)}", None
    if view.beat is None:
        return "has sent no heartbeat yet", None
    if view.connections and age > 2 * view.info.beat_seconds:
        return f"no heartbeat for {span(age)}, but {count_of(view.connections, 'open connection')}", age
    return f"no heartbeat for {span(age)}", age


def _cordon_words(state: WorkerStatus | None, cordon: Cordon | None) -> str:
    if state is None or cordon is None:
        return ""
    by = f" by {cordon.who}" if cordon.who else ""
    why = f": {cordon.reason}" if cordon.reason else ""
    return f"{state.value}{by}{why}"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def runs_agent(view: WorkerView, now: float, policy: Policy) -> bool:
    """Return whether the agent is there, in service or not: a heartbeat is or will soon be no older than allowed."""
    if view.fenced or (view.beat is not None and (view.beat.stopped or view.connections == 0)):
        return False
    return silence_seconds(view, now) <= policy.offline_after_seconds


def node_of(info: WorkerInfo) -> str:
    """Return the Celery node name of a worker."""
    return info.node or f"{info.worker}@{info.host}"


def agent_nodes(snapshot: Snapshot, policy: Policy) -> frozenset[str]:
    """Return the node names of the workers that run with the agent now.

    A registration outlives its worker, and a plain Celery worker may have been started under its name since.
    """
    return frozenset(node_of(view.info) for view in snapshot.workers if runs_agent(view, snapshot.taken_at, policy))
