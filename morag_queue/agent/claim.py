"""A kombu channel for Redis that takes a message and records its holder in one step, see `broker/lua/claim.lua`.

kombu waits with BRPOP and writes `unacked` afterwards: a worker killed in between has destroyed the message. This
channel sends the claim script instead. When there is nothing to claim, it has the server track what it waits for
(`waiting.py`, `broker/lua/wait.lua`): a change sends one invalidation, and the channel claims again. Nothing is popped
while it waits, so nothing can be lost.

A channel is idle (`_in_poll` is None), asking (`_in_poll` is its connection) or waiting (`_in_poll` is its connection
and `_waits` is true: no request is pending, an invalidation wakes the channel).

It overrides private methods of kombu, which `compat.claim_obstacle` verifies.
"""

import logging
from queue import Empty
from random import uniform
from threading import get_ident
from time import monotonic
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.utils.encoding import bytes_to_str
from kombu.utils.uuid import uuid
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from .claim_request import Requests
from .compat import (
    OVERDUE_SECONDS,
    Invalidation,
    deliver_invalidations,
    invalidation_parser,
    raise_if_overdue,
    read_or_wake,
)
from .holding import HoldingMixin
from .identity import FencedError
from .unacked import ClaimQoS, claim_of, readable
from .waiting import NothingToClaim, Request, Waiting

logger = logging.getLogger("morag_queue.agent")

REFUSED_SECONDS = 5.0
"""A channel claims again after this time when the server has refused a request."""

POLL_SECONDS = 0.1
"""The same where there is nothing to claim and the server refuses CLIENT TRACKING (a proxy, an ACL)."""

TICK_SECONDS = 1.0
"""Longest pause of the event loop."""


def tick() -> None:
    """Do nothing; the event loop only has to wake up."""


class ClaimChannelMixin(HoldingMixin):
    """Claims instead of BRPOP, for a channel of kombu."""

    QoS = ClaimQoS
    _waits = False
    _ask_at = 0.0
    _popping = False  # the pending request is kombu's BRPOP
    _socket: Any = None  # the one on which tracking was requested
    _tracks = False  # and granted
    _in_poll: Any
    _brpop_sent_at: Any = None
    _tag = ""
    _refusal = ""
    _asked = Request.CLAIM  # the kind of the pending request
    _requests: Requests
    _requests_of: Any = None  # the queues and the incarnation of these requests
    _waiting: Waiting

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Consumers of replies to remote control, which acknowledge nothing: they use kombu's BRPOP. A worker has one on
        # the channel of its tasks while it starts and greets the others.
        self._of_replies: set[str] = set()
        self._unloaded: set[Request] = set()  # requests whose scripts the server did not have the last time

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        params["client_name"] = self.morag_queue.client_name  # a transport option only since kombu 5.6
        if params.get("socket_timeout") is None:  # kombu's default: a read that never ends
            params["socket_timeout"] = OVERDUE_SECONDS
        if asynchronous:
            params.update(protocol=3, parser_class=invalidation_parser())
        return params

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        if no_ack and queue not in self._fanout_queues:  # type: ignore[attr-defined]
            self._of_replies.add(consumer_tag)
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)  # type: ignore[misc]

    def _basic_cancel(self, consumer_tag: str) -> Any:
        self._of_replies.discard(consumer_tag)
        self.write_ends()  # a worker that stops sends no further request
        return super()._basic_cancel(consumer_tag)  # type: ignore[misc]

    # -- claiming

    def _brpop_start(self, *timeout: float) -> None:
        self._popping = not self.morag_queue.claims or bool(self._of_replies)
        if self._popping:
            super()._brpop_start(*timeout)  # type: ignore[misc]
            return
        queues = tuple(self.active_queues)  # type: ignore[attr-defined]
        if not queues or not self.morag_queue.registered:
            return
        connection = self.client.connection  # type: ignore[attr-defined]
        self._prepare(queues, connection)
        self._in_poll, self._waits, self._brpop_sent_at = connection, False, monotonic()
        # Without a health check: the reader of its PING would swallow an invalidation.
        connection.send_packed_command([b"".join([*self._packed_ends(), self._request()])], check_health=False)
        self._loop_thread = get_ident() if get_event_loop() is not None else None

    def _prepare(self, queues: tuple[str, ...], connection: Any) -> None:
        me = self.morag_queue
        if self._requests_of != (queues, me.incarnation):
            self._requests_of = (queues, me.incarnation)
            self._requests = Requests(me.worker, me.incarnation, queues, self.priority_steps, self._keys)  # type: ignore[attr-defined]
            self._socket = None
        if connection._sock is None:
            connection.connect()
        if self._socket is not connection._sock:
            self._waiting = Waiting(self._keys.bell(me.worker).encode())
            self._tracks = self._track(connection)
            self._socket = connection._sock

    def _track(self, connection: Any) -> bool:
        """Request tracking. Return False where the server refuses it."""
        deliver_invalidations(connection)
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP", check_health=False)
            self._next_reply(connection)
        except ResponseError:
            return False
        return True

    def _request(self) -> bytes:
        waiting = self._waiting
        self._asked = asked = waiting.next
        is_loaded = asked not in self._unloaded
        if asked is Request.CLAIM:
            self._tag = uuid()
            return self._requests.claim(self._tag, waits=waiting.is_registered, is_loaded=is_loaded)
        seen = waiting.seen
        return self._requests.wait(seen.own_left, seen.shared_left, shared=not seen.is_closed, is_loaded=is_loaded)

    # -- answers and invalidations

    def _brpop_read(self, **options: Any) -> bool:
        if self._popping:
            read: bool = super()._brpop_read(**options)  # type: ignore[misc]
            return read
        connection = self.client.connection  # type: ignore[attr-defined]
        try:
            if self._waits or not self._in_poll:
                self._woken(read_or_wake(connection))
                raise Empty
            taken = self._read_reply(connection)
            if self._waits and connection.can_read(timeout=0):
                # An invalidation sent right after the reply is already in the buffer: the socket would not wake us.
                self._woken(read_or_wake(connection))
        except self.connection_errors:  # type: ignore[attr-defined]
            self._idle()
            connection.disconnect()
            raise
        if taken is None:
            raise Empty
        self._hand_over(*taken)
        return True

    def _woken(self, invalidation: Invalidation) -> None:
        self._waiting.woken(invalidation.keys)
        if self._waits:  # else the worker has prefetched all that it may
            self._idle()

    def _wait(self, seconds: float) -> None:
        """Claim again after that time."""
        self._ask_at = monotonic() + seconds
        self._waits, self._brpop_sent_at = True, None  # no reply is due: kombu's health check must not wait for one
        if seconds < TICK_SECONDS and (loop := get_event_loop()) is not None:
            loop.call_later(seconds, tick)

    @property
    def is_asking(self) -> bool:
        """Whether the answer to a request of ours is due."""
        return bool(self._in_poll) and not self._waits and not self._popping

    @property
    def expects_no_reply(self) -> bool:
        """Whether no answer is due, so that only an invalidation can arrive."""
        return not self._popping and not self._in_poll

    def _idle(self) -> None:
        self._in_poll, self._waits, self._brpop_sent_at = None, False, None

    def _read_reply(self, connection: Any) -> tuple[str, bytes, float, int] | None:
        """Read the answer; return the message that was taken. Otherwise the channel waits, or is idle."""
        self._read_ends(lambda: self._next_reply(connection))
        try:
            reply = self._reply(connection)
        except NoScriptError:
            self._unloaded.add(self._asked)
            self._idle()
            return None
        except ResponseError as error:
            self._unloaded.discard(self._asked)  # this login may not send the text: somebody loads it
            self._refused(error)
            self._wait(REFUSED_SECONDS)
            return None
        self._unloaded.discard(self._asked)
        self._refusal = ""
        if self._asked is Request.WAIT:
            self._settle_down(self._waiting.answered(bytes_to_str(reply)))
            return None
        lane, *more = reply
        if lane is None:
            why, *counts = more
            waits = self._waiting.found_nothing(NothingToClaim(bytes_to_str(why), *counts))
            self._settle_down(waits)
            return None
        self._idle()
        self._waiting.took()
        message, ms, level = more
        self._requests.took(int(level))
        return bytes_to_str(lane), message, int(ms) / 1000, int(level)

    def _reply(self, connection: Any) -> Any:
        """The next reply; an invalidation that comes before it is noted."""
        if self._asked is Request.WAIT:
            try:
                self._next_reply(connection)
            except ResponseError:  # CLIENT CACHING is refused
                self._tracks = False
        return self._next_reply(connection)

    def _next_reply(self, connection: Any) -> Any:
        while isinstance(reply := read_or_wake(connection), Invalidation):
            self._waiting.woken(reply.keys)
        return reply

    def _settle_down(self, waits: bool) -> None:
        """Wait if the server tracks what the channel waits for; otherwise the next request is due."""
        if not self._tracks:
            self._waiting.next = Request.CLAIM
            self._wait(POLL_SECONDS)
        elif waits:
            self._wait(uniform(0.75, 1.25) * self._waiting.recheck_seconds)
        else:
            self._idle()

    def _refused(self, error: ResponseError) -> None:
        """Handle an error; nothing was taken. Raises where a new connection helps; otherwise it claims again later."""
        if str(error).startswith("FENCED"):
            self.morag_queue.registered = False
            raise FencedError(f"{error}; giving up the messages it holds") from error
        if isinstance(error, ReadOnlyError):
            raise error
        if str(error) != self._refusal:
            self._refusal = str(error)
            logger.error("the broker refuses the claim: %s; trying again every few seconds", error)

    def _hand_over(self, lane: str, text: bytes, claimed_at: float, level: int) -> None:
        message = readable(text, self.decode_body)  # type: ignore[attr-defined]
        if message is None:
            # Its holder is recorded, so this worker's successor will requeue it.
            self._lasting_client.zrem(self.unacked_index_key, self._tag)  # type: ignore[attr-defined]
            logger.error("a message in %s cannot be read and stays in `unacked` as %s: %.200r", lane, self._tag, text)
            return
        self.qos.claimed(claim_of(message, lane, level, claimed_at))  # type: ignore[attr-defined]
        if lane in self.connection._callbacks:  # type: ignore[attr-defined]
            try:
                self.connection._deliver(message, lane)  # type: ignore[attr-defined]
            except (*self.connection_errors, MemoryError):  # type: ignore[attr-defined]
                raise
            except Exception:
                # Raised, it would end this worker, be redelivered, and end the next one.
                logger.exception("a message in %s cannot be handled and is rejected", lane)
                self.qos.reject(message["properties"]["delivery_tag"])  # type: ignore[attr-defined]
        else:  # the consumer was cancelled during the claim: back to the head of its lane
            self.qos.restore_by_tag(message["properties"]["delivery_tag"])  # type: ignore[attr-defined]

    def ask_again(self) -> None:
        """End a wait whose time has come, so that this poll claims. Raises if the answer to a claim is overdue."""
        if not self._waits:
            raise_if_overdue(self._brpop_sent_at)
        elif monotonic() >= self._ask_at:
            self._idle()

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._idle()
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    def close(self) -> None:
        if self._waits:  # kombu reads a pending reply before it closes; none will come
            self._idle()
        super().close()  # type: ignore[misc]
