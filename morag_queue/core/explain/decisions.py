"""The steps of a plan as decisions for JSON output, and in words."""

from collections.abc import Iterable
from typing import assert_never

from morag_queue.core.balancing.spill import SPILL
from morag_queue.core.lanes import split
from morag_queue.core.model import DecisionAction, LoadBalancingDecision, QueueType
from morag_queue.core.plan import MoveLane, MoveTask, Resend, Step, TakeBack


class TaskDecision(LoadBalancingDecision):
    """One planned move. For a whole lane `task_id` is None and `tasks` is its length at the time of planning."""

    task_id: str | None
    tasks: int
    rule: str
    source_lane: str
    target_lane: str
    source_level: int
    target_level: int


def decisions(steps: Iterable[Step]) -> tuple[TaskDecision, ...]:
    """Return one decision per move, in the order of the steps. Moved work is bound late, so no worker is named."""
    return tuple(_decision(step) for step in steps if isinstance(step, MoveTask | MoveLane))


def describe_step(step: Step) -> str:
    """Return what a step does, in one line."""
    match step:
        case MoveLane():
            level = f" at level {step.to_level}" if step.to_level is not None else ""
            return f"{step.count} of {step.source} at level {step.level} → {step.target}{level}"
        case MoveTask():
            return f"{step.task_id} in {step.source} → {step.target} at level {step.to_level}"
        case TakeBack():
            return f"{step.task_id} held by {step.worker or 'no known worker'} → {step.target} at level {step.level}"
        case Resend():
            return f"{step.task_id}, which has no message on the broker, is sent again"
        case unknown:
            assert_never(unknown)


def _decision(step: MoveTask | MoveLane) -> TaskDecision:
    fields = (
        {
            "confidence": step.confidence, "estimated_improvement": step.estimated_improvement,
            "task_id": step.task_id, "tasks": 1, "target_level": step.to_level,
        }
        if isinstance(step, MoveTask)
        else {"confidence": 1.0, "task_id": None, "tasks": step.count, "target_level": step.target_level}
    )  # fmt: skip
    return TaskDecision.model_validate(
        {
            "action": DecisionAction.FALLBACK if step.rule == SPILL else DecisionAction.REDISTRIBUTE,
            "source_queue": QueueType(split(step.source)[0]),
            "target_queue": QueueType(split(step.target)[0]),
            "worker_id": None,
            "reason": step.reason,
            "rule": step.rule,
            "source_lane": step.source,
            "target_lane": step.target,
            "source_level": step.level,
            **fields,
        }
    )
