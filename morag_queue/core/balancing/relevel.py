"""Move waiting work to levels that every reader of its lane polls.

Work is queued at levels that its readers poll, but readers come later too: a plain Celery worker that joins a fleet of
agents polls kombu's default steps, and would never find the other levels.
"""

from collections.abc import Iterator

from morag_queue.core.levels import readable
from morag_queue.core.plan import MoveLane
from morag_queue.core.routing.lane_readers import steps_of
from morag_queue.core.snapshot import LaneView
from morag_queue.core.words import some

from .context import RuleContext, RuleResult

RELEVEL = "unpolled level"


def relevel(context: RuleContext) -> RuleResult:
    """Move the work at each level that some reader does not poll. This mandatory rule uses none of the budget."""
    leaving = {view.worker for view, _ in context.capacity.leaving}  # evacuation moves their lanes
    lanes = (view for view in context.snapshot.lanes if view.length and context.only in (None, view.queue))
    return RuleResult(tuple(step for view in lanes if view.worker not in leaving for step in _moves(context, view)))


def _moves(context: RuleContext, view: LaneView) -> Iterator[MoveLane]:
    steps = _steps(context, view)
    polled = some(map(str, steps), len(steps))
    for level, length in enumerate(view.lengths):
        if length and level not in steps:
            yield MoveLane(
                source=view.lane, target=view.lane, level=level, to_level=readable(level, steps), count=length,
                rule=RELEVEL,
                reason=f"{RELEVEL}: not all readers of {view.lane} poll level {level}; they poll {polled}",
            )  # fmt: skip


def _steps(context: RuleContext, view: LaneView) -> tuple[int, ...]:
    if view.worker is None:
        return context.readers.steps[view.queue]
    owner = context.snapshot.worker_by_id.get(view.worker)
    return steps_of(owner.info.priority_steps if owner else None, context.snapshot.steps)
