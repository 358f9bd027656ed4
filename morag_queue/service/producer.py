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
from functools import cache
from pathlib import Path
from typing import Any

from celery import current_app
from kombu.entity import Exchange, Queue
from pydantic import ValidationError

from morag_queue.broker.codec import HEADER, header_fields
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.levels import DEFAULT_STEPS, common_steps
from morag_queue.core.routing.types import Refusal
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import BrokerError, BrokerUnreachable, MoragQueueError
from morag_queue.operations.submit_rows import PreparedTask, Row, classified, prepare
from morag_queue.probe import probe
from morag_queue.settings import Settings, load

from .router_cache import RouterCache

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
    """
    if any(options.get(choice) for choice in ("queue", "exchange", "routing_key")):
        return None
    producer = _producer(os.getpid(), _steps_of(current_app if task is None else task.app))
    try:
        prepared = producer.prepare(name, list(args or ()), options.get("headers") or {})
    except (MoragQueueError, ValidationError) as error:
        logger.warning("%s was not routed; Celery's default routing applies: %s", name, error)
        return None
    return None if prepared is None else _options(prepared, options)


def _steps_of(app: Any) -> tuple[int, ...]:
    """Return the levels at which the app publishes."""
    options = app.conf.broker_transport_options or {}
    return tuple(options.get("priority_steps") or DEFAULT_STEPS)


def _options(prepared: PreparedTask, options: dict[str, Any]) -> dict[str, Any]:
    header = {HEADER: header_fields(prepared.entry)}
    if options.get("headers"):
        # The options of a call override those of its route, so extend the headers of the call.
        options["headers"] = {**options["headers"], **header}
    lane = prepared.routed.lane
    return {
        # The anonymous exchange: kombu can destroy a message of a named exchange when it restores it.
        "queue": Queue(lane, Exchange(""), routing_key=lane),
        "priority": prepared.routed.level,
        "headers": header,
    }


class _Producer:
    """State that a process keeps between calls. `steps` are the levels at which its app publishes."""

    def __init__(self, settings: Settings, steps: tuple[int, ...]) -> None:
        self.settings, self._steps = settings, steps
        self._broker = RedisBroker(settings)
        tasks = settings.tasks
        self._options_position = {tasks.file: 2, tasks.url: 2, tasks.web: 1, tasks.youtube: 1}
        self._routers = RouterCache(self._observe, settings)

    def prepare(self, name: str, args: list[Any], headers: Mapping[str, Any]) -> PreparedTask | None:
        """Route a call; None if it is not a MoRAG task. Raises MoragQueueError and ValidationError."""
        position = self._options_position.get(name)
        if position is None or not args:
            return None
        header = headers.get(HEADER) or {}
        given = {key: header[key] for key in ("priority", "requires") if key in header}
        options = args[position] if len(args) > position and isinstance(args[position], dict) else {}
        row = Row.model_validate(
            {"source": args[0], "content_type": self._type(name, args), "options": options, **given}
        )
        facts = probe(row.source, declared=row.content_type)
        classification, router = classified(row, facts, self.settings), self._routers.router()
        prepared = prepare(row, classification, router, self.settings, enqueued_at=self._routers.now())
        if isinstance(prepared, Refusal):
            raise MoragQueueError(prepared.message)
        return prepared

    def _type(self, name: str, args: list[Any]) -> Any:
        """Return the content type: that of the task, else the second argument."""
        fixed = {self.settings.tasks.web: "web", self.settings.tasks.youtube: "youtube"}.get(name)
        return fixed or (args[1] if len(args) > 1 else None)

    def _observe(self) -> Snapshot:
        """Read the fleet; return an empty snapshot on failure, because Celery may still be able to publish."""
        try:
            snapshot = self._broker.observe()[0]
        except (BrokerUnreachable, BrokerError) as error:
            logger.warning("routing without the state of the fleet: %s", error)
            setting = self.settings.broker.priority_steps
            snapshot = Snapshot(taken_at=time.time(), steps=DEFAULT_STEPS if setting == "auto" else setting)
        return replace(snapshot, steps=common_steps([self._steps], snapshot.steps))


@cache
def _producer(pid: int, steps: tuple[int, ...]) -> _Producer:
    """Return the producer of this process: a connection must not be shared across a fork."""
    return _Producer(load({}, os.environ, Path.cwd()).settings, steps)
