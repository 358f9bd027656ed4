"""apply(plan) → Applied: carries a plan out step by step; what no longer fits is refused, and said."""

from itertools import groupby
from typing import Any, assert_never

from morag_queue.broker.client import translated
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.plan import Applied, MoveLane, MoveTask, Plan, Rejected, Resend, TakeBack

from .recover import resend, take_back


def apply(broker: RedisBroker, plan: Plan, *, term: str = "") -> Applied:
    """`term` is that of the caller's lease, if it leads: a leader that was superseded changes nothing."""
    moved = taken_back = resent = quarantined = foreign = 0
    rejected: list[Rejected] = []
    with translated(broker.settings.redis_url):
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
                case MoveTask():
                    raise NotImplementedError
                case TakeBack():
                    back, buried, refused = take_back(broker, steps, term)
                    taken_back, quarantined, rejected = taken_back + back, quarantined + buried, rejected + refused
                case Resend():
                    again, buried, refused = resend(broker, steps, term)
                    resent, quarantined, rejected = resent + again, quarantined + buried, rejected + refused
                case unknown:
                    assert_never(unknown)
    return Applied(
        plan_id=plan.plan_id, moved=moved, taken_back=taken_back, resent=resent, quarantined=quarantined,
        foreign=foreign, rejected=tuple(rejected),
    )  # fmt: skip
