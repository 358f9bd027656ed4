"""The policy `balanced`: this project's own routing, balancing and failover, on the in-memory broker."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.memory.broker import MemoryBroker
from morag_queue.core.estimate import Correction, learn
from morag_queue.core.model import Capability, ContentType, HeldMessage, QueueType, Requires, TaskQueueEntry, WorkerInfo
from morag_queue.core.recovery.failover import plan_failover
from morag_queue.core.recovery.requeue import HeldTasks
from morag_queue.core.routing.feasibility import worker_loads
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Refusal, TaskProfile
from morag_queue.operations.apply import apply
from morag_queue.operations.rebalance import DEPTH, apply_turn, plan_turn
from morag_queue.settings import Settings

from .engine import SEEN_AFTER_SECONDS, Engine
from .model import FACTORS, SimTask, SimWorker

if TYPE_CHECKING:
    from morag_queue.core.snapshot import Snapshot

_EPOCH = 1_200_000_000.0
"""The broker's clock at the start: a whole minute, so that counts by the minute do not depend on the date."""

_RETENTION_SECONDS = 60
"""Records of ended tasks are kept for so long: nobody reads them."""

_DEATHS_ALLOWED = 1_000_000
"""Outages are the fault of workers: no task is quarantined for them."""


class Balanced:
    """Queues each task by `Router`, and makes a turn of the balancing loop at each tick.

    Work is claimed from the lanes level by level. Run times are learned as the workers' agents do.
    """

    moves = 0

    def __init__(
        self, engine: Engine, workload: Sequence[SimTask], fleet: Sequence[SimWorker], settings: Settings
    ) -> None:
        self._engine, self._workload = engine, workload
        policy = replace(settings.policy, max_retries=_DEATHS_ALLOWED)
        ledger = replace(settings.ledger, retention_seconds=_RETENTION_SECONDS)
        self._settings = replace(settings, policy=policy, ledger=ledger)
        self._broker = MemoryBroker(settings=self._settings, now=lambda: _EPOCH + engine.now)
        self._builder = MessageBuilder()
        self._corrections: dict[tuple[ContentType, Requires, bool], Correction] = {}
        self._queues = {
            capability: tuple(queue.value for queue in settings.queues.served_by(capability))
            for capability in Capability
        }
        self._readers = {queue: _specialists_first(settings.queues.of(queue).served_by) for queue in QueueType}
        self._up: dict[str, SimWorker] = {}
        self._starts = dict.fromkeys((worker.worker for worker in fleet), 0)
        self._running = dict.fromkeys(self._starts, 0)
        for worker in fleet:
            self._register(worker)
        self._router: Router | None = None

    def arrive(self, task: SimTask, now: float) -> Iterable[Capability | str]:
        work = TaskProfile(task.requires, task.priority, task.content_type, task.estimated_minutes)
        placed = self._current_router().place(work)
        if isinstance(placed, Refusal):
            raise RuntimeError(placed.message)
        queue, lane, level = placed
        entry = TaskQueueEntry.model_construct(
            task_id=f"{task.number:08d}", task="simulated", args=(), kwargs={}, source="",
            content_type=task.content_type, priority=task.priority, requires=task.requires, queue=queue, lane=lane,
            level=level, estimated_duration=task.estimated_minutes, enqueued_at=_EPOCH + now, worker=None,
            submission=None,
        )  # fmt: skip
        text, record = self._builder.message(entry)
        is_worker_lane = lane != queue.value
        self._broker.submit(
            [OutgoingMessage(entry.task_id, text, record, queue.value, lane, level, is_worker_lane=is_worker_lane)]
        )
        return (lane.partition(".")[2],) if is_worker_lane else self._readers[queue]

    def take(self, worker: SimWorker, now: float) -> tuple[int, HeldMessage] | None:
        held = self._broker.claim(worker.worker)
        if held is None:
            return None
        self._running[worker.worker] += 1
        return int(held.task_id), held

    def end(self, worker: SimWorker, task: SimTask, handle: HeldMessage, seconds: float, now: float) -> None:
        self._running[worker.worker] -= 1
        self._broker.settle(handle.tag, wait_seconds=handle.claimed_at - _EPOCH - task.arrival_s, run_seconds=seconds)
        kind = task.content_type, task.requires, worker.capability.has_gpu
        predicted = task.estimated_minutes * FACTORS[task.requires, worker.capability]
        self._corrections[kind] = learn(self._corrections.get(kind, Correction()), seconds / 60.0, predicted)

    def fall(self, worker: SimWorker, handles: Sequence[HeldMessage], now: float) -> None:
        self._running[worker.worker] = 0
        self._up.pop(worker.worker)
        incarnation = f"{worker.worker}.{self._starts[worker.worker]}"
        self._engine.at(now + SEEN_AFTER_SECONDS, self._fail_over, worker.worker, incarnation)

    def rise(self, worker: SimWorker, now: float) -> None:
        self._register(worker)

    def tick(self, now: float) -> None:
        for name in self._up:
            self._broker.beat(name, active=self._running[name])
        snapshot = self._observe()
        turn = plan_turn(self._broker, self._settings, self._broker.state_store.load(), snapshot=snapshot)
        applied, _ = apply_turn(self._broker, turn, self._settings, term="", who="simulate", verb="simulate")
        self.moves += applied.moved
        self._router = None

    def _register(self, worker: SimWorker) -> None:
        name = worker.worker
        self._up[name] = worker
        self._starts[name] += 1
        self._broker.register(
            WorkerInfo(
                worker=name, incarnation=f"{name}.{self._starts[name]}", host="simulated", pid=1,
                capability=worker.capability, queues=self._queues[worker.capability], slots=worker.slots,
                memory_gb=1e6, disk_gb=1e6,
            )
        )  # fmt: skip
        self._broker.beat(name)
        self._router = None

    def _fail_over(self, worker: str, incarnation: str) -> None:
        """Requeue what the fallen run of a worker holds, as `failover` does once the worker is proved dead."""
        broker = self._broker
        if worker not in self._up:
            broker.evidence.fence(worker, incarnation)
        snapshot = broker.observe()[0]
        held = tuple(one for one in snapshot.held if one.incarnation == incarnation)
        if not held:
            return
        needs_gpu = [one.task_id for one in held if self._workload[int(one.task_id)].requires is Requires.GPU]
        plan = plan_failover(
            replace(snapshot, held=held), self._settings.policy, self._settings.queues, [worker],
            HeldTasks(gpu=needs_gpu), plan_id="simulated",
        )  # fmt: skip
        apply(broker, plan)

    def _observe(self) -> "Snapshot":
        return replace(self._broker.observe(DEPTH)[0], corrections=dict(self._corrections))

    def _current_router(self) -> Router:
        """The router of a producer: on a snapshot since the last tick or change of the fleet."""
        if self._router is None:
            snapshot = self._observe()
            loads = worker_loads(snapshot, self._settings.policy)
            self._router = Router(snapshot, self._settings.policy, self._settings.queues, loads=loads)
        return self._router


def _specialists_first(capabilities: Iterable[Capability]) -> tuple[Capability, ...]:
    """Offer work to workers that can do nothing else first."""
    order: Mapping[Capability, int] = {Capability.GPU: 0, Capability.CPU: 0, Capability.HYBRID: 1}
    return tuple(sorted(capabilities, key=lambda capability: order[capability]))
