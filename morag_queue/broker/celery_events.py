"""Celery's task events as the ends of tasks, for workers without the agent: they write nothing down themselves."""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event as Signal
from typing import Any

from redis import Redis

from morag_queue.core.histogram import bucket

from . import scripts
from .celery_control import CeleryControl
from .keys import HOUR_TTL, MINUTE_TTL, Keys
from .recovery import LostWork

_REMEMBERED = 10_000
"""Starts that are kept in mind; of a task whose start is forgotten the wait is not known."""


_OUTCOMES = {"task-succeeded": "completed", "task-failed": "failed", "task-revoked": "cancelled"}


class TaskEvents:
    """Reads events and closes the ledger's entries. `is_wanted` says whether a node's are to be read now.

    `ready` is set once events are heard: what was sent before is not.
    """

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float, is_wanted: Callable[[str], bool]) -> None:
        self._lost = LostWork(client, keys, retention_seconds)
        self._outside = ExternalCompletions(client, keys, retention_seconds)
        self._is_wanted = is_wanted
        self._started: OrderedDict[str, float] = OrderedDict()
        self._receiver: Any = None
        self.ready = Signal()

    def read(self, control: CeleryControl) -> None:
        """Reads until `stop`. Raises the errors of kombu's connections."""
        app = control.app
        with app.connection_for_read() as connection:
            self._receiver = app.events.Receiver(connection, handlers={"*": self.on_event}, app=app)
            self._receiver.on_consume_ready = lambda *_, **__: self.ready.set()
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def stop(self) -> None:
        """From another thread; it is heard within a second."""
        if self._receiver is not None:
            self._receiver.should_stop = True

    def on_event(self, event: Mapping[str, Any]) -> None:
        """One event as Celery sends it; what is not a task's, or not wanted, is passed over."""
        kind, task_id, node = (str(event.get(name) or "") for name in ("type", "uuid", "hostname"))
        if not task_id or not self._is_wanted(node):
            return
        if kind == "task-started":
            self._started[task_id] = float(event.get("timestamp") or 0.0)
            if len(self._started) > _REMEMBERED:
                self._started.popitem(last=False)
        elif kind in _OUTCOMES:
            self._end(_OUTCOMES[kind], task_id, node.partition("@")[0], event)

    def _end(self, outcome: str, task_id: str, worker: str, event: Mapping[str, Any]) -> None:
        started = self._started.pop(task_id, None)
        seen = self._lost.records([task_id]).get(task_id)
        if seen is None:
            return
        runtime = event.get("runtime")
        told = ExternalCompletion(
            task_id, outcome, worker,
            wait_seconds=self._waited(seen, started),
            run_seconds=float(runtime) if isinstance(runtime, int | float) else None,
        )  # fmt: skip
        self._outside.end(told, seen)

    def _waited(self, seen: str, started: float | None) -> float | None:
        enqueued_at = _enqueued_at(seen)
        return None if started is None or not enqueued_at else max(started - enqueued_at, 0.0)


def _enqueued_at(record: str) -> float:
    """When the task of a ledger record was queued; 0 where it does not say."""
    at = json.loads(record).get("enqueued_at")
    return float(at) if isinstance(at, int | float) else 0.0


@dataclass(frozen=True, slots=True)
class ExternalCompletion:
    """How a task ended, and where, as far as it is known. Times in seconds."""

    task_id: str
    outcome: str
    worker: str = ""
    wait_seconds: float | None = None
    run_seconds: float | None = None


class ExternalCompletions:
    """Closes entries of one fleet's ledger."""

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._script = scripts.script(client, "outside")

    def end(self, told: ExternalCompletion, seen: str) -> bool:
        """Ends an open entry that was read as `seen`. False where it is another one meanwhile, or not open."""
        record = json.loads(seen)
        if record.get("state") != "queued":
            return False
        now, k = time.time(), self._keys
        ended = record | {
            "state": told.outcome, "worker": told.worker, "ended_at": round(now, 3), "started_at": None,
            "wait_seconds": told.wait_seconds, "run_seconds": told.run_seconds, "error": "",
        }  # fmt: skip
        keys = [k.task(told.task_id), k.totals, k.minute(now), k.hour(now), k.figures]
        arguments: list[str | int] = [
            seen, json.dumps(ended), told.outcome, told.worker, record["queue"], self._retention,
            *_timed(told.wait_seconds), *_timed(told.run_seconds), MINUTE_TTL, HOUR_TTL,
        ]  # fmt: skip
        return bool(self._script(keys=keys, args=arguments))


def _timed(seconds: float | None) -> tuple[int | str, int | str]:
    """Milliseconds and histogram bucket, as the script takes them."""
    return ("", "") if seconds is None else (round(seconds * 1000), bucket(seconds))
