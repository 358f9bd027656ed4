"""WorkerRegistry: the workers of the fleet, for asyncio services.

Workers with the agent register themselves and send their own heartbeats. A service reads them here, and can register
other workers.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis

from morag_queue.broker.connection import connect_like
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import ContentType, Frozen, QueueType, Requires, WorkerInfo, WorkerStatus
from morag_queue.core.routing.feasibility import Feasibility, in_service, suits, worker_loads
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.stats import WorkerStats, worker_stats
from morag_queue.core.worker_status import SERVING
from morag_queue.errors import NotFound, Refused
from morag_queue.settings import Settings, load


class RegisteredWorker(Frozen):
    """`healthy`: its last heartbeat is less than a minute old. `available`: online and below its task limit."""

    info: WorkerInfo
    stats: WorkerStats
    healthy: bool
    available: bool

    @property
    def worker_id(self) -> str:
        return self.info.worker

    @property
    def status(self) -> WorkerStatus:
        return self.stats.status


class WorkerRegistry:
    """The registry of one fleet. `redis_client` is a redis-py client, blocking or asyncio.

    `settings` default to those of the environment and the TOML file.
    """

    def __init__(
        self, redis_client: Any, settings: Settings | None = None, *, broker: RedisBroker | None = None
    ) -> None:
        self.settings = settings or load({}, os.environ, Path.cwd()).settings
        self._broker = broker or RedisBroker(self.settings, connect_like(redis_client, self.settings.broker))

    @property
    def client(self) -> Redis:
        return self._broker.client

    async def register_worker(self, info: WorkerInfo, *, replaces: str = "") -> None:
        """Register under the worker's name. Raises Refused if an incarnation other than `replaces` has the name."""
        holder = await asyncio.to_thread(self._register, info, replaces)
        if holder:
            raise Refused(
                f"{info.worker} is already registered by {holder}; stop that worker first, or choose another name"
            )

    async def update_heartbeat(self, worker_id: str, metrics: Mapping[str, Any] | None = None) -> None:
        """Send one heartbeat. `metrics`: cpu_percent, memory_percent, gpu_percent, active, reserved.

        Completed tasks, failed tasks and run times are recorded when tasks end, not here. Raises NotFound.
        """
        await asyncio.to_thread(self._beat, worker_id, {**(metrics or {})})

    async def unregister_worker(self, worker_id: str) -> None:
        """Mark the worker as stopped: it is offline at once. Raises NotFound."""
        await asyncio.to_thread(self._beat, worker_id, {"active": 0, "reserved": 0, "stopped": True})

    async def get_worker(self, worker_id: str) -> RegisteredWorker | None:
        return next((worker for worker in await self.get_workers() if worker.worker_id == worker_id), None)

    async def get_workers(self) -> list[RegisteredWorker]:
        """Return all registered workers, sorted by id."""
        snapshot, _ = await asyncio.to_thread(self._broker.observe)
        return [self._registered(snapshot, view) for view in sorted(snapshot.workers, key=lambda view: view.worker)]

    async def aget_available_workers(
        self,
        queue: QueueType | None = None,
        *,
        requires: Requires = Requires.CPU,
        content_type: ContentType | None = None,
        memory_gb: float = 0.0,
    ) -> list[RegisteredWorker]:
        """As `get_available_workers`, in a thread."""
        return await asyncio.to_thread(
            self.get_available_workers, queue, requires=requires, content_type=content_type, memory_gb=memory_gb
        )

    def get_available_workers(
        self,
        queue: QueueType | None = None,
        *,
        requires: Requires = Requires.CPU,
        content_type: ContentType | None = None,
        memory_gb: float = 0.0,
    ) -> list[RegisteredWorker]:
        """Return the workers that are online, below their limit, and able to run such a task (from that queue).

        Blocks for one round trip; in a coroutine use `aget_available_workers`.
        """
        snapshot, _ = self._broker.observe()
        loads = worker_loads(snapshot, self.settings.policy)
        able = {
            worker
            for worker, load in loads.items()
            if (queue is None or queue in load.queues)
            and suits(load, requires, content_type, memory_gb) is Feasibility.FIT
            and in_service(load) is Feasibility.FIT
        }
        views = sorted((view for view in snapshot.workers if view.worker in able), key=lambda view: view.worker)
        return [worker for view in views if (worker := self._registered(snapshot, view)).available]

    async def is_healthy(self, worker_id: str) -> bool:
        """Return whether the worker sent a heartbeat in the last minute. Raises NotFound."""
        worker = await self.get_worker(worker_id)
        if worker is None:
            raise _unknown(worker_id)
        return worker.healthy

    def _registered(self, snapshot: Snapshot, view: WorkerView) -> RegisteredWorker:
        stats = worker_stats(view, snapshot, self.settings.policy)
        silence = stats.last_heartbeat_seconds
        gone = view.fenced or (view.beat is not None and view.beat.stopped)
        healthy = not gone and silence is not None and silence < self.settings.policy.offline_after_seconds
        available = stats.status in SERVING and stats.assigned_tasks < stats.max_concurrent_tasks
        return RegisteredWorker(info=view.info, stats=stats, healthy=healthy, available=available)

    def _register(self, info: WorkerInfo, replaces: str) -> str:
        with self._broker.translated():
            return self._broker.registry.register(info, replaces)

    def _beat(self, worker_id: str, metrics: dict[str, Any]) -> None:
        with self._broker.translated():
            acting = self._broker.registry.acting(worker_id)
            if acting is None:
                raise _unknown(worker_id)
            self._broker.registry.beat(worker_id, acting.incarnation, metrics, [])


def _unknown(worker_id: str) -> NotFound:
    return NotFound(f"no worker {worker_id!r} is registered; `morag-queue stats` lists the registered workers")
