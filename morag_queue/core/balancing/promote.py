"""Rules that promote an entry within its lane: starving entries, aged entries, and long tasks at the end of a batch."""

from collections.abc import Collection

from morag_queue.core.plan import Declined, MoveTask
from morag_queue.core.policy import Order

from .context import Candidate, RuleContext, RuleResult
from .state import Pool

STARVING, AGED, ENDING = "starvation guard", "promotion by age", "drain guard"


def promote_starving(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """Promote entries that exceeded the maximum wait of their priority, for at most 5 % of a pool's slot-seconds.

    The cost is counted in seconds of work: counted in tasks, an overloaded fleet would degrade to first in, first out.
    Each pool earns slot-seconds over time (`BalancerState.tokens`); the most overdue entry goes first.
    """
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    tokens = {pool: context.state.tokens.get(pool, 0.0) for pool in Pool}
    for pool in Pool:
        waiting = [
            (overdue, task)
            for task in context.candidates(context.of_pool(pool))
            if (overdue := _overdue(context, task)) > 1 and task.level > context.lifted[task.lane.queue]
        ]
        for overdue, task in sorted(waiting, key=lambda row: (-row[0], *row[1].tie)):
            if tokens[pool] <= 0:
                reason = f"{STARVING}: the {pool.value} pool has used up its share of slots for starving tasks"
                declined.append(Declined(subject=task.where, reason=reason))
            elif why := context.resting(task.head, chosen):
                declined.append(Declined(subject=task.where, reason=f"{STARVING}: {why}"))
            elif len(steps) < limit:
                patience = context.patience[task.head.priority] / 60
                waited = f"it has waited {overdue * patience:.0f} min"
                limit_words = f"the limit of {task.head.priority.name} is {patience:g} min"
                steps.append(_promoted(context, task, pool, STARVING, f"{waited}, {limit_words}"))
                tokens[pool] -= task.seconds
    return RuleResult(tuple(steps), tuple(declined), {"tokens": tokens})


def promote_aged(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """In weighted order, give an entry the level of its present wait, if that is better.

    In strict order levels do not depend on age; there the starvation guard handles long waits.
    """
    if context.policy.order is not Order.WEIGHTED:
        return RuleResult()
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    better = [
        (level, pool, task)
        for pool in Pool
        for task in context.candidates(context.of_pool(pool))
        if (level := context.level(task.head, task.lane.queue)) < task.level
    ]
    for level, pool, task in sorted(better, key=lambda row: (row[0] - row[2].level, *row[2].tie)):
        if why := context.resting(task.head, chosen):
            declined.append(Declined(subject=task.where, reason=f"{AGED}: {why}"))
        elif len(steps) < limit:
            waited = (context.now - task.head.enqueued_at) / 60
            reason = f"after waiting {waited:.0f} min its level is {level}"
            steps.append(_promoted(context, task, pool, AGED, reason, level))
    return RuleResult(tuple(steps), tuple(declined))


def start_longest_first(context: RuleContext, chosen: Collection[str], limit: int) -> RuleResult:
    """Start the longest tasks first when a batch ends, so that none of them outlasts all others.

    A pool is at the end of a batch while the arriving work is less than a fifth of its capacity. Then a few of its
    longest entries per tick go to the front.
    """
    steps: list[MoveTask] = []
    declined: list[Declined] = []
    done = {pool: context.state.tick_long.get(pool, 0) for pool in Pool}
    for pool in Pool:
        slots = context.capacity.slots[pool]
        if not slots or _arriving(context, pool) >= context.policy.balancing.ending_share:
            continue
        rest = context.queued[pool][-1] / slots
        allowed = max(1, slots // context.policy.balancing.slots_per_long_task)
        for task in _long(context, pool, rest):
            if why := context.resting(task.head, chosen):
                declined.append(Declined(subject=task.where, reason=f"{ENDING}: {why}"))
            elif done[pool] >= allowed:
                reason = f"{ENDING}: enough long tasks of the {pool.value} pool were promoted in this tick"
                declined.append(Declined(subject=task.where, reason=reason))
            elif len(steps) < limit:
                done[pool] += 1
                all_work = f"all waiting work {rest / 60:.0f} min of the {pool.value} pool"
                reason = f"it takes {task.seconds / 60:.0f} min, {all_work}"
                steps.append(_promoted(context, task, pool, ENDING, reason))
    return RuleResult(tuple(steps), tuple(declined), {"tick_long": done})


def _overdue(context: RuleContext, task: Candidate) -> float:
    """Return the wait as a multiple of the maximum wait of the priority."""
    if not task.head.enqueued_at:
        return 0.0
    return (context.now - task.head.enqueued_at) / context.patience[task.head.priority]


def _arriving(context: RuleContext, pool: Pool) -> float:
    """Return the work that arrived in the last ticks, as a share of the pool's capacity in that time."""
    windows = [(queue, context.windows[queue]) for queue in context.of_pool(pool) if queue in context.windows]
    capacity = max((window.seconds for _, window in windows), default=0.0) * context.capacity.slots[pool]
    return sum(window.arrivals * context.pace(queue) for queue, window in windows) / capacity if capacity else 0.0


def _long(context: RuleContext, pool: Pool, rest: float) -> list[Candidate]:
    """Return the entries that outlast all waiting work and have other work ahead of them, the longest first."""
    lengths = [view.lengths for queue, view in context.shared.items() if context.pools[queue] is pool]
    shortest = max(rest, context.policy.balancing.long_seconds)
    found = [
        task
        for task in context.candidates(context.of_pool(pool))
        if task.seconds > shortest
        and task.level > context.lifted[task.lane.queue]
        and sum(sum(waiting[: task.level + 1]) for waiting in lengths) > 1
    ]
    return sorted(found, key=lambda task: (-task.seconds, *task.tie))


def _promoted(
    context: RuleContext, task: Candidate, pool: Pool, rule: str, reason: str, level: int | None = None
) -> MoveTask:
    target = context.lifted[task.lane.queue] if level is None else level
    saved = max(context.ahead(pool, task.level) - context.ahead(pool, target), 0.0)
    return MoveTask(
        task_id=task.head.task_id, source=task.lane.lane, target=task.lane.lane, level=task.level, to_level=target,
        keeps_gpu=task.lane.queue in context.readers.unsafe, reason=f"{rule}: {reason}", rule=rule,
        estimated_improvement=saved / 60,
    )  # fmt: skip
