"""rebalance: one turn of the balancing loop, once, under the lease. `watch` runs the same two functions over and over.

plan_turn    observe → decide             reads only
carry_out    apply → remember → journal   writes, fenced by the leader's term
"""

from collections.abc import Callable
from time import monotonic
from typing import Any
from uuid import uuid4

from morag_queue.broker.contract import Broker
from morag_queue.core.balancing.rebalance import PlannedTurn, rebalance, window_seconds
from morag_queue.core.balancing.state import BalancerState, after_applying
from morag_queue.core.explain.decisions import TaskDecision, decisions
from morag_queue.core.lanes import queue_of, split
from morag_queue.core.model import Frozen, QueueType
from morag_queue.core.plan import Applied, Declined, MoveLane, MoveTask, Plan, Rejected, Step
from morag_queue.core.policy import Queues
from morag_queue.core.routing.lane_readers import is_unsafe
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import Refused
from morag_queue.settings import Settings

from .apply import apply
from .leader import leading

DEPTH = 8
"""Entries of each end of a shared list that are looked at: what one turn can choose from."""


_NAMED = 200
"""Task ids that a journal entry names at most."""


class RebalanceResult(Frozen):
    """What was decided and what became of it. `already` were where the plan wanted them: it had been applied before."""

    plan_id: str
    dry_run: bool
    decisions: tuple[TaskDecision, ...]
    moved_tasks: int = 0
    already: int = 0
    foreign: int = 0
    rejected: tuple[Rejected, ...] = ()
    declined: tuple[Declined, ...] = ()
    seconds: float = 0.0


def plan_turn(
    broker: Broker,
    settings: Settings,
    memory: BalancerState,
    *,
    max_moves: int | None = None,
    only: QueueType | None = None,
) -> PlannedTurn:
    """One picture, one plan. Costs by the fleet, not by the backlog."""
    with broker.translated():
        snapshot, _ = broker.observe(DEPTH)
        windows = broker.windows(snapshot.taken_at, window_seconds(settings.policy))
    return rebalance(
        snapshot, memory, settings.policy, settings.queues, plan_id=str(uuid4()), windows=windows,
        corrections=snapshot.corrections, max_moves=max_moves, only=only,
    )  # fmt: skip


def apply_turn(
    broker: Broker, turn: PlannedTurn, settings: Settings, *, term: str, who: str, verb: str, reason: str = ""
) -> tuple[Applied, BalancerState]:
    """Applies, remembers, and leaves a journal entry where something was changed. Raises LeaseLost on a stale term."""
    applied = apply(broker, turn.plan, term=term)
    memory = after_applying(turn.memory, turn.plan, applied, turn.plan.taken_at, settings.policy.balancing)
    with broker.translated():
        if applied.moved:
            broker.journal.write(
                who, verb, "fleet", reason=reason, plan_id=turn.plan.plan_id, changes=changes(turn.plan, applied)
            )
        broker.state_store.save(memory, term=term)
    return applied, memory


def changes(plan: Plan, applied: Applied) -> dict[str, Any]:
    """What a journal entry keeps of a plan that was applied: counts, and of each task from where to where and why."""
    refused = {one.task_id for one in applied.rejected}
    tasks = {
        step.task_id: [step.source, step.level, step.target, step.to_level, step.reason]
        for step in plan.steps
        if isinstance(step, MoveTask) and step.task_id not in refused
    }
    lanes = [
        [step.source, step.level, step.target, step.count, step.reason]
        for step in plan.steps
        if isinstance(step, MoveLane)
    ]
    return {
        "moved": applied.moved, "already": applied.already, "rejected": len(applied.rejected),
        "foreign": applied.foreign, "tasks": dict(list(tasks.items())[:_NAMED]), "lanes": lanes[:_NAMED],
    }  # fmt: skip


def preview(
    broker: Broker, settings: Settings, *, max_moves: int | None = None, only: QueueType | None = None
) -> tuple[Plan, RebalanceResult]:
    """The plan, and nothing done. Needs no lease."""
    began = monotonic()
    with broker.translated():
        memory = broker.state_store.load()
    plan = plan_turn(broker, settings, memory, max_moves=max_moves, only=only).plan
    return plan, _answer(plan, Applied(plan_id=plan.plan_id), began, dry_run=True)


def run_once(
    broker: Broker,
    settings: Settings,
    *,
    who: str,
    reason: str = "",
    max_moves: int | None = None,
    only: QueueType | None = None,
) -> RebalanceResult:
    """One turn. Raises LeaseHeld where someone leads."""

    def turn_of(memory: BalancerState) -> PlannedTurn:
        return plan_turn(broker, settings, memory, max_moves=max_moves, only=only)

    return _under_lease(broker, settings, turn_of, who, reason)


def run_plan(broker: Broker, settings: Settings, plan: Plan, *, who: str, reason: str = "") -> RebalanceResult:
    """Applies a plan that was made before; what no longer fits is refused, message by message.

    Raises LeaseHeld; Refused where it moves to a worker that is not there.
    """
    snapshot, _ = broker.observe()
    steps = tuple(_checked(step, snapshot, broker.queues) for step in plan.steps)
    checked = plan.model_copy(update={"steps": steps})
    return _under_lease(broker, settings, lambda memory: PlannedTurn(checked, memory), who, reason)


def _checked(step: Step, snapshot: Snapshot, queues: Queues) -> Step:
    """Whoever wrote the file: nothing that needs a GPU enters a lane that a worker without one reads."""
    if not isinstance(step, MoveLane | MoveTask):
        return step
    worker, queue = split(step.target)[1], queue_of(step.target)
    if worker is not None and worker not in snapshot.worker_by_id:
        raise Refused(f"the plan moves to {step.target}, and there is no worker {worker}: nothing was changed")
    if isinstance(step, MoveTask) or queue is None:
        return step
    return step.model_copy(update={"keeps_gpu": step.keeps_gpu or is_unsafe(snapshot, queue, queues)})


def _under_lease(
    broker: Broker, settings: Settings, turn_of: Callable[[BalancerState], PlannedTurn], who: str, reason: str
) -> RebalanceResult:
    began = monotonic()
    with leading(broker, who, "rebalance") as leader:
        with broker.translated():
            memory = broker.state_store.load()
        turn = turn_of(memory)
        applied, _ = apply_turn(broker, turn, settings, term=leader.term, who=who, verb="rebalance", reason=reason)
    return _answer(turn.plan, applied, began, dry_run=False)


def _answer(plan: Plan, applied: Applied, began: float, *, dry_run: bool) -> RebalanceResult:
    return RebalanceResult(
        plan_id=plan.plan_id, dry_run=dry_run, decisions=decisions(plan.steps), moved_tasks=applied.moved,
        already=applied.already, foreign=applied.foreign, rejected=applied.rejected, declined=plan.declined,
        seconds=round(monotonic() - began, 4),
    )  # fmt: skip
