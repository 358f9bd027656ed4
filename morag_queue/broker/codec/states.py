"""Registrations, cordons and pauses as models. Apart from the other records, because these need pydantic."""

from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from morag_queue.core.model import Cordon, Pause, QueueType, WorkerInfo

_WORKER = TypeAdapter(WorkerInfo)


def read_worker(text: bytes | str) -> WorkerInfo:
    """Read a registration; fields of other versions are ignored. Raises pydantic's ValidationError."""
    return _WORKER.validate_json(text)


def read_cordon(text: bytes | str) -> Cordon:
    """Read a worker's cordon, also one that has expired. Raises pydantic's ValidationError."""
    return Cordon.model_validate_json(text)


def cordon_in_force(text: bytes | str | None, now: float) -> Cordon | None:
    """Read a worker's cordon; None where there is none, where it has expired, and for a broken text."""
    try:
        cordon = read_cordon(text) if text else None
    except ValidationError:
        return None
    return cordon if cordon is not None and cordon.is_in_force(now) else None


def read_pauses(texts: Mapping[bytes, bytes]) -> dict[QueueType, Pause]:
    """Read the records of paused queues by queue name; a broken record, or one of an unknown queue, is left out."""
    found = {}
    for queue in QueueType:
        try:
            found[queue] = Pause.model_validate_json(texts[queue.encode()])
        except (KeyError, ValidationError):
            continue
    return found
