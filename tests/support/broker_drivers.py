"""Drive either broker through one interface, so that one suite tests both."""

import json
from typing import Any

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.contract import Broker, OutgoingMessage
from morag_queue.broker.memory import MemoryBroker
from morag_queue.broker.redis import RedisBroker
from morag_queue.core import lanes
from morag_queue.core.model import Capability, QueuePriority, QueueType, Requires, TaskQueueEntry, WorkerInfo
from morag_queue.core.plan import MoveTask
from morag_queue.core.policy import Queues
from tests.support.simulated_fleet import SimulatedFleet

_WIRE = MessageBuilder()


def outgoing_message(
    task_id: str, lane: str = "cpu_standard", level: int = 4, *, enqueued_at: float = 1000.0, **fields: Any
) -> OutgoingMessage:
    queue = QueueType(lanes.split(lane)[0])
    known = {"requires": Requires.CPU, "priority": QueuePriority.NORMAL, "estimated_duration": 1.0, "task": "t"}
    entry = TaskQueueEntry(
        task_id=task_id, queue=queue, lane=lane, level=level, enqueued_at=enqueued_at, **(known | fields)
    )
    return OutgoingMessage(task_id, *_WIRE.message(entry), queue.value, lane, level, lane != queue.value)


def move(task_id: str, source: str, level: int, target: str, to_level: int | None = None, **fields: Any) -> MoveTask:
    to_level = level if to_level is None else to_level
    known = {"keeps_gpu": False, "reason": "test"} | fields
    return MoveTask(task_id=task_id, source=source, target=target, level=level, to_level=to_level, **known)


def worker_info(name: str, capability: str = "cpu", slots: int = 1, run: int = 1) -> WorkerInfo:
    kind = Capability(capability)
    queues = tuple(queue.value for queue in Queues().served_by(kind))
    return WorkerInfo(
        worker=name, incarnation=f"{name}.{run}", capability=kind, queues=queues, slots=slots, host="host", pid=1
    )


class BrokerDriver:
    """The common interface of both brokers."""

    broker: Broker

    def submit(self, *task_ids: str, lane: str = "cpu_standard", level: int = 4, **fields: Any) -> list[bool]:
        return self.broker.submit([outgoing_message(one, lane, level, **fields) for one in task_ids])

    def ids(self, lane: str, level: int) -> list[str]:
        """Return the task ids, oldest first; a foreign text as it is."""
        return [one if isinstance(one, str) else one["headers"]["id"] for one in self.messages(lane, level)]

    def places(self) -> dict[tuple[str, int], list[str]]:
        """Return the task ids of every list that is not empty."""
        views = self.broker.observe()[0].lanes
        found = {(view.lane, n): self.ids(view.lane, n) for view in views for n in range(10)}
        return {place: ids for place, ids in found.items() if ids}

    def messages(self, lane: str, level: int) -> list[Any]:
        raise NotImplementedError

    def push(self, raw: str, lane: str = "cpu_standard", level: int = 4) -> None:
        raise NotImplementedError

    def join(self, name: str, capability: str = "cpu", slots: int = 1) -> None:
        raise NotImplementedError

    def claim(self, name: str) -> str | None:
        raise NotImplementedError

    def end(self, task_id: str, run_seconds: float = 2.0) -> None:
        raise NotImplementedError

    def expire_lease(self) -> None:
        raise NotImplementedError


class MemoryDriver(BrokerDriver):
    def __init__(self) -> None:
        self.clock = 1_700_000_000.0
        self.broker: MemoryBroker = MemoryBroker(now=lambda: self.clock)

    def messages(self, lane: str, level: int) -> list[Any]:
        return self.broker.messages(lane, level)

    def push(self, raw: str, lane: str = "cpu_standard", level: int = 4) -> None:
        self.broker.push(lane, level, raw)

    def join(self, name: str, capability: str = "cpu", slots: int = 1) -> None:
        self.broker.register(worker_info(name, capability, slots))
        self.broker.beat(name)

    def claim(self, name: str) -> str | None:
        held = self.broker.claim(name)
        return held.task_id if held else None

    def end(self, task_id: str, run_seconds: float = 2.0) -> None:
        held = next(one for one in self.broker.observe()[0].held if one.task_id == task_id)
        assert self.broker.settle(held.tag, wait_seconds=1.0, run_seconds=run_seconds)

    def expire_lease(self) -> None:
        lease = self.broker.leases.current()
        self.clock = lease.until if lease else self.clock


class RedisDriver(BrokerDriver):
    def __init__(self, url: str) -> None:
        self.sim_fleet = SimulatedFleet(url)
        self.broker: RedisBroker = self.sim_fleet.broker

    def messages(self, lane: str, level: int) -> list[Any]:
        texts = self.sim_fleet.client.lrange(self.sim_fleet.keys.list(lane, level), 0, -1)
        return [_decoded(text) for text in reversed(texts)]

    def push(self, raw: str, lane: str = "cpu_standard", level: int = 4) -> None:
        self.sim_fleet.client.lpush(self.sim_fleet.keys.list(lane, level), raw)
        if "." in lane:
            self.sim_fleet.client.sadd(self.sim_fleet.keys.lanes, lane)

    def join(self, name: str, capability: str = "cpu", slots: int = 1) -> None:
        self.sim_fleet.join(name, capability, slots=slots)

    def claim(self, name: str) -> str | None:
        return self.sim_fleet.claim(name)

    def end(self, task_id: str, run_seconds: float = 2.0) -> None:
        self.sim_fleet.end(task_id, run_seconds=run_seconds)

    def expire_lease(self) -> None:
        self.sim_fleet.client.delete(self.sim_fleet.keys.lease)  # as its expiry does


def _decoded(raw: bytes | str) -> Any:
    text = raw if isinstance(raw, str) else raw.decode()
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) and "properties" in found else text
