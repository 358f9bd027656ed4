"""The worker's side. One line in the worker's app::

    from morag_queue.agent import install
    install(app)

It works before and after the app's own `conf.update`, and changes nothing where the app only produces: all that it sets
for a worker is set when a worker starts. Settings come from the environment and the TOML file as for the command; the
keyword arguments of `install` override them.
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
    # Acknowledge after the work: a killed worker's message is still there.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # Take no more than runs: what waits in a worker's hands cannot be rebalanced.
    "worker_prefetch_multiplier": 1,
    # A blip must not run a task twice to its end.
    "worker_cancel_long_running_tasks_on_connection_loss": True,
}
"""Only a worker reads these; the app's own values win (`doctor` says where they are not safe)."""


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
    """Makes workers of this app register, beat, claim atomically, keep their messages alive and count what they do.

    `worker_type` is cpu, gpu or hybrid (default: MORAG_WORKER_TYPE, WORKER_TYPE, or by looking for a GPU). Bad settings
    end the worker at its start with a message that names them.
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
    app.add_defaults(dict(SAFE_DEFAULTS))

    def on_worker_init(sender: str, instance: Any, conf: Any, **_: Any) -> None:
        if instance.app is app:
            with _or_exit():
                _prepare(app, sender, worker_type, flags)

    signals.celeryd_init.connect(on_worker_init, weak=False)


@contextmanager
def _or_exit() -> Iterator[None]:
    """Celery only logs what its signals raise: a worker would go on without its lanes, its claim and its name."""
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

    # The agent works on the app's own broker; Celery may write its URL in ways that the command does not know.
    env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    settings = load(flags, env, Path.cwd()).settings
    capability = hardware.capability(worker_type, os.environ)
    identity = Identity(
        node.partition("@")[0], settings.namespace, settings.ledger.retention_seconds, settings.agent.claim,
        settings.policy.recovery, settings.policy.max_retries,
    )  # fmt: skip
    setup.configure(app, identity)
    agent = Agent(app, settings, identity, capability, version("morag-queue"))
    setup.add_step(app, agent)
    setup.add_command(agent)

    def on_setup(instance: Any, **_: Any) -> None:
        if instance.app is app:
            with _or_exit():
                setup.start(agent, instance)

    signals.celeryd_after_setup.connect(on_setup, weak=False)
    signals.worker_shutdown.connect(lambda **_: agent.goodbye(), weak=False)
