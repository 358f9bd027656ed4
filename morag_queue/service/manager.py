"""PriorityQueueManager: the whole system inside an asyncio service.

    manager = PriorityQueueManager(celery_app, redis_client, registry, classifier)
    await manager.start()
    found = await classifier.classify_task("talk.mp4", options={"diarization": True})
    task_id = await manager.submit_task(found, ["talk.mp4", "video", {"diarization": True}], {})
    …
    await manager.stop()

Nothing of it is kept in the process: queues, figures, decisions and what the loop remembers are in Redis, so a service
may end at any moment, and several managers agree, for one of them leads. What blocks runs in threads.
"""

import asyncio
import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from morag_queue.broker.connection import own
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Classification, QueuePriority, QueueStats, QueueType
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Refusal
from morag_queue.errors import Refused
from morag_queue.operations.complete import complete
from morag_queue.operations.stats import stats
from morag_queue.operations.submit import outgoing
from morag_queue.operations.submit_rows import Row, prepare
from morag_queue.settings import BrokerSettings, Settings, load
from morag_queue.settings.urls import SCHEMES
from morag_queue.watch.events import EventSink
from morag_queue.watch.log import ServiceLog
from morag_queue.watch.loop import Watch

from .classifier import IntelligentTaskClassifier, TaskClassification
from .registry import WorkerRegistry

if TYPE_CHECKING:
    from celery import Celery

    from morag_queue.broker.celery_message import MessageBuilder

PICTURE_SECONDS = 2.0
"""How old the picture of the fleet may be on which a task is routed: as old as a heartbeat."""


class PriorityQueueManager:
    """Submits, decides, balances and counts. `redis_client` is redis-py's, of its asyncio or its blocking kind.

    `settings` are by default those of the environment and the TOML file, with the broker of the Celery app; `tell`
    hears what the loop does (by default the service's structlog).
    """

    def __init__(
        self,
        celery_app: "Celery",
        redis_client: Any,
        worker_registry: WorkerRegistry | None = None,
        task_classifier: IntelligentTaskClassifier | None = None,
        *,
        settings: Settings | None = None,
        tell: EventSink | None = None,
    ) -> None:
        self.app = celery_app
        self.settings = settings or settings_of(celery_app)
        client = own(redis_client, self.settings.broker) if redis_client is not None else None
        self._broker = RedisBroker(self.settings, client)
        self.worker_registry = worker_registry or WorkerRegistry(redis_client, self.settings, broker=self._broker)
        self.task_classifier = task_classifier or IntelligentTaskClassifier()
        self.task_classifier.belong_to(self._broker)
        self._tell = tell or ServiceLog()
        self._routing = Lock()
        self._router: Router | None = None
        self._pictured_at = float("-inf")
        self._clock_offset = 0.0
        self._thread: Thread | None = None
        self._stopping = Event()

    # -- the loops

    async def start(self) -> None:
        """Begins to balance and to monitor, under the lease, in the background; returns when the broker has answered.

        A second call does nothing. Raises BrokerUnreachable.
        """
        await asyncio.to_thread(self._broker.now)
        if self._thread is not None:
            return
        self._stopping = Event()
        watch = Watch(self._broker, who=f"{getpass.getuser()}@{socket.gethostname()}", emit=self._tell)
        # Of its own, and a daemon: a service that ends without stop() must not hang on it.
        self._thread = Thread(target=watch.run, args=[self._stopping], name="morag-queue-loop", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends the loops; another manager or `watch` may lead at once. Tasks, figures and decisions stay in Redis."""
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
    ) -> str:
        """Routes and queues one task; gives its Celery id, which `AsyncResult` takes.

        `task_args` are those of MoRAG's task for such a source where not given, `task` names another one. What the
        caller says of priority, queue and worker wins. Raises Refused where a wish cannot be granted, or the id is
        still open.
        """
        found = classification_result
        options = found.options if isinstance(found, TaskClassification) else {}
        found = found.classification if isinstance(found, TaskClassification) else found
        if priority is not None:
            found = found.model_copy(update={"priority": priority})
        row = Row(
            source=found.source, options=options, queue=queue, worker=worker, task_id=task_id or str(uuid4()),
            task=task, args=None if task_args is None else tuple(task_args), kwargs=dict(task_kwargs or {}),
        )  # fmt: skip
        return await asyncio.to_thread(self._submit, found, row, force)

    async def task_completed(self, task_id: str, success: bool = True) -> bool:
        """A service's word that a task has ended, for workers without the agent; those with it say so themselves.

        Safe to call for any task, and twice: whether this call ended it.
        """
        return await asyncio.to_thread(complete, self._broker, task_id, success)

    async def get_queue_stats(self, window_seconds: float = 3600.0) -> dict[QueueType, QueueStats]:
        """All four queues; averages and rates are of the last `window_seconds`."""
        found = await asyncio.to_thread(stats, self._broker, self.settings, window_seconds=window_seconds)
        return {queue.queue_type: queue for queue in found.queues}

    def _submit(self, found: Classification, row: Row, force: bool) -> str:
        with self._routing:
            router = self._look()
            placed = prepare(
                row, found, router, self.settings, enqueued_at=self._clock_offset + monotonic(), force=force
            )
            if isinstance(placed, Refusal):
                raise Refused(placed.message)
            message = outgoing(placed, self._wire)
        if not self._broker.submit([message])[0]:
            raise Refused(f"task id {row.task_id} is still open: it was not queued again; choose another, or wait")
        return placed.entry.task_id

    def _look(self) -> Router:
        now = monotonic()
        if self._router is None or now - self._pictured_at > PICTURE_SECONDS:
            snapshot, _ = self._broker.observe()
            self._router = Router(snapshot, self.settings.policy, self.settings.queues)
            self._pictured_at, self._clock_offset = now, snapshot.taken_at - now
        return self._router

    @cached_property
    def _wire(self) -> "MessageBuilder":
        from morag_queue.broker.celery_message import MessageBuilder

        return MessageBuilder(self.app)


def settings_of(app: "Celery") -> Settings:
    """The settings as the command and the workers find them, with the broker and the layout of keys of the app."""
    found = load({}, os.environ, Path.cwd()).settings
    url, options = str(app.conf.broker_url or ""), app.conf.broker_transport_options or {}
    url = url.replace("redis+socket://", "unix://", 1).replace("?virtual_host=", "?db=", 1)
    layout = {name: options[name] for name in BrokerSettings.model_fields if name in options}
    broker = BrokerSettings.model_validate({**found.broker.model_dump(), **layout})
    is_redis = url.partition("://")[0] in SCHEMES
    return found.model_copy(update={"redis_url": url if is_redis else found.redis_url, "broker": broker})
