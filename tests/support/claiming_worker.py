"""A worker of one connection: kombu with the agent's channel, without Celery. Many fit into one process."""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any

from kombu.entity import Exchange, Queue
from kombu.messaging import Consumer

from morag_queue.agent.identity import Identity
from morag_queue.agent.transport import ClaimConnection


class ClaimingWorker:
    """Takes messages of its lanes one at a time. Nothing happens but in `step`."""

    def __init__(self, url: str, name: str, lanes: Iterable[str], prefetch: int = 1, **transport_options: Any) -> None:
        self.name, self.taken = name, deque[Any]()
        self._identity = Identity(worker=name, namespace="mq", retention_seconds=3600.0, registered=True)
        self.connection: Any = ClaimConnection(  # type: ignore[no-untyped-call]
            url,
            transport_options={
                "morag_queue": self._identity.client_name, "priority_steps": list(range(10)), **transport_options
            },
        )  # fmt: skip
        self.channel: Any = self.connection.default_channel
        self.channel.basic_qos(0, prefetch, False)
        queues = [Queue(lane, Exchange(""), routing_key=lane) for lane in lanes]
        self._consumer = Consumer(
            self.channel, queues, on_message=self.taken.append, accept=["json"], auto_declare=False
        )
        self._consumer.consume()

    @property
    def waits(self) -> bool:
        """Whether it sleeps until a message wakes it."""
        return bool(self.channel._waits)

    @property
    def is_free(self) -> bool:
        """Whether it may take a message."""
        return bool(self.channel.qos.can_consume())

    def step(self, timeout: float = 0.02) -> bool:
        """Send what is due and handle one answer or wake-up, for at most `timeout` seconds if none comes.

        Return whether it took a message.
        """
        before = len(self.taken)
        transport = self.connection.transport
        with suppress(Empty):
            transport.cycle.get(transport._deliver, timeout=timeout)
        return len(self.taken) > before

    def finish(self) -> None:
        """Acknowledge the message that it took first."""
        self.taken.popleft().ack()

    def look_again(self) -> None:
        """Make the time come at which a waiting worker claims by itself."""
        self.channel._ask_at = monotonic()

    def kill(self) -> None:
        """Close its sockets, as the end of its process would; nothing is sent before."""
        self.channel.qos._on_collect.cancel()  # kombu would restore its messages when this process ends
        for connection in (self.channel.client.connection, *self.channel.pool._available_connections):
            if connection is not None and connection._sock is not None:
                connection._sock.close()

    def close(self) -> None:
        self.connection.close()
