"""One turn of balancing: the whole policy, as a pure function of a snapshot and the balancer's state.

    1 evacuation         empties the lanes of dead and draining workers, always     here
    2 starvation guard   promotes what waited too long, within a share of slots     promote.py
    3 promotion by age   weighted order only; a level only gets better              promote.py
    4 drain guard        starts the longest tasks first when a batch ends           promote.py
    5 spill              work that prefers a GPU goes to idle CPUs                  spill.py
    6 return             spilled work goes back to the GPUs                         spill.py

Rules 2 to 6 are optional moves: they share a budget per tick, skip what was moved or rejected recently, and pause for
some seconds after a turn that moved something, so that the fleet can pull first. A turn that follows at once finds
nothing to do, and two turns cannot undo each other.
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
    """The plan, and the state to keep until the next turn; `state.after_applying` completes it once applied."""

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
    """Plan one turn. `windows` hold the counts of the last `window_seconds`, by queue.

    `max_moves` replaces the budget of this tick, `only` limits the turn to the lanes of one queue.
    """
    context = RuleContext(snapshot, state, policy, queues, windows or {}, corrections, only)
    forced = evacuate(context)
    pause = settling(context.state, context.now, policy.balancing)
    if pause:
        why = f"nothing more is moved while the last moves settle, for {pause:.1f} s"
        chosen = RuleResult(declined=(Declined(subject="this turn", reason=why),))
    else:
        chosen = _optional(context, forced.task_ids, _budget(context) if max_moves is None else max_moves)
    parts = (*forced.steps, *chosen.steps, *forced.declined, *chosen.declined)
    plan = plan_of(VERB, snapshot, parts, plan_id=plan_id)
    acted = {"acted_at": context.now} if plan.steps else {}
    return TurnPlan(plan, context.state.model_copy(update={**chosen.changes, **acted}))


def window_seconds(policy: Policy) -> float:
    """How far back the rules look at arrivals, in seconds."""
    return policy.balancing.ending_ticks * policy.balancing.interval_seconds


def evacuate(context: RuleContext) -> RuleResult:
    """Empty the lanes of dead and draining workers; it spends nothing of the budget."""
    parts: list[Step | Declined] = []
    for view, reason in context.capacity.leaving:
        parts += empty_lanes(
            context.snapshot, view.worker, context.readers, f"{EVACUATE}: {reason}", only=context.only, rule=EVACUATE
        )
    return RuleResult(
        steps=tuple(part for part in parts if not isinstance(part, Declined)),
        declined=tuple(part for part in parts if isinstance(part, Declined)),
    )


def _optional(context: RuleContext, taken: Collection[str], budget: int) -> RuleResult:
    """Rules 2 to 6 in their order, at most `budget` moves in all; no task is moved by two rules."""
    chosen, changes = set(taken), dict[str, Any]()
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
        declined.append(Declined(subject="this turn", reason=f"the budget of {max(budget, 0)} moves is used up"))
    return RuleResult(tuple(steps), tuple(declined), changes)


def _budget(context: RuleContext) -> int:
    """The moves that remain of this tick's budget."""
    balancing = context.policy.balancing
    per_tick = max(balancing.moves_min, int(len(context.snapshot.workers) * balancing.moves_per_worker))
    return per_tick - context.state.tick_moves
