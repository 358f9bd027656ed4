"""The answer of `observe.lua` as a Snapshot. Nothing here talks to Redis."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from morag_queue.core import lanes
from morag_queue.core.model import Cordon, Heartbeat, Held, QueueType, WorkerInfo
from morag_queue.core.snapshot import LaneView, Snapshot, Totals, WorkerView

from .header import HEADER


def snapshot(answer: Sequence[Any], fleet: str) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
    """The picture, and what was ever finished in each queue."""
    seconds, micros, workers, beats, cordons, _incarnations, held, paused, totals, lease, *found = answer
    counts = {field.decode(): int(count) for field, count in _pairs(totals)}
    beat_of = {worker: Heartbeat.model_validate_json(text) for worker, text in _pairs(beats)}
    cordon_of = {worker: Cordon.model_validate_json(text) for worker, text in _pairs(cordons)}
    views = tuple(
        WorkerView(
            WorkerInfo.model_validate_json(text), beat_of.get(worker), cordon_of.get(worker),
            _totals(counts, worker.decode()),
        )
        for worker, text in _pairs(workers)
    )  # fmt: skip
    picture = Snapshot(
        taken_at=int(seconds) + int(micros) / 1e6,
        workers=views,
        lanes=tuple(view for row in found if (view := _lane(*row)) is not None),
        held=tuple(_held(tag, record) for tag, record in _pairs(held)),
        paused=frozenset(QueueType(name.decode()) for name in paused if name.decode() in set(QueueType)),
        leader=json.loads(lease) if lease else None,
        fleet=fleet,
    )
    return picture, {queue: _totals(counts, f"|{queue}") for queue in QueueType}


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _totals(counts: Mapping[str, int], name: str) -> Totals:
    return Totals(
        completed=counts.get(f"completed|{name}", 0),
        failed=counts.get(f"failed|{name}", 0),
        run_seconds=counts.get(f"run_ms|{name}", 0) / 1000,
    )


def _held(tag: bytes, record: bytes) -> Held:
    worker, incarnation, task_id, lane, level, ms = json.loads(record)
    return Held(
        tag=tag.decode(), worker=worker, incarnation=incarnation, task_id=task_id, lane=lane, level=level,
        claimed_at=ms / 1000,
    )  # fmt: skip


def _lane(name: bytes, lengths: Sequence[int], heads: Sequence[bytes]) -> LaneView | None:
    lane = name.decode()
    queue = lanes.queue_of(lane)
    if queue is None:
        return None
    since = [_enqueued_at(head) if head else None for head in heads]
    return LaneView(
        lane=lane,
        queue=queue,
        worker=lanes.split(lane)[1],
        lengths=tuple(lengths),
        oldest_enqueued_at=tuple(at if at is not _FOREIGN else None for at in since),
        foreign=sum(at is _FOREIGN for at in since),
    )


_FOREIGN = -1.0


def _enqueued_at(head: bytes) -> float | None:
    """When the message was queued; None where it does not say, `_FOREIGN` where it is no message of Celery's."""
    try:
        headers = json.loads(head)["headers"]
        entry = headers.get(HEADER)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _FOREIGN
    at = entry.get("enqueued_at") if isinstance(entry, dict) else None
    return float(at) if isinstance(at, int | float) else None
