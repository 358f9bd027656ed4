"""One turn of balancing: the whole policy, as a pure function of a snapshot and of what was remembered.

    1 evacuation         lanes of dead and draining workers, always            evacuate.py
    2 starvation guard   what waited too long, within a share of the slots     guard.py
    3 promotion by age   weighted order only; a level may only get better      guard.py
    4 drain guard        the longest first when a batch ends                   guard.py
    5 spill              work that prefers a GPU, to idle CPUs                 spill.py
    6 return             and back                                              spill.py

Rules 2 to 6 move of their own will, so they share a budget a tick, leave alone what was moved or refused lately, and
after a turn that moved something let the fleet pull for some seconds before they look again. So a turn that follows at
once finds nothing to do, and two that fight each other cannot be.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType
from morag_queue.core.plan import Declined, Plan, Step
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.score_table import Corrections
from morag_queue.core.snapshot import Snapshot

from .context import RuleContext, RuleResult
from .evacuate import evacuate
from .promote import promote_aged, promote_starving, start_longest_first
from .spill import spill, unspill
from .state import BalancerState, settling

VERB = "rebalance"


Rule = Callable[[RuleContext, Collection[str], int], RuleResult]


VOLUNTARY: tuple[Rule, ...] = (promote_starving, promote_aged, start_longest_first, spill, unspill)


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """What to do, and what to keep in mind until the next turn. After applying the plan see `memory.remembered`."""

    plan: Plan
    memory: BalancerState


def rebalance(
    snapshot: Snapshot,
    memory: BalancerState,
    policy: Policy,
    queues: Queues,
    *,
    plan_id: str,
    windows: Mapping[QueueType, Window] | None = None,
    corrections: Corrections | None = None,
    max_moves: int | None = None,
    only: QueueType | None = None,
) -> PlannedTurn:
    """Plans one turn. `windows` are the figures of the last `ending_ticks` ticks (`window_seconds`).

    `max_moves` replaces the budget of this tick, `only` looks at the lanes of one queue.
    """
    context = RuleContext(snapshot, memory, policy, queues, windows or {}, corrections, only)
    forced = evacuate(context)
    pause = settling(context.memory, context.now, policy.balancing)
    if pause:
        why = f"nothing more is moved while the last moves settle, for {pause:.1f} s"
        chosen = RuleResult(declined=(Declined(subject="this turn", reason=why),))
    else:
        chosen = voluntary(context, forced.task_ids, _budget(context) if max_moves is None else max_moves)
    plan = Plan(
        plan_id=plan_id, verb=VERB, fleet=snapshot.fleet, taken_at=snapshot.taken_at,
        steps=forced.steps + chosen.steps, declined=forced.declined + chosen.declined,
    )  # fmt: skip
    acted = {"acted_at": context.now} if plan.steps else {}
    return PlannedTurn(plan, context.memory.model_copy(update={**chosen.changes, **acted}))


def window_seconds(policy: Policy) -> float:
    """How far back the rules look at what arrived."""
    return policy.balancing.ending_ticks * policy.balancing.interval_seconds


def voluntary(context: RuleContext, taken: Collection[str], budget: int) -> RuleResult:
    """Rules 2 to 6 in their order, at most `budget` moves in all; a task that one rule has taken is no other's."""
    chosen, changes = set(taken), dict[str, Any]()
    steps: list[Step] = []
    declined: list[Declined] = []
    for rule in VOLUNTARY:
        ruling = rule(context, chosen, max(budget - len(steps), 0))
        steps += ruling.steps
        declined += ruling.declined
        chosen |= ruling.task_ids
        changes |= ruling.changes
    changes["tick_moves"] = context.memory.tick_moves + len(steps)
    if len(steps) >= budget:
        declined.append(Declined(subject="this turn", reason=f"the budget of {max(budget, 0)} moves is used up"))
    return RuleResult(tuple(steps), tuple(declined), changes)


def _budget(context: RuleContext) -> int:
    """What is left of this tick's."""
    balancing = context.policy.balancing
    a_tick = max(balancing.moves_min, int(len(context.snapshot.workers) * balancing.moves_per_worker))
    return a_tick - context.memory.tick_moves
