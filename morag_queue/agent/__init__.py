"""The agent runs inside each Celery worker and connects it to morag-queue. Add one line to the app of the workers::

    from morag_queue.agent import install
    install(app)

The agent then

- registers the worker with its capability (cpu, gpu or hybrid), and sends a heartbeat every 2 s;
- subscribes it to the shared queues that its capability serves, and to the worker's own lanes;
- takes each message with one atomic script, so that a killed worker loses none;
- extends the visibility timeout of the messages in flight, so that a long task is not started twice;
- records when and how each task ended;
- follows cordons and drains: it takes no more tasks and returns those that have not started.

Call `install` before or after the app's own `conf.update`. It does not affect processes that only send tasks: the
configuration for workers is applied when a worker starts. The settings come from the environment and the TOML file, as
for the command line; the keyword arguments of `install` override them.
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

SAFE_DEFAULTS = {
    # Acknowledge after the run: the message of a killed worker still exists.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # Prefetch no more than runs: a prefetched message cannot be rebalanced.
    "worker_prefetch_multiplier": 1,
    # A short connection loss must not run a task twice to its end.
    "worker_cancel_long_running_tasks_on_connection_loss": True,
}
"""Celery settings that only workers read. The app's own values win; `doctor` reports those that are unsafe."""


def _set_defaults(app: "Celery") -> None:
    """Put `SAFE_DEFAULTS` between the app's own settings and Celery's defaults, each time Celery loads the settings.

    `app.add_defaults` would put them in front of what `config_from_object` has read.
    """

    def add(source: Any, **_: Any) -> None:
        if all(settings is not SAFE_DEFAULTS for settings in source.maps):
            source.maps.insert(-1, SAFE_DEFAULTS)
            source.defaults.insert(-1, SAFE_DEFAULTS)  # Celery keeps this list beside `maps`, and copies it

    app.on_after_configure.connect(add, weak=False)
    if app.configured:
        add(app.conf)


def install(
    app: "Celery",
    *,
    worker_type: str | None = None,
    claim: bool | None = None,
    heartbeat_seconds: float | None = None,
    location: str | None = None,
    tags: tuple[str, ...] | None = None,
    content_types: tuple[str, ...] | None = None,
    namespace: str | None = None,
) -> None:
    """Run the agent in the workers of this app.

    `worker_type` is cpu, gpu or hybrid (default: MORAG_WORKER_TYPE, else WORKER_TYPE, else gpu if the machine has one).
    The other arguments are the settings of the same names. A worker with invalid settings exits at its start with a
    message that names them.
    """
    from celery import signals

    flags = {
        "agent.claim": claim,
        "agent.heartbeat_seconds": heartbeat_seconds,
        "agent.location": location,
        "agent.tags": tags,
        "agent.content_types": content_types,
        "namespace": namespace,
    }
    _set_defaults(app)

    def on_worker_init(sender: str, instance: Any, conf: Any, **_: Any) -> None:
        if instance.app is app:
            with _exit_on_error():
                _prepare(app, sender, worker_type, flags)

    signals.celeryd_init.connect(on_worker_init, weak=False)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Exit the worker on an error. Celery only logs errors of signal handlers, and would run it without its lanes."""
    from morag_queue.errors import MoragQueueError

    try:
        yield
    except MoragQueueError as error:
        raise SystemExit(f"morag_queue: {error}") from error
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(f"morag_queue: the agent cannot start: {type(error).__name__}: {error}") from error


def _prepare(app: "Celery", node: str, worker_type: str | None, flags: dict[str, Any]) -> None:
    from celery import signals

    from morag_queue.settings import load

    from . import hardware, setup
    from .agent import Agent
    from .identity import Identity

    # Ignore REDIS_URL: the agent uses the app's own broker, whose URL may have a form that only Celery accepts.
    env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    settings = load(flags, env, Path.cwd()).settings
    capability = hardware.capability(worker_type, os.environ)
    identity = Identity(
        node.partition("@")[0], settings.namespace, settings.ledger.retention_seconds, settings.agent.claim,
        settings.policy.recovery, settings.policy.max_retries, settings.queues,
    )  # fmt: skip
    setup.configure(app, identity)
    agent = Agent(app, settings, identity, capability, version("morag-queue"))
    setup.add_boot_step(app, agent)
    setup.add_control_command(agent)

    def on_setup(instance: Any, **_: Any) -> None:
        if instance.app is app:
            with _exit_on_error():
                setup.start(agent, instance)

    signals.celeryd_after_setup.connect(on_setup, weak=False)
    signals.worker_shutdown.connect(lambda **_: agent.stop(), weak=False)
