"""Moves of chosen messages, for `apply`: what became of each, and why where it was refused."""

from collections.abc import Collection, Sequence

from morag_queue.core.census import unsafe
from morag_queue.core.plan import MoveLane, MoveTask, Rejected
from morag_queue.ports import Broker, TaskMove


def move_tasks(broker: Broker, steps: Sequence[MoveTask], term: str) -> tuple[int, int, list[Rejected]]:
    """How many were moved, how many were there already, and who was refused. Raises LeaseLost on a stale term."""
    closed = unsafe(broker.observe()[0], broker.queues)
    outcomes = list(zip(steps, broker.moves.tasks(steps, closed, term=term), strict=True))
    there = _already(broker, [step for step, outcome in outcomes if outcome is TaskMove.GONE])
    refused = [
        Rejected(task_id=step.task_id, reason=_why(step, outcome))
        for step, outcome in outcomes
        if outcome is not TaskMove.MOVED and step.task_id not in there
    ]
    return sum(outcome is TaskMove.MOVED for _, outcome in outcomes), len(there), refused


def need_a_gpu(step: MoveLane, count: int) -> list[Rejected]:
    """What stayed of a whole lane, if anything did."""
    reason = f"{count} in {step.source} need a GPU, and workers without one read {step.target}: they stay"
    return [Rejected(task_id="", reason=reason)] if count else []


def _already(broker: Broker, gone: Sequence[MoveTask]) -> Collection[str]:
    """Those that the ledger has where they should go to: the plan was applied before, wholly or in part."""
    records = broker.records([step.task_id for step in gone]) if gone else {}
    wanted = {step.task_id: {"state": "queued", "lane": step.target, "level": step.to_level} for step in gone}
    return {task for task, record in records.items() if wanted[task].items() <= record.items()}


def _why(step: MoveTask, outcome: TaskMove) -> str:
    match outcome:
        case TaskMove.FOREIGN:
            return f"its message in {step.source} is not of the expected form: it stays there"
        case TaskMove.GPU:
            return f"it needs a GPU, and workers without one read {step.target}: it stays in {step.source}"
        case _:
            return f"it is no longer in {step.source} at level {step.level}: taken, ended or moved meanwhile"
