"""What the balancing loop keeps between two turns, as a value: small, bounded, and written to the broker as JSON.

Without it every turn would be the first one: a task would go back and forth, a refused move would be tried again for
ever, and what is allowed a tick would be allowed an event.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from morag_queue.core.model import Frozen
from morag_queue.core.plan import Applied, MoveTask, Plan
from morag_queue.core.policy import BalancingPolicy

REMEMBERED = 4096
"""Moved tasks that are kept in mind, the latest ones. Forgetting one costs at most one move more."""


Kept = TypeVar("Kept")


class Pool(StrEnum):
    """The slots that read a kind of queue: those with GPU work in it, or those with CPU work. A hybrid is in both."""

    GPU = "gpu"
    CPU = "cpu"


class MoveRecord(Frozen):
    """A task that was moved: how often, and when last (seconds since the epoch)."""

    count: int
    at: float


class BalancerState(Frozen):
    """`at` is the last turn, `acted_at` the last that moved something, both in server time.

    `tick_…` counts what was done in the tick that began at `tick_at`. `tokens` are the slot-seconds that each pool may
    still spend on what would starve. `moved` and `refused` are by task id.
    """

    at: float | None = None
    acted_at: float | None = None
    tick_at: float | None = None
    tick_moves: int = 0
    tick_long: Mapping[Pool, int] = {}
    tokens: Mapping[Pool, float] = {}
    moved: Mapping[str, MoveRecord] = {}
    refused: Mapping[str, float] = {}


def advanced(memory: BalancerState, now: float, slots: Mapping[Pool, int], balancing: BalancingPolicy) -> BalancerState:
    """The memory at the begin of a turn: the tokens earned since the last one, and a new tick where one is due.

    A fleet that was never watched has saved up all that it may.
    """
    tick_is_over = memory.tick_at is None or not 0 <= now - memory.tick_at < balancing.interval_seconds
    passed = balancing.starving_span_seconds if memory.at is None else max(now - memory.at, 0.0)
    earned = {
        pool: min(memory.tokens.get(pool, 0.0) + rate * passed, rate * balancing.starving_span_seconds)
        for pool, rate in ((pool, balancing.starving_share * slots.get(pool, 0)) for pool in Pool)
    }
    fresh = {"tick_at": now, "tick_moves": 0, "tick_long": {}} if tick_is_over else {}
    return memory.model_copy(update={"at": now, "tokens": earned, **fresh})


def settling(memory: BalancerState, now: float, balancing: BalancingPolicy) -> float:
    """Seconds until the loop moves something of its own will again; 0 when it may."""
    if memory.acted_at is None:
        return 0.0
    since = now - memory.acted_at
    return max(balancing.settle_seconds - since, 0.0) if since >= 0 else 0.0


def resting(memory: BalancerState, task_id: str, now: float, balancing: BalancingPolicy) -> str:
    """Why this task is left alone now, in words; empty when it may be moved."""
    refused = memory.refused.get(task_id)
    if refused is not None and 0 <= now - refused < balancing.refused_seconds:
        return f"its last move was refused {now - refused:.0f} s ago"
    mark = memory.moved.get(task_id)
    if mark is None:
        return ""
    if mark.count >= balancing.moves_per_task:
        return f"it was moved {mark.count} times already"
    return f"it was moved {now - mark.at:.0f} s ago" if 0 <= now - mark.at < balancing.rest_seconds else ""


def after_applying(
    memory: BalancerState, plan: Plan, applied: Applied, now: float, balancing: BalancingPolicy
) -> BalancerState:
    """The memory after a plan was carried out: who was moved, who was refused; what is long past is forgotten.

    `memory` is the one that came with the plan.
    """
    refused = {one.task_id for one in applied.rejected if one.task_id}
    chosen = [step for step in plan.steps if isinstance(step, MoveTask)]
    moved = dict(memory.moved)
    for step in chosen:
        if step.task_id not in refused:
            known = moved.pop(step.task_id, None)  # the latest are last
            moved[step.task_id] = MoveRecord(count=(known.count if known else 0) + 1, at=now)
    fresh = {task: at for task, at in memory.refused.items() if 0 <= now - at < balancing.refused_seconds}
    fresh |= {step.task_id: now for step in chosen if step.task_id in refused}
    return memory.model_copy(update={"moved": _latest(moved), "refused": _latest(fresh)})


def _latest(known: Mapping[str, Kept]) -> Mapping[str, Kept]:
    return known if len(known) <= REMEMBERED else dict(list(known.items())[-REMEMBERED:])
