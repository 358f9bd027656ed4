"""task move: a waiting task to another queue, to one worker, or to the lane of that name."""

from dataclasses import dataclass

from morag_queue.broker.locate import Found
from morag_queue.core.lanes import lane, split
from morag_queue.core.model import QueueType
from morag_queue.core.routed import Refusal

from .look import Look
from .place import routed
from .rewrite import rewriting
from .steer import Decide, Leave, Refuse, Step


@dataclass(frozen=True, slots=True)
class Target:
    """A queue, a worker, or a worker's lane in one queue (both). A worker is pinned, a queue alone lifts a pin."""

    queue: QueueType | None = None
    worker: str | None = None

    @property
    def shown(self) -> str:
        return lane(self.queue, self.worker) if self.queue else str(self.worker)


def moving(target: Target, *, force: bool = False) -> Decide:
    """By the rules of routing: what needs a GPU never enters a lane that a worker without one reads.

    `force` gives it to a worker that cannot take it now, as a forced pin at submit does.
    """

    def decide(look: Look, found: Found) -> Step:
        task = found.task
        if task.has_ended:
            return Refuse(f"has ended ({task.state}): morag-queue task retry {task.task_id} runs it again")
        if task.claimed_at is not None:
            return Refuse(f"{task.worker} has it already: only what waits can be moved")
        if not task.is_on_broker:
            return Refuse("is nowhere on the broker: a sweep would send it again")
        place = routed(look.picture, look.settings, task, worker=target.worker, queue=target.queue, force=force)
        if isinstance(place, Refusal):
            return Refuse(place.message)
        # A queue was named: its shared lane is meant, also where tasks are bound early.
        to = place.lane if target.worker is not None else place.queue.value
        if to == task.lane and task.pinned_to == target.worker:
            return Leave(f"is in {task.lane} already")
        detail = f"{task.lane} to {to}"
        return rewriting(found, "moved", detail, lane=to, level=place.level, queue=split(to)[0], worker=target.worker)

    return decide
