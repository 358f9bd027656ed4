"""The kombu transports with the claim, chosen by `app.conf.broker_transport`."""

from time import monotonic
from typing import Any

from kombu.transport import redis as stock
from redis._parsers import _RESP3Parser
from redis.exceptions import OutOfMemoryError, ReadOnlyError

from .claim import TICK_SECONDS, ClaimChannelMixin, tick


class ClaimChannel(ClaimChannelMixin, stock.Channel):
    """kombu's Redis channel with the claim."""

    from_transport_options: Any = (*stock.Channel.from_transport_options, "morag_queue")


class SentinelClaimChannel(ClaimChannelMixin, stock.SentinelChannel):
    """kombu's Sentinel channel with the claim."""

    from_transport_options: Any = (*stock.SentinelChannel.from_transport_options, "morag_queue")


class _Poller(stock.MultiChannelPoller):
    def on_poll_start(self) -> None:
        now = monotonic()
        for channel in self._channels:
            channel.ask_again(now)
        super().on_poll_start()

    def on_readable(self, fileno: int) -> Any:
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is not None and kind == "BRPOP" and channel.expects_no_reply:
            # A worker whose hands are full still hears of pushes; kombu would take that for a closed connection.
            return channel._brpop_read()
        return super().on_readable(fileno)


class _ClaimTransportMixin:
    # Out of memory, or a replica: to Celery an error like that is the end of the worker. It passes, or a new connection
    # mends it, as after the loss of one.
    connection_errors: Any = (*stock.Transport.connection_errors, OutOfMemoryError, ReadOnlyError)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Any = _Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        # The loop sleeps until its next timer: without one, a waiting channel would not look at the clock.
        loop.call_repeatedly(TICK_SECONDS, tick)


class Transport(_ClaimTransportMixin, stock.Transport):
    """`redis://`, `rediss://` and `redis+socket://` with the claim."""

    Channel = ClaimChannel


class SentinelTransport(_ClaimTransportMixin, stock.SentinelTransport):
    """`sentinel://` with the claim."""

    Channel = SentinelClaimChannel


_LEANS_ON = {
    stock.Channel: (
        "_connparams",
        "_brpop_start",
        "_brpop_read",
        "_on_connection_disconnect",
        "close",
        "basic_consume",
        "conn_or_acquire",
    ),
    stock.QoS: ("append", "ack", "reject", "restore_unacked", "restore_by_tag", "_remove_from_indices"),
    stock.MultiChannelPoller: ("on_poll_start", "maybe_check_brpop_health"),
    stock.Transport: ("register_with_event_loop",),
    _RESP3Parser: ("set_invalidation_push_handler",),
}


def check_kombu() -> str | None:
    """Why this kombu or redis-py is not what the claim expects; None where it fits."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _LEANS_ON.items() for name in names if not hasattr(owner, name)
    ]
    return f"kombu or redis-py has no {', '.join(missing)}" if missing else None
