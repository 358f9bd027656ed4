"""`doctor` tries every command that we send, and changes nothing by it."""

import ast
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import redis
from redis.commands.core import HashCommands, ListCommands, SetCommands, SortedSetCommands, StreamCommands

from morag_queue.broker import acl
from morag_queue.broker.acl import ARGUMENTS, permissions
from morag_queue.broker.keys import Keys

PACKAGE = Path(str(files("morag_queue")))

OF_REDIS_PY = {"CLIENT SETNAME", "EVALSHA", "HELLO", "PING", "SCRIPT EXISTS", "SCRIPT LOAD"}
"""Sent by redis-py itself: at connecting, and for scripts."""

OF_KOMBU = {
    *("BRPOP", "DEL", "EXISTS", "HDEL", "HGET", "HSET", "LLEN", "LPUSH", "PEXPIRE", "PSUBSCRIBE", "PUBLISH"),
    *("PUNSUBSCRIBE", "RPOP", "RPUSH", "SADD", "SET", "SMEMBERS", "SREM", "ZADD", "ZREM", "ZREVRANGEBYSCORE"),
}
"""Sent by the agent's transport, which is kombu's."""

ENCODED = {"CLIENT CACHING"}
"""Sent by the agent, encoded in advance."""

OPTIONAL = {"ACL WHOAMI", "CONFIG GET", "MULTI", "DISCARD"}
"""What they are needed for is reported where they are refused, or is this check itself."""

METHODS = {
    "script_load": "SCRIPT LOAD",
    "hscan_iter": "HSCAN",
    "scan_iter": "SCAN",
    "client_kill_filter": "CLIENT KILL",
    "config_get": "CONFIG GET",
}
NO_COMMANDS = {"pipeline", "execute", "close", "register_script", "connection_pool", "script_exists", "client"}
CLIENTS = {"client", "pipe", "lasting_client"}
DATA = {
    name
    for kind in (HashCommands, ListCommands, SetCommands, SortedSetCommands, StreamCommands)
    for name in vars(kind)
    if not name.startswith("_") and name != "sort"
}
"""Methods of redis-py that no other object has: calls count whatever the object is called."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(object, method, call) of all method calls of the package; of `a.b.c()` the object is `b`."""
    for path in PACKAGE.rglob("*.py"):
        if {"memory", "local"} & set(path.relative_to(PACKAGE).parts):  # no server, or an embedded one without an ACL
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                yield str(getattr(owner, "attr", getattr(owner, "id", ""))), node.func.attr, node


def sent_by_python() -> set[str]:
    sent = set()
    for owner, method, call in calls():
        if method in ("execute_command", "send_command"):
            words = [str(word.value) for word in call.args if isinstance(word, ast.Constant)]
            sent.add(" ".join(words[: 2 if words[0] in ("ACL", "CLIENT", "CONFIG", "SCRIPT") else 1]) if words else "")
        elif method in DATA or (owner.lstrip("_") in CLIENTS and method not in NO_COMMANDS):
            sent.add(METHODS.get(method, method.upper()))
    return sent - {""}


def sent_by_scripts() -> set[str]:
    texts = [path.read_text("utf-8") for path in (PACKAGE / "broker" / "lua").rglob("*.lua")]
    return {name for text in texts for name in re.findall(r"redis\.p?call\('([A-Z]+)'", text)}


def test_every_command_that_we_send_is_tried_and_no_other() -> None:
    sent = sent_by_python() | sent_by_scripts() | OF_REDIS_PY | OF_KOMBU | ENCODED | {"EVAL"}
    assert sent - OPTIONAL == ARGUMENTS.keys()


def test_every_command_is_tried_with_arguments_that_the_server_accepts(client: redis.Redis) -> None:
    tried = [["MULTI"], *(acl._command(name, "k") for name in ARGUMENTS)]
    with acl._own_connection(client) as connection:
        assert {reply for command in tried if (reply := acl._reply(connection, command))} == set()
    assert client.dbsize() == 0


@pytest.fixture
def clerk(client: redis.Redis, valkey: str) -> Iterator[redis.Redis]:
    """A login that may do everything until the test takes something from it."""
    client.acl_setuser("clerk", enabled=True, passwords=["+p"], keys=["*"], channels=["*"], commands=["+@all"])
    with redis.Redis.from_url(valkey, username="clerk", password="p") as login:
        yield login
    client.acl_deluser("clerk")


@pytest.mark.parametrize(
    "command", ["srem", "hmget", "hkeys", "xrange", "zremrangebyscore", "script|exists", "evalsha"]
)
def test_a_refused_command_is_reported(command: str, client: redis.Redis, clerk: redis.Redis) -> None:
    client.acl_setuser("clerk", enabled=True, commands=["+@all", f"-{command}"], keys=["*"], channels=["*"])
    assert permissions(clerk, Keys()).commands == (command.replace("|", " "),)


def test_a_login_without_transactions_is_reported_and_nothing_is_executed(
    client: redis.Redis, clerk: redis.Redis
) -> None:
    client.hset(Keys().workers, "w1", "{}")
    client.acl_setuser("clerk", enabled=True, commands=["+@all", "-multi"], keys=["*"], channels=["*"])
    assert permissions(clerk, Keys()).commands == ("multi",)
    assert client.hgetall(Keys().workers) == {b"w1": b"{}"}
