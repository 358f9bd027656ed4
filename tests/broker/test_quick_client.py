"""The quick client does what redis-py's does, and imports it only where it is needed."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from signal import SIGINT, pthread_kill
from threading import Thread, Timer, get_ident
from uuid import uuid4

import pytest
import redis

from morag_queue.broker.connection import connect
from morag_queue.broker.quick_client import quick_client
from morag_queue.broker.redis import RedisBroker
from morag_queue.errors import MoragQueueError
from morag_queue.local.waiting import until
from morag_queue.settings import BrokerSettings, Settings

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture
def name() -> str:
    return f"mq.{uuid4()}"


@pytest.fixture
def quick(valkey: str, name: str) -> redis.Redis:
    return quick_client(valkey, BrokerSettings(), name=name)


def connections(client: redis.Redis, name: str) -> list[dict[str, str]]:
    return [each for each in client.client_list() if each["name"] == name]


def test_answers_are_those_of_redis_py(quick: redis.Redis, client: redis.Redis, name: str) -> None:
    client.hset("hash", mapping={"a": 1, "b": "\x00é"})
    client.set("text", "\r\n" * 50_000)
    digest = client.script_load("return KEYS[1]")
    for each in (client, quick):
        assert each.register_script("return {KEYS[1], ARGV[1], {1, ''}, false}")(["k"], [b"\xff"]) == [
            *(b"k", b"\xff", [1, b""], None)
        ]
        pipe = each.pipeline(transaction=False)
        pipe.hgetall("hash").hgetall("none").hget("hash", "a").hget("hash", "c").evalsha(digest, 1, "k")
        assert pipe.execute() == [{b"a": b"1", b"b": "\x00é".encode()}, {}, b"1", None, b"k"]
        assert pipe.execute() == []
        assert each.execute_command("GET", "text") == client.get("text")
    assert len(connections(client, name)) == 1


def test_redis_py_sends_the_other_commands(quick: redis.Redis, client: redis.Redis) -> None:
    client.hset("hash", "a", "1")
    add = quick.register_script(ADD)

    assert quick.set("count", 1) is True
    pipe = quick.pipeline(transaction=False)
    pipe.hgetall("hash")
    add(keys=["count"], args=[1], client=pipe)
    pipe.hget("hash", "a")
    assert pipe.execute() == [{b"a": b"1"}, 2, b"1"]
    transaction = quick.pipeline()
    transaction.incr("count")
    assert transaction.execute() == [3]


def test_a_lost_connection_is_opened_again(quick: redis.Redis, client: redis.Redis, name: str) -> None:
    add = quick.register_script(ADD)
    assert add(keys=["count"], args=[1]) == 1
    [connection] = connections(client, name)
    client.client_kill_filter(_id=connection["id"])

    assert add(keys=["count"], args=[1]) == 2


def test_a_script_that_the_server_does_not_have_is_loaded(quick: redis.Redis, client: redis.Redis) -> None:
    add = quick.register_script(ADD)
    for total in (1, 2):
        client.script_flush()
        assert add(keys=["count"], args=[1]) == total


def test_a_refused_command_raises_the_error_of_redis_py(quick: redis.Redis, client: redis.Redis) -> None:
    client.set("text", "x")
    for refused in (
        lambda: quick.execute_command("XADD", "text", "*", "a", "1"),
        lambda: quick.register_script("return redis.call('LPUSH', KEYS[1], 'x')")(keys=["text"], args=[]),
        lambda: quick.pipeline(transaction=False).hgetall("text").execute(),
    ):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            refused()
    pipe = quick.pipeline(transaction=False)
    found = pipe.hgetall("text").hgetall("none").execute(raise_on_error=False)
    assert isinstance(found[0], redis.ResponseError)
    assert found[1] == {}


def test_a_command_that_timed_out_is_not_sent_again(valkey: str, quick: redis.Redis, client: redis.Redis) -> None:
    hasty = quick_client(valkey, BrokerSettings(read_timeout_seconds=0.5))
    hasty.register_script(ADD)(keys=["count"], args=[1])
    client.client_pause(60_000, all=False)  # the commands that write

    with pytest.raises(TimeoutError, match="Timeout reading from socket"):
        hasty.register_script(ADD)(keys=["count"], args=[10])
    client.client_unpause()
    quick.register_script(ADD)(keys=["count"], args=[100])
    until(lambda: client.get("count") == b"111", 10, "the count is not 111")


def test_the_answer_of_an_interrupted_command_is_not_taken_for_that_of_another(quick: redis.Redis) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    add = quick.register_script(ADD)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            quick.execute_command("BLPOP", "none", "0.2")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert add(keys=["count"], args=[7]) == 7


def test_an_answer_that_an_interrupt_left_is_not_taken_for_another(valkey: str, client: redis.Redis) -> None:
    quick = quick_client(valkey, BrokerSettings(read_timeout_seconds=20))
    add = quick.register_script(ADD)
    add(keys=["count"], args=[1])
    client.client_pause(20_000, all=False)  # the commands that write

    def add_until_interrupted() -> None:
        Timer(0.2, pthread_kill, [get_ident(), SIGINT]).start()
        add(keys=["count"], args=[10])

    with pytest.raises(KeyboardInterrupt):
        add_until_interrupted()
    client.client_unpause()
    assert quick.execute_command("GET", "count") in (b"1", b"11")


@pytest.mark.parametrize("options", ["?socket_timeout=1", "?protocol=3", "?db=0&client_name=x"])
def test_a_url_with_options_of_redis_py_is_opened_by_it(options: str, valkey: str) -> None:
    with quick_client(valkey + options, BrokerSettings()) as opened:
        assert type(opened) is redis.Redis
        assert opened.ping()


def test_a_database_and_a_login_are_those_of_the_url(valkey: str, client: redis.Redis) -> None:
    client.acl_setuser("ann", enabled=True, passwords=["+p@ss"], keys=["*"], commands=["+@all"])
    host = valkey.partition("://")[2].partition("/")[0]
    for name, rest in (("mq.path", "/3"), ("mq.query", "?db=3")):
        opened = quick_client(f"redis://ann:p%40ss@{host}{rest}", BrokerSettings(), name=name)
        opened.execute_command("INCR", "here")
        [listed] = connections(client, name)
        assert (listed["db"], listed["user"]) == ("3", "ann")
    client.acl_deluser("ann")
    client.select(3)
    assert client.get("here") == b"2"


@pytest.fixture
def http() -> Iterator[str]:
    """The URL of a server that is not Redis."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        Thread(target=answer, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def silent() -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def login(valkey: str) -> str:
    return valkey.replace("redis://", "redis://nobody:hunter2@")


@pytest.fixture
def nowhere() -> str:
    return "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("where", ["http", "silent", "login", "nowhere"])
def test_the_error_of_a_broker_that_does_not_answer_is_the_same(where: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(where)
    options = BrokerSettings(read_timeout_seconds=0.2 if where == "silent" else 30)

    def error_of(client: redis.Redis) -> tuple[type[Exception], str]:
        with pytest.raises((MoragQueueError, redis.RedisError)) as raised:
            RedisBroker(Settings(redis_url=url, broker=options), client).observe()
        return raised.type, str(raised.value)

    makers: list[Callable[..., redis.Redis]] = [connect, quick_client]
    usual, quick = (error_of(make(url, options)) for make in makers)
    assert quick == usual
    assert "hunter2" not in quick[1]
