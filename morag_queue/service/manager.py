"""PriorityQueueManager: morag-queue inside an asyncio service.

    manager = PriorityQueueManager(celery_app, redis_client, registry, classifier)
    await manager.start()
    classification = await classifier.classify_task("talk.mp4", options={"diarization": True})
    task_id = await manager.submit_task(classification, ["talk.mp4", "video", {"diarization": True}], {})
    …
    await manager.stop()

All state is in Redis: queues, counters, decisions and the state of the loop. A service may therefore stop at any time,
and several managers may run at once: one of them leads. Blocking calls run in threads.
"""

import asyncio
import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from morag_queue.broker.connection import connect_like
from morag_queue.broker.fleet_reader import FleetReader
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Classification, QueuePriority, QueueType, TaskQueueEntry
from morag_queue.core.policy import QueuePolicy
from morag_queue.core.routing.types import Refusal
from morag_queue.core.stats import QueueStats
from morag_queue.errors import Refused
from morag_queue.operations.entries import queue_entries, worker_assignments
from morag_queue.operations.stats import stats
from morag_queue.operations.submit import outgoing
from morag_queue.operations.submit_rows import Row, prepare
from morag_queue.operations.task_edits import complete
from morag_queue.settings import Settings, load
from morag_queue.settings.urls import SCHEMES
from morag_queue.watch.events import EventSink
from morag_queue.watch.loop import Watch

from .classifier import IntelligentTaskClassifier, TaskClassification
from .log import ServiceLog
from .registry import WorkerRegistry
from .router_cache import RouterCache

if TYPE_CHECKING:
    from celery import Celery

    from morag_queue.broker.celery_message import MessageBuilder


class PriorityQueueManager:
    """Submit, balance, monitor and count tasks. `redis_client` is a redis-py client, blocking or asyncio.

    `settings` default to those of the environment and the TOML file, with the broker of the Celery app. `emit` receives
    the events of the loop; by default they are logged as `morag_queue.watch`.
    """

    def __init__(
        self,
        celery_app: "Celery",
        redis_client: Any,
        worker_registry: WorkerRegistry | None = None,
        task_classifier: IntelligentTaskClassifier | None = None,
        *,
        settings: Settings | None = None,
        emit: EventSink | None = None,
    ) -> None:
        self.app = celery_app
        self.settings = settings or settings_of(celery_app)
        client = connect_like(redis_client, self.settings.broker) if redis_client is not None else None
        self._broker = RedisBroker(self.settings, client)
        self.worker_registry = worker_registry or WorkerRegistry(redis_client, self.settings, broker=self._broker)
        self.task_classifier = task_classifier or IntelligentTaskClassifier()
        self.task_classifier.use_broker(self._broker)
        self._emit = emit or ServiceLog()
        reader = FleetReader(self._broker.client, self._broker.keys, self.settings, with_loads=True)
        self._routers = RouterCache(reader.read, self.settings)
        self._thread: Thread | None = None
        self._stopping = Event()

    # -- the loop

    async def start(self) -> None:
        """Start balancing and monitoring in the background, under the leader's lease.

        Returns once the broker has answered; does nothing if already started. Raises BrokerUnreachable.
        """
        await asyncio.to_thread(self._broker.now)
        if self._thread is not None:
            return
        self._stopping = Event()
        watch = Watch(self._broker, who=f"{getpass.getuser()}@{socket.gethostname()}", emit=self._emit)
        # A daemon thread: a service that exits without stop() must not hang.
        self._thread = Thread(target=watch.run, args=[self._stopping], name="morag-queue-loop", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Stop the loop and release the lease, so that another manager or `watch` can lead at once."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            await asyncio.to_thread(thread.join)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # -- tasks

    async def submit_task(
        self,
        classification_result: TaskClassification | Classification,
        task_args: Sequence[Any] | None = None,
        task_kwargs: Mapping[str, Any] | None = None,
        *,
        task: str | None = None,
        task_id: str | None = None,
        priority: QueuePriority | None = None,
        queue: QueueType | None = None,
        worker: str | None = None,
        force: bool = False,
        allow_cpu: bool = False,
    ) -> str:
        """Route and queue one task; return its Celery id, for `AsyncResult`.

        `task_args` default to the arguments of MoRAG's task for the source; `task` names another task. `priority`,
        `queue` and `worker` override the routing. `force` allows a worker that cannot take the task now, and only
        `allow_cpu` a place without the GPU that the task requires. Raises Refused if one of them is not possible, or
        if a task of this id has not ended.
        """
        if isinstance(classification_result, TaskClassification):
            classification, options = classification_result.classification, classification_result.options
        else:
            classification, options = classification_result, {}
        if priority is not None:
            classification = classification.model_copy(update={"priority": priority})
        row = Row(
            source=classification.source, options=options, queue=queue, worker=worker, task_id=task_id or str(uuid4()),
            task=task, args=None if task_args is None else tuple(task_args), kwargs=dict(task_kwargs or {}),
        )  # fmt: skip
        return await asyncio.to_thread(self._submit, classification, row, force, allow_cpu)

    async def task_completed(self, task_id: str, success: bool = True) -> bool:
        """Record that a task has ended, if its worker is agentless. The agent records this itself.

        A task that still waits is taken out of its lane at the same time, so that it does not run afterwards; if it has
        failed, `morag-queue dead requeue` can run it.

        Returns whether this call recorded the end: False if the task is unknown, has ended already, or is held by a
        worker with the agent.
        """
        return await asyncio.to_thread(complete, self._broker, task_id, success)

    async def get_queue_stats(self, window_seconds: float = 3600.0) -> dict[QueueType, QueueStats]:
        """Return the statistics of all four queues; averages and rates cover the last `window_seconds`."""
        report = await asyncio.to_thread(stats, self._broker, self.settings, window_seconds=window_seconds)
        return {queue.queue_type: queue for queue in report.queues}

    async def get_queue_entries(self) -> dict[QueueType, list[TaskQueueEntry]]:
        """Return the waiting tasks of all four queues, the next to run first. Costs by the backlog."""
        return await asyncio.to_thread(queue_entries, self._broker)

    async def get_worker_assignments(self) -> dict[str, list[str]]:
        """Return the ids of the tasks of each worker: those that it holds, then those in its lanes."""
        return await asyncio.to_thread(worker_assignments, self._broker)

    # -- the same for code outside of a coroutine: these block until the broker has answered

    @property
    def queue_configs(self) -> Mapping[QueueType, QueuePolicy]:
        """The settings of each queue; read without the broker."""
        return {queue: self.settings.queues.of(queue) for queue in QueueType}

    @property
    def queue_entries(self) -> dict[QueueType, list[TaskQueueEntry]]:
        return queue_entries(self._broker)

    @property
    def worker_assignments(self) -> dict[str, list[str]]:
        return worker_assignments(self._broker)

    def _submit(self, classification: Classification, row: Row, force: bool, allow_cpu: bool) -> str:
        with self._routers.lock:
            router = self._routers.router()
            prepared = prepare(
                row, classification, router, self.settings, enqueued_at=self._routers.now(), force=force,
                allow_cpu=allow_cpu,
            )  # fmt: skip
            if isinstance(prepared, Refusal):
                raise Refused(prepared.message)
            message = outgoing(prepared, self._message_builder)
        if not self._broker.submit([message])[0]:
            raise Refused(f"task id {row.task_id} is still open and was not queued again; choose another id")
        return prepared.entry.task_id

    @cached_property
    def _message_builder(self) -> "MessageBuilder":
        from morag_queue.broker.celery_message import MessageBuilder

        return MessageBuilder(self.app)


def settings_of(app: "Celery") -> Settings:
    """Load the settings of the environment and the TOML file, with the app's broker URL and transport options."""
    settings = load({}, os.environ, Path.cwd()).settings
    url, options = str(app.conf.broker_url or ""), app.conf.broker_transport_options or {}
    url = url.replace("redis+socket://", "unix://", 1).replace("?virtual_host=", "?db=", 1)
    broker = replace(settings.broker, **{name: options[name] for name in vars(settings.broker) if name in options})
    is_redis = url.partition("://")[0] in SCHEMES
    return replace(settings, redis_url=url if is_redis else settings.redis_url, broker=broker)
