"""Bootsteps that add the agent to a Celery worker: every kind of it, also `app.Worker` and `celery.contrib.testing`.

`install` names them in `app.steps`; only workers import this module. Celery builds a step with its worker, starts it
with the worker, and stops it with the worker, so that nothing remains in a process that runs several workers in turn.
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps, signals
from celery.worker.control import control_command

from morag_queue.broker.celery_control import REFRESH_CORDON
from morag_queue.errors import MoragQueueError
from morag_queue.settings import load

from . import compat, hardware, installed, setup
from .agent import Agent
from .identity import Identity
from .reconnect import ReconnectPause

_AGENT = "morag_queue_agent"
"""The attribute of a worker (Celery's WorkController) that holds its agent."""

_running: list[Agent] = []
"""The agents of this process: normally one, several in the test suite of an app."""


class WorkerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Configures the worker when it is built, registers it before anything else starts, and ends the agent last."""

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._undo = ExitStack()
        self._agent: Agent | None = None
        if setup.is_in_memory(worker.app):
            return
        with _exit_on_error():
            self._agent = _build(worker, self._undo)
        setattr(worker, _AGENT, self._agent)
        # Sent also where a worker fails before all its steps have started; then Celery stops none of them.
        signals.worker_shutdown.connect(self._shut_down, sender=worker)

    def include_if(self, worker: Any) -> bool:
        return self._agent is not None

    def include(self, worker: Any) -> Any:
        included = super().include(worker)
        if included:  # the first to start is the last to stop: the event loop writes acknowledgements when it closes
            worker.steps.remove(self)
            worker.steps.insert(0, self)
        return included

    def start(self, worker: Any) -> None:
        assert self._agent is not None
        with _exit_on_error():
            self._undo.callback(setup.queues_of(worker.app))
            setup.start(self._agent, worker)

    def stop(self, worker: Any) -> None:
        worker.consumer.perform_pending_operations()  # acknowledgements, where there is no event loop
        self._shut_down()

    terminate = stop

    def _shut_down(self, **_: Any) -> None:
        if self._agent is not None:
            self._agent.stop()
        self._undo.close()


def _build(worker: Any, undo: ExitStack) -> Agent:
    """Configure the worker's app for the agent. `undo` receives what has to be undone when the worker ends."""
    app: Celery = worker.app
    options = installed(app)
    # Ignore REDIS_URL: the agent uses the app's own broker, whose URL may have a form that only Celery accepts.
    env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    settings = load(options.flags, env, Path.cwd()).settings
    capability = hardware.capability(options.worker_type, os.environ)
    identity = Identity(
        worker.hostname.partition("@")[0], settings.namespace, settings.ledger.retention_seconds, settings.agent.claim,
        settings.policy.recovery, settings.policy.max_retries, settings.queues,
    )  # fmt: skip
    agent = Agent(app, settings, identity, capability, version("morag-queue"))
    setup.check(agent, worker)
    _check_others(agent)
    undo.callback(compat.forget_event_loop, worker)
    undo.callback(setup.configure(app, identity))
    _running.append(agent)
    undo.callback(_running.remove, agent)
    return agent


def _check_others(agent: Agent) -> None:
    """Raise SystemExit if another worker runs in this process that this one would be confused with."""
    for other in _running:
        if other.app is agent.app:
            raise SystemExit(
                f"morag_queue: {other.identity.worker} already runs in this process with the same app, whose "
                "configuration names the worker: stop it first, or give each worker an app of its own"
            )
        if other.identity.worker == agent.identity.worker:
            raise SystemExit(
                f"morag_queue: a worker named {other.identity.worker} already runs in this process: give each worker "
                'a name of its own, for example start_worker(app, hostname="worker-2@localhost")'
            )


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Exit the worker on an error, with a message instead of a traceback where the user can correct it."""
    try:
        yield
    except MoragQueueError as error:
        raise SystemExit(f"morag_queue: {error}") from error
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(f"morag_queue: the agent cannot start: {type(error).__name__}: {error}") from error


class ConsumerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Calls `Agent.attach` each time the consumer has (re)connected."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        if self.include_if(consumer):
            consumer._restart_state = ReconnectPause()

    def include_if(self, consumer: Any) -> bool:
        return hasattr(consumer.controller, _AGENT)

    def start(self, consumer: Any) -> None:
        getattr(consumer.controller, _AGENT).attach(consumer)


@control_command(name=REFRESH_CORDON)  # type: ignore[untyped-decorator]
def refresh_cordon(state: Any) -> dict[str, str]:
    """Read the worker's cordon now; without this command the agent reads it at its next heartbeat."""
    agent: Agent | None = getattr(state.consumer.controller, _AGENT, None)
    if agent is None:
        return {"error": "no agent"}
    agent.refresh_cordon()
    return {"ok": "cordon read"}
