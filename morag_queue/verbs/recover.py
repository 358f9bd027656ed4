"""Carrying out the steps that bring tasks back: out of a dead worker's hands, and out of the ledger."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from morag_queue.broker.lost import Again
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.takeback import Return
from morag_queue.core.model import ContentType, QueuePriority, QueueType, Requires, TaskQueueEntry
from morag_queue.core.plan import Rejected, Resend, TakeBack

_REFUSED = {
    "gone": "nobody has it in hand any more: it has ended, or someone else took it back",
    "early": "it was acknowledged before it ran, so its message is gone; the ledger calls it failed",
    "foreign": "its message is not of Celery's form: left in `unacked`",
    "changed": "it has ended meanwhile, or someone else sent it again",
}


def take_back(broker: RedisBroker, steps: Sequence[TakeBack], term: str) -> tuple[int, int, list[Rejected]]:
    """How many went back to a lane, how many were quarantined, and the rest."""
    outcomes = broker.takebacks.apply(map(_return, steps), term=term)
    refused = [
        Rejected(task_id=step.task_id, reason=_REFUSED[outcome])
        for step, outcome in zip(steps, outcomes, strict=True)
        if outcome in _REFUSED
    ]
    return outcomes.count("moved"), outcomes.count("quarantined"), refused


def resend(broker: RedisBroker, steps: Sequence[Resend], term: str) -> tuple[int, int, list[Rejected]]:
    """How many were sent again, how many were quarantined, and the rest."""
    reasons = {step.task_id: step.reason for step in steps}
    outcomes: list[str] = []
    refused: list[Rejected] = []
    for again in _agains(broker, reasons):
        outcome = broker.lost.resend(again, broker.settings.policy.max_retries, term=term)
        outcomes.append(outcome)
        if outcome in _REFUSED:
            refused.append(Rejected(task_id=again.task_id, reason=_REFUSED[outcome]))
    return outcomes.count("resent"), outcomes.count("quarantined"), refused


def _return(step: TakeBack) -> Return:
    return Return(
        step.tag, step.incarnation, step.task_id, step.target, step.level, step.reason, step.max_deaths,
        step.untouched_since, step.eta,
    )  # fmt: skip


def _agains(broker: RedisBroker, reasons: dict[str, str]) -> Iterator[Again]:
    from morag_queue.broker.wire import Wire  # imports Celery: not before there is something to send

    wire = Wire()
    for task_id, seen in broker.lost.records(list(reasons)).items():
        entry = _entry(task_id, json.loads(seen))
        text, record = wire.message(entry)
        yield Again(task_id, seen, record, text, entry.lane, entry.level, reasons[task_id])


def _entry(task_id: str, record: dict[str, Any]) -> TaskQueueEntry:
    """The entry as it was submitted; a lane of a worker gives way to the queue's, for that worker may be what died."""
    queue = QueueType(record["queue"])
    content_type = record.get("content_type")
    return TaskQueueEntry(
        task_id=task_id,
        task=record["task"],
        args=tuple(record["args"]),
        kwargs=record["kwargs"],
        source=record["source"],
        content_type=ContentType(content_type) if content_type else None,
        priority=QueuePriority[record["priority"]],
        requires=Requires(record["requires"]),
        queue=queue,
        lane=queue.value,
        level=record["level"],
        estimated_duration=record["estimated_minutes"],
        enqueued_at=record["enqueued_at"],
        worker=record.get("worker"),
    )
