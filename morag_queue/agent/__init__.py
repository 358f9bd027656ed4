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

Call `install` before or after the app's own configuration, whose values win. It does not affect processes that only
send tasks: the configuration for workers is applied when a worker is built, and undone when it ends. That includes the
workers of `celery.contrib.testing`; with the broker `memory://` they run without the agent. The settings come from the
environment and the TOML file, as for the command line; the keyword arguments of `install` override them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

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


def spellings(conf: Any, name: str) -> tuple[str, ...]:
    """The keys under which Celery looks up a setting, in its order: with the namespace, by its present or old name.

    Celery before 5.7 looks for the first of them in all maps, then for the next.
    """
    return (*conf._to_keys(name), *(spelling(name) for spelling in conf._keys or ()))


def _set_defaults(app: "Celery") -> None:
    """Put `SAFE_DEFAULTS` between the app's own settings and Celery's defaults, each time Celery loads the settings.

    `app.add_defaults` would put them in front of what `config_from_object` has read.
    """
    added: list[dict[str, Any]] = []

    def add(source: Any, **_: Any) -> None:
        if any(settings is ours for settings in source.maps for ours in added):
            return
        celery = source.maps[-1]
        ours = {
            next((key for key in spellings(source, name) if key in celery), name): value
            for name, value in SAFE_DEFAULTS.items()
        }
        added.append(ours)
        source.maps.insert(-1, ours)
        source.defaults.insert(-1, ours)  # Celery keeps this list beside `maps`, and copies it

    app.on_after_configure.connect(add, weak=False)
    if app.configured:
        add(app.conf)


@dataclass(frozen=True)
class Installed:
    """What `install` was called with; `flags` are settings by their dotted names."""

    worker_type: str | None
    flags: dict[str, Any]


_installed: WeakKeyDictionary["Celery", Installed] = WeakKeyDictionary()


def installed(app: "Celery") -> Installed:
    """The arguments of the latest `install` of this app."""
    return _installed[app]


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
    flags = {
        "agent.claim": claim,
        "agent.heartbeat_seconds": heartbeat_seconds,
        "agent.location": location,
        "agent.tags": tags,
        "agent.content_types": content_types,
        "namespace": namespace,
    }
    _installed[app] = Installed(worker_type, flags)
    _set_defaults(app)
    # Named, not imported: a process that only sends tasks needs none of it.
    app.steps["worker"].add("morag_queue.agent.steps:WorkerStep")
    app.steps["consumer"].add("morag_queue.agent.steps:ConsumerStep")
