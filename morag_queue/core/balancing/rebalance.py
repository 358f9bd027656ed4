"""One turn of balancing: the whole policy, as a pure function of a snapshot and the balancer's state.

    1 evacuation         empties the lanes of dead and draining workers, always                evacuate
    2 starvation guard   promotes entries that waited too long, within a share of the slots    promote.py
    3 promotion by age   weighted order only: improves the level of entries that have waited   promote.py
    4 drain guard        starts the longest tasks first when a batch ends                      promote.py
    5 spill              moves work that prefers a GPU to idle CPUs                            spill.py
    6 return             moves spilled work back to the GPUs                                   spill.py

Rules 2 to 6 plan optional moves: they share a budget per tick, skip tasks that were moved or rejected recently, and
pause for some seconds after a turn that moved something, until workers have claimed tasks. So a turn that follows
immediately plans nothing, and two turns cannot undo each other's moves.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType
from morag_queue.core.plan import Declined, Plan, Step, plan_of
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.empty_lanes import empty_lanes
from morag_queue.core.routing.score_table import Corrections
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.words import count_of

from .context import RuleContext, RuleResult
from .promote import promote_aged, promote_starving, start_longest_first
from .spill import spill, unspill
from .state import BalancerState, settling

VERB = "rebalance"
EVACUATE = "evacuation"

Rule = Callable[[RuleContext, Collection[str], int], RuleResult]

OPTIONAL: tuple[Rule, ...] = (promote_starving, promote_aged, start_longest_first, spill, unspill)


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """The plan, and the state to keep until the next turn; `after_applying` completes the state."""

    plan: Plan
    state: BalancerState


def plan_rebalance(
    snapshot: Snapshot,
    policy: Policy,
    queues: Queues,
    state: BalancerState,
    *,
    plan_id: str,
    windows: Mapping[QueueType, Window] | None = None,
    corrections: Corrections | None = None,
    max_moves: int | None = None,
    only: QueueType | None = None,
) -> TurnPlan:
    """Plan one turn. `windows` has the counts of the last `window_seconds`, by queue.

    `max_moves` replaces the budget of this tick, `only` limits the turn to the lanes of one queue.
    """
    context = RuleContext(snapshot, state, policy, queues, windows or {}, corrections, only)
    mandatory = evacuate(context)
    pause = settling(context.state, context.now, policy.balancing)
    if pause:
        reason = f"no optional moves for {pause:.1f} s, until the last moves have settled"
        optional = RuleResult(declined=(Declined(subject="this turn", reason=reason),))
    else:
        budget = _remaining_budget(context) if max_moves is None else max_moves
        optional = _optional_moves(context, mandatory.task_ids, budget)
    parts = (*mandatory.steps, *optional.steps, *mandatory.declined, *optional.declined)
    plan = plan_of(VERB, snapshot, parts, plan_id=plan_id)
    acted = {"acted_at": context.now} if plan.steps else {}
    return TurnPlan(plan, context.state.model_copy(update={**optional.changes, **acted}))


def window_seconds(policy: Policy) -> float:
    """Return the time in seconds for which the rules count arrivals."""
    return policy.balancing.ending_ticks * policy.balancing.interval_seconds


def evacuate(context: RuleContext) -> RuleResult:
    """Empty the lanes of dead and draining workers. This mandatory rule uses none of the budget."""
    parts: list[Step | Declined] = []
    for view, reason in context.capacity.leaving:
        parts += empty_lanes(
            context.snapshot, view.worker, context.readers, f"{EVACUATE}: {reason}", only=context.only, rule=EVACUATE
        )
    return RuleResult(
        steps=tuple(part for part in parts if not isinstance(part, Declined)),
        declined=tuple(part for part in parts if isinstance(part, Declined)),
    )


def _optional_moves(context: RuleContext, moved: Collection[str], budget: int) -> RuleResult:
    """Apply rules 2 to 6 in their order, for up to `budget` moves in total.

    `moved` are tasks that the plan moves already; no task is moved by two rules.
    """
    chosen, changes = set(moved), dict[str, Any]()
    steps: list[Step] = []
    declined: list[Declined] = []
    for rule in OPTIONAL:
        result = rule(context, chosen, max(budget - len(steps), 0))
        steps += result.steps
        declined += result.declined
        chosen |= result.task_ids
        changes |= result.changes
    changes["tick_moves"] = context.state.tick_moves + len(steps)
    if len(steps) >= budget:
        declined.append(
            Declined(subject="this turn", reason=f"the budget of {count_of(max(budget, 0), 'move')} is used up")
        )
    return RuleResult(tuple(steps), tuple(declined), changes)


def _remaining_budget(context: RuleContext) -> int:
    """Return the moves that remain of this tick's budget."""
    balancing = context.policy.balancing
    per_tick = max(balancing.moves_min, int(len(context.snapshot.workers) * balancing.moves_per_worker))
    return per_tick - context.state.tick_moves
