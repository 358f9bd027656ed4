"""Connect to the broker by redis-py, and translate its errors into ours."""

from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from morag_queue.errors import BrokerError, BrokerUnreachable, LeaseLost, MoragQueueError
from morag_queue.settings import BrokerSettings, mask_url

from .translated import is_stale


class NotLoaded(redis.ConnectionError):
    """The server lacks a script that this login may not load. Like a lost connection, it passes: `watch` loads them."""

    @staticmethod
    def is_reason(error: Exception) -> bool:
        return isinstance(error, redis.exceptions.NoPermissionError) and "'script|load'" in str(error)

    @classmethod
    def of(cls, error: Exception) -> Self:
        return cls(f"{error}{remedy(str(error))}")


_ADDRESS = {"host", "port", "path", "db", "username", "password"}


def connect(url: str, options: BrokerSettings, *, name: str = "mq.cli") -> redis.Redis:
    """A client for any URL of redis-py, or for Sentinel with the URL as Celery writes it.

    `name` appears in CLIENT LIST. A lost pooled connection is reopened once, because the server may have restarted. An
    unreachable server raises within the connect timeout.
    """
    common = _common(options, name)
    if url.startswith("sentinel://"):
        return _through_sentinel(url, options, common)
    return redis.Redis.from_url(url, **common)


def connect_like(client: Any, options: BrokerSettings, *, name: str = "mq.service") -> redis.Redis:
    """A new blocking client for the server and database of a redis-py client, blocking or asyncio.

    The given client cannot be used itself: it may decode answers or belong to an event loop. Raises TypeError for a
    Sentinel client, which has no fixed server: use the URL of the settings instead.
    """
    pool = client.connection_pool
    kind = getattr(redis.connection, pool.connection_class.__name__, None)
    if kind is None:
        raise TypeError(f"{pool.connection_class.__name__}: give the settings a URL instead of this client")
    given = pool.connection_kwargs.items()
    address = {key: value for key, value in given if key in _ADDRESS or key.startswith("ssl_")}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **_common(options, name), **address))


def _common(options: BrokerSettings, name: str) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "client_name": name,
        "socket_connect_timeout": options.connect_timeout_seconds,
        "socket_timeout": options.read_timeout_seconds,
        # Retry a lost connection only: a command that timed out once would time out again.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }


_ONCE = Retry(NoBackoff(), 0)


def _through_sentinel(url: str, options: BrokerSettings, common: dict[str, Any]) -> redis.Redis:
    from kombu.utils.url import parse_url
    from redis.sentinel import Sentinel

    nodes = [parse_url(part) for part in url.split(";")]
    hosts = [(node["hostname"] or "127.0.0.1", node["port"] or 26379) for node in nodes]
    database = int((nodes[-1]["virtual_host"] or "0").strip("/") or 0)
    # Divide the timeout: redis-py asks all sentinels in turn, twice, before it fails.
    timeouts = {"socket_connect_timeout": options.connect_timeout_seconds / (2 * len(hosts)), "retry": _ONCE}
    sentinel = Sentinel(hosts, sentinel_kwargs={**timeouts, **options.sentinel_kwargs}, **common)
    master: redis.Redis = sentinel.master_for(
        options.master_name, db=database, username=nodes[0]["userid"], password=nodes[0]["password"]
    )
    return master


def translation(error: Exception, url: str) -> MoragQueueError | None:
    """Our error for one of redis-py or of a socket; None for any other. The message never contains a password."""
    masked = mask_url(url)
    tls = " Does its port speak TLS?" if url.startswith("rediss:") else ""
    match error:
        case redis.AuthenticationError():
            return BrokerUnreachable(
                f"the broker {masked} refused the login: {error}; check the URL's user and password"
            )
        case NotLoaded():
            return BrokerError(f"the broker {masked} refused: {_reason(error)}")
        case redis.ConnectionError() | OSError() if is_tls(error):
            return BrokerUnreachable(f"no TLS connection to the broker {masked}: {_reason(error)}; {TLS_REMEDY}")
        case redis.ConnectionError() | redis.TimeoutError() | OSError():
            return BrokerUnreachable(
                f"cannot reach the broker {masked}: {_reason(error)}; is it running, and is --redis-url right?{tls}"
            )
        case redis.ResponseError() if is_stale(error):
            return LeaseLost()
        case redis.ResponseError():
            reason = f"{_reason(error)}{remedy(str(error))}"
            return BrokerError(f"the broker {masked} refused: {reason}; nothing was changed by this step")
    return None


TLS_REMEDY = (
    "check that the port speaks TLS, and in the URL ssl_ca_certs (who signed the server's certificate), and "
    "ssl_certfile and ssl_keyfile if the server asks for a certificate"
)


def is_tls(error: Exception) -> bool:
    """Whether a connection failed by TLS: an unknown certificate, none, or another protocol."""
    return "[SSL" in str(error) or "(_ssl.c" in str(error)


_RIGHTS = (
    "the login of the URL lacks this right: `morag-queue acl operator` prints those of a login that may run every "
    "command, `morag-queue acl viewer|producer|worker|watch` those of the others"
)
_REMEDIES = {
    "OOM": "it is out of memory: raise maxmemory, or let the queues shrink first",
    "READONLY": "it is a replica: use the URL of the primary",
    "'script|load'": "the server has lost our scripts, or never had them: start `morag-queue watch`, which loads them, "
    "or give the login the rights of `morag-queue acl ROLE` without --no-eval",
    "NOPERM": _RIGHTS,
    "no permissions": _RIGHTS,  # redis-py removes the code, a script replaces it
    "the user executing the script": _RIGHTS,  # Redis 7.0, which does not name the command
    "WRONGTYPE": "something else uses the same key: check the number of the database and `namespace`; "
    "`morag-queue doctor` shows the key",
    "BROKEN": "another program has written it: set it by hand to a number above every earlier one",
    "MISCONF": "it cannot save to disk: free some disk space",
    "LOADING": "it is still loading its data: try again in a moment",
}


def remedy(answer: str) -> str:
    """`; remedy` for the error message of a server, or ""."""
    return next((f"; {remedy}" for code, remedy in _REMEDIES.items() if code.lower() in answer.lower()), "")


def _reason(error: BaseException) -> str:
    if isinstance(error, MasterNotFoundError):
        return str(error).partition(":")[0].rstrip(" .")  # the rest is the repr of client objects
    return str(error).rstrip(".") or type(error).__name__
