"""What differs between the supported versions of Celery, kombu and redis-py, and the check that a claim is possible.

This is the only module of the agent that asks which version is installed, and it asks by attribute, not by number:
Celery 5.4–5.7, kombu 5.4–5.7, redis-py 5.1–8. It must be importable with any of them, to say what is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import redis
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop, set_event_loop
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

_PushParser: Any
try:
    from redis._parsers import _RESP3Parser as _PushParser
except ImportError:
    _PushParser = None


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What `read_or_wake` returns when keys that the connection tracks have changed; None: all of them."""

    keys: Sequence[bytes] | None


OVERDUE_SECONDS = 10.0
"""After this time without an answer of the server, the connection is lost, unless the app sets `socket_timeout`.

Behind a router that went away, a connection stays open and silent. A server may be busy for some seconds, and a worker
that connects again runs its tasks again.
"""

_REQUIRED: dict[Any, tuple[str, ...]] = {
    virtual.Channel: ("basic_consume", "decode_body"),
    kombu_redis.Channel: (
        "_connparams", "_create_client", "_brpop_start", "_brpop_read", "_basic_cancel", "_on_connection_disconnect",
        "active_queues", "close", "conn_or_acquire", "pool", "priority_steps",
    ),
    kombu_redis.QoS: ("append", "ack", "reject", "restore_unacked", "restore_by_tag", "_remove_from_indices"),
    kombu_redis.MultiChannelPoller: ("on_poll_start", "on_readable", "_register_BRPOP"),
    kombu_redis.Transport: ("register_with_event_loop",),
    redis.Connection: ("can_read", "read_response", "send_packed_command"),
    Request: (
        "on_accepted", "on_failure", "on_timeout", "execute_using_pool", "_announce_cancelled", "_announce_revoked",
    ),
}  # fmt: skip
"""The methods of Celery, kombu and redis-py that the claim overrides or calls, many of them private."""


def claim_obstacle() -> str:
    """Why the installed versions cannot claim: a message that lists what is missing; "" if nothing is."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _REQUIRED.items() for name in names if not hasattr(owner, name)
    ]
    if _PushParser is None:
        missing.append("redis._parsers._RESP3Parser")
    elif not hasattr(_PushParser, "set_invalidation_push_handler"):
        missing.append("_RESP3Parser.set_invalidation_push_handler")
    return f"the installed Celery, kombu or redis-py has no {', '.join(missing)}" if missing else ""


# -- redis-py


def invalidation_parser() -> Any:
    """The pure RESP3 parser, also where hiredis is installed: only it delivers invalidations one by one."""
    return _PushParser


def deliver_invalidations(connection: Any) -> None:
    """Make `read_or_wake` return the invalidations of this connection."""
    connection._parser.set_invalidation_push_handler(lambda push: Invalidation(push[1]))


def read_or_wake(connection: Any) -> Any:
    """Read the next reply, or an Invalidation if one comes first."""
    return connection.read_response(push_request=True)


# -- kombu


def raise_if_overdue(asked_at: float | None) -> None:
    """Raise redis-py's ConnectionError if a claim has had no answer for long.

    kombu before 5.7 would wait for ever, and later ones wait for 26 to 51 s.
    """
    if asked_at is not None and monotonic() - asked_at > OVERDUE_SECONDS:
        raise redis.ConnectionError(f"no answer to a claim for {OVERDUE_SECONDS:.0f} s")


def forget_event_loop(worker: Any) -> None:
    """Forget the event loop of an ended worker, as kombu does since 5.7.

    The next worker of the process would use it, but with a timer that it does not run.
    """
    hub = getattr(worker, "hub", None)
    if hub is not None and get_event_loop() is hub:
        set_event_loop(None)


# -- Celery


def disables_prefetch(conf: Any) -> bool:
    """Celery's setting `worker_disable_prefetch`, which Celery 5.4 and 5.5 do not have."""
    return bool(getattr(conf, "worker_disable_prefetch", False))


def scheduled(timer: Any) -> Iterator[tuple[Request, Callable[[], object]]]:
    """The requests that wait in a worker's timer for their ETA, each with the function that cancels its timer.

    Celery keeps a set of them only since 5.7.
    """
    for waiting in timer.schedule.queue:
        entry = waiting.entry
        if entry.args and isinstance(entry.args[0], Request) and not entry.canceled:
            yield entry.args[0], partial(timer.cancel, entry)
