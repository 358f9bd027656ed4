"""Connections to the broker, and the translation of redis-py's errors into ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from morag_queue.errors import BrokerError, BrokerUnreachable, LeaseLost
from morag_queue.settings import BrokerSettings, mask_url

_WHERE = {"host", "port", "path", "db", "username", "password"}


def connect(url: str, options: BrokerSettings, *, name: str = "mq.cli") -> redis.Redis:
    """A client for any URL that redis-py takes, or Sentinel's as Celery writes it.

    `name` shows in CLIENT LIST. A lost pooled connection is opened again once (its server may have restarted); a
    server that cannot be reached fails within the connect timeout.
    """
    common = _common(options, name)
    if url.startswith("sentinel://"):
        return _through_sentinel(url, options, common)
    return redis.Redis.from_url(url, **common)


def own(client: Any, options: BrokerSettings, *, name: str = "mq.service") -> redis.Redis:
    """A client of our own on the server and database of somebody's redis-py client, of its blocking or asyncio kind.

    Theirs may decode answers, or belong to an event loop; ours may do neither. Raises TypeError for a client of
    Sentinel, which has no one server: there the settings' URL is what counts.
    """
    pool = client.connection_pool
    kind = getattr(redis.connection, pool.connection_class.__name__, None)
    if kind is None:
        raise TypeError(f"{pool.connection_class.__name__}: give the settings a URL instead of this client")
    known = pool.connection_kwargs.items()
    where = {key: value for key, value in known if key in _WHERE or key.startswith("ssl_")}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **_common(options, name), **where))


def _common(options: BrokerSettings, name: str) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "client_name": name,
        "socket_connect_timeout": options.connect_timeout_seconds,
        "socket_timeout": options.read_timeout_seconds,
        # Only a lost connection is worth a second try; what timed out once would do so again.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }


_ONCE = Retry(NoBackoff(), 0)


def _through_sentinel(url: str, options: BrokerSettings, common: dict[str, Any]) -> redis.Redis:
    from kombu.utils.url import parse_url
    from redis.sentinel import Sentinel

    nodes = [parse_url(part) for part in url.split(";")]
    hosts = [(node["hostname"] or "127.0.0.1", node["port"] or 26379) for node in nodes]
    database = int((nodes[-1]["virtual_host"] or "0").strip("/") or 0)
    # All are asked, one after the other and twice, before the fleet counts as unreachable.
    patience = {"socket_connect_timeout": options.connect_timeout_seconds / (2 * len(hosts)), "retry": _ONCE}
    sentinel = Sentinel(hosts, sentinel_kwargs={**patience, **options.sentinel_kwargs}, **common)
    master: redis.Redis = sentinel.master_for(
        options.master_name, db=database, username=nodes[0]["userid"], password=nodes[0]["password"]
    )
    return master


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns redis-py's errors into ours; the message never shows a password."""
    shown = mask_url(url)
    try:
        yield
    except redis.AuthenticationError as error:
        raise BrokerUnreachable(
            f"the broker {shown} refused the login: {error}; check the URL's user and password"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise BrokerUnreachable(
            f"cannot reach the broker {shown}: {_plain(error)}; is it running, and is --redis-url right?"
        ) from error
    except redis.ResponseError as error:
        if _is_stale(error):
            raise LeaseLost from error
        said = f"{_plain(error)}{remedy(str(error))}"
        raise BrokerError(f"the broker {shown} refused: {said}; nothing was changed by this step") from error


@contextmanager
def fenced() -> Iterator[None]:
    """Turns the refusal of a term that is no longer the lease's into LeaseLost."""
    try:
        yield
    except redis.ResponseError as error:
        if not _is_stale(error):
            raise
        raise LeaseLost from error


def _is_stale(error: redis.ResponseError) -> bool:
    """Of a pipeline the client puts the command before the server's words."""
    return "STALE term" in str(error)


_REMEDIES = {
    "OOM": "it is out of memory: raise maxmemory, or let the queues shrink first",
    "READONLY": "it is a replica: use the URL of the primary",
    "NOPERM": "the user of the URL lacks a right: see ACL SETUSER",
    "WRONGTYPE": "something else uses the same key: check the number of the database and `namespace`, and ask "
    "`morag-queue doctor` which it is",
    "MISCONF": "it cannot save to its disk: free some space there",
    "LOADING": "it is still loading its data: try again in a moment",
}


def remedy(answer: str) -> str:
    """`; what to do` about what a server refused, or nothing."""
    return next((f"; {remedy}" for code, remedy in _REMEDIES.items() if code.lower() in answer.lower()), "")


def _plain(error: BaseException) -> str:
    if isinstance(error, MasterNotFoundError):
        return str(error).partition(":")[0].rstrip(" .")  # what follows are objects of the client's
    return str(error).rstrip(".") or type(error).__name__
