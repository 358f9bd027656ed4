"""Configure a Celery worker for the agent: transport, queues, request classes, boot step and control command."""

import logging
from collections.abc import Collection
from typing import Any

from celery import Celery, bootsteps
from celery.worker.control import control_command
from kombu.entity import Exchange, Queue

from morag_queue.broker.celery_control import REFRESH_CORDON
from morag_queue.core import lanes
from morag_queue.core.model import QueueType

from . import compat
from .agent import Agent
from .identity import Identity
from .registration import NO_CLAIM_SETTING
from .request import request_class_for

logger = logging.getLogger("morag_queue.agent")

LEVELS = list(range(10))
"""All levels of kombu: a message at a level that no worker polls would never run."""

_MAX_CONNECTIONS = 100  # kombu's 10 are too few for a thread pool, in which each thread acknowledges


def configure(app: Celery, identity: Identity) -> None:
    """Set the transport and the request classes. Keeps the app's own transport options except the polled levels.

    Raises SystemExit if the broker is not Redis or Valkey.
    """
    conf = app.conf
    scheme = str(app.connection_for_read().as_uri()).partition(":")[0]
    if scheme.partition("+")[0] not in ("redis", "rediss", "sentinel"):
        raise SystemExit(
            f"morag_queue: the broker is {scheme}://…, but the agent works on Redis and Valkey only; "
            "leave install(app) out of this app"
        )
    conf.broker_transport_options = {
        "max_connections": _MAX_CONNECTIONS,
        **(conf.broker_transport_options or {}),
        "priority_steps": LEVELS,
        "client_name": identity.client_name,
    }
    if obstacle := compat.claim_obstacle():
        identity.claims, identity.no_claim_reason = False, obstacle
        return
    conf.broker_transport_options["morag_queue"] = identity
    from .transport import ClaimConnection  # not before the check: it needs what may be missing

    app.amqp.Connection = ClaimConnection
    for task in app.tasks.values():
        task.Request = request_class_for(task.Request)


def add_boot_step(app: Celery, agent: Agent) -> None:
    """Call `Agent.attach` each time the consumer has (re)connected."""

    class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            agent.attach(consumer)

    app.steps["consumer"].add(AgentStep)


def add_control_command(agent: Agent) -> None:
    """Add the control command that makes the worker read its cordon now; otherwise it waits for the next heartbeat."""

    def refresh_cordon(state: Any) -> dict[str, str]:
        agent.refresh_cordon()
        return {"ok": "cordon read"}

    control_command(name=REFRESH_CORDON)(refresh_cordon)


def start(agent: Agent, worker: Any) -> None:
    """Subscribe and register, after Celery has set up the pool and the queues and before it consumes.

    Raises SystemExit for an unsupported pool or queue, or if a live worker has the name.
    """
    pool = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__.rpartition(".")[2]
    if getattr(worker.pool_cls, "is_green", False):
        raise SystemExit(
            f"morag_queue: the {pool} pool is not supported: the claim requires Celery's own event loop; "
            "use -P prefork, threads or solo, or leave install(app) out"
        )
    selected = agent.app.amqp.queues._consume_from
    queues = subscribe(agent, None if selected is None else list(selected))
    if not agent.identity.claims:  # logged here, because in `configure` Celery has not set up its log yet
        logger.warning(
            "%s takes messages without the atomic claim, so a kill may lose one: %s",
            agent.identity.worker, agent.identity.no_claim_reason or NO_CLAIM_SETTING,
        )  # fmt: skip
    agent.describe(worker.hostname, queues, int(worker.concurrency), pool)
    agent.register_at_start()


def subscribe(agent: Agent, selected: Collection[str] | None) -> tuple[str, ...]:
    """Consume the queues that the worker serves and its own lanes; return the names of the queues.

    `selected` are the queues of `-Q`; None means all. Raises SystemExit if `-Q` names a queue that this type of worker
    does not serve.
    """
    worker, served = agent.identity.worker, agent.settings.queues.served_by(agent.capability)
    ours = {queue.value for queue in QueueType}
    refused = sorted(set(selected or ()) & ours - set(served))
    if refused:
        raise SystemExit(
            f"{worker} is a {agent.capability} worker and does not serve {', '.join(refused)}: "
            f"remove it from -Q, or set MORAG_WORKER_TYPE"
        )
    queues = served if selected is None else [queue for queue in served if queue.value in selected]
    for queue in queues:
        for name in (queue.value, lanes.lane(queue, worker)):
            added = agent.app.amqp.queues.select_add(Queue(name, routing_key=name))
            # Replace Celery's default exchange: kombu destroys a message that it restores in a process where its named
            # exchange is not declared. The anonymous exchange always exists.
            added.exchange = Exchange("")
    return tuple(queue.value for queue in queues)
