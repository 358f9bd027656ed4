"""Rules that bring an entry forward in its own lane: what would starve, what has aged, what would end a batch late."""

from collections.abc import Collection

from morag_queue.core.plan import Declined, MoveTask
from morag_queue.core.policy import Order

from .context import Candidate, RuleContext, RuleResult
from .state import Pool

STARVING, AGED, ENDING = "starvation guard", "promotion by age", "drain guard"


def promote_starving(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """Who has waited longer than its priority should have to goes to the front, at the cost of at most 5 % of a pool.

    The cost is counted in work, not in tasks: counted in tasks, an overloaded fleet would fall back to first in, first
    out. Each pool saves up slot-seconds (`Memory.tokens`), and the one that is longest over its time goes first.
    """
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    tokens = {pool: context.memory.tokens.get(pool, 0.0) for pool in Pool}
    for pool in Pool:
        waiting = [
            (overdue, one)
            for one in context.candidates(context.of_pool(pool))
            if (overdue := _overdue(context, one)) > 1 and one.level > context.lifted[one.lane.queue]
        ]
        for overdue, one in sorted(waiting, key=lambda row: (-row[0], *row[1].tie)):
            if tokens[pool] <= 0:
                reason = f"starvation guard: the {pool.value} pool has used up its share of slots for this"
                declined.append(Declined(subject=one.where, reason=reason))
            elif why := context.resting(one.head, chosen):
                declined.append(Declined(subject=one.where, reason=f"starvation guard: {why}"))
            elif len(steps) < limit:
                patience = context.patience[one.head.priority] / 60
                waited = f"{overdue * patience:.0f} min, {one.head.priority.name} should wait at most {patience:g}"
                steps.append(_brought_forward(context, one, pool, STARVING, f"it has waited {waited}"))
                tokens[pool] -= one.seconds
    return RuleResult(tuple(steps), tuple(declined), {"tokens": tokens})


def promote_aged(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """In weighted order a wait counts: an entry whose level would be a better one by now gets it. Never a worse one.

    In strict order levels do not depend on age, and what waits too long is the starvation guard's.
    """
    if context.policy.order is not Order.WEIGHTED:
        return RuleResult()
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    better = [
        (level, pool, one)
        for pool in Pool
        for one in context.candidates(context.of_pool(pool))
        if (level := context.level(one.head, one.lane.queue)) < one.level
    ]
    for level, pool, one in sorted(better, key=lambda row: (row[0] - row[2].level, *row[2].tie)):
        if why := context.resting(one.head, chosen):
            declined.append(Declined(subject=one.where, reason=f"promotion by age: {why}"))
        elif len(steps) < limit:
            waited = (context.now - one.head.enqueued_at) / 60
            reason = f"after {waited:.0f} min of waiting it belongs to level {level}"
            steps.append(_brought_forward(context, one, pool, AGED, reason, level))
    return RuleResult(tuple(steps), tuple(declined))


def start_longest_first(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """When a batch comes to its end, what takes longer than all the rest together must not be begun last.

    A pool is at the end of a batch while less new work arrives than a fifth of what it can do. Then its longest entries
    go to the front, a few a tick.
    """
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    done = {pool: context.memory.tick_long.get(pool, 0) for pool in Pool}
    for pool in Pool:
        slots = context.capacity.slots[pool]
        if not slots or _arriving(context, pool) >= context.policy.balancing.ending_share:
            continue
        rest = context.queued[pool][-1] / slots
        allowed = max(1, slots // context.policy.balancing.slots_per_long_task)
        for one in _long(context, pool, rest):
            if why := context.resting(one.head, chosen):
                declined.append(Declined(subject=one.where, reason=f"drain guard: {why}"))
            elif done[pool] >= allowed:
                reason = f"drain guard: enough long tasks of the {pool.value} pool were brought forward in this tick"
                declined.append(Declined(subject=one.where, reason=reason))
            elif len(steps) < limit:
                done[pool] += 1
                reason = (
                    f"it takes {one.seconds / 60:.0f} min, all that waits {rest / 60:.0f} min of the {pool.value} pool"
                )
                steps.append(_brought_forward(context, one, pool, ENDING, reason))
    return RuleResult(tuple(steps), tuple(declined), {"tick_long": done})


def _overdue(context: RuleContext, one: Candidate) -> float:
    """The wait as a multiple of what the priority should have to wait."""
    if not one.head.enqueued_at:
        return 0.0
    return (context.now - one.head.enqueued_at) / context.patience[one.head.priority]


def _arriving(context: RuleContext, pool: Pool) -> float:
    """New work of the last ticks as a share of what the pool could do in that time."""
    windows = [(queue, context.windows[queue]) for queue in context.of_pool(pool) if queue in context.windows]
    able = max((window.seconds for _, window in windows), default=0.0) * context.capacity.slots[pool]
    return sum(window.arrivals * context.pace(queue) for queue, window in windows) / able if able else 0.0


def _long(context: RuleContext, pool: Pool, rest: float) -> list[Candidate]:
    """The entries that outlast all that waits, and that something else would be begun before; the longest first."""
    lengths = [view.lengths for queue, view in context.shared.items() if context.pools[queue] is pool]
    shortest = max(rest, context.policy.balancing.long_seconds)
    found = [
        one
        for one in context.candidates(context.of_pool(pool))
        if one.seconds > shortest
        and one.level > context.lifted[one.lane.queue]
        and sum(sum(waiting[: one.level + 1]) for waiting in lengths) > 1
    ]
    return sorted(found, key=lambda one: (-one.seconds, *one.tie))


def _brought_forward(
    context: RuleContext, one: Candidate, pool: Pool, rule: str, reason: str, level: int | None = None
) -> MoveTask:
    target = context.lifted[one.lane.queue] if level is None else level
    saved = max(context.ahead(pool, one.level) - context.ahead(pool, target), 0.0)
    return MoveTask(
        task_id=one.head.task_id, source=one.lane.lane, target=one.lane.lane, level=one.level, to_level=target,
        reason=f"{rule}: {reason}", rule=rule, estimated_improvement=saved / 60,
    )  # fmt: skip
