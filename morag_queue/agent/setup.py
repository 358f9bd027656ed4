"""Fits the agent into Celery's worker: transport, Request classes, a step of the consumer."""

import logging
from typing import Any

from celery import Celery, bootsteps
from celery.worker.control import control_command

from morag_queue.broker.celery_control import REFRESH_CORDON

from .agent import Agent
from .identity import Identity
from .request import request_class_of
from .transport import check_kombu

logger = logging.getLogger("morag_queue.agent")

_TRANSPORT = "morag_queue.agent.transport:Transport"
_SENTINEL = "morag_queue.agent.transport:SentinelTransport"
LEVELS = list(range(10))
"""The ten levels of kombu, all polled: a message at one that nobody polls would never run."""


def configure(app: Celery, identity: Identity) -> None:
    """Sets what only a worker needs; the app's own transport options are kept but for the polled levels."""
    conf = app.conf
    scheme = str(app.connection_for_read().as_uri()).partition(":")[0]
    if scheme.partition("+")[0] not in ("redis", "rediss", "sentinel"):
        raise SystemExit(
            f"morag_queue: the broker is {scheme}://…, but the agent works on Redis and Valkey only; "
            "leave install(app) out of this app"
        )
    conf.broker_transport_options = {
        # kombu's ten would run out with a pool of many threads, each acknowledging for itself
        "max_connections": 100,
        **(conf.broker_transport_options or {}),
        "priority_steps": LEVELS,
        "client_name": identity.client_name,
    }
    unfit = check_kombu()
    if unfit:
        logger.warning(
            "no claim, and no figures of this worker: %s; install the versions that morag-queue asks for", unfit
        )
        return
    conf.broker_transport_options["morag_queue"] = identity
    conf.broker_transport = _SENTINEL if scheme == "sentinel" else _TRANSPORT
    for task in app.tasks.values():
        task.Request = request_class_of(task.Request)


def add_step(app: Celery, agent: Agent) -> None:
    """Tells the agent whenever the consumer has (re)connected."""

    class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            agent.attach(consumer)

    app.steps["consumer"].add(AgentStep)


def add_command(agent: Agent) -> None:
    """Lets `drain` tell the worker at once; without remote control it hears of it with its next beat."""

    def morag_queue_look(state: Any) -> dict[str, str]:
        agent.look()
        return {"ok": "looked"}

    control_command(name=REFRESH_CORDON)(morag_queue_look)


def start(agent: Agent, worker: Any) -> None:
    """Subscribes and registers, once the worker knows its pool and its queues and before it consumes."""
    pool = worker.pool_cls if isinstance(worker.pool_cls, str) else worker.pool_cls.__module__.rpartition(".")[2]
    if getattr(worker.pool_cls, "is_green", False):
        raise SystemExit(
            f"morag_queue: the {pool} pool is not supported: the claim waits on Celery's own event loop; "
            "use -P prefork, threads or solo, or leave install(app) out"
        )
    selected = agent.app.amqp.queues._consume_from
    queues = agent.subscribe(None if selected is None else list(selected))
    agent.describe(worker.hostname, queues, int(worker.concurrency), pool)
    agent.register_at_start()
