"""Registrations, heartbeats, cordons, pauses and leases as models; a broken one reads as None.

Apart from the other records, because these need pydantic.
"""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from morag_queue.core.enums import Capability, QueueType, WorkerStatus
from morag_queue.core.model import Cordon, Heartbeat, Lease, Pause, Stored
from morag_queue.core.worker_records import LARGEST, WorkerInfo

_R = TypeVar("_R", bound=Stored)

_WORKER = TypeAdapter(WorkerInfo)

_LARGEST_RECORD = 1_000_000
"""Bytes. A registration takes about 2,000, the others 300: a larger one is not parsed."""

OUT_OF_SERVICE = (WorkerStatus.CORDONED, WorkerStatus.DRAINING, WorkerStatus.DRAINED)
"""The states of a cordon."""

BROKEN_CORDON = Cordon(state=WorkerStatus.CORDONED, reason="its cordon cannot be read, see morag-queue doctor")
"""In the place of a cordon that cannot be read: a worker out of service must not return to it by accident."""

_UNREADABLE = "its registration cannot be read, see morag-queue doctor"


def _read(kind: type[_R], text: bytes | str | None) -> _R | None:
    if not text or len(text) > _LARGEST_RECORD:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None


def read_worker(worker: str, text: bytes | str) -> WorkerInfo | None:
    """Read a worker's registration; None for one under another name, too. Fields of other versions are ignored."""
    try:
        found = _WORKER.validate_json(text) if len(text) <= _LARGEST_RECORD else None
    except ValidationError:
        return None
    if found is None or found.worker != worker:
        return None
    numbers = (
        *(found.slots, found.cores, found.gpus, found.memory_gb, found.disk_gb, found.gpu_memory_gb),
        *(found.beat_seconds, found.started_at),
    )
    are_levels = all(0 <= step <= 9 for step in found.priority_steps)
    return found if are_levels and all(0 <= one < LARGEST for one in numbers) else None


def unreadable_worker(worker: str, incarnation: str) -> tuple[WorkerInfo, Cordon]:
    """Return a registration and a cordon in the place of a registration that cannot be read.

    The worker keeps its messages and its lanes, and gets no work. `incarnation` is the one that acts under its name.
    """
    info = WorkerInfo(
        worker=worker, incarnation=incarnation, host="", pid=0, capability=Capability.CPU, queues=(), slots=0
    )
    return info, Cordon(state=WorkerStatus.CORDONED, reason=_UNREADABLE)


def read_heartbeat(text: bytes | str | None) -> Heartbeat | None:
    return _read(Heartbeat, text)


def read_lease(text: bytes | str | None) -> Lease | None:
    return _read(Lease, text)


def read_cordon(text: bytes | str | None) -> Cordon | None:
    """Read a worker's cordon, expired or not."""
    found = _read(Cordon, text)
    return found if found is not None and found.state in OUT_OF_SERVICE else None


def cordon_in_force(text: bytes | str | None, now: float) -> Cordon | None:
    """Return a worker's cordon at that time (seconds since the epoch), `BROKEN_CORDON` for a broken text."""
    if text is None:
        return None
    cordon = read_cordon(text) or BROKEN_CORDON
    return cordon if cordon.is_in_force(now) else None


def read_pauses(texts: Mapping[bytes, bytes]) -> dict[QueueType, Pause]:
    """Read the records of paused queues by queue name; a broken record, or one of an unknown queue, is left out."""
    found = {queue: _read(Pause, texts.get(queue.encode())) for queue in QueueType}
    return {queue: pause for queue, pause in found.items() if pause is not None}
