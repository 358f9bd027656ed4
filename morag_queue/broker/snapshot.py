"""Decode the answer of `observe.lua` into a Snapshot. Nothing here talks to Redis."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from morag_queue.core import lanes
from morag_queue.core.model import Heartbeat, Lease, QueueType
from morag_queue.core.snapshot import NO_ENTRIES, LaneEntry, LaneView, Snapshot, Totals, WorkerView

from .codec import FOREIGN, Read, cordon_in_force, lane_entry, read_corrections, read_held, read_pauses, read_worker
from .scripts import Call

FENCED = b"fenced"
"""In the place of an incarnation: no process may act under that name, see fence.lua."""


@dataclass(frozen=True)
class ObserveCall(Call):
    SCRIPT: ClassVar = "observe"
    KEYS: ClassVar = (
        *("workers", "beats", "cordons", "incarnations", "held", "paused"),
        *("pauses", "totals", "lease", "corrections", "lanes"),
    )

    prefix: str
    sep: str
    depth: int
    shared_lanes: Sequence[str]


def node_names(mailboxes: Iterable[bytes | str], sep: str) -> frozenset[str]:
    """Return the nodes of kombu's bindings to the exchange of the mailboxes: `<key><sep><pattern><sep><mailbox>`."""
    texts = (mailbox.decode(errors="replace") if isinstance(mailbox, bytes) else mailbox for mailbox in mailboxes)
    return frozenset(text.rpartition(sep)[2].removesuffix(".celery.pidbox") for text in texts)


def decode_snapshot(
    answer: Sequence[Any], fleet: str, sep: str, depth: int = 1
) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
    """The snapshot, and the totals of each queue. `depth` is the one of the call."""
    seconds, micros, workers, beats, cordons, incarnations, held, paused, *more = answer
    pauses, totals, lease, learned, mailboxes, *found = more
    counts = {field.decode(): int(count) for field, count in _pairs(totals)}
    beat_of = {worker: Heartbeat.model_validate_json(text) for worker, text in _pairs(beats)}
    acting = dict(_pairs(incarnations))
    cordon_of = {worker: cordon_in_force(text, int(seconds)) for worker, text in _pairs(cordons)}
    views = tuple(
        WorkerView(
            read_worker(text), beat_of.get(worker), cordon_of.get(worker),
            _totals(counts, worker.decode()), fenced=acting.get(worker) == FENCED,
        )
        for worker, text in _pairs(workers)
    )  # fmt: skip
    snapshot = Snapshot(
        taken_at=int(seconds) + int(micros) / 1e6,
        workers=views,
        lanes=tuple(view for lane in found if (view := _lane(lane, depth)) is not None),
        held=tuple(message for tag, record in _pairs(held) if (message := read_held(tag, record)) is not None),
        paused=frozenset(QueueType(name.decode()) for name in paused if name.decode() in set(QueueType)),
        pauses=read_pauses(dict(_pairs(pauses))),
        leader=Lease.model_validate_json(lease) if lease else None,
        corrections=read_corrections(learned),
        fleet=fleet,
        nodes=node_names(mailboxes, sep),
    )
    return snapshot, {queue: _totals(counts, f"|{queue}") for queue in QueueType}


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _totals(counts: Mapping[str, int], name: str) -> Totals:
    return Totals(
        completed=counts.get(f"completed|{name}", 0),
        failed=counts.get(f"failed|{name}", 0),
        run_seconds=counts.get(f"run_ms|{name}", 0) / 1000,
        failures_in_a_row=counts.get(f"streak|{name}", 0),
    )


def _lane(answer: Sequence[Any], depth: int) -> LaneView | None:
    name, lengths, ends = answer
    lane = name.decode()
    queue = lanes.queue_of(lane)
    if queue is None:
        return None
    worker = lanes.split(lane)[1]
    read = [[lane_entry(raw, level) for raw in end] for level, end in enumerate(ends)]
    oldest = [end[0] if end else None for end in read]
    seen = depth if worker is None else 1  # of a worker's lane, only the oldest is read
    return LaneView(
        lane=lane,
        queue=queue,
        worker=worker,
        lengths=tuple(lengths),
        oldest_enqueued_at=tuple(
            entry.enqueued_at or None if isinstance(entry, LaneEntry) else None for entry in oldest
        ),
        foreign=sum(entry is FOREIGN for end in read for entry in end),
        heads=tuple(_entries(end[:seen]) for end in read) if any(read) else NO_ENTRIES,
        tails=tuple(_entries(_newest(end, depth)) for end in read) if any(read) and worker is None else NO_ENTRIES,
    )


def _newest(end: list[Read], depth: int) -> list[Read]:
    """Newest first. An end is the oldest and then the newest entries; a short list has fewer newest than `depth`."""
    return [*end[depth:], *reversed(end[:depth])][:depth]


def _entries(end: list[Read]) -> tuple[LaneEntry, ...]:
    return tuple(entry for entry in end if isinstance(entry, LaneEntry))
