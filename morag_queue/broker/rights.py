"""What the login of the URL may do, tried without doing it.

A server checks rights when a command enters a transaction; DISCARD then forgets all of them. That works on every
version, asks for no right of its own but MULTI, and changes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

import redis
from redis import Redis

from morag_queue.core.doctor.facts import Rights
from morag_queue.core.model import QueueType

from .keys import Keys

ARGUMENTS = {
    # in scripts
    "DEL": "K", "EXISTS": "K", "EXPIRE": "K 1", "GET": "K", "GETDEL": "K", "HDEL": "K f", "HEXISTS": "K f",
    "HGET": "K f", "HGETALL": "K", "HINCRBY": "K f 1", "HKEYS": "K", "HLEN": "K", "HMGET": "K f", "HSCAN": "K 0",
    "HSET": "K f v", "HSETNX": "K f v", "INCR": "K", "INCRBY": "K 1", "LINDEX": "K 0", "LINSERT": "K BEFORE a b",
    "LLEN": "K", "LMOVE": "K K LEFT LEFT", "LPOP": "K", "LPOS": "K v", "LPUSH": "K v", "LRANGE": "K 0 0",
    "LREM": "K 1 v", "LSET": "K 0 v", "LTRIM": "K 0 0", "MGET": "K", "MSET": "K v", "PERSIST": "K", "PEXPIRE": "K 1",
    "PTTL": "K", "RENAME": "K K", "RPOP": "K", "RPUSH": "K v", "SADD": "K v", "SCAN": "0", "SCARD": "K", "SET": "K v",
    "SETEX": "K 1 v", "SISMEMBER": "K v", "SMEMBERS": "K", "SREM": "K v", "TIME": "", "TTL": "K", "TYPE": "K",
    "UNLINK": "K", "XADD": "K * f v", "XDEL": "K 0-1", "XLEN": "K", "XRANGE": "K - +", "XREVRANGE": "K + -",
    "XTRIM": "K MAXLEN 1", "ZADD": "K 1 m", "ZCARD": "K", "ZCOUNT": "K 0 1", "ZINCRBY": "K 1 m", "ZPOPMIN": "K",
    "ZRANGE": "K 0 0", "ZRANGEBYSCORE": "K 0 1", "ZREM": "K m", "ZREMRANGEBYSCORE": "K 0 1", "ZSCORE": "K m",
    # from here, by the agent and by kombu
    "BRPOP": "K 1", "CLIENT LIST": "", "CLIENT SETNAME": "mq", "CLIENT TRACKING": "OFF", "EVAL": "'' 0",
    "EVALSHA": "0 0", "HELLO": "3", "INFO": "", "PING": "", "PSUBSCRIBE": "C", "PUBLISH": "C m", "SCRIPT LOAD": "''",
    "ZREVRANGEBYSCORE": "K 1 0",
}  # fmt: skip
"""What each command is tried with; K stands for a key, C for the channel of remote control."""
_ALWAYS = (
    "EVAL", "EVALSHA", "SCRIPT LOAD", "INFO", "PING", "CLIENT LIST", "CLIENT SETNAME", "CLIENT TRACKING", "HELLO",
    "MGET", "LRANGE", "XADD", "XREVRANGE", "SCAN", "BRPOP", "PUBLISH", "PSUBSCRIBE", "ZREVRANGEBYSCORE", "HSCAN",
)  # fmt: skip
_CALL = re.compile(r"redis\.p?call\('([A-Z]+)'")


def used_by_scripts() -> set[str]:
    """Every command that a script of ours calls."""
    folder = files(__package__).joinpath("lua")
    return {name for one in folder.iterdir() if one.name.endswith(".lua") for name in _CALL.findall(one.read_text())}


def rights(client: Redis, keys: Keys) -> Rights:
    """What is missing, of the commands and of the keys."""
    own = f"{keys.prefix}{keys.namespace}:"
    wanted = sorted((used_by_scripts() | set(_ALWAYS)) & ARGUMENTS.keys())
    touched = [f"{own}workers", keys.unacked, keys.unacked_index, *(keys.list(queue, 0) for queue in QueueType)]
    connection = client.connection_pool.get_connection()
    try:
        user = _user(connection)
        refused = dict(zip(wanted, _tried(connection, [_command(name, touched[0]) for name in wanted]), strict=True))
        commands = [name for name, why in refused.items() if _is_command(why)]
        # A key is refused whatever the command, so one that is granted tells.
        probe = next((name for name in ("LLEN", "TYPE", "TTL", "GET") if name not in commands), None)
        answers = _tried(connection, [[probe, key] for key in touched]) if probe else []
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)
    missing = [key for key, why in zip(touched, answers, strict=False) if why and not _is_command(why)]
    shown = [f"{own}*" if key.startswith(own) else f"{key}*" for key in missing]
    return Rights(user, tuple(name.lower() for name in commands), tuple(shown), f"{own}*")


def _command(name: str, key: str) -> list[str]:
    arguments = {"K": key, "C": "/0.celery.pidbox"}
    return [*name.split(), *(arguments.get(word, word) for word in ARGUMENTS[name].split())]


def _tried(connection: "redis.Connection", commands: Sequence[Sequence[str]]) -> Iterator[str]:
    """For each command why it was refused; empty where it was not."""
    replies = [_reply(connection, command) for command in (["MULTI"], *commands, ["DISCARD"])]
    return iter([reply if "NOPERM" in reply else "" for reply in replies[1:-1]])


def _reply(connection: "redis.Connection", command: Sequence[str]) -> str:
    connection.send_command(*command)
    try:
        connection.read_response()
    except redis.ResponseError as error:
        # redis-py takes the code off the errors that it knows
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
