"""WorkerRegistry on a real broker."""

import asyncio
from typing import Any

import pytest
import redis

from morag_queue import WorkerRegistry
from morag_queue.core.model import Capability, QueueType, Requires, WorkerInfo, WorkerStatus
from morag_queue.errors import NotFound, Refused
from morag_queue.settings import Settings


@pytest.fixture
def registry(valkey):
    with redis.Redis.from_url(valkey) as client:
        yield WorkerRegistry(client, Settings(redis_url=valkey))


def info(name: str, **more: Any) -> WorkerInfo:
    known = {"incarnation": f"{name}.1", "host": "h", "pid": 1, "slots": 2}
    known |= {"capability": Capability.GPU, "queues": ("gpu_priority",)}
    return WorkerInfo(worker=name, **(known | more))


def test_a_worker_registers_sends_heartbeats_and_unregisters(registry, sim_fleet):
    async def lifecycle() -> None:
        await registry.register_worker(info("gpu-1", gpus=2, gpu_memory_gb=24, location="lab", tags=("a100",)))
        with pytest.raises(Refused, match=r"gpu-1 is already registered by gpu-1\.1"):
            await registry.register_worker(info("gpu-1", incarnation="another"))
        await registry.update_heartbeat("gpu-1", {"cpu_percent": 12.5, "gpu_percent": 70.0, "active": 1})
        worker = await registry.get_worker("gpu-1")
        assert worker is not None
        assert (worker.info.location, worker.info.tags, worker.stats.gpu_percent) == ("lab", ("a100",), 70.0)
        assert worker.healthy
        assert await registry.is_healthy("gpu-1")
        assert [worker.worker_id for worker in await registry.aget_available_workers(QueueType.GPU_PRIORITY)] == [
            "gpu-1"
        ]
        assert await registry.aget_available_workers(QueueType.CPU_BATCH) == []
        await registry.unregister_worker("gpu-1")
        assert (await registry.get_worker("gpu-1")).status is WorkerStatus.OFFLINE
        assert await registry.aget_available_workers() == []
        assert not await registry.is_healthy("gpu-1")

    asyncio.run(lifecycle())


def test_available_workers_are_below_their_limit_and_able_to_run_the_task(registry, sim_fleet):
    sim_fleet.join("worker-cpu-1", slots=1)
    sim_fleet.join("worker-gpu-1", "gpu", slots=1)

    def available(**options: Any) -> list[str]:
        return [worker.worker_id for worker in registry.get_available_workers(**options)]

    assert available() == ["worker-cpu-1", "worker-gpu-1"]
    assert available(requires=Requires.GPU) == ["worker-gpu-1"]
    sim_fleet.submit("a")
    sim_fleet.claim("worker-cpu-1")
    assert available() == ["worker-gpu-1"]


def test_a_heartbeat_of_an_unregistered_worker_is_refused(registry, sim_fleet):
    with pytest.raises(NotFound, match="no worker 'nobody'"):
        asyncio.run(registry.update_heartbeat("nobody"))
