"""Workers without the agent, asked through Celery's own remote control. Celery is imported only when there are any."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis

from morag_queue.core.doctor.facts import Listener
from morag_queue.settings import Settings

ANSWER_SECONDS = 1.0
"""How long one that does not answer is waited for; those who do answer within milliseconds."""
_CONF = (
    "task_acks_late",
    "task_reject_on_worker_lost",
    "worker_cancel_long_running_tasks_on_connection_loss",
    "worker_prefetch_multiplier",
    "worker_disable_prefetch",
    "broker_transport_options",
)


def listening(clients: Sequence[Mapping[str, Any]]) -> int:
    """How many connections listen on the control channel, those of our agents not counted."""
    return sum(one.get("psub", "0") != "0" and not str(one.get("name", "")).startswith("mq.") for one in clients)


def listeners(client: Redis, settings: Settings, expected: int, registered: frozenset[str]) -> tuple[Listener, ...]:
    """The workers that answer and are not `registered` (Celery node names). `expected` answers end the waiting."""
    if not expected:
        return ()
    from celery import Celery
    from celery.exceptions import CeleryWarning

    prefix = settings.broker.global_keyprefix
    bound: Any = client.smembers(f"{prefix}_kombu.binding.celery.pidbox")
    nodes = {
        member.decode(errors="replace").rpartition(settings.broker.sep)[2].removesuffix(".celery.pidbox")
        for member in bound
    } - registered
    if not nodes:
        return ()
    app = Celery(broker=settings.redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": prefix, "sep": settings.broker.sep}
    app.conf.broker_connection_timeout = settings.broker.connect_timeout_seconds
    if settings.redis_url.startswith("sentinel://"):
        app.conf.broker_transport_options |= {
            "master_name": settings.broker.master_name, "sentinel_kwargs": settings.broker.sentinel_kwargs,
        }  # fmt: skip
    limit = min(expected, len(nodes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CeleryWarning)  # two of one name: `check_names` says it better
            ask = app.control.inspect(destination=sorted(nodes), timeout=ANSWER_SECONDS, limit=limit)
            queues = ask.active_queues() or {}
            ask = app.control.inspect(destination=sorted(queues), timeout=ANSWER_SECONDS, limit=len(queues))
            conf = (ask.conf() or {}) if queues else {}
    finally:
        app.close()
    return tuple(
        Listener(
            node=node,
            queues=tuple(str(queue.get("name", "")) for queue in answered or ()),
            conf={name: value for name, value in (conf.get(node) or {}).items() if name in _CONF},
        )
        for node, answered in sorted(queues.items())
    )
