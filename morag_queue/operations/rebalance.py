"""rebalance: one turn of the balancing loop, under the lease. `watch` repeats the same two functions.

plan_turn    observe → plan                     only reads
apply_turn   journal → apply → journal → save   writes, fenced by the leader's term
"""

from collections.abc import Collection
from time import monotonic
from typing import Any
from uuid import uuid4

from morag_queue.broker.contract import Broker
from morag_queue.core.balancing.rebalance import VERB, TurnPlan, plan_rebalance, window_seconds
from morag_queue.core.balancing.state import BalancerState, after_applying
from morag_queue.core.explain.decisions import TaskDecision, decisions
from morag_queue.core.lanes import split
from morag_queue.core.model import Frozen, QueueType
from morag_queue.core.plan import Applied, Declined, MoveLane, MoveTask, Plan, Rejected, Step
from morag_queue.core.routing.gpu_safety import is_unsafe_lane
from morag_queue.core.routing.lane_readers import LaneReaders, readers_in
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import Refused
from morag_queue.settings import Settings

from .apply import apply
from .change import Change
from .leader import leading

DEPTH = 8
"""Entries read from each end of a shared list: the candidates of one turn."""

_NAMED_TASKS = 200
"""Task ids that a journal entry names at most."""


class RebalanceResult(Frozen):
    """The planned decisions and the counts of the applied ones.

    `already` counts tasks that were at their target before, `foreign` messages that are not of the expected form.
    """

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
    state: BalancerState,
    *,
    snapshot: Snapshot | None = None,
    max_moves: int | None = None,
    only: QueueType | None = None,
) -> TurnPlan:
    """Plan one turn on this snapshot, or on a new one. The cost depends on the fleet, not on the backlog."""
    with broker.translated():
        snapshot = broker.observe(DEPTH)[0] if snapshot is None else snapshot
        windows = broker.windows(snapshot.taken_at, window_seconds(settings.policy))
    return plan_rebalance(
        snapshot, settings.policy, settings.queues, state, plan_id=str(uuid4()), windows=windows,
        corrections=snapshot.corrections, max_moves=max_moves, only=only,
    )  # fmt: skip


def apply_turn(
    broker: Broker, turn: TurnPlan, settings: Settings, *, term: str, who: str, verb: str, reason: str = ""
) -> tuple[Applied, BalancerState]:
    """Apply the plan and save the state, with an entry in the journal if anything moves.

    The entry names the planned moves before they are made. Raises LeaseLost on a stale term.
    """
    change = Change(broker, verb, who=who, reason=reason, change_id=turn.plan.plan_id, term=term)
    if turn.plan.steps:
        change.begin("fleet", _planned_moves(turn.plan))
    applied = apply(broker, turn.plan, term=term)
    if applied.moved:
        change.finish("fleet", _journal_changes(turn.plan, applied))
    else:
        change.withdraw()
    state = after_applying(turn.state, turn.plan, applied, turn.plan.taken_at, settings.policy.balancing)
    with broker.translated():
        broker.state_store.save(state, term=term)
    return applied, state


def _journal_changes(plan: Plan, applied: Applied) -> dict[str, Any]:
    """Return the changes of a journal entry: counts, and the moves."""
    counts = {"already": applied.already, "rejected": len(applied.rejected), "foreign": applied.foreign}
    return {"moved": applied.moved, **counts, **_planned_moves(plan, {refusal.task_id for refusal in applied.rejected})}


def _planned_moves(plan: Plan, rejected: Collection[str] = ()) -> dict[str, Any]:
    """Return for each task its source, target and reason, and the same for each lane."""
    tasks = {
        step.task_id: [step.source, step.level, step.target, step.to_level, step.reason]
        for step in plan.steps
        if isinstance(step, MoveTask) and step.task_id not in rejected
    }
    lanes = [
        [step.source, step.level, step.target, step.count, step.reason]
        for step in plan.steps
        if isinstance(step, MoveLane)
    ]
    return {"tasks": dict(list(tasks.items())[:_NAMED_TASKS]), "lanes": lanes[:_NAMED_TASKS]}


def preview(
    broker: Broker, settings: Settings, *, max_moves: int | None = None, only: QueueType | None = None
) -> tuple[Plan, RebalanceResult]:
    """Plan one turn without applying it. Needs no lease."""
    began = monotonic()
    plan = plan_turn(broker, settings, _load_state(broker), max_moves=max_moves, only=only).plan
    return plan, _result(plan, Applied(plan_id=plan.plan_id), began, dry_run=True)


def run_once(
    broker: Broker,
    settings: Settings,
    *,
    who: str,
    reason: str = "",
    max_moves: int | None = None,
    only: QueueType | None = None,
) -> RebalanceResult:
    """Plan and apply one turn. Raises LeaseHeld while another process leads."""
    began = monotonic()
    with leading(broker, who, VERB) as leader:
        turn = plan_turn(broker, settings, _load_state(broker), max_moves=max_moves, only=only)
        applied, _ = apply_turn(broker, turn, settings, term=leader.term, who=who, verb=VERB, reason=reason)
    return _result(turn.plan, applied, began, dry_run=False)


def run_plan(broker: Broker, settings: Settings, plan: Plan, *, who: str, reason: str = "") -> RebalanceResult:
    """Apply a plan that was made before; steps that no longer fit are rejected message by message.

    Raises LeaseHeld, and Refused if the plan moves work to a worker that is not registered.
    """
    began = monotonic()
    snapshot, _ = broker.observe()
    readers = readers_in(snapshot, broker.queues)
    steps = tuple(_checked(step, snapshot, readers) for step in plan.steps)
    checked = plan.model_copy(update={"steps": steps})
    with leading(broker, who, VERB) as leader:
        turn = TurnPlan(checked, _load_state(broker))
        applied, _ = apply_turn(broker, turn, settings, term=leader.term, who=who, verb=VERB, reason=reason)
    return _result(checked, applied, began, dry_run=False)


def _checked(step: Step, snapshot: Snapshot, readers: LaneReaders) -> Step:
    """Apply the GPU safety rule of the present fleet to a step: the plan may come from another version or fleet state.

    Raises Refused for a target worker that is not registered.
    """
    if not isinstance(step, MoveLane | MoveTask):
        return step
    worker = split(step.target)[1]
    if worker is not None and worker not in snapshot.worker_by_id:
        raise Refused(f"the plan moves work to {step.target}, but {worker} is not registered: nothing was changed")
    return step.model_copy(update={"keeps_gpu": is_unsafe_lane(step.target, readers.unsafe)})


def _load_state(broker: Broker) -> BalancerState:
    with broker.translated():
        return broker.state_store.load()


def _result(plan: Plan, applied: Applied, began: float, *, dry_run: bool) -> RebalanceResult:
    return RebalanceResult(
        plan_id=plan.plan_id, dry_run=dry_run, decisions=decisions(plan.steps), moved_tasks=applied.moved,
        already=applied.already, foreign=applied.foreign, rejected=applied.rejected, declined=plan.declined,
        seconds=round(monotonic() - began, 4),
    )  # fmt: skip
