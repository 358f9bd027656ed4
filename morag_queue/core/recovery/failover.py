"""Proving that a worker is dead, and what is done with what it leaves behind.

Proof, not guesswork: a broker lists the connections of a killed process no more within milliseconds, while a stopped or
a busy one stays in the list however long it is silent. So absence proves, and silence does not.
"""

from collections.abc import Iterable, Iterator, Mapping

from morag_queue.core.failure import RetryDecision, delay_seconds, eta, retry_decision
from morag_queue.core.lanes import lane, queue_of
from morag_queue.core.model import HeldMessage, QueueType
from morag_queue.core.plan import Declined, Plan, Step, TakeBack
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import fallbacks
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.worker_status import SERVING, status_in

from .drain import own_lanes


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
    held: Iterable[HeldMessage],
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
        delayed = retry_decision(before, policy.max_retries) is RetryDecision.RETRY_WITH_DELAY
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
