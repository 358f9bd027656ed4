"""The part of the claim's channel that records holders and ends of messages, also after the channel is closed."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from kombu.asynchronous import get_event_loop
from kombu.utils.encoding import bytes_to_str

from morag_queue.broker.keys import Keys
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.requeue import Requeues, ReturnLanes

from .identity import Claim, Identity, TaskOutcome, identity_of
from .unacked import ending, return_request

logger = logging.getLogger("morag_queue.agent")


class HoldingMixin:
    """Extends a channel of kombu."""

    _identity: Identity

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Created now: tasks that outlive the channel use them after it is closed.
        self._lasting_client = self._create_client()  # type: ignore[attr-defined]
        self._broker_client = client = redis.Redis(connection_pool=self.pool)  # type: ignore[attr-defined]
        me = self.morag_queue
        self._ledger = Ledger(client, self._keys, me.retention_seconds, me.recovery)
        self._requeues = Requeues(client, self._keys, me.retention_seconds)

    @property
    def morag_queue(self) -> Identity:
        """The identity that the transport option of this name refers to."""
        return self._identity

    @morag_queue.setter
    def morag_queue(self, client_name: str) -> None:
        self._identity = identity_of(client_name)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        yield client or self._lasting_client

    @property
    def _keys(self) -> Keys:
        return Keys(self.morag_queue.namespace, self.global_keyprefix, self.sep)  # type: ignore[attr-defined]

    def hold(self, claim: Claim) -> None:
        """Record the holder of a message that kombu has taken by BRPOP."""
        me = self.morag_queue
        self._ledger.hold(claim.held(me.worker, me.incarnation))

    def settle(self, claim: Claim, outcome: TaskOutcome) -> None:
        """Write the end of a task together with its acknowledgement.

        A message that is no longer this worker's may mean that the worker was fenced. Then the pool must not take its
        next task, which it does in this very tick of the event loop. Raising here would not prevent that: Celery only
        logs errors of `ack`. So discard the unstarted tasks now, and reconnect in the next tick.
        """
        is_ours = self._ledger.settle(ending(claim, outcome, self.morag_queue.worker))
        if not is_ours and self.is_fenced() and (loop := get_event_loop()) is not None:
            self.morag_queue.discard_unstarted()
            loop.call_soon(self.morag_queue.raise_if_unregistered)

    def is_fenced(self) -> bool:
        """Read whether another incarnation acts under this worker's name; if so, stop claiming."""
        me = self.morag_queue
        acting = self._broker_client.hget(self._keys.incarnations, me.worker)
        if acting is None or bytes_to_str(acting) == me.incarnation:
            return False
        me.registered = False
        logger.error("%s was fenced: its name was taken over; dropping its messages in flight", me.worker)
        return True

    def give_back(self, claims: Sequence[Claim], *, shared: bool = False, max_deaths: int | None = None) -> None:
        """Requeue messages first in their lanes (or the `shared` ones); the last claim becomes the first."""
        me = self.morag_queue
        return_lanes = ReturnLanes(self._broker_client, self._keys, me.queues) if shared or me.draining else None
        requests = [return_request(claim, me.incarnation, return_lanes, max_deaths) for claim in claims]
        for claim, outcome in zip(claims, self._requeues.apply(requests), strict=True):
            if outcome == "quarantined":
                logger.error("%s is quarantined: too many processes died over it", claim.task_id)
