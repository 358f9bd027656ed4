"""Small fleets for the tests of the core: `fleet(worker("gpu-1", "gpu"), held=held("gpu-1"))`."""

from typing import Any

from morag_queue.core.lanes import lane
from morag_queue.core.model import Capability, Cordon, Heartbeat, HeldMessage, QueueType, WorkerInfo, WorkerStatus
from morag_queue.core.policy import Queues
from morag_queue.core.snapshot import LaneView, Snapshot, WorkerView

NOW = 1_000_000.0
SLOTS = {Capability.GPU: 2, Capability.HYBRID: 3, Capability.CPU: 4}


def worker(
    name: str,
    capability: str = "cpu",
    *,
    beat_age: float | None = 1.0,
    stopped: bool = False,
    active: int = 0,
    reserved: int = 0,
    cordon: str | None = None,
    cordon_reason: str = "",
    fenced: bool = False,
    **info: Any,
) -> WorkerView:
    """Return a registered worker; `beat_age` is the age of its heartbeat in seconds, None without one."""
    hardware = Capability(capability)
    at = NOW - (beat_age or 0.0)
    defaults: dict[str, Any] = {
        "queues": Queues().served_by(hardware),
        "slots": SLOTS[hardware],
        "host": "host",
        "pid": 1,
    }
    return WorkerView(
        info=WorkerInfo(worker=name, incarnation=f"{name}.now", capability=hardware, **(defaults | info)),
        beat=None if beat_age is None else Heartbeat(at=at, stopped=stopped, active=active, reserved=reserved),
        cordon=None if cordon is None else Cordon(state=WorkerStatus(cordon), reason=cordon_reason, who="ann"),
        fenced=fenced,
    )


def held(
    name: str, queue: QueueType = QueueType.CPU_STANDARD, count: int = 1, run: str = "now"
) -> tuple[HeldMessage, ...]:
    """Return messages that a worker's incarnation `run` has held for 5 s."""
    return tuple(
        HeldMessage(
            tag=f"{name}.{run}.{n}",
            worker=name,
            incarnation=f"{name}.{run}",
            task_id=f"{name}-{n}",
            lane=lane(queue),
            level=3,
            claimed_at=NOW - 5,
        )
        for n in range(count)
    )


def queued(queue: QueueType, count: int, worker: str | None = None, level: int = 3, age: float = 10.0) -> LaneView:
    """Return a lane with `count` messages at one level; the oldest has waited `age` seconds."""
    lengths = tuple(count if n == level else 0 for n in range(10))
    oldest = tuple(NOW - age if n == level and count else None for n in range(10))
    return LaneView(lane(queue, worker), queue, worker, lengths, oldest)


def fleet(
    *workers: WorkerView, held: tuple[HeldMessage, ...] = (), lanes: tuple[LaneView, ...] = (), **more: Any
) -> Snapshot:
    return Snapshot(taken_at=NOW, workers=workers, held=held, lanes=lanes, **more)


def usual_fleet(**more: Any) -> Snapshot:
    """Return the four idle workers of the demo."""
    return fleet(
        worker("worker-gpu-1", "gpu"),
        worker("worker-gpu-2", "gpu"),
        worker("worker-hybrid-1", "hybrid"),
        worker("worker-cpu-1", "cpu"),
        **more,
    )
