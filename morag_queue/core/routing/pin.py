"""Tasks pinned to one worker: whether the worker can take the task, and the lane by which it gets it."""

from collections.abc import Iterable, Mapping, Sequence

from morag_queue.core.lanes import lane
from morag_queue.core.model import QueueType, Requires

from .feasibility import Feasibility, WorkerLoad, in_service, suits
from .lane_readers import LaneReaders
from .score_table import WorkClass
from .types import Override, Refusal, RefusalCode

# The obstacle, and the remedy besides the flag that overrides it.
_OBSTACLES: dict[RefusalCode, tuple[str, str]] = {
    RefusalCode.UNKNOWN_WORKER: ("is not registered", "start it or choose another worker"),
    RefusalCode.NO_GPU: ("has no GPU, and the task needs one", "choose a worker with a GPU"),
    RefusalCode.CONTENT_TYPE: ("does not take this content type", "choose another worker"),
    RefusalCode.MEMORY: ("has less memory than the task is expected to need", "choose another worker"),
    RefusalCode.DRAINED: ("is drained", "uncordon it"),
    RefusalCode.OFFLINE: ("is offline", "start it"),
    RefusalCode.DRAINING: ("is being drained", "uncordon it"),
    RefusalCode.CORDONED: ("is cordoned", "uncordon it"),
}


def check_pin(worker: str, load: WorkerLoad | None, work: WorkClass) -> Refusal | None:
    """Return why the worker cannot take the task now, or None. Its `override` places the task nevertheless.

    A full or suspect worker is no reason to refuse: the task waits in the worker's own lane.
    """
    code = _obstacle(load, work)
    if code is None:
        return None
    obstacle, remedy = _OBSTACLES[code]
    is_status = load is not None and code.value == in_service(load).value
    details = f" ({load.reason})" if load is not None and is_status and load.reason else ""
    override = Override.ALLOW_CPU if code is RefusalCode.NO_GPU else Override.FORCE
    message = f"worker {worker} {obstacle}{details}: {remedy}, or add {override}"
    return Refusal(code=code, subject=worker, message=message, override=override)


def forced_because(refusal: Refusal) -> str:
    """Return the obstacle that a forced pin overrides, for the reason of its decision."""
    return f"by force, although it {_OBSTACLES[refusal.code][0]}"


def _obstacle(load: WorkerLoad | None, work: WorkClass) -> RefusalCode | None:
    if load is None:
        return RefusalCode.UNKNOWN_WORKER
    suitability = suits(load, work.requires, work.content_type, work.memory_gb)
    verdict = suitability if suitability is not Feasibility.FIT else in_service(load)
    return None if verdict in (Feasibility.FIT, Feasibility.SUSPECT) else RefusalCode(verdict.value)


def pinned_queue(
    worker: str,
    load: WorkerLoad | None,
    work: WorkClass,
    wanted: Sequence[QueueType],
    readers: LaneReaders,
    *,
    is_named: bool,
) -> QueueType | Refusal:
    """Return the queue whose lane of this worker gets the task: the first of `wanted` that the worker reads.

    A queue named by the user (`is_named`) is used or refused. Otherwise any queue that the worker reads will do, since
    the lane only serves as an address. GPU-only work keeps to queues that no worker without a GPU reads, because a
    drain moves the lane to the queue's shared lane. A lane that the worker does not read is refused even with `force`;
    of an unknown worker (`load` is None) none is known.
    """
    candidates = wanted if is_named else dict.fromkeys((*wanted, *QueueType))
    readable = [queue for queue in candidates if load is None or queue in load.queues]
    if load is not None and not readable:
        requested = lane(wanted[0], worker) if is_named else "any of the four queues"
        reads = ", ".join(sorted(load.queues)) or "none of them"
        message = f"worker {worker} does not read {requested} (it reads {reads}): choose a queue or a worker that fits"
        return Refusal(code=RefusalCode.NOT_SERVED, subject=worker, message=message)
    safe = [queue for queue in readable if work.requires is not Requires.GPU or queue not in readers.unsafe]
    return safe[0] if safe else _no_safe_lane(worker, readable, readers.unsafe)


def _no_safe_lane(worker: str, queues: Iterable[QueueType], unsafe: Mapping[QueueType, str]) -> Refusal:
    reasons = "; ".join(unsafe[queue] for queue in queues)
    message = f"worker {worker} has no lane that keeps the task from workers without a GPU ({reasons}): add --allow-cpu"
    return Refusal(
        code=RefusalCode.NO_SAFE_LANE, subject=worker, message=message, override=Override.ALLOW_CPU
    )  # fmt: skip
