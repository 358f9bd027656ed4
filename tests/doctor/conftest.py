"""The doctor on the empty Valkey of a test, and the records that real workers write to its registry."""

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

_EMPTY = ("no worker has registered here", "no watch has led this fleet")  # hints on every empty fleet

Examine = Callable[..., dict[Code, Finding]]


@pytest.fixture
def examine(valkey: str) -> Examine:
    """Run the doctor on `valkey` (or `url`) and return the worst finding of each code; `broker` are settings."""

    def run(url: str = valkey, **broker: Any) -> dict[Code, Finding]:
        settings = Settings(redis_url=url, broker=BrokerSettings(**broker))
        found = doctor(RedisBroker(settings)).findings
        return {item.code: item for item in reversed(found) if not any(hint in item.message for hint in _EMPTY)}

    return run


@pytest.fixture
def register(client: redis.Redis) -> Callable[..., None]:
    """Register a healthy worker with a heartbeat; keywords override its fields."""
    return lambda *args, **more: records.register(client, *args, **more)


@pytest.fixture
def queue(client: redis.Redis, valkey: str) -> Callable[..., str]:
    """Queue a task as `submit` does and return its id."""
    builder, broker, numbers = MessageBuilder(), RedisBroker(Settings(redis_url=valkey), client), count()

    def put(lane: str = "cpu_standard", *, level: int = 4, minutes: float = 1.0, age_s: float = 0.0) -> str:
        queue, _, worker = lane.partition(".")
        task_id = f"task-{next(numbers)}"
        entry = TaskQueueEntry(
            task_id=task_id, task="t", queue=QueueType(queue), lane=lane, level=level, estimated_duration=minutes,
            priority=QueuePriority(priority_of_level(level)), enqueued_at=broker.now() - age_s,
        )  # fmt: skip
        text, record = builder.message(entry)
        assert broker.submit([OutgoingMessage(task_id, text, record, queue, lane, level, bool(worker))]) == [True]
        return task_id

    return put


@pytest.fixture
def claim(client: redis.Redis) -> Callable[[str, str], None]:
    """Make a worker hold a message, as the claim script does; an empty `worker` leaves it without an owner."""

    def hold(task_id: str, worker: str) -> None:
        keys = Keys()
        raw = client.rpop("cpu_standard\x06\x164")
        client.hset(keys.unacked, task_id, json.dumps([json.loads(raw), "", "cpu_standard"]))
        if worker:
            record = [worker, f"{worker}.run", task_id, "cpu_standard", 4, 1_700_000_000_000]
            client.hset(keys.held, task_id, json.dumps(record))

    return hold
