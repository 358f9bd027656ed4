"""A task that a person gives to one worker: whether that worker can take it, and by which of its lanes."""

from collections.abc import Iterable, Mapping, Sequence

from morag_queue.core.lanes import lane
from morag_queue.core.model import QueueType, Requires

from .feasibility import Feasibility, WorkerLoad, in_service, suits
from .lane_readers import LaneReaders
from .score_table import WorkClass
from .types import Refusal, RefusalCode

# What is wrong with the worker, and what else than `--force` helps.
_FAULTS: dict[RefusalCode, tuple[str, str]] = {
    RefusalCode.UNKNOWN_WORKER: ("is not registered", "start it or choose another"),
    RefusalCode.NO_GPU: ("has no GPU, and the task needs one", "choose a worker with a GPU"),
    RefusalCode.CONTENT_TYPE: ("does not take this content type", "choose another worker"),
    RefusalCode.MEMORY: ("has less memory than the task is expected to need", "choose another worker"),
    RefusalCode.DRAINED: ("is drained", "uncordon it"),
    RefusalCode.OFFLINE: ("is offline", "start it"),
    RefusalCode.DRAINING: ("is being drained", "uncordon it"),
    RefusalCode.CORDONED: ("is cordoned", "uncordon it"),
}


def refused_pin(worker: str, load: WorkerLoad | None, work: WorkClass) -> Refusal | None:
    """Why a worker cannot take the task now; a forced pin goes there all the same.

    Being full or suspect is no reason: the task waits in the worker's own lane.
    """
    code = _obstacle(load, work)
    if code is None:
        return None
    fault, remedy = _FAULTS[code]
    of_status = load is not None and code.value == in_service(load).value
    because = f" ({load.reason})" if load is not None and of_status and load.reason else ""
    message = f"worker {worker} {fault}{because}: {remedy}, or add --force"
    return Refusal(code=code, subject=worker, message=message, overridable=True)


def forced_although(refusal: Refusal) -> str:
    """What stands against a pin that was forced, for its reason."""
    return f"by force, though it {_FAULTS[refusal.code][0]}"


def _obstacle(load: WorkerLoad | None, work: WorkClass) -> RefusalCode | None:
    if load is None:
        return RefusalCode.UNKNOWN_WORKER
    unsuited = suits(load, work.requires, work.content_type, work.memory_gb)
    verdict = unsuited if unsuited is not Feasibility.FIT else in_service(load)
    return None if verdict in (Feasibility.FIT, Feasibility.SUSPECT) else RefusalCode(verdict.value)


def pinned_queue(
    worker: str,
    load: WorkerLoad | None,
    work: WorkClass,
    wanted: Sequence[QueueType],
    readers: LaneReaders,
    *,
    named: bool,
    force: bool,
) -> QueueType | Refusal:
    """The queue whose lane of this worker the task goes to: the first wanted one that the worker reads.

    A queue that a person `named` is taken or refused; without one, any that the worker reads will do, for its lane is
    only an address. What needs a GPU keeps to queues that no worker without one reads, since a drain gives the lane
    back to the queue; only `force` lifts that. Nothing lifts that the worker reads the lane.
    """
    if load is None:
        return wanted[0]
    choices = [queue for queue in (wanted if named else _then(wanted, QueueType)) if queue in load.queues]
    if not choices:
        asked = lane(wanted[0], worker) if named else "any of the queues"
        message = f"worker {worker} does not read {asked}: it reads {_list(load.queues) or 'none of ours'}"
        return Refusal(code=RefusalCode.NOT_SERVED, subject=worker, message=message, overridable=False)
    safe = [queue for queue in choices if force or work.requires is not Requires.GPU or queue not in readers.unsafe]
    return safe[0] if safe else _no_safe_lane(worker, choices, readers.unsafe)


def _no_safe_lane(worker: str, choices: Iterable[QueueType], unsafe: Mapping[QueueType, str]) -> Refusal:
    reasons = "; ".join(unsafe[queue] for queue in choices)
    message = f"no lane of worker {worker} keeps the task from workers without a GPU ({reasons}): add --force"
    return Refusal(code=RefusalCode.NO_SAFE_LANE, subject=worker, message=message, overridable=True)


def _then(first: Sequence[QueueType], rest: Iterable[QueueType]) -> list[QueueType]:
    return list(dict.fromkeys((*first, *rest)))


def _list(queues: Iterable[QueueType]) -> str:
    return ", ".join(sorted(queues))
