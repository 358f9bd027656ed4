"""The part of the claim's channel that records holders and ends of messages, also after the channel is closed."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import redis
from kombu.asynchronous import get_event_loop
from kombu.utils.encoding import bytes_to_str

from morag_queue.broker.connection import NotLoaded
from morag_queue.broker.keys import Keys
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.requeue import Requeues, ReturnLanes

from .claim_request import packed
from .identity import Claim, Identity, TaskOutcome, identity_of
from .unacked import ending, return_request

logger = logging.getLogger("morag_queue.agent")


class HoldingMixin:
    """Extends a channel of kombu."""

    _identity: Identity
    _loop_thread: int | None = None  # that of the event loop which sends the requests of this channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Created now: tasks that outlive the channel use them after it is closed.
        self._lasting_client = self._create_client()
        self._broker_client = client = redis.Redis(connection_pool=self.pool)  # type: ignore[attr-defined]
        me = self.morag_queue
        self._ledger = Ledger(client, self._keys, me.retention_seconds, me.recovery)
        self._requeues = Requeues(client, self._keys, me.retention_seconds)
        self._ends: list[Claim] = []  # to be written with the next request
        self._sent_ends: list[Claim] = []  # written with the pending one

    def _create_client(self, *args: Any, **kwargs: Any) -> Any:
        client = super()._create_client(*args, **kwargs)  # type: ignore[misc]
        load = client.script_load

        def script_load(text: str) -> Any:
            """As redis-py's. Where only `watch` may load scripts, the worker connects again instead of ending."""
            try:
                return load(text)
            except redis.exceptions.NoPermissionError as error:
                raise NotLoaded.of(error) from error

        client.script_load = script_load
        return client

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

    def settle(self, claim: Claim, outcome: TaskOutcome | None = None) -> None:
        """Write the end of a task, or another outcome, together with its acknowledgement."""
        if not self._ledger.settle(ending(claim, self.morag_queue.worker, outcome)):
            self._was_taken_away()

    def _was_taken_away(self) -> None:
        """Handle the end of a task whose message is no longer this worker's.

        It may mean that the worker was fenced. Then the pool must not take its
        next task, which it does in this very tick of the event loop. Raising here would not prevent that: Celery only
        logs errors of `ack`. So discard the unstarted tasks now, and reconnect in the next tick.
        """
        if self.is_fenced() and (loop := get_event_loop()) is not None:
            self.morag_queue.discard_unstarted()
            loop.call_soon(self.morag_queue.raise_if_unregistered)

    # -- ends that are written with the next request: a busy worker makes one round trip for each task

    def end_later(self, claim: Claim) -> bool:
        """Write the end of a task with the next request, if the event loop sends one at once.

        Not where the pool starts the next task meanwhile: it must not if this worker was fenced.
        """
        me = self.morag_queue
        unended = sum(other.outcome is None for other in list(me.in_flight.values()))
        if get_ident() != self._loop_thread or not self.active_queues or unended >= me.slots():  # type: ignore[attr-defined]
            return False
        self._ends.append(claim)
        return True

    def _packed_ends(self) -> list[bytes]:
        """The ends to be sent with a request, before it."""
        self._sent_ends, self._ends = self._ends, []
        worker = self.morag_queue.worker
        calls = [self._ledger.settle_call(ending(claim, worker)) for claim in self._sent_ends]
        return [packed(call, self._keys) for call in calls]

    def _read_ends(self, reply: Callable[[], Any]) -> None:
        """Read the answers to the ends that were sent with a request."""
        refused = []
        while self._sent_ends:
            claim = self._sent_ends.pop(0)
            try:
                is_ours = reply()
            except redis.ResponseError:  # the server may have lost the script
                refused.append(claim)
                continue
            self.qos.written(claim)  # type: ignore[attr-defined]
            if not is_ours:
                self._was_taken_away()
        self._write(refused)

    def is_writing(self, claim: Claim) -> bool:
        """Whether the end of this task is about to be written."""
        return claim in self._ends or claim in self._sent_ends

    def write_ends(self) -> None:
        """Write the ends that no request takes along."""
        ends, self._ends = self._ends, []
        self._write(ends)

    def _write(self, ends: Sequence[Claim]) -> None:
        """Write ends now; what cannot be written will be at a heartbeat."""
        for claim in ends:
            try:
                self.qos.settle(claim)  # type: ignore[attr-defined]
            except (redis.RedisError, OSError) as error:
                logger.warning("the end of %s could not be written yet: %s", claim.task_id, error)

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
