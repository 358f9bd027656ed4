"""A kombu channel for Redis that takes a message and records its holder in one step, see `broker/lua/claim.lua`.

kombu waits with BRPOP and writes `unacked` afterwards: a worker killed in between has destroyed the message. This
channel sends the claim script instead. An empty claim only reads; on a RESP3 connection with CLIENT TRACKING ON it arms
the keys it read. The next push to any of them, or a change of this worker's cordon, sends one invalidation, and the
channel claims again. Nothing is popped while it waits, so nothing can be lost.

A channel is idle (`_in_poll` is None), claiming (`_in_poll` is its connection) or waiting (`_in_poll` is its connection
and `_waiting` is true: no request is pending, an invalidation wakes the channel).

It overrides private methods of kombu, which `compat.claim_obstacle` verifies.
"""

import logging
from queue import Empty
from random import uniform
from time import monotonic
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.utils.encoding import bytes_to_str
from kombu.utils.uuid import uuid
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from .claim_request import ClaimRequest
from .compat import WAKE, deliver_invalidations, invalidation_parser, raise_if_overdue, read_or_wake
from .holding import HoldingMixin
from .identity import FencedError
from .unacked import ClaimQoS, claim_of, readable

logger = logging.getLogger("morag_queue.agent")

RECHECK_SECONDS = 5.0
"""A waiting channel claims again after this time, in case an invalidation was lost."""

POLL_SECONDS = 0.1
"""The same where the server refuses CLIENT TRACKING (a proxy, an ACL)."""

SPREAD_SECONDS = 0.01
"""Upper limit of the random delay after a wake-up."""

TICK_SECONDS = 1.0
"""Longest pause of the event loop."""


def tick() -> None:
    """Do nothing; the event loop only has to wake up."""


class ClaimChannelMixin(HoldingMixin):
    """Claims instead of BRPOP, for a channel of kombu."""

    QoS = ClaimQoS
    _waiting = False
    _ask_at = 0.0
    _spread_seconds = 0.0
    _popping = False  # the pending request is kombu's BRPOP
    _tracking: Any = None  # the socket on which tracking was requested
    _recheck_seconds = RECHECK_SECONDS
    _in_poll: Any
    _brpop_sent_at: Any = None
    _loaded = False
    _tag = ""
    _refusal = ""
    _request: ClaimRequest
    _request_of: Any = None  # the queues and the incarnation of that request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Consumers of replies to remote control, which acknowledge nothing: they use kombu's BRPOP. A worker has one on
        # the channel of its tasks while it starts and greets the others.
        self._of_replies: set[str] = set()

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        params["client_name"] = self.morag_queue.client_name  # a transport option only since kombu 5.6
        if asynchronous:
            params.update(protocol=3, parser_class=invalidation_parser())
        return params

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        if no_ack and queue not in self._fanout_queues:  # type: ignore[attr-defined]
            self._of_replies.add(consumer_tag)
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)  # type: ignore[misc]

    def _basic_cancel(self, consumer_tag: str) -> Any:
        self._of_replies.discard(consumer_tag)
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
        self._track(connection)
        self._in_poll, self._waiting, self._brpop_sent_at = connection, False, monotonic()
        self._tag = uuid()
        request = self._claim_request(queues)
        # Without a health check: the reader of its PING would swallow an invalidation.
        connection.send_packed_command([request.packed(self._tag, is_loaded=self._loaded)], check_health=False)

    def _claim_request(self, queues: tuple[str, ...]) -> ClaimRequest:
        me = self.morag_queue
        if self._request_of != (queues, me.incarnation):
            self._request_of = (queues, me.incarnation)
            self._request = ClaimRequest(me.worker, me.incarnation, queues, self.priority_steps, self._keys)  # type: ignore[attr-defined]
        return self._request

    def _track(self, connection: Any) -> None:
        if connection._sock is None:
            connection.connect()
        if self._tracking is connection._sock:
            return
        deliver_invalidations(connection)
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP", check_health=False)
            connection.read_response()
            self._recheck_seconds = RECHECK_SECONDS
        except ResponseError:
            self._recheck_seconds = POLL_SECONDS
        self._tracking = connection._sock

    # -- answers and invalidations

    def _brpop_read(self, **options: Any) -> bool:
        if self._popping:
            read: bool = super()._brpop_read(**options)  # type: ignore[misc]
            return read
        connection = self.client.connection  # type: ignore[attr-defined]
        try:
            if self._waiting or not self._in_poll:
                read_or_wake(connection)
                self._wake()
                raise Empty
            reply = self._reply(connection)
        except self.connection_errors:  # type: ignore[attr-defined]
            self._idle()
            connection.disconnect()
            raise
        if reply is None:
            # An invalidation sent right after the reply is already in the buffer, so the socket would not wake us.
            if connection.can_read(timeout=0):
                read_or_wake(connection)
                self._idle()
            else:
                self._wait(self._recheck_seconds)
            raise Empty
        self._idle()
        self._spread_seconds = 0.0
        self._hand_over(*reply)
        return True

    def _wake(self) -> None:
        """Claim again after a push.

        Avoid a thundering herd: if recent claims came back empty, wait a random delay first. Otherwise each push would
        make all idle workers claim at once, and the one that gets the message would wait among them.
        """
        if not self._waiting:
            return  # the worker has prefetched all that it may
        if self._spread_seconds:
            self._wait(uniform(0, self._spread_seconds))
        else:
            self._idle()
        self._spread_seconds = min(2 * self._spread_seconds or SPREAD_SECONDS / 8, SPREAD_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Claim again after that time, or when an earlier wait ends."""
        ask_at = monotonic() + seconds
        self._ask_at = min(self._ask_at, ask_at) if self._waiting else ask_at
        self._waiting, self._brpop_sent_at = True, None  # no reply is due: kombu's health check must not wait for one
        if seconds < TICK_SECONDS and (loop := get_event_loop()) is not None:
            loop.call_later(seconds, tick)

    @property
    def expects_no_reply(self) -> bool:
        """Whether no answer is due, so that only an invalidation can arrive."""
        return not self._popping and not self._in_poll

    def _idle(self) -> None:
        self._in_poll, self._waiting, self._brpop_sent_at = None, False, None

    def _reply(self, connection: Any) -> tuple[str, bytes, float, int] | None:
        try:
            while (reply := read_or_wake(connection)) is WAKE:
                pass
        except NoScriptError:
            self._loaded = False
            self._idle()
            raise Empty from None
        except ResponseError as error:
            self._refused(error)
            return None
        self._loaded, self._refusal = True, ""
        if reply is None:
            return None
        lane, message, ms, level = reply
        return bytes_to_str(lane), message, int(ms) / 1000, int(level)

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
        if not self._waiting:
            raise_if_overdue(self._brpop_sent_at)
        elif monotonic() >= self._ask_at:
            self._idle()

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._idle()
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    def close(self) -> None:
        if self._waiting:  # kombu reads a pending reply before it closes; none will come
            self._idle()
        super().close()  # type: ignore[misc]
