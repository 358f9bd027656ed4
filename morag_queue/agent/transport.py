"""kombu's Redis transports with the claim; `setup.configure` selects one as `app.conf.broker_transport`."""

from time import monotonic
from typing import Any

from kombu.transport import redis as kombu_redis
from redis._parsers import _RESP3Parser
from redis.exceptions import OutOfMemoryError, ReadOnlyError

from .claim import TICK_SECONDS, ClaimChannelMixin, tick


class ClaimChannel(ClaimChannelMixin, kombu_redis.Channel):
    """kombu's Redis channel with the claim."""

    from_transport_options: Any = (*kombu_redis.Channel.from_transport_options, "morag_queue")


class SentinelClaimChannel(ClaimChannelMixin, kombu_redis.SentinelChannel):
    """kombu's Sentinel channel with the claim."""

    from_transport_options: Any = (*kombu_redis.SentinelChannel.from_transport_options, "morag_queue")


class _Poller(kombu_redis.MultiChannelPoller):
    def on_poll_start(self) -> None:
        now = monotonic()
        for channel in self._channels:
            channel.ask_again(now)
        super().on_poll_start()

    def on_readable(self, fileno: int) -> Any:
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is not None and kind == "BRPOP" and channel.expects_no_reply:
            # A worker at its prefetch limit still receives invalidations; kombu would take one for a closed connection.
            return channel._brpop_read()
        return super().on_readable(fileno)


class _ClaimTransportMixin:
    # Celery would exit on these two errors. Both are temporary: reconnecting recovers from them, as from a lost
    # connection.
    connection_errors: Any = (*kombu_redis.Transport.connection_errors, OutOfMemoryError, ReadOnlyError)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Any = _Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        # The loop sleeps until its next timer; without this one, a waiting channel would never check the time.
        loop.call_repeatedly(TICK_SECONDS, tick)


class Transport(_ClaimTransportMixin, kombu_redis.Transport):
    """`redis://`, `rediss://` and `redis+socket://` with the claim."""

    Channel = ClaimChannel


class SentinelTransport(_ClaimTransportMixin, kombu_redis.SentinelTransport):
    """`sentinel://` with the claim."""

    Channel = SentinelClaimChannel


_OVERRIDDEN = {
    kombu_redis.Channel: (
        "_connparams",
        "_brpop_start",
        "_brpop_read",
        "_on_connection_disconnect",
        "close",
        "basic_consume",
        "conn_or_acquire",
    ),
    kombu_redis.QoS: ("append", "ack", "reject", "restore_unacked", "restore_by_tag", "_remove_from_indices"),
    kombu_redis.MultiChannelPoller: ("on_poll_start", "maybe_check_brpop_health"),
    kombu_redis.Transport: ("register_with_event_loop",),
    _RESP3Parser: ("set_invalidation_push_handler",),
}
"""The methods of kombu and redis-py that the claim overrides or calls, most of them private."""


def missing_attributes() -> str:
    """A message that lists the methods missing in the installed kombu and redis-py; "" if there are none."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _OVERRIDDEN.items() for name in names if not hasattr(owner, name)
    ]
    return f"kombu or redis-py has no {', '.join(missing)}" if missing else ""
