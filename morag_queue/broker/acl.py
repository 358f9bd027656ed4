"""What the login of the URL may do, tried without doing it.

A server checks rights when a command enters a transaction; DISCARD then forgets all of them. That works on every
version, asks for no right of its own but MULTI, and changes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

import redis
from redis import Redis

from morag_queue.core.doctor.facts import Permissions
from morag_queue.core.model import QueueType

from .keys import Keys

_TRIED_WITH = {
    "": "TIME INFO PING CLIENT_LIST",
    "K": "DEL EXISTS GET GETDEL HGETALL HKEYS HLEN INCR LLEN LPOP MGET PERSIST PTTL RPOP SCARD SMEMBERS TTL TYPE UNLINK"
    " XLEN ZCARD ZPOPMIN",
    "K f": "HDEL HEXISTS HGET HMGET",
    "K f v": "HSET HSETNX",
    "K f 1": "HINCRBY HINCRBYFLOAT",
    "K v": "LPOS LPUSH MSET RPUSH SADD SET SISMEMBER SREM ZREM ZSCORE",
    "K 0": "HSCAN LINDEX",
    "K 1": "BRPOP EXPIRE INCRBY PEXPIRE",
    "K 0 0": "LRANGE LTRIM ZRANGE",
    "K 0 v": "LSET",
    "K 0 1": "ZCOUNT ZRANGEBYSCORE ZREMRANGEBYSCORE ZREVRANGEBYSCORE",
    "K 1 v": "LREM SETEX ZADD ZINCRBY",
    "K K": "RENAME",
    "K K LEFT LEFT": "LMOVE",
    "K BEFORE a b": "LINSERT",
    "K * f v": "XADD",
    "K 0-1": "XDEL",
    "K - +": "XRANGE",
    "K + -": "XREVRANGE",
    "K MAXLEN 1": "XTRIM",
    "0": "SCAN",
    "0 0": "EVAL EVALSHA",
    "0-": "SCRIPT_LOAD",
    "3": "HELLO",
    "mq": "CLIENT_SETNAME",
    "OFF": "CLIENT_TRACKING",
    "ID 0": "CLIENT_KILL",
    "C": "PSUBSCRIBE",
    "C m": "PUBLISH",
}


ARGUMENTS = {name.replace("_", " "): words for words, names in _TRIED_WITH.items() for name in names.split()}
"""What each command is tried with; K stands for a key, C for the channel of remote control."""


_ALWAYS = (
    *("BRPOP", "CLIENT KILL", "CLIENT LIST", "CLIENT SETNAME", "CLIENT TRACKING", "EVAL", "EVALSHA", "HELLO", "HSCAN"),
    *("INFO", "LRANGE", "MGET", "PING", "PSUBSCRIBE", "PUBLISH", "SCAN", "SCRIPT LOAD", "XADD", "XREVRANGE"),
    "ZREVRANGEBYSCORE",
)
"""What is used from here, by the agent and by kombu, besides the commands of the scripts."""


_CALL = re.compile(r"redis\.p?call\('([A-Z]+)'")


def used_by_scripts() -> set[str]:
    """Every command that a script of ours calls."""
    folder = files(__package__).joinpath("lua")
    texts = [
        file.read_text("utf-8")
        for part in (folder, folder.joinpath("lib"))
        for file in part.iterdir()
        if file.is_file()
    ]
    return {name for text in texts for name in _CALL.findall(text)}


def permissions(client: Redis, keys: Keys) -> Permissions:
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
    return Permissions(user, tuple(name.lower() for name in commands), tuple(shown), f"{own}*")


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
