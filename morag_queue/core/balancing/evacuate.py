"""The rule that is not a choice: what waits for a worker that is dead or being drained goes back to everybody."""

from collections.abc import Iterator

from morag_queue.core.lanes import lane
from morag_queue.core.model import QueueType, Requires
from morag_queue.core.plan import Declined, MoveLane, MoveTask, Step
from morag_queue.core.routing.lane_readers import fallbacks
from morag_queue.core.routing.router import choose_queue
from morag_queue.core.snapshot import LaneView

from .context import RuleContext, RuleResult

EVACUATE = "evacuation"


def evacuate(context: RuleContext) -> RuleResult:
    """The lanes of dead and draining workers into the shared lanes, level by level; order and age are kept.

    A pin that was forced may have put work that needs a GPU in a lane of a CPU queue. It does not follow the others,
    for a worker without one would take it: it goes to a GPU queue, one by one, as it comes to the head of the lane.
    """
    steps: list[Step] = []
    declined: list[Declined] = []
    for worker, reason in context.capacity.leaving:
        for view in context.snapshot.lanes_by_worker.get(worker.info.worker, ()):
            if view.length and context.only in (None, view.queue):
                answers = list(_emptied(context, view, f"{EVACUATE}: {reason}"))
                steps += [one for one in answers if not isinstance(one, Declined)]
                declined += [one for one in answers if isinstance(one, Declined)]
    return RuleResult(tuple(steps), tuple(declined))


def _emptied(context: RuleContext, view: LaneView, reason: str) -> Iterator[Step | Declined]:
    unsafe = view.queue in context.capacity.unsafe
    polled = context.capacity.polled[view.queue]
    for level, length in enumerate(view.lengths):
        if not length:
            continue
        if polled[level] != level:
            unread = f"no reader of {view.queue} polls level {level}; morag-queue task move takes them one by one"
            yield Declined(subject=view.lane, reason=f"{EVACUATE}: {unread}")
            continue
        stuck = [head for head in view.heads[level] if unsafe and head.requires is Requires.GPU]
        for head in stuck:
            target = _safe(context, choose_queue(head.requires, head.priority))
            if target is None:
                yield Declined(subject=f"task {head.task_id}", reason=f"{EVACUATE}: no lane keeps it from cpu workers")
            else:
                yield MoveTask(
                    task_id=head.task_id, source=view.lane, target=lane(target), level=level,
                    to_level=context.capacity.polled[target][level], reason=f"{reason}; it needs a GPU", rule=EVACUATE,
                )  # fmt: skip
        if length > len(stuck):
            yield MoveLane(
                source=view.lane, target=lane(view.queue), level=level, count=length - len(stuck), reason=reason,
                rule=EVACUATE, keeps_gpu=unsafe,
            )  # fmt: skip


def _safe(context: RuleContext, queue: QueueType) -> QueueType | None:
    return next((one for one in fallbacks(queue, context.queues) if one not in context.capacity.unsafe), None)
