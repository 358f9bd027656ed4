"""Many workers in one process, each with a connection of its own, which acknowledge each message at once.

`python -m tests.support.channel_workers URL COUNT agent|plain [PREFIX [SECONDS]]` prints `ready` once all of them
wait for messages, and runs until it is killed. Such a worker consists of the part that takes messages: kombu's channel
in kombu's event loop, with the agent's claim or with BRPOP as in plain Celery. It has no pool and sends no heartbeats.
SECONDS: how often an idle worker with the agent looks for work by itself.
"""

import sys
from typing import Any

import redis
from kombu.asynchronous import Hub, set_event_loop
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from morag_queue.agent import waiting
from morag_queue.agent.identity import Identity, TaskOutcome
from morag_queue.agent.transport import ClaimConnection
from morag_queue.broker.keys import Keys
from morag_queue.broker.workers import Registry
from morag_queue.core import lanes
from morag_queue.core.model import Capability, QueueType, WorkerInfo

SHARED = QueueType.CPU_STANDARD.value
RETENTION_SECONDS = 3600.0


def start_agent_worker(hub: Hub, url: str, name: str) -> Connection:
    """Register a worker of `cpu_standard` and consume its lanes by the claim."""
    me = Identity(name, "mq", RETENTION_SECONDS)
    info = WorkerInfo(
        worker=name, incarnation=me.incarnation, capability=Capability.CPU, queues=(SHARED,), slots=1, host=me.host,
        pid=me.pid, client_name=me.client_name, beat_seconds=RETENTION_SECONDS, node=f"{name}@{me.host}",
    )  # fmt: skip
    with redis.Redis.from_url(url) as client:
        registry = Registry(client, Keys(), RETENTION_SECONDS)
        assert registry.register(info) == ""
        registry.beat(name, me.incarnation, {"active": 0}, [])
    me.registered = True
    options = {"priority_steps": list(range(10)), "client_name": me.client_name, "morag_queue": me.client_name}
    connection: Connection = ClaimConnection(url, transport_options=options)  # type: ignore[no-untyped-call]
    return _consume(hub, connection, (SHARED, lanes.lane(QueueType.CPU_STANDARD, name)), prefetch=1)


def start_plain_worker(hub: Hub, url: str, name: str) -> Connection:
    """Consume `cpu_standard` with Celery's defaults."""
    return _consume(hub, Connection(url), (SHARED,), prefetch=4)


def _consume(hub: Hub, connection: Connection, names: tuple[str, ...], *, prefetch: int) -> Connection:
    channel = connection.default_channel
    channel.basic_qos(0, prefetch, False)
    queues = [Queue(name, Exchange(""), routing_key=name) for name in names]
    channel.Consumer(queues, callbacks=[_run], accept=["json"]).consume()
    connection.register_with_event_loop(hub)
    return connection


def _run(_: Any, message: Any) -> None:
    """Do nothing, successfully."""
    qos = message.channel.qos
    if hasattr(qos, "ends"):
        qos.ends(message.delivery_tag, TaskOutcome("completed", run_seconds=0.001))
    message.ack()


def main(url: str, count: int, kind: str, prefix: str = "w", seconds: str = "") -> None:
    if seconds:
        waiting.WAITER_SECONDS = waiting.TRACKER_SECONDS = float(seconds)
    hub = Hub()
    set_event_loop(hub)
    start = {"agent": start_agent_worker, "plain": start_plain_worker}[kind]
    connections = [start(hub, url, f"{prefix}-{number}") for number in range(count)]
    loop = hub.create_loop()
    for _ in range(2):  # the first tick sends the requests
        hub.call_soon(int)
        next(loop)
    print("ready", len(connections), flush=True)
    while True:
        next(loop)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
