"""The broker contract on lists in memory, and the workers' side of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, islice
from time import time
from typing import Any

from morag_queue.broker.codec import FOREIGN, LedgerRecord
from morag_queue.broker.contract import JournalNote, OutgoingMessage
from morag_queue.core import lanes
from morag_queue.core.histogram import Window
from morag_queue.core.levels import LEVELS
from morag_queue.core.model import Heartbeat, HeldMessage, QueueType, WorkerInfo, WorkerStatus
from morag_queue.core.policy import Queues
from morag_queue.core.snapshot import NO_ENTRIES, LaneEntry, LaneView, Snapshot, Totals, WorkerView
from morag_queue.settings import Settings

from .counters import MemoryCounters
from .lanes import MemoryMoves, Message, MessageLists
from .leader import MemoryJournal, MemoryLeases, MemoryStateStore
from .ledger import MemoryLedger
from .recovery import Held, MemoryCordons, MemoryEvidence, MemoryLostTasks, MemoryRequeues


class MemoryBroker:
    """One fleet. `now` is the clock of its server, seconds since the epoch."""

    def __init__(
        self, *, fleet: str = "memory", settings: Settings | None = None, now: Callable[[], float] = time
    ) -> None:
        self._fleet, self.settings, self._now = fleet, settings or Settings(), now
        self._lists, self._counters, self._tags = MessageLists(), MemoryCounters(), count()
        self._held: Held = {}
        self._workers: dict[str, WorkerInfo] = {}
        self._beats: dict[str, Heartbeat] = {}
        self._ledger = MemoryLedger(now, self.settings.ledger.retention_seconds)
        self.paused: set[QueueType] = set()
        self.leases = MemoryLeases(now)
        check = self.leases.check
        self.moves = MemoryMoves(self._lists, check, self._moved)
        self.evidence = MemoryEvidence(check)
        self.journal = MemoryJournal(now, check)
        self.cordons = MemoryCordons(now, check, self.journal)
        self.requeues = MemoryRequeues(self._lists, self._held, self._ledger, self.evidence, self._beats, check)
        self.lost = MemoryLostTasks(self._lists, self._ledger, self.evidence, self.requeues, check)
        self.state_store = MemoryStateStore(self.leases)

    @property
    def fleet(self) -> str:
        return self._fleet

    @property
    def queues(self) -> Queues:
        return self.settings.queues

    def translated(self) -> AbstractContextManager[None]:
        return nullcontext()

    def now(self) -> float:
        return self._now()

    # -- the contract

    def observe(self, depth: int = 1, *, partial: bool = False) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
        views = tuple(
            WorkerView(
                info, self._beats.get(name), self.cordons.get(name), self._counters.totals[name],
                fenced=self.evidence.is_fenced(name),
            )
            for name, info in self._workers.items()
        )  # fmt: skip
        lease = self.leases.current()
        snapshot = Snapshot(
            taken_at=self._now(),
            workers=views,
            lanes=tuple(self._lane(name, depth) for name in (*self._lists.worker_lanes, *QueueType)),
            held=tuple(held for held, _ in self._held.values()),
            paused=frozenset(self.paused),
            leader=lease,
            fleet=self._fleet,
            steps=LEVELS if (steps := self.settings.broker.priority_steps) == "auto" else steps,
        )
        return snapshot, {queue: self._counters.totals[f"|{queue}"] for queue in QueueType}

    def observe_with_windows(
        self, *lengths: float
    ) -> tuple[Snapshot, Mapping[QueueType, Totals], list[Mapping[QueueType, Window]]]:
        snapshot, totals = self.observe()
        return snapshot, totals, [self.windows(snapshot.taken_at, length) for length in lengths]

    def connections(self) -> None:
        """Its workers have no connections."""

    def windows(self, now: float, seconds: float) -> Mapping[QueueType, Window]:
        return self._counters.windows(now, seconds)

    def submit(self, messages: Sequence[OutgoingMessage], note: JournalNote | None = None) -> list[bool]:
        answer = [self._submit(message) for message in messages]
        if note is not None and all(answer):
            self.journal.append(note)
        return answer

    def records(self, task_ids: Iterable[str]) -> dict[str, LedgerRecord]:
        found = {task_id: self._ledger.record(task_id) for task_id in task_ids}
        return {task_id: record for task_id, record in found.items() if record is not None}

    # -- the workers' side

    def register(self, info: WorkerInfo) -> None:
        """Register a worker under its name, whether or not another one had it."""
        self._workers[info.worker] = info
        self.evidence.register(info)
        self._beats.pop(info.worker, None)

    def beat(self, worker: str, **figures: Any) -> None:
        """Send one heartbeat, now. `figures` are the fields of a Heartbeat."""
        self._beats[worker] = Heartbeat(at=self._now(), **figures)

    def claim(self, worker: str) -> HeldMessage | None:
        """Claim the next message: level by level, the worker's own lanes before the shared ones, the oldest first."""
        info, cordon = self._workers[worker], self.cordons.get(worker)
        if self.evidence.is_fenced(worker) or (cordon is not None and cordon.state is not WorkerStatus.CORDONED):
            return None
        own = [lane for queue in info.queues if (lane := lanes.lane(queue, worker)) in self._lists.worker_lanes]
        names = own if cordon is not None else own + list(info.queues)
        open_lanes = [name for name in names if lanes.queue_of(name) not in self.paused]
        for level in info.priority_steps:
            for name in open_lanes:
                if (message := self._take(name, level)) is not None:
                    return self._hold(info, message, name, level)
        return None

    def settle(self, tag: str, *, good: bool = True, wait_seconds: float = 0.0, run_seconds: float = 0.0) -> bool:
        """End a held task. Returns False, and counts nothing, when the message is no longer held."""
        if tag not in self._held:
            return False
        held, _ = self._held.pop(tag)
        now = self._now()
        self._counters.ended(
            lanes.queue_of(held.lane), held.worker, now, good=good, wait_seconds=wait_seconds, run_seconds=run_seconds
        )
        self._ledger.end(held.task_id, state="completed" if good else "failed", worker=held.worker)
        return True

    # -- for tests and simulations

    def push(self, lane: str, level: int, raw: str) -> None:
        """Put any text in a list, as a foreign producer would."""
        self._lists.push(lane, level, Message(raw))

    def messages(self, lane: str, level: int) -> list[Any]:
        """The messages of one list, decoded, the oldest first; a foreign text as it is."""
        return [one.raw if one.content is None else one.content for one in reversed(self._lists.of(lane, level))]

    def _submit(self, message: OutgoingMessage) -> bool:
        known = self._ledger.record(message.task_id)
        if known is not None and self._ledger.is_open(message.task_id):
            return known.text == message.record
        self._ledger.write(message.task_id, message.record)
        self._lists.push(message.lane, message.level, Message(message.text))
        self._counters.arrived(QueueType(message.queue), self._now())
        return True

    def _moved(self, task_id: str, lane: str, level: int) -> None:
        self._ledger.update(task_id, lane=lane, level=level)

    def _take(self, lane: str, level: int) -> Message | None:
        waiting = self._lists.of(lane, level)
        if not waiting:
            return None
        if waiting[-1].content is not None:
            return waiting.pop()
        found = next((one for one in reversed(waiting) if one.content is not None), None)
        if found is not None:
            waiting.remove(found)
        return found

    def _hold(self, info: WorkerInfo, message: Message, lane: str, level: int) -> HeldMessage:
        held = HeldMessage(
            tag=f"tag-{next(self._tags)}", worker=info.worker, incarnation=info.incarnation, task_id=message.task_id,
            lane=lane, level=level, claimed_at=self._now(),
        )  # fmt: skip
        self._held[held.tag] = held, message
        return held

    def _lane(self, name: str, depth: int) -> LaneView:
        queue, worker = QueueType(lanes.split(name)[0]), lanes.split(name)[1]
        waiting = [self._lists.of(name, level) for level in LEVELS]
        seen = depth if worker is None else 1
        oldest = [list(islice(reversed(one), seen)) for one in waiting]
        newest = [list(islice(one, depth if worker is None else 0)) for one in waiting]
        first = [one[0].head(level) if one else None for level, one in enumerate(oldest)]
        visible = [{id(m): m for m in (*oldest[level], *newest[level])}.values() for level in LEVELS]
        return LaneView(
            lane=name,
            queue=queue,
            worker=worker,
            lengths=tuple(len(one) for one in waiting),
            oldest_enqueued_at=tuple(one.enqueued_at or None if isinstance(one, LaneEntry) else None for one in first),
            foreign=sum(m.head(level) is FOREIGN for level in LEVELS for m in visible[level]),
            heads=tuple(tuple(_entries(end, level)) for level, end in enumerate(oldest)) if any(oldest) else NO_ENTRIES,
            tails=tuple(tuple(_entries(end, level)) for level, end in enumerate(newest)) if any(newest) else NO_ENTRIES,
        )


def _entries(messages: Iterable[Message], level: int) -> Iterator[LaneEntry]:
    return (entry for message in messages if isinstance(entry := message.head(level), LaneEntry))
