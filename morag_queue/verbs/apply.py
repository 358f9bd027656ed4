"""apply(plan) → Applied: carries a plan out step by step; what no longer fits is refused, and said."""

from typing import assert_never

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.plan import Applied, MoveLane, MoveTask, Plan, Rejected, Resend, TakeBack


def apply(broker: RedisBroker, plan: Plan, *, term: str = "") -> Applied:
    """`term` is that of the caller's lease, if it leads: a leader that was superseded changes nothing."""
    moved = taken_back = resent = quarantined = foreign = 0
    rejected: list[Rejected] = []
    for step in plan.steps:
        match step:
            case MoveLane():
                done = broker.moves.lane(step.source, step.target, step.level, step.count, term=term)
                moved += done.moved
                foreign += done.left
            case MoveTask():
                raise NotImplementedError
            case TakeBack():
                raise NotImplementedError
            case Resend():
                raise NotImplementedError
            case _:
                assert_never(step)
    return Applied(
        plan_id=plan.plan_id, moved=moved, taken_back=taken_back, resent=resent, quarantined=quarantined,
        foreign=foreign, rejected=tuple(rejected),
    )  # fmt: skip
