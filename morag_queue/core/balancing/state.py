"""The balancer's state between two turns: a small, bounded value that is stored on the broker as JSON.

Without it, a task could be moved back and forth, a rejected move would be repeated in every turn, and each turn would
have the budget of a whole tick.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from morag_queue.core.model import Frozen
from morag_queue.core.plan import Applied, MoveTask, Plan
from morag_queue.core.policy import BalancingPolicy
from morag_queue.core.words import count_of, span

REMEMBERED = 4096
"""Moved tasks that the state keeps: the latest. Older tasks may be moved again."""

Value = TypeVar("Value")


class Pool(StrEnum):
    """The slots that serve one kind of queue: GPU work or CPU work. A hybrid worker is in both pools."""

    GPU = "gpu"
    CPU = "cpu"


class MoveRecord(Frozen):
    """The moves of one task: their number, and the time of the last (seconds since the epoch)."""

    count: int
    at: float


class BalancerState(Frozen):
    """Times are seconds since the epoch, by the server's clock.

    at, acted_at     the last turn, and the last turn that moved something
    tick_at          the start of the present tick
    tick_moves       optional moves in it
    tick_long        long tasks promoted in it, by pool
    tokens           slot-seconds that each pool may still spend on starving work
    moved, refused   by task id: its moves, and the time of its last rejected move
    """

    at: float | None = None
    acted_at: float | None = None
    tick_at: float | None = None
    tick_moves: int = 0
    tick_long: Mapping[Pool, int] = {}
    tokens: Mapping[Pool, float] = {}
    moved: Mapping[str, MoveRecord] = {}
    refused: Mapping[str, float] = {}


def advanced(state: BalancerState, now: float, slots: Mapping[Pool, int], balancing: BalancingPolicy) -> BalancerState:
    """Return the state at the start of a turn: add the tokens earned since the last turn, and start a tick if due.

    The first turn of a fleet starts with the maximum of tokens.
    """
    tick_is_over = state.tick_at is None or not 0 <= now - state.tick_at < balancing.interval_seconds
    passed = balancing.starving_span_seconds if state.at is None else max(now - state.at, 0.0)
    earned = {
        pool: min(state.tokens.get(pool, 0.0) + rate * passed, rate * balancing.starving_span_seconds)
        for pool, rate in ((pool, balancing.starving_share * slots.get(pool, 0)) for pool in Pool)
    }
    fresh = {"tick_at": now, "tick_moves": 0, "tick_long": {}} if tick_is_over else {}
    return state.model_copy(update={"at": now, "tokens": earned, **fresh})


def settling(state: BalancerState, now: float, balancing: BalancingPolicy) -> float:
    """Return the seconds until optional moves are allowed again, 0 if they are."""
    if state.acted_at is None:
        return 0.0
    since = now - state.acted_at
    return max(balancing.settle_seconds - since, 0.0) if since >= 0 else 0.0


def resting(state: BalancerState, task_id: str, now: float, balancing: BalancingPolicy) -> str:
    """Return why this task may not be moved now, or ""."""
    refused = state.refused.get(task_id)
    if refused is not None and 0 <= now - refused < balancing.refused_seconds:
        return f"its last move was rejected {span(now - refused)} ago"
    mark = state.moved.get(task_id)
    if mark is None:
        return ""
    if mark.count >= balancing.moves_per_task:
        return f"it was already moved {count_of(mark.count, 'time')}"
    return f"it was moved {span(now - mark.at)} ago" if 0 <= now - mark.at < balancing.rest_seconds else ""


def after_applying(
    state: BalancerState, plan: Plan, applied: Applied, now: float, balancing: BalancingPolicy
) -> BalancerState:
    """Return the state after a plan was applied: add its moves and rejections, and drop outdated rejections.

    `state` is that of the `TurnPlan`.
    """
    refused = {refusal.task_id for refusal in applied.rejected if refusal.task_id}
    chosen = [step for step in plan.steps if isinstance(step, MoveTask)]
    moved = dict(state.moved)
    for step in chosen:
        if step.task_id not in refused:
            known = moved.pop(step.task_id, None)  # keeps the latest move last
            moved[step.task_id] = MoveRecord(count=(known.count if known else 0) + 1, at=now)
    fresh = {task: at for task, at in state.refused.items() if 0 <= now - at < balancing.refused_seconds}
    fresh |= {step.task_id: now for step in chosen if step.task_id in refused}
    return state.model_copy(update={"moved": _latest(moved), "refused": _latest(fresh)})


def _latest(known: Mapping[str, Value]) -> Mapping[str, Value]:
    return known if len(known) <= REMEMBERED else dict(list(known.items())[-REMEMBERED:])
