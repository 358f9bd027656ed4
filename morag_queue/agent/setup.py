"""Configure a Celery worker for the agent: transport, queues and request classes."""

import logging
from collections.abc import Callable, Collection
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from morag_queue.core import lanes
from morag_queue.core.enums import QueueType

from . import compat, spellings
from .agent import Agent
from .identity import Identity
from .registration import NO_CLAIM_SETTING
from .request import KeepingRetry, request_class_for

logger = logging.getLogger("morag_queue.agent")

LEVELS = list(range(10))
"""All levels of kombu: a message at a level that no worker polls would never run."""

_MAX_CONNECTIONS = 100  # kombu's 10 are too few for a thread pool, in which each thread acknowledges


def _scheme(app: Celery) -> str:
    return str(app.connection_for_read().as_uri()).partition(":")[0]


def is_in_memory(app: Celery) -> bool:
    """Whether the broker is `memory://`, which tests use: their workers run without the agent."""
    in_memory = _scheme(app) == "memory"
    if in_memory:
        logger.warning("the broker is memory://: this worker runs without the agent of morag-queue")
    return in_memory


def configure(app: Celery, identity: Identity) -> Callable[[], None]:
    """Set the transport and the request classes; return a function that restores the app's settings.

    Keeps the app's own transport options except the polled levels. Raises SystemExit if the broker is not Redis or
    Valkey.
    """
    conf, scheme = app.conf, _scheme(app)
    if scheme.partition("+")[0] not in ("redis", "rediss", "sentinel"):
        raise SystemExit(
            f"morag_queue: the broker is {scheme}://…, but the agent works on Redis and Valkey only; "
            "leave install(app) out of this app"
        )
    options = {
        "max_connections": _MAX_CONNECTIONS,
        **(conf.broker_transport_options or {}),
        "priority_steps": LEVELS,
        "client_name": identity.client_name,
    }
    settings = dict.fromkeys(spellings(conf, "broker_transport_options"), options)
    conf.maps.insert(0, settings)  # in front of the app's own, which may have a namespace
    connection_class = app.amqp.Connection

    def restore() -> None:
        conf.maps[:] = [one for one in conf.maps if one is not settings]
        app.amqp.Connection = connection_class

    if obstacle := compat.claim_obstacle():
        identity.claims, identity.no_claim_reason = False, obstacle
        return restore
    options["morag_queue"] = identity.client_name
    from .transport import ClaimConnection  # not before the check: it needs what may be missing

    app.amqp.Connection = ClaimConnection
    for task in app.tasks.values():
        task.Request = request_class_for(task.Request)
        if not isinstance(task.retry, KeepingRetry):  # by an earlier worker of this process
            task.retry = KeepingRetry(task.retry)
    return restore


def check(agent: Agent, worker: Any) -> None:
    """Raise SystemExit for a pool or a queue of `-Q` that the agent does not support."""
    if getattr(worker.pool_cls, "is_green", False):
        raise SystemExit(
            f"morag_queue: the {_pool(worker)} pool is not supported: the claim requires Celery's own event loop; "
            "use -P prefork, solo, or threads (many tasks that wait for I/O), or leave install(app) out"
        )
    _check_queues(agent, _selected(agent.app))


def start(agent: Agent, worker: Any) -> None:
    """Subscribe and register, after Celery has set up the pool and the queues and before it consumes.

    Raises SystemExit for an unsupported queue, or if a live worker has the name.
    """
    queues = subscribe(agent, _selected(agent.app))
    if not agent.identity.claims:  # logged here, because in `configure` Celery has not set up its log yet
        logger.warning(
            "%s takes messages without the atomic claim, so a kill may lose one: %s",
            agent.identity.worker, agent.identity.no_claim_reason or NO_CLAIM_SETTING,
        )  # fmt: skip
    agent.describe(
        worker.hostname, queues, slots=int(worker.concurrency), prefetch_multiplier=worker.prefetch_multiplier,
        pool=_pool(worker),
    )  # fmt: skip
    agent.register_at_start()


def _pool(worker: Any) -> str:
    pool: str = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__.rpartition(".")[2]
    return pool


def _selected(app: Celery) -> list[str] | None:
    """The queues of `-Q`; None means all."""
    selected = app.amqp.queues._consume_from
    return None if selected is None else list(selected)


def queues_of(app: Celery) -> Callable[[], None]:
    """Return a function that removes the queues that were added to the app since."""
    queues = app.amqp.queues
    before = [(table, dict(table)) for table in (queues, queues.consume_from)]

    def restore() -> None:
        for table, content in before:
            table.clear()
            table.update(content)

    return restore


def subscribe(agent: Agent, selected: Collection[str] | None) -> tuple[str, ...]:
    """Consume the queues that the worker serves and its own lanes; return the names of the queues.

    `selected` are the queues of `-Q`; None means all. Raises SystemExit if `-Q` names a queue that this type of worker
    does not serve.
    """
    _check_queues(agent, selected)
    worker, served = agent.identity.worker, agent.settings.queues.served_by(agent.capability)
    queues = served if selected is None else [queue for queue in served if queue.value in selected]
    for queue in queues:
        for name in (queue.value, lanes.lane(queue, worker)):
            added = agent.app.amqp.queues.select_add(Queue(name, routing_key=name))
            # Replace Celery's default exchange: kombu destroys a message that it restores in a process where its named
            # exchange is not declared. The anonymous exchange always exists.
            added.exchange = Exchange("")
    return tuple(queue.value for queue in queues)


def _check_queues(agent: Agent, selected: Collection[str] | None) -> None:
    """Raise SystemExit if `-Q` names a queue of the fleet that this type of worker does not serve."""
    ours, served = {queue.value for queue in QueueType}, set(agent.settings.queues.served_by(agent.capability))
    if refused := sorted(set(selected or ()) & ours - served):
        raise SystemExit(
            f"{agent.identity.worker} is a {agent.capability} worker and does not serve {', '.join(refused)}: "
            f"remove it from -Q, or set MORAG_WORKER_TYPE"
        )
