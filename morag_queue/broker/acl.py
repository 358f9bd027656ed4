"""Check what the login of the URL may do, without doing it.

A server checks rights when a command enters a transaction; DISCARD then drops all of them. This works on every version,
requires no right but MULTI, and changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis
from redis import Redis

from morag_queue.core.doctor.facts import Permissions
from morag_queue.core.model import QueueType

from .keys import Keys

_TRIED_WITH = {
    "": "CLIENT_LIST DBSIZE INFO PING TIME",
    "K": "DEL EXISTS GET GETDEL GETEX HGETALL HKEYS HLEN INCR LLEN LPOP MGET PERSIST RPOP SCARD SMEMBERS TTL TYPE "
    "ZCARD ZPOPMIN",
    "K f": "HDEL HEXISTS HGET HMGET",
    "K f v": "HSET HSETNX",
    "K f 1": "HINCRBY HINCRBYFLOAT",
    "K v": "LPOS LPUSH RPUSH SADD SET SREM ZREM ZSCORE",
    "K 0": "HSCAN LINDEX",
    "YES": "CLIENT_CACHING",
    "K 1": "BRPOP EXPIRE PEXPIRE",
    "K 0 0": "LRANGE LTRIM",
    "K 0 v": "LSET",
    "K 0 1": "ZRANGEBYSCORE ZREMRANGEBYSCORE ZREVRANGEBYSCORE",
    "K 1 v": "LREM ZADD",
    "K * f v": "XADD",
    "K - +": "XRANGE",
    "K 0-1": "XDEL",
    "K BEFORE v v": "LINSERT",
    "K + -": "XREVRANGE",
    "0": "SCAN SCRIPT_EXISTS",
    "0 0": "EVAL EVALSHA",
    "0-": "SCRIPT_LOAD",
    "3": "HELLO",
    "mq": "CLIENT_SETNAME",
    "OFF": "CLIENT_TRACKING",
    "ID 0": "CLIENT_KILL",
    "C": "PSUBSCRIBE PUNSUBSCRIBE",
    "C m": "PUBLISH",
}

ARGUMENTS = {name.replace("_", " "): words for words, names in _TRIED_WITH.items() for name in names.split()}
"""Every command that the scripts, this package, redis-py and kombu send, and arguments to try it with.

K stands for a key, C for the channel of remote control. A test compares the list with the code.
"""

READS = frozenset({"CLIENT LIST"}).union(
    [
        "DBSIZE",
        "EXISTS",
        "GET",
        "HEXISTS",
        "HGET",
        "HGETALL",
        "HKEYS",
        "HLEN",
        "HMGET",
        "HSCAN",
        "INFO",
        "LINDEX",
        "LLEN",
        "LPOS",
        "LRANGE",
        "MGET",
        "SCAN",
        "SCARD",
        "SMEMBERS",
        "TIME",
        "TTL",
        "TYPE",
        "XRANGE",
        "XREVRANGE",
        "ZCARD",
        "ZRANGEBYSCORE",
        "ZREVRANGEBYSCORE",
        "ZSCORE",
    ]
)
"""Those of them that show the fleet or the server, and change nothing."""

TEXTS = frozenset({"EVAL", "SCRIPT LOAD"})
"""Those that send the text of a script. Nobody but `watch` needs them, which keeps all scripts loaded."""

_WRITES = {"DEL", "HSET", "LPUSH", "SET", "ZADD"}
"""No command of ours that changes anything runs without one of these."""


def permissions(client: Redis, keys: Keys) -> Permissions:
    """The commands and keys that are refused."""
    own = f"{keys.prefix}{keys.namespace}:"
    touched = [f"{own}workers", keys.unacked, keys.unacked_index, *(keys.list(queue, 0) for queue in QueueType)]
    names = sorted(ARGUMENTS.keys() - TEXTS)
    with _own_connection(client) as connection:
        user = _user(connection)
        refusals = _tried(connection, [_command(name, touched[0]) for name in names])
        if refusals is None:
            return Permissions(user, ("multi",), (), f"{own}*")
        commands = [name for name, why in zip(names, refusals, strict=True) if _is_command(why)]
        # A key is refused whatever the command, so one granted command is enough.
        probe = next((name for name in ("LLEN", "TYPE", "TTL", "GET") if name not in commands), None)
        answers = _tried(connection, [[probe, key] for key in touched]) if probe else None
    missing = [key for key, why in zip(touched, answers or (), strict=False) if why and not _is_command(why)]
    shown = [f"{own}*" if key.startswith(own) else f"{key}*" for key in missing]
    only_reads = READS.isdisjoint(commands) and _WRITES.issubset(commands)
    return Permissions(user, tuple(name.lower() for name in commands), tuple(shown), f"{own}*", only_reads)


@contextmanager
def _own_connection(client: Redis) -> Iterator["redis.Connection"]:
    """A connection that is closed afterwards, because a transaction may be open in it."""
    with client.client() as single:
        assert single.connection is not None
        try:
            yield single.connection
        finally:
            single.connection.disconnect()


def _command(name: str, key: str) -> list[str]:
    arguments = {"K": key, "C": "/0.celery.pidbox"}
    return [*name.split(), *(arguments.get(word, word) for word in ARGUMENTS[name].split())]


def _tried(connection: "redis.Connection", commands: Sequence[Sequence[str]]) -> list[str] | None:
    """For each command the reason of its refusal, "" where it was granted.

    None where the login may not open a transaction: outside of one, the commands would be executed.
    """
    if _reply(connection, ["MULTI"]):
        return None
    replies = [_reply(connection, command) for command in (*commands, ["DISCARD"])]
    return [reply if "NOPERM" in reply else "" for reply in replies[:-1]]


def _reply(connection: "redis.Connection", command: Sequence[str]) -> str:
    connection.send_command(*command)
    try:
        connection.read_response()
    except redis.ResponseError as error:
        # redis-py removes the code of the errors that it knows.
        return f"NOPERM {error}" if isinstance(error, redis.exceptions.NoPermissionError) else str(error)
    return ""


def _is_command(why: str) -> bool:
    return "NOPERM" in why and "command" in why


def _user(connection: "redis.Connection") -> str:
    connection.send_command("ACL", "WHOAMI")
    try:
        answer = connection.read_response()
    except redis.ResponseError:
        return str(getattr(connection, "username", None) or "default")
    return answer.decode() if isinstance(answer, bytes) else str(answer)
