"""Read the ends of tasks from Celery's task events, for workers without the agent, which write no ledger."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Event as Signal
from typing import Any

from redis import Redis

from .celery_control import CeleryControl
from .codec import LedgerRecord
from .keys import Keys
from .ledger import ExternalCompletion, ExternalCompletions, read_records

_STARTS = 10_000
"""Starts kept in memory; the wait of a task whose start was dropped is not known."""

_OUTCOMES = {"task-succeeded": "completed", "task-failed": "failed", "task-revoked": "cancelled"}


class TaskEvents:
    """Reads events and closes ledger entries. `is_wanted(node)`: whether to read the events of that node.

    `ready` is set once events are received; earlier ones are missed.
    """

    def __init__(self, client: Redis, keys: Keys, retention_seconds: float, is_wanted: Callable[[str], bool]) -> None:
        self._client, self._keys = client, keys
        self._completions = ExternalCompletions(client, keys, retention_seconds)
        self._is_wanted = is_wanted
        self._started: OrderedDict[str, float] = OrderedDict()
        self._receiver: Any = None
        self.ready = Signal()

    def read(self, control: CeleryControl) -> None:
        """Read events until `stop`. Raises the errors of kombu's connections."""
        app = control.app
        with app.connection_for_read() as connection:
            self._receiver = app.events.Receiver(connection, handlers={"*": self.on_event}, app=app)
            self._receiver.on_consume_ready = lambda *_, **__: self.ready.set()
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def stop(self) -> None:
        """End `read` within a second; may be called from another thread."""
        if self._receiver is not None:
            self._receiver.should_stop = True

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Handle one event; other events than those of tasks, and events of other nodes, are skipped."""
        kind, task_id, node = (str(event.get(name) or "") for name in ("type", "uuid", "hostname"))
        if not task_id or not self._is_wanted(node):
            return
        if kind == "task-started":
            self._started[task_id] = float(event.get("timestamp") or 0.0)
            if len(self._started) > _STARTS:
                self._started.popitem(last=False)
        elif kind in _OUTCOMES:
            self._end(_OUTCOMES[kind], task_id, node.partition("@")[0], event)

    def _end(self, outcome: str, task_id: str, worker: str, event: Mapping[str, Any]) -> None:
        started = self._started.pop(task_id, None)
        record = read_records(self._client, self._keys, [task_id]).get(task_id)
        if record is None:
            return
        runtime = event.get("runtime")
        completion = ExternalCompletion(
            task_id, outcome, worker,
            wait_seconds=_wait_seconds(record, started),
            run_seconds=float(runtime) if isinstance(runtime, int | float) else None,
        )  # fmt: skip
        self._completions.end(completion, record)


def _wait_seconds(record: LedgerRecord, started: float | None) -> float | None:
    return None if started is None or not record.enqueued_at else max(started - record.enqueued_at, 0.0)
