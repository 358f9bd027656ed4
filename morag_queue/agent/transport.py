"""kombu's Redis transports with the claim; `setup.configure` makes the app connect with `ClaimConnection`."""

from typing import Any

from kombu.connection import Connection
from kombu.transport import redis as kombu_redis
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
        super().on_poll_start()
        for channel in self._channels:
            if not channel.is_asking:  # else the next request follows soon
                channel.write_ends()

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802 - kombu's name
        channel.ask_again()
        super()._register_BRPOP(channel)

    def on_readable(self, fileno: int) -> Any:
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is None:
            return None  # its connection was closed; kombu before 5.6 fails here
        if kind == "BRPOP" and channel.expects_no_reply:
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


_WITH_CLAIM = {kombu_redis.Transport: Transport, kombu_redis.SentinelTransport: SentinelTransport}


class ClaimConnection(Connection):
    """A connection to any URL of a Redis broker, with the claim.

    The setting `broker_transport` would not do: kombu ignores it for `redis+socket://`, and when it fails over to the
    next of several URLs.
    """

    def get_transport_cls(self) -> Any:
        chosen = super().get_transport_cls()
        return _WITH_CLAIM.get(chosen, chosen)
