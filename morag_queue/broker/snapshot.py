"""Decode the answer of `observe.lua` into a Snapshot. Nothing here talks to Redis."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from morag_queue.core import lanes
from morag_queue.core.model import Pause, QueueType
from morag_queue.core.snapshot import NO_ENTRIES, LaneEntry, LaneView, Snapshot, Totals, WorkerView

from .broken import BrokenValues
from .codec import (
    FOREIGN,
    Read,
    cordon_in_force,
    lane_entry,
    read_cordon,
    read_corrections,
    read_heartbeat,
    read_held,
    read_lease,
    read_pauses,
    read_worker,
    text_of,
    unreadable_worker,
    whole_number,
)
from .keys import Keys
from .scripts import Call

T = TypeVar("T")

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
    texts = map(text_of, mailboxes)
    return frozenset(text.rpartition(sep)[2].removesuffix(".celery.pidbox") for text in texts)


def decode_snapshot(
    answer: Sequence[Any], fleet: str, keys: Keys, broken: BrokenValues, depth: int = 1
) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
    """The snapshot, and the totals of each queue. `depth` is the one of the call.

    What cannot be read is added to `broken`.
    """
    seconds, micros, *answers = answer
    names = ObserveCall.KEYS
    parts = {
        name: broken.part(part, str(getattr(keys, name)))
        for name, part in zip(names, answers[: len(names)], strict=True)
    }
    mailboxes, *lanes_read = answers[len(names) :]
    counts = _counts(parts["totals"], broken)
    lease = read_lease(parts["lease"])
    if parts["lease"] and lease is None:
        broken.value("lease")
    snapshot = Snapshot(
        taken_at=int(seconds) + int(micros) / 1e6,
        workers=tuple(_workers(parts, counts, int(seconds), broken)),
        lanes=tuple(view for lane in lanes_read if (view := _lane(lane, depth)) is not None),
        held=tuple(_read_each(parts["held"], "held", read_held, broken)),
        paused=paused_queues(map(text_of, parts["paused"])),
        pauses=_pauses(parts["pauses"], broken),
        leader=lease,
        corrections=read_corrections(parts["corrections"] or b""),
        fleet=fleet,
        nodes=node_names(mailboxes, keys.sep),
        broken=tuple(broken),
    )
    return snapshot, {queue: _totals(counts, f"|{queue}") for queue in QueueType}


def paused_queues(names: Iterable[str]) -> frozenset[QueueType]:
    return frozenset(QueueType(name) for name in names if name in set(QueueType))


def _counts(totals: Sequence[bytes], broken: BrokenValues) -> dict[str, int]:
    counts = {}
    for field, text in _pairs(totals):
        count = whole_number(text)
        if count is None:
            broken.value("totals", field)
        else:
            counts[text_of(field)] = count
    return counts


def _read_each(
    flat: Sequence[bytes], name: str, read: Callable[[bytes, bytes], T | None], broken: BrokenValues
) -> Iterator[T]:
    for field, text in _pairs(flat):
        value = read(field, text)
        if value is None:
            broken.value(name, field)
        else:
            yield value


def _workers(
    parts: Mapping[str, Sequence[bytes]], counts: Mapping[str, int], now: int, broken: BrokenValues
) -> Iterator[WorkerView]:
    beats = dict(_read_each(parts["beats"], "beats", _with_field(read_heartbeat), broken))
    acting, cordons = dict(_pairs(parts["incarnations"])), dict(_pairs(parts["cordons"]))
    for worker, text in cordons.items():
        if read_cordon(text) is None:
            broken.value("cordons", worker)
    for worker, text in _pairs(parts["workers"]):
        name, cordon = text_of(worker), cordon_in_force(cordons.get(worker), now)
        info = read_worker(name, text)
        if info is None:
            broken.value("workers", worker)
            info, unreadable = unreadable_worker(name, text_of(acting.get(worker, b"")))
            cordon = cordon or unreadable
        fenced = acting.get(worker) == FENCED
        yield WorkerView(info, beats.get(worker), cordon, _totals(counts, name), fenced=fenced)


def _with_field(read: Callable[[bytes], T | None]) -> Callable[[bytes, bytes], tuple[bytes, T] | None]:
    return lambda field, text: None if (value := read(text)) is None else (field, value)


def _pauses(flat: Sequence[bytes], broken: BrokenValues) -> dict[QueueType, Pause]:
    texts = dict(_pairs(flat))
    pauses = read_pauses(texts)
    for queue in texts:
        if text_of(queue) not in pauses:
            broken.value("pauses", queue)
    return pauses


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
    lane = text_of(name)
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
