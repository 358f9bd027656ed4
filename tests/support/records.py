"""Registry records like those that the agents of real workers write, and older ledger records."""

import json
from importlib.metadata import version
from typing import Any

import redis

from morag_queue.broker.keys import Keys
from morag_queue.broker.workers import Registry
from morag_queue.core.model import Capability, WorkerInfo

SETTINGS = {
    "acks_late": True, "reject_on_worker_lost": True, "cancel_on_connection_loss": True, "prefetch_multiplier": 1,
    "visibility_timeout": 3600, "sep": "",
}  # fmt: skip
HEARTBEAT = {"cpu_percent": 1.0, "memory_percent": 1.0, "active": 0, "reserved": 0, "stopped": False}


def register(client: redis.Redis, worker: str = "worker-1", *, settings: Any = (), beat: Any = (), **more: Any) -> None:
    """Register a healthy worker with a heartbeat, changed by the arguments. `beat=None`: no heartbeat yet."""
    info = WorkerInfo(
        **{
            "worker": worker, "incarnation": f"{worker}.run", "host": "host", "pid": 1, "slots": 1,
            "capability": Capability.CPU, "queues": ("cpu_standard", "cpu_batch"),
            "version": version("morag-queue"),
            "settings": {**SETTINGS, **dict(settings)}, **more,
        }
    )  # fmt: skip
    registry = Registry(client, Keys(), 60)
    assert registry.register(info) == ""
    if beat is not None:
        registry.beat(worker, info.incarnation, {**HEARTBEAT, **dict(beat)}, [])


def backdated(record: bytes | None, seconds: float) -> str:
    """The text of a ledger record, open or ended, with an earlier enqueue time."""
    fields = json.loads(record or b"")
    if "open" in fields:
        fields["open"][0] -= seconds
    else:
        fields["enqueued_at"] -= seconds
    return json.dumps(fields)
