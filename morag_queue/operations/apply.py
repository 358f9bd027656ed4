"""Apply a plan: carry out its steps in order, and count the results. A step that no longer fits is rejected alone."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, assert_never

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec import submitted_entry
from morag_queue.broker.contract import Broker, MoveOutcome
from morag_queue.broker.lost_work import ResendRequest
from morag_queue.broker.requeue import RequeueRequest
from morag_queue.core.lanes import queue_of
from morag_queue.core.plan import Applied, MoveLane, MoveTask, Plan, Rejected, Resend, TakeBack


def apply(broker: Broker, plan: Plan, *, term: str = "") -> Applied:
    """Carry out the plan. `term` is that of the caller's lease; raises LeaseLost if the lease has another term.

    Steps of one kind that follow one another are sent together.
    """
    done = Applied(plan_id=plan.plan_id)
    with broker.translated():
        for _, batch in groupby(plan.steps, key=type):
            steps: list[Any] = list(batch)
            match steps[0]:
                case MoveLane():
                    for step in steps:
                        done += _move_lane(broker, step, term)
                case MoveTask():
                    done += _move_tasks(broker, steps, term)
                case TakeBack():
                    done += _requeue(broker, steps, term)
                case Resend():
                    done += _resend(broker, steps, term)
                case unknown:
                    assert_never(unknown)
    return done


def _move_lane(broker: Broker, step: MoveLane, term: str) -> Applied:
    counts = broker.moves.lane(
        step.source, step.target, step.level, step.count, to_level=step.target_level, term=term,
        keeps_gpu=step.keeps_gpu,
    )  # fmt: skip
    reason = f"{counts.need_gpu} in {step.source} need a GPU, and workers without a GPU read {step.target}: they stay"
    rejected = (Rejected(task_id="", reason=reason),) if counts.need_gpu else ()
    return Applied(plan_id="", moved=counts.moved, foreign=counts.left, rejected=rejected)


def _move_tasks(broker: Broker, steps: Sequence[MoveTask], term: str) -> Applied:
    outcomes = list(zip(steps, broker.moves.tasks(steps, term=term), strict=True))
    already = _already_moved(broker, [step for step, outcome in outcomes if outcome is MoveOutcome.GONE])
    rejected = tuple(
        Rejected(task_id=step.task_id, reason=_why_not_moved(step, outcome))
        for step, outcome in outcomes
        if outcome is not MoveOutcome.MOVED and step.task_id not in already
    )
    moved = sum(outcome is MoveOutcome.MOVED for _, outcome in outcomes)
    return Applied(plan_id="", moved=moved, already=len(already), rejected=rejected)


def _already_moved(broker: Broker, gone: Sequence[MoveTask]) -> Collection[str]:
    """Return the tasks that wait at their target by the ledger: the plan was applied before, in whole or in part."""
    records = broker.records([step.task_id for step in gone]) if gone else {}
    wanted = {step.task_id: (step.target, step.to_level) for step in gone}
    return {task_id for task_id, record in records.items() if record.waits_in(*wanted[task_id])}


def _why_not_moved(step: MoveTask, outcome: MoveOutcome) -> str:
    match outcome:
        case MoveOutcome.FOREIGN:
            return f"its message is not Celery's: it stays in {step.source}"
        case MoveOutcome.GPU:
            return f"it needs a GPU, and workers without a GPU read {step.target}: it stays in {step.source}"
        case _:
            return f"it is no longer in {step.source} at level {step.level}: it was taken, moved or cancelled meanwhile"


# Reasons by the outcomes of the requeue and resend scripts.
_NOT_RECOVERED = {
    "gone": "no worker holds it any more: it has ended, or was requeued meanwhile",
    "early": "it was acknowledged before it ran, so its message is gone; it is recorded as failed",
    "foreign": "its message is not Celery's: it stays in `unacked`",
    "changed": "it has ended meanwhile, or was resent by another process",
}


def _requeue(broker: Broker, steps: Sequence[TakeBack], term: str) -> Applied:
    requests = [
        RequeueRequest(
            step.tag, step.incarnation, step.task_id, step.target, step.level, step.reason, step.max_deaths,
            step.untouched_since, step.eta,
        )
        for step in steps
    ]  # fmt: skip
    outcomes = broker.requeues.apply(requests, term=term)
    return Applied(
        plan_id="", taken_back=outcomes.count("moved"), quarantined=outcomes.count("quarantined"),
        rejected=_not_recovered((step.task_id for step in steps), outcomes),
    )  # fmt: skip


def _resend(broker: Broker, steps: Sequence[Resend], term: str) -> Applied:
    requests = list(_resend_requests(broker, steps))
    max_losses = broker.settings.policy.max_retries
    outcomes = [broker.lost.resend(request, max_losses, term=term) for request in requests]
    return Applied(
        plan_id="", resent=outcomes.count("resent"), quarantined=outcomes.count("quarantined"),
        rejected=_not_recovered((request.task_id for request in requests), outcomes),
    )  # fmt: skip


def _not_recovered(task_ids: Iterable[str], outcomes: Iterable[str]) -> tuple[Rejected, ...]:
    return tuple(
        Rejected(task_id=task_id, reason=_NOT_RECOVERED[outcome])
        for task_id, outcome in zip(task_ids, outcomes, strict=True)
        if outcome in _NOT_RECOVERED
    )


def _resend_requests(broker: Broker, steps: Sequence[Resend]) -> Iterator[ResendRequest]:
    builder, by_id = MessageBuilder(), {step.task_id: step for step in steps}
    for task_id, seen in broker.records(by_id).items():
        step = by_id[task_id]
        entry = submitted_entry(task_id, seen, queue_of(step.target))
        if entry is not None:
            if step.level is not None:
                entry = entry.model_copy(update={"level": step.level})
            text, record = builder.message(entry)
            yield ResendRequest(task_id, seen.text, record, text, entry.lane, entry.level, step.reason)
