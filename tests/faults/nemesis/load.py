"""The load of a run: each kind of task, sent by plain Celery, through the ledger, and by `morag-queue submit`."""

import time
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery, chain, chord
from celery.result import denied_join_result
from kombu.exceptions import OperationalError

from tests.support.agent_fleet import AgentFleet
from tests.support.commands import Command

from .history import History
from .schedule import Step

AGAIN_SECONDS = 0.3
"""How long to wait before a task that was not acknowledged is sent again under the same id."""

_ERRORS = (OperationalError, redis.RedisError, OSError)


class Load:
    """`run_command` runs a command of ours as the user `load` and returns it once it has ended."""

    def __init__(self, fleet: AgentFleet, history: History, run_command: Callable[..., Command]) -> None:
        self._fleet, self._history, self._run_command = fleet, history, run_command
        self._app = Celery("nemesis", broker=fleet.url, backend=fleet.url, set_as_current=False)
        self._app.conf.broker_transport_options = {"priority_steps": list(range(10))}
        self._app.conf.task_publish_retry = False  # an error may still mean that the task was sent

    def send(self, step: Step) -> None:
        kind, (name, lane, level, nap, delay) = step.what, step.args
        where = {"queue": lane, "priority": level}
        match kind:
            case "nap" | "long":
                self._celery(name, "t.nap", nap, **where)
            case "eta":
                self._celery(name, "t.nap", nap, countdown=delay, **where)
            case "retry":
                self._celery(name, "t.retry", 2, **where)
            case "limited":
                self._celery(name, "t.later", **where)
            case "fail":
                self._celery(name, "t.fail", **where)
            case "chain":
                self._chain(str(name), nap, where)
            case "chord":
                self._chord(str(name), where)
            case "explicit":
                self._until_acknowledged(str(name), lambda: self._offer(name, nap, lane, level))
            case "command":
                self._until_acknowledged(str(name), lambda: self._submit(str(name), nap))

    def _celery(self, name: Any, task: str, *args: Any, **options: Any) -> None:
        try:
            with self._history.sending(name):
                self._app.send_task(task, args, task_id=name, **options)
        except _ERRORS as error:
            self._history.note("refused", task=name, error=repr(error))

    def _chain(self, name: str, nap: Any, where: dict[str, Any]) -> None:
        names = [f"{name}.{number}" for number in range(3)]
        links = [
            self._app.signature("t.nap", (nap,), immutable=True).set(task_id=link, **where) for link in names
        ]  # fmt: skip
        self._canvas(chain(*links, app=self._app), names[:1], {names[1]: (names[0],), names[2]: (names[1],)})

    def _chord(self, name: str, where: dict[str, Any]) -> None:
        names = [f"{name}.{number}" for number in range(3)]
        header = [self._app.signature("t.add", (1, 1)).set(task_id=part, **where) for part in names]
        body = self._app.signature("t.total").set(task_id=f"{name}.body", **where)
        self._canvas(chord(header, body, app=self._app), names, {f"{name}.body": tuple(names)})

    def _canvas(self, canvas: Any, sent: list[str], parents: dict[str, tuple[str, ...]]) -> None:
        self._app.backend.remove_pending_result = lambda result: result  # its end would ask the server; one per thread
        self._history.parents |= parents
        try:
            with denied_join_result(), self._history.sending(*sent):  # do not subscribe to the results
                canvas.apply_async()
        except _ERRORS as error:
            self._history.note("refused", tasks=sent, error=repr(error))

    def _until_acknowledged(self, name: str, send: Callable[[], None]) -> None:
        while True:
            try:
                with self._history.sending(name):
                    return send()
            except _ERRORS as error:
                self._history.note("refused", task=name, error=repr(error))
                time.sleep(AGAIN_SECONDS)

    def _offer(self, name: Any, nap: Any, lane: Any, level: Any) -> None:
        self._fleet.offer("t.nap", nap, task_id=name, lane=lane, level=level)

    def _submit(self, name: str, nap: Any) -> None:
        """A task that is still open has been sent by an attempt whose answer was lost."""
        source = ("https://example.com/", "--type", "web", "--option", f"sleep={nap}")
        command = self._run_command("load", "submit", *source, "--id", name)
        if command.process.returncode and "is still open" not in command.stderr:
            raise OSError(f"submit exited with {command.process.returncode}")

    def close(self) -> None:
        self._app.close()
