"""Proving that a worker is dead, and what is done with what it leaves behind.

Proof, not guesswork: a broker lists the connections of a killed process no more within milliseconds, while a stopped or
a busy one stays in the list however long it is silent. So absence proves, and silence does not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .drain import own_lanes
from .failure import Strategy, delay_seconds, eta, remedy
from .lanes import lane, queue_of
from .model import Held, QueueType
from .plan import Declined, Plan, Step, TakeBack
from .policy import Policy, Queues
from .readers import fallbacks
from .snapshot import Snapshot, WorkerView
from .status import SERVING, status_in


class Life(StrEnum):
    """`unproven`: it is silent, and nothing proves that it is dead. `unknown`: nobody registered in that name."""

    DEAD = "dead"
    ALIVE = "alive"
    UNPROVEN = "unproven"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Signs:
    """What was seen of a worker besides its beat.

    `answered` is None where it was not asked; `process_is_gone` is only ever seen on the worker's own machine.
    """

    connections: int = 0
    answered: bool | None = None
    process_is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    worker: str
    life: Life
    evidence: tuple[str, ...]


def judge(worker: str, view: WorkerView | None, signs: Signs, now: float) -> Judgement:
    """Whether a worker is dead, and why that is believed. `now` is the server's clock."""
    answer = {True: "it answers on the control channel", False: "no answer on the control channel"}.get(
        signs.answered  # type: ignore[arg-type]
    )
    if view is None:
        evidence = ("it has not registered: it runs without the agent, or not at all", *filter(None, [answer]))
        return Judgement(worker, Life.ALIVE if signs.answered else Life.UNKNOWN, evidence)
    if view.fenced:
        return Judgement(worker, Life.DEAD, ("it was fenced by an earlier failover and has not come back",))
    beat, age = _beat(view, now)
    if not signs.connections and view.info.client_name:
        listed = f"no connection named {view.info.client_name} in CLIENT LIST"
        gone = f"its process {view.info.pid} is gone from this machine" if signs.process_is_gone else None
        return Judgement(worker, Life.DEAD, tuple(filter(None, [listed, gone, beat, answer])))
    listed = f"{signs.connections} connections named {view.info.client_name} in CLIENT LIST"
    lively = signs.answered or (age is not None and age <= 2 * view.info.beat_seconds)
    return Judgement(worker, Life.ALIVE if lively else Life.UNPROVEN, tuple(filter(None, [listed, beat, answer])))


def is_due(snapshot: Snapshot, view: WorkerView, policy: Policy) -> bool:
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


def plan_failover(
    snapshot: Snapshot,
    workers: Iterable[str],
    policy: Policy,
    queues: Queues,
    *,
    plan_id: str,
    attempts: Mapping[str, int],
    why: str = "it is dead",
) -> Plan:
    """What these workers held goes back first in line, what waits in their lanes behind what waits for everybody.

    `attempts` is how often each task in their hands was taken back before, by task id. They are dead or fenced: to find
    that out, and to make it so, is the caller's part.
    """
    gone = set(workers)
    steps: list[Step] = []
    targets, declined = _targets(snapshot, gone, policy, queues)
    for worker in sorted(gone):
        held = snapshot.held_by_worker.get(worker, ())
        steps += take_backs(held, snapshot.taken_at, policy, attempts, targets, f"{worker}: {why}")
        steps += own_lanes(snapshot, worker, queues, f"{worker}: {why}", targets)
    return Plan(
        plan_id=plan_id, verb="failover", fleet=snapshot.fleet, taken_at=snapshot.taken_at, steps=tuple(steps),
        declined=declined,
    )  # fmt: skip


def take_backs(
    held: Iterable[Held],
    now: float,
    policy: Policy,
    attempts: Mapping[str, int],
    targets: Mapping[QueueType, QueueType],
    reason: str,
) -> Iterator[TakeBack]:
    """Each goes before what waits, so the one that was taken first comes last here, and is the first again."""
    for one in sorted(held, key=lambda one: one.claimed_at)[::-1]:  # a tie is in the order of taking
        before = attempts.get(one.task_id, 0)
        queue = queue_of(one.lane)
        delayed = remedy(before, policy.max_retries) is Strategy.RETRY_WITH_DELAY
        yield TakeBack(
            task_id=one.task_id,
            tag=one.tag,
            worker=one.worker,
            incarnation=one.incarnation,
            target=lane(targets.get(queue, queue)) if queue else one.lane,
            level=one.level,
            reason=reason,
            max_deaths=policy.max_retries,
            eta=eta(now + delay_seconds(before, policy.recovery)) if delayed else "",
        )


def _targets(
    snapshot: Snapshot, gone: set[str], policy: Policy, queues: Queues
) -> tuple[Mapping[QueueType, QueueType], tuple[Declined, ...]]:
    """Where the work of each queue goes: where it is, or to the fallback that is served when nobody serves that.

    Of a message in bulk it is not known what it needs: work of a GPU queue goes to queues with a GPU only.
    """

    def is_served(queue: QueueType) -> bool:
        readers = (view for view in snapshot.workers if queue.value in view.info.queues and view.worker not in gone)
        return any(status_in(snapshot, view, policy)[0] in SERVING for view in readers)

    targets: dict[QueueType, QueueType] = {}
    declined: list[Declined] = []
    for queue in {view.queue for worker in gone for view in snapshot.lanes_by_worker.get(worker, ()) if view.length}:
        needs_gpu = _is_gpu_only(queue, queues)
        chain = [one for one in fallbacks(queue, queues) if not needs_gpu or _is_gpu_only(one, queues)]
        target = next((one for one in chain if is_served(one)), None)
        if target is None:
            declined.append(Declined(subject=queue, reason="nobody serves it any more: its work waits"))
        elif target is not queue:
            targets[queue] = target
    return targets, tuple(declined)


def _is_gpu_only(queue: QueueType, queues: Queues) -> bool:
    return all(capability.has_gpu for capability in queues.of(queue).served_by)


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
