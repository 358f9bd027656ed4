"""A Celery router for producers. Add one line to an app that calls `.delay()` on MoRAG's tasks::

    app.conf.task_routes = (morag_queue.route_task,)

Its calls are then routed as `morag-queue submit` does. Celery publishes the message itself, so it has no ledger entry:
the counters include it, but a second task with its id is not refused.

kombu publishes only at the `priority_steps` of the app, by default 0, 3, 6 and 9, and rounds other levels down. So the
levels are chosen among those of the app; with `list(range(10))` it uses all of them, as `submit` does.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from celery import current_app
from kombu.entity import Exchange, Queue
from pydantic import ValidationError

from morag_queue.broker.codec import HEADER, header_fields
from morag_queue.broker.fleet_reader import FleetReader, Pause
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.levels import DEFAULT_STEPS, common_steps
from morag_queue.core.model import ContentType, Facts, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Binding
from morag_queue.core.routing.classify import effective_options, profile
from morag_queue.core.routing.feasibility import WorkerLoad
from morag_queue.core.routing.types import Refusal, TaskProfile
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import BrokerError, BrokerUnreachable, MoragQueueError
from morag_queue.operations.submit_rows import Row
from morag_queue.probe import probe
from morag_queue.probe.files import stat_file
from morag_queue.probe.url import is_url
from morag_queue.settings import Settings, load

from .router_cache import STALE_SECONDS, RouterCache

logger = logging.getLogger("morag_queue.service.producer")


def route_task(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: dict[str, Any],
    task: Any = None,
    **_: Any,
) -> dict[str, Any] | None:
    """Route MoRAG's tasks (`[tasks]` in the settings), except calls that name a queue.

    A caller may set the priority and the requirement in a header:
    `apply_async(..., headers={"morag_queue": {"priority": "URGENT", "requires": "gpu"}})`. A call that cannot be routed
    (a missing file, an unknown priority) is not lost: Celery's default routing applies, with a warning.

    The first call of a process reads the state of the fleet, and so does one after ten seconds without a call. The
    others use what was read last; a thread refreshes it every two seconds while calls are made.
    """
    if options.get("queue") or options.get("exchange") or options.get("routing_key"):
        return None
    producer = _producer(_steps_of(current_app if task is None else task.app))
    try:
        routed = producer.route(name, args or (), options.get("headers") or {})
    except (MoragQueueError, ValidationError) as error:
        logger.warning("%s was not routed; Celery's default routing applies: %s", name, error)
        return None
    return None if routed is None else _options(routed, options)


def _steps_of(app: Any) -> tuple[int, ...]:
    """Return the levels at which the app publishes."""
    options = app.conf.broker_transport_options or {}
    return tuple(options.get("priority_steps") or DEFAULT_STEPS)


class _Routed(NamedTuple):
    """Where a task goes, and what its header tells about it."""

    lane: str
    level: int
    queue: QueueType
    priority: QueuePriority
    requires: Requires
    content_type: ContentType | None
    estimated_duration: float
    enqueued_at: float
    worker: None = None
    submission: None = None


def _options(routed: _Routed, options: dict[str, Any]) -> dict[str, Any]:
    header = {HEADER: header_fields(routed)}
    if options.get("headers"):
        # The options of a call override those of its route, so extend the headers of the call.
        options["headers"] = {**options["headers"], **header}
    # Nothing to declare: the anonymous exchange has no bindings. kombu would copy the queue for it at each call.
    return {"queue": _queue(routed.lane), "priority": routed.level, "headers": header, "declare": []}


@lru_cache(maxsize=256)
def _queue(lane: str) -> Queue:
    """Return Celery's object for a lane. To build one takes as long as the rest of the routing."""
    # The anonymous exchange: kombu can destroy a message of a named exchange when it restores it.
    return Queue(lane, Exchange(""), routing_key=lane)


class _Producer:
    """State that a process keeps between calls. `steps` are the levels at which its app publishes."""

    def __init__(self, settings: Settings, steps: tuple[int, ...]) -> None:
        self.settings, self._steps = settings, steps
        broker, is_early = RedisBroker(settings), settings.policy.binding is Binding.EARLY
        self._reader = FleetReader(broker.client, broker.keys, settings, with_loads=is_early)
        tasks = settings.tasks
        self._options_position = {tasks.file: 2, tasks.url: 2, tasks.web: 1, tasks.youtube: 1}
        self._types = {tasks.web: ContentType.WEB, tasks.youtube: ContentType.YOUTUBE}
        self._profile_of_url = lru_cache(maxsize=256)(self._classify_url)
        self._profile_of_file = lru_cache(maxsize=256)(self._classify_file)
        self._routers = RouterCache(self._read, settings, stale_seconds=STALE_SECONDS)

    def route(self, name: str, args: Sequence[Any], headers: Mapping[str, Any]) -> _Routed | None:
        """Route a call; None if it is not a MoRAG task. Raises MoragQueueError and ValidationError."""
        position = self._options_position.get(name)
        if position is None or not args:
            return None
        header = headers.get(HEADER) or {}
        given = {key: header[key] for key in ("priority", "requires") if key in header}
        options = args[position] if len(args) > position and isinstance(args[position], dict) else {}
        content_type = self._types.get(name) or (args[1] if len(args) > 1 else None)
        row = Row.model_validate({"source": args[0], "content_type": content_type, "options": options, **given})
        found = self._profile(row)
        with self._routers.lock:
            placed, now = self._routers.router().place(found), self._routers.now()
        if isinstance(placed, Refusal):
            raise MoragQueueError(placed.message)
        queue, lane, level = placed
        return _Routed(
            lane, level, queue, found.priority, found.requires, found.content_type, found.estimated_minutes, now
        )

    def _profile(self, row: Row) -> TaskProfile:
        given = row.content_type, row.priority, row.requires, effective_options(row.options)
        if is_url(row.source):
            facts = probe(row.source, declared=row.content_type)
            return self._profile_of_url(facts.declared_type, facts.problems, *given)
        status = stat_file(row.source)
        changes = status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return self._profile_of_file(row.source, changes, *given)

    def _classify_url(self, by_name: ContentType | None, problems: tuple[str, ...], *given: Any) -> TaskProfile:
        """Classify by all that is known of a URL but the address itself: few combinations, so that they are kept."""
        return self._classify(Facts(source="", is_url=True, declared_type=by_name, problems=problems), *given)

    def _classify_file(self, path: str, changes: tuple[int, ...], *given: Any) -> TaskProfile:
        """Read and classify a file. Kept until it changes: a producer may send several tasks for each file."""
        return self._classify(probe(path, declared=given[0]), *given)

    def _classify(
        self,
        facts: Facts,
        declared: ContentType | None,
        priority: QueuePriority | None,
        requires: Requires | None,
        options: tuple[str, ...],
    ) -> TaskProfile:
        return profile(
            facts, dict.fromkeys(options, True), self.settings.content,
            declared=declared, priority=priority, requires=requires,
        )  # fmt: skip

    def _read(self, pause: Pause) -> tuple[Snapshot, Mapping[str, WorkerLoad]]:
        """Read the fleet; return an empty snapshot on failure, because Celery may still be able to publish."""
        try:
            snapshot, loads = self._reader.read(pause)
        except (BrokerUnreachable, BrokerError) as error:
            logger.warning("routing without the state of the fleet: %s", error)
            setting = self.settings.broker.priority_steps
            snapshot, loads = Snapshot(time.time(), steps=DEFAULT_STEPS if setting == "auto" else setting), {}
        return replace(snapshot, steps=common_steps([self._steps], snapshot.steps)), loads


_producers: dict[tuple[int, tuple[int, ...]], _Producer] = {}


def _producer(steps: tuple[int, ...]) -> _Producer:
    """Return the producer of this process: a connection must not be shared across a fork.

    Threads that make the first call at once must share one, since it counts the tasks that it places. There is no lock:
    a fork may copy it locked.
    """
    key = os.getpid(), steps
    return _producers.get(key) or _producers.setdefault(
        key, _Producer(load({}, os.environ, Path.cwd()).settings, steps)
    )
