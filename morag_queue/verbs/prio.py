"""task prio: another priority, in words, for a task that waits; in its lane, in one step."""

from morag_queue.broker.locate import Found
from morag_queue.core.model import QueuePriority

from .look import Look
from .place import level_of
from .rewrite import rewriting
from .steer import Decide, Leave, Refuse, Step


def reprioritising(priority: QueuePriority) -> Decide:
    """It goes behind those that wait at its new level."""

    def decide(look: Look, found: Found) -> Step:
        task = found.task
        if task.has_ended:
            return Refuse(f"has ended ({task.state}): morag-queue task retry {task.task_id} runs it again")
        if task.claimed_at is not None:
            return Refuse(f"{task.worker} has it already: a priority matters to what waits")
        if not task.is_on_broker:
            return Refuse("is nowhere on the broker: a sweep would send it again")
        level = level_of(look.picture, look.settings, task, priority)
        if (task.priority, task.level) == (priority, level):
            return Leave(f"is {priority.name} already")
        detail = f"{task.priority.name} to {priority.name}, level {task.level} to {level}"
        return rewriting(found, "changed", detail, lane=task.lane, level=level, priority=priority.name)

    return decide
