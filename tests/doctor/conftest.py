"""A doctor for the empty Valkey of a test, and the records that real workers leave in its registry."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import redis

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.keys import Keys
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Code, Finding
from morag_queue.core.levels import priority_of_level
from morag_queue.core.model import QueuePriority, QueueType, TaskQueueEntry
from morag_queue.operations.doctor import doctor
from morag_queue.settings import BrokerSettings, Settings
from tests.support import records

Examine = Callable[..., dict[Code, Finding]]


@pytest.fixture
def examine(valkey: str) -> Examine:
    """What the doctor finds on `valkey` (or at `url`), the worst of each code; `broker` are its settings."""

    def look(url: str = valkey, **broker: Any) -> dict[Code, Finding]:
        settings = Settings(redis_url=url, broker=BrokerSettings(**broker))
        found = doctor(RedisBroker(settings)).findings
        return {one.code: one for one in reversed(found) if "no worker has registered here" not in one.message}

    return look


@pytest.fixture
def register(client: redis.Redis) -> Callable[..., None]:
    """A worker that registered and beats; what is given differs from a good one."""
    return lambda *args, **more: records.register(client, *args, **more)


@pytest.fixture
def queue(client: redis.Redis, valkey: str) -> Callable[..., str]:
    """Queues a task as `submit` does; returns its id."""
    wire, broker, numbers = MessageBuilder(), RedisBroker(Settings(redis_url=valkey), client), count()

    def one(lane: str = "cpu_standard", *, level: int = 4, minutes: float = 1.0, age_s: float = 0.0) -> str:
        queue, _, worker = lane.partition(".")
        task_id = f"task-{next(numbers)}"
        entry = TaskQueueEntry(
            task_id=task_id, task="t", queue=QueueType(queue), lane=lane, level=level, estimated_duration=minutes,
            priority=QueuePriority(priority_of_level(level)), enqueued_at=broker.now() - age_s,
        )  # fmt: skip
        text, record = wire.message(entry)
        assert broker.submit([OutgoingMessage(task_id, text, record, queue, lane, level, bool(worker))]) == [True]
        return task_id

    return one


@pytest.fixture
def claim(client: redis.Redis) -> Callable[[str, str], None]:
    """Puts a message into a worker's hands, as the claim script leaves it; no owner where `worker` is empty."""

    def one(task_id: str, worker: str) -> None:
        keys = Keys()
        raw = client.rpop("cpu_standard\x06\x164")
        client.hset(keys.unacked, task_id, json.dumps([json.loads(raw), "", "cpu_standard"]))
        if worker:
            record = [worker, f"{worker}.run", task_id, "cpu_standard", 4, 1_700_000_000_000]
            client.hset(keys.held, task_id, json.dumps(record))

    return one
