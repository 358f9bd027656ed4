"""What a worker is, in one word and a reason.

One word has to hold three answers: is it alive, did a person take it out of service, has it room. The order:

1. `drained` stands whatever the beat says. A drained worker is expected to go away and to come back drained, so that
   it went away is no news: the reason adds it.
2. `offline` comes before `draining` and `cordoned`: work may be at stake, and that a person cordoned it does not help.
3. `draining` and `cordoned` come before `suspect`, which is a question of seconds: the reason adds the missing beat.
4. `suspect`, then `busy`, then `online`.
"""

from .model import Cordon, WorkerStatus
from .policy import Policy
from .snapshot import Snapshot, WorkerView

# Workers of these take work from shared lanes. A suspect one is left alone until it beats again.
SERVING = frozenset({WorkerStatus.ONLINE, WorkerStatus.BUSY})


def status(
    view: WorkerView, held_count: int, now: float, policy: Policy, *, waiting_count: int = 0
) -> tuple[WorkerStatus, str]:
    """The word and the reason (empty for an online worker).

    `held_count` is what its present run has in its hands, `waiting_count` what waits in its own lanes, `now` seconds
    since the epoch by the clock that stamped the beats.
    """
    held = in_hands(view, held_count)
    out_of_service = drain_state(view, held, waiting_count)
    silence, age = _silence(view, now)
    if out_of_service is WorkerStatus.DRAINED:
        return out_of_service, _join(_by_whom(out_of_service, view.cordon), silence if _is_offline(age, policy) else "")
    if _is_offline(age, policy):
        return WorkerStatus.OFFLINE, _join(silence, _by_whom(out_of_service, view.cordon))
    quiet = age is not None and age > policy.suspect_after_seconds
    if out_of_service is not None:
        return out_of_service, _join(_by_whom(out_of_service, view.cordon), silence if quiet else "")
    if quiet:
        return WorkerStatus.SUSPECT, silence
    if held >= view.info.slots:
        return WorkerStatus.BUSY, f"{held} of {view.info.slots} slots in use"
    return WorkerStatus.ONLINE, ""


def status_in(snapshot: Snapshot, view: WorkerView, policy: Policy) -> tuple[WorkerStatus, str]:
    """`status` with the counts and the time that the snapshot knows."""
    waiting = snapshot.waiting_count(view.info.worker)
    return status(view, snapshot.held_count(view), snapshot.taken_at, policy, waiting_count=waiting)


def in_hands(view: WorkerView, held_count: int) -> int:
    """What a worker has in its hands. Without the claim no message has an owner: then what it says of itself."""
    if view.info.claims or view.beat is None:
        return held_count
    return max(held_count, view.beat.active + view.beat.reserved)


def drain_state(view: WorkerView, held_count: int, waiting_count: int) -> WorkerStatus | None:
    """How far out of service a worker is: None, `cordoned`, `draining` or `drained`.

    `draining` becomes `drained` by itself when nothing is held and nothing waits in its own lanes, for a worker that
    claims: the claim looks at the cordon. Stock kombu may still bring a message that it was waiting for, so there
    the drain itself has to look again and write `drained`. Once written, a pin that is forced onto the worker waits
    in its lane and does not make it `draining` again; a message in its hands does.
    """
    if view.cordon is None:
        return None
    state = view.cordon.state
    if state is WorkerStatus.CORDONED:
        return state
    written = state is WorkerStatus.DRAINED
    empty = held_count == 0 and (written or waiting_count == 0)
    return WorkerStatus.DRAINED if empty and (written or view.info.claims) else WorkerStatus.DRAINING


def _silence(view: WorkerView, now: float) -> tuple[str, float | None]:
    """Why it may not be there, in words, and the age of its beat; no age where there will be no other beat."""
    if view.fenced:
        return "failed over", None
    if view.beat is None:
        return "has sent no heartbeat yet", None
    age = max(now - view.beat.at, 0.0)
    if view.beat.stopped:
        return f"shut down {_span(age)} ago", None
    return f"no beat for {_span(age)}", age


def _is_offline(age: float | None, policy: Policy) -> bool:
    return age is None or age > policy.offline_after_seconds


def _by_whom(state: WorkerStatus | None, cordon: Cordon | None) -> str:
    if state is None or cordon is None:
        return ""
    by = f" by {cordon.who}" if cordon.who else ""
    why = f": {cordon.reason}" if cordon.reason else ""
    return f"{state.value}{by}{why}"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
