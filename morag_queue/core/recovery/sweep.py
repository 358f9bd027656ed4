"""What nobody looks after: messages in no hand, lanes of workers that are not there, tasks that are nowhere."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from morag_queue.core.lanes import lane, queue_of
from morag_queue.core.model import HeldMessage, QueueType
from morag_queue.core.plan import Declined, MoveLane, Resend, TakeBack
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import Snapshot, WorkerView

from .drain import own_lanes
from .failover import take_backs

_FEW = 3


@dataclass(frozen=True, slots=True)
class StaleMessage:
    """A taken message that no worker has touched for long. `worker` and `incarnation` are empty without a holder."""

    tag: str
    worker: str
    incarnation: str
    lane: str
    task_id: str
    level: int


@dataclass(frozen=True, slots=True)
class OpenTask:
    """An open task of the ledger: where and when it was queued (seconds since the epoch)."""

    task_id: str
    enqueued_at: float
    queue: str
    level: int


def orphan_after(snapshot: Snapshot, policy: Policy) -> float:
    """For how many seconds nobody touches a message before it is nobody's: several beats of the slowest worker."""
    slowest = max((view.info.beat_seconds for view in snapshot.workers), default=0.0)
    return max(policy.recovery.orphan_after_seconds, 3 * slowest)


def of_former_runs(snapshot: Snapshot) -> tuple[HeldMessage, ...]:
    """What is held in the name of a run that may not act any more: it was fenced, or its worker has begun anew."""
    known = snapshot.worker_by_id
    return tuple(one for one in snapshot.held if one.worker in known and not _acts(known[one.worker], one.incarnation))


def former_runs(snapshot: Snapshot, policy: Policy, attempts: Mapping[str, int]) -> Iterator[TakeBack]:
    """Takes that back. A failover that was cut off left it, or a worker that died before it could do it itself."""
    reason = "the run of its worker that held it has ended"
    yield from take_backs(of_former_runs(snapshot), snapshot.taken_at, policy, attempts, {}, reason)


def orphans(
    snapshot: Snapshot, untouched: Iterable[StaleMessage], before: float, strangers: int
) -> tuple[list[TakeBack], list[Declined]]:
    """Takes back what no hand has: not touched since `before`. `strangers` is how many work without the agent.

    A worker with the agent touches all that it has, the tasks that wait for their rate limit as well, so what it does
    not touch it has lost, with a connection for example. A worker without it touches nothing.
    """
    steps: list[TakeBack] = []
    unclear: list[str] = []
    for one in reversed(list(untouched)):
        queue = queue_of(one.lane)
        if one.incarnation and not _has_let_go(snapshot, one, before):
            continue
        if not one.incarnation and strangers:
            unclear.append(one.task_id)
            continue
        why = f"{one.worker} lost it" if one.worker else "no worker has it"
        steps.append(
            TakeBack(
                task_id=one.task_id, tag=one.tag, worker=one.worker, incarnation=one.incarnation,
                target=lane(queue) if queue else one.lane, level=one.level, reason=why, untouched_since=before,
            )
        )  # fmt: skip
    if not unclear:
        return steps, []
    few = ", ".join(unclear[:_FEW]) + ("…" if len(unclear) > _FEW else "")
    reason = "no owner is known, and a worker without the agent may have them; the visibility timeout will tell"
    return steps, [Declined(subject=f"{len(unclear)} taken messages ({few})", reason=reason)]


def abandoned_lanes(snapshot: Snapshot, policy: Policy, queues: Queues) -> Iterator[MoveLane]:
    """Lanes of workers that have never registered, or whose registration is gone, once something waits there for long.

    A person may have pinned work to a worker that is still to be started: it is given the time of a heartbeat.
    """
    for worker, views in snapshot.lanes_by_worker.items():
        if worker in snapshot.worker_by_id:
            continue
        since = min((view.oldest for view in views if view.oldest is not None), default=None)
        if since is not None and snapshot.taken_at - since > policy.offline_after_seconds:
            yield from own_lanes(snapshot, worker, queues, f"there is no worker {worker}")


def suspects(snapshot: Snapshot, opened: Iterable[OpenTask]) -> list[OpenTask]:
    """Open tasks that would be next by now where they were queued: if they are not there, they may be nowhere.

    In front of everything that waits at its level a task is either about to be taken, or moved elsewhere, or lost.
    What has others before it waits, most likely, and is looked for when its turn comes.
    """
    in_hands = {one.task_id for one in snapshot.held}
    oldest = _oldest(snapshot)
    return [
        one
        for one in opened
        if one.task_id not in in_hands
        and '"' not in one.task_id  # no search would find it by its text
        and one.enqueued_at < oldest.get((one.queue, one.level), inf)
    ]


def resends(lost: Iterable[OpenTask]) -> list[Resend]:
    """Sends them again, the latest first: each goes before what waits."""
    reason = "it was open, and its message was nowhere on the broker"
    return [
        Resend(task_id=one.task_id, reason=reason)
        for one in sorted(lost, key=lambda one: one.enqueued_at, reverse=True)
    ]


def all_lists(snapshot: Snapshot) -> list[tuple[str, int, int]]:
    """Every list with something in it: lane, level, length."""
    return [
        (view.lane, level, length) for view in snapshot.lanes for level, length in enumerate(view.lengths) if length
    ]


def _oldest(snapshot: Snapshot) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for view in snapshot.lanes:
        for level, at in enumerate(view.oldest_enqueued_at):
            if at is not None:
                key = (QueueType(view.queue).value, level)
                found[key] = min(at, found.get(key, at))
    return found


def _acts(view: WorkerView, incarnation: str) -> bool:
    return not view.fenced and view.info.incarnation == incarnation


def _has_let_go(snapshot: Snapshot, one: StaleMessage, before: float) -> bool:
    """Whether its holder has beaten since and did not name it, or is not known. Of a silent one failover decides."""
    view = snapshot.worker_by_id.get(one.worker)
    if view is None:
        return True
    return _acts(view, one.incarnation) and view.beat is not None and view.beat.at > before
