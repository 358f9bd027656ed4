"""apply(plan) → Applied: carries a plan out step by step; what no longer fits is refused, and said."""

from itertools import groupby
from typing import Any, assert_never

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.plan import Applied, MoveLane, MoveTask, Plan, Rejected, Resend, TakeBack
from morag_queue.ports import Broker

from .moving import move_tasks, need_a_gpu
from .recover import resend, take_back


def apply(broker: Broker, plan: Plan, *, term: str = "") -> Applied:
    """`term` is that of the caller's lease, if it leads: a leader that was superseded changes nothing."""
    moved = already = taken_back = resent = quarantined = foreign = 0
    rejected: list[Rejected] = []
    with broker.translated():
        for _, run in groupby(plan.steps, key=type):
            steps: list[Any] = list(run)
            match steps[0]:
                case MoveLane():
                    for step in steps:
                        done = broker.moves.lane(
                            step.source, step.target, step.level, step.count, term=term, keeps_gpu=step.keeps_gpu
                        )
                        moved += done.moved
                        foreign += done.left
                        rejected += need_a_gpu(step, done.need_gpu)
                case MoveTask():
                    chosen, there, refused = move_tasks(broker, steps, term)
                    moved, already, rejected = moved + chosen, already + there, rejected + refused
                case TakeBack():
                    back, buried, refused = take_back(_recovering(broker), steps, term)
                    taken_back, quarantined, rejected = taken_back + back, quarantined + buried, rejected + refused
                case Resend():
                    again, buried, refused = resend(_recovering(broker), steps, term)
                    resent, quarantined, rejected = resent + again, quarantined + buried, rejected + refused
                case unknown:
                    assert_never(unknown)
    return Applied(
        plan_id=plan.plan_id, moved=moved, already=already, taken_back=taken_back, resent=resent,
        quarantined=quarantined, foreign=foreign, rejected=tuple(rejected),
    )  # fmt: skip


def _recovering(broker: Broker) -> RedisBroker:
    """To take back and to send again is more than the port knows: owners, attempts, quarantine."""
    if not isinstance(broker, RedisBroker):
        raise TypeError(f"recovery needs the real broker, not {type(broker).__name__}")
    return broker
