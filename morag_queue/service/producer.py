"""The producer's side. One line in any app that calls `.delay()` on MoRAG's tasks::

    app.conf.task_routes = (morag_queue.route_task,)

Such calls then go through the same routing core as `morag-queue submit`. The message is Celery's own and is published
by Celery itself, so it has no entry in the ledger: the figures count it, the refusal of an open id does not know it.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kombu.entity import Exchange, Queue
from pydantic import ValidationError

from morag_queue.broker.codec import HEADER, header_fields
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Refusal
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import BrokerError, BrokerUnreachable, MoragQueueError
from morag_queue.operations.submit_rows import PreparedTask, Row, classified, prepare
from morag_queue.probe import probe
from morag_queue.settings import Settings, load

logger = logging.getLogger("morag_queue.service.producer")


PICTURE_SECONDS = 2.0
"""How old the picture of the fleet may be: as old as a heartbeat. Looking anew for each call would double its price."""


def route_task(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: dict[str, Any],
    task: Any = None,
    **_: Any,
) -> dict[str, Any] | None:
    """A Celery router. Answers for MoRAG's tasks (`[tasks]` in the settings), and for none that names its own queue.

    The caller may say what it knows in the message's header, as the command line does in a row:
    `apply_async(..., headers={"morag_queue": {"priority": "URGENT", "requires": "gpu"}})`. A call is never lost to a
    bad guess: what cannot be routed (no such file, a wrong word) goes where Celery would have sent it, with a warning.
    """
    if any(options.get(choice) for choice in ("queue", "exchange", "routing_key")):
        return None
    producer = _producer(os.getpid())
    try:
        placed = producer.place(name, list(args or ()), options.get("headers") or {})
    except (MoragQueueError, ValidationError) as error:
        logger.warning("%s was not routed and goes the way that Celery sends it: %s", name, error)
        return None
    return None if placed is None else _options(placed, options)


def _options(placed: PreparedTask, options: dict[str, Any]) -> dict[str, Any]:
    header = {HEADER: header_fields(placed.entry)}
    if options.get("headers"):
        # The caller's options win over a route's: its own headers have to be extended where they are.
        options["headers"] = {**options["headers"], **header}
    lane = placed.routed.lane
    return {
        # The anonymous exchange: a message of a named one can be lost when it is restored.
        "queue": Queue(lane, Exchange(""), routing_key=lane),
        "priority": placed.routed.level,
        "headers": header,
    }


class _Producer:
    """What one process needs to route, kept between calls."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._broker = RedisBroker(settings)
        self._kinds = {settings.tasks.file: 2, settings.tasks.url: 2, settings.tasks.web: 1, settings.tasks.youtube: 1}
        self._router: Router | None = None
        self._taken = float("-inf")
        self._clock_offset = 0.0

    def place(self, name: str, args: list[Any], headers: Mapping[str, Any]) -> PreparedTask | None:
        """Where the call goes; None for a task that is not one of MoRAG's."""
        position = self._kinds.get(name)
        if position is None or not args:
            return None
        said = headers.get(HEADER) or {}
        known = {key: said[key] for key in ("priority", "requires") if key in said}
        options = args[position] if len(args) > position and isinstance(args[position], dict) else {}
        row = Row.model_validate(
            {"source": args[0], "content_type": self._type(name, args), "options": options, **known}
        )
        facts = probe(row.source, declared=row.content_type)
        found, router = classified(row, facts, self.settings), self._look()
        placed = prepare(row, found, router, self.settings, enqueued_at=self._clock_offset + time.monotonic())
        if isinstance(placed, Refusal):
            raise MoragQueueError(placed.message)
        return placed

    def _type(self, name: str, args: list[Any]) -> Any:
        fixed = {self.settings.tasks.web: "web", self.settings.tasks.youtube: "youtube"}.get(name)
        return fixed or (args[1] if len(args) > 1 else None)

    def _look(self) -> Router:
        now = time.monotonic()
        if self._router is None or now - self._taken > PICTURE_SECONDS:
            try:
                snapshot, _ = self._broker.observe()
            except (BrokerUnreachable, BrokerError) as error:
                # Celery is about to publish, and will say so better; the queue itself does not hang on the fleet.
                logger.warning("routing without a picture of the fleet: %s", error)
                snapshot = Snapshot(taken_at=time.time())
            self._router, self._taken = Router(snapshot, self.settings.policy, self.settings.queues), now
            self._clock_offset = snapshot.taken_at - now
        return self._router


@cache
def _producer(pid: int) -> _Producer:
    """One a process: a connection must not be shared over a fork."""
    return _Producer(load({}, os.environ, Path.cwd()).settings)
