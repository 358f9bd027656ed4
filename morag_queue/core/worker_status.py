"""The status of a worker in one word, with the reason.

One word answers three questions: is it alive, is it in service, has it room. The first rule that applies decides:

1. `drained`, whatever its heartbeat. A drained worker is expected to go away and to come back drained; the reason adds
   that it is away.
2. `offline` before `draining` and `cordoned`: work may be at stake, and the cordon does not change that.
3. `draining` and `cordoned` before `suspect`: the reason adds the missing heartbeat.
4. `suspect`, then `busy`, then `online`.
"""

from .model import Cordon, WorkerStatus
from .policy import Policy
from .snapshot import Snapshot, WorkerView
from .words import span

SERVING = frozenset({WorkerStatus.ONLINE, WorkerStatus.BUSY})
"""Workers of these claim from shared lanes. A suspect worker gets no new work until its next heartbeat."""


def status(
    view: WorkerView, held_count: int, now: float, policy: Policy, *, waiting_count: int = 0
) -> tuple[WorkerStatus, str]:
    """The status and the reason (empty for an online worker).

    `held_count` counts the messages that its present run holds, `waiting_count` those in its own lanes. `now` is
    seconds since the epoch, by the clock that stamped the heartbeats.
    """
    beat = view.beat
    if view.cordon is None and not view.fenced:
        if beat is not None and not beat.stopped and now - beat.at <= policy.suspect_after_seconds:
            return _in_service(view, in_flight(view, held_count))
        if beat is None and now - view.info.started_at <= policy.offline_after_seconds:
            return WorkerStatus.SUSPECT, "has just registered"  # its first heartbeat is on its way
    return _out_of_service(view, held_count, now, policy, waiting_count)


def status_in(snapshot: Snapshot, view: WorkerView, policy: Policy) -> tuple[WorkerStatus, str]:
    """`status` with the counts and the time of the snapshot."""
    waiting = snapshot.waiting_count(view.worker) if view.cordon is not None else 0
    return status(view, snapshot.held_count(view), snapshot.taken_at, policy, waiting_count=waiting)


def in_flight(view: WorkerView, held_count: int) -> int:
    """How many messages a worker has claimed and not finished.

    Without the atomic claim no message has an owner record; then the worker's own heartbeat counts.
    """
    if view.info.claims or view.beat is None:
        return held_count
    return max(held_count, view.beat.active + view.beat.reserved)


def drain_state(view: WorkerView, held_count: int, waiting_count: int) -> WorkerStatus | None:
    """How far out of service a worker is: None, `cordoned`, `draining` or `drained`.

    A worker that claims becomes `drained` by itself once it holds nothing and nothing waits in its lanes, because the
    claim honours the cordon. Without the claim, kombu may still deliver a message it was already waiting for, so the
    drain checks again and writes `drained`. After that a forced pin waits in the worker's lane without making it
    `draining` again; a held message does.
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
        return WorkerStatus.BUSY, f"{held} of {view.info.slots} slots in use"
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
    """Why it may be gone, and the age of its heartbeat in seconds; None when no other heartbeat will follow."""
    if view.fenced:
        return "failed over", None
    if view.beat is None:
        return "has sent no heartbeat yet", None
    age = max(now - view.beat.at, 0.0)
    if view.beat.stopped:
        return f"shut down {span(age)} ago", None
    return f"no beat for {span(age)}", age


def _cordon_words(state: WorkerStatus | None, cordon: Cordon | None) -> str:
    if state is None or cordon is None:
        return ""
    by = f" by {cordon.who}" if cordon.who else ""
    why = f": {cordon.reason}" if cordon.reason else ""
    return f"{state.value}{by}{why}"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
