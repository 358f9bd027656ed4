"""Builders of lanes for the tests of balancing: `waiting(GPU_FALLBACK, {4: [entry("oldest"), entry("b")]})`."""

from collections.abc import Mapping, Sequence

from morag_queue.core.balancing.rebalance import TurnPlan, plan_rebalance
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.lanes import lane
from morag_queue.core.model import QueuePriority, QueueType, Requires
from morag_queue.core.plan import Plan
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import LaneEntry, LaneView, Snapshot
from tests.core.fleets import NOW


def entry(
    task_id: str,
    requires: str = "cpu",
    *,
    minutes: float = 1.0,
    waited: float = 1.0,
    priority: str = "NORMAL",
    queue: QueueType | None = None,
) -> LaneEntry:
    """Return a lane entry. `minutes` is at factor 1, `waited` in minutes, `queue` the queue of its submission."""
    return LaneEntry(task_id, Requires(requires), QueuePriority[priority], minutes, NOW - waited * 60, None, queue)


def waiting(
    queue: QueueType,
    levels: Mapping[int, Sequence[LaneEntry]],
    worker: str | None = None,
    more: int = 0,
    depth: int = 16,
) -> LaneView:
    """Return a lane with these entries by level, and `more` messages outside the snapshot at each of these levels."""
    rows = [tuple(levels.get(n, ())) for n in range(10)]
    return LaneView(
        lane=lane(queue, worker),
        queue=queue,
        worker=worker,
        lengths=tuple(len(row) + (more if row else 0) for row in rows),
        oldest_enqueued_at=tuple(row[0].enqueued_at if row else None for row in rows),
        heads=tuple(row[:depth] for row in rows),
        tails=tuple(row[: -depth - 1 : -1] for row in rows),
    )


def turn(
    snapshot: Snapshot, state: BalancerState | None = None, policy: Policy | None = None, **more: object
) -> TurnPlan:
    return plan_rebalance(snapshot, policy or Policy(), Queues(), state or BalancerState(), plan_id="p", **more)  # type: ignore[arg-type]


def moves(plan: Plan) -> list[str]:
    """Return the moves as text: `a gpu_fallback/5 → cpu_standard/5`; for a whole lane its length instead of an id."""
    return [
        f"{step.task_id} {step.source}/{step.level} → {step.target}/{step.to_level}"
        if step.kind == "move_task"
        else f"{step.count} {step.source}/{step.level} → {step.target}/{step.target_level}"
        for step in plan.steps
        if step.kind in ("move_task", "move_lane")
    ]


def why_not(plan: Plan, subject: str) -> list[str]:
    """Return why the plan does not move a task."""
    return [declined.reason for declined in plan.declined if declined.subject in (subject, f"task {subject}")]
