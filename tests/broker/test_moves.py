"""Moves are refused whole or done whole when the server fails."""

import json

import pytest
import redis

from morag_queue.broker.contract import MoveOutcome
from morag_queue.broker.redis import RedisBroker
from morag_queue.settings import BrokerSettings, Settings
from tests.support.broker_drivers import RedisDriver, move, outgoing_message

CPU, OWN, GPU = "cpu_standard", "cpu_standard.w", "gpu_priority"


@pytest.fixture
def driver(valkey):
    return RedisDriver(valkey)


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter()}


def lists(client: redis.Redis) -> dict[bytes, list[bytes]]:
    """All lists of messages, with their content."""
    keys = [key for key in client.scan_iter(_type="list") if not key.startswith(b"mq:")]
    return {key: client.lrange(key, 0, -1) for key in keys}


def ids(client: redis.Redis) -> list[str]:
    return sorted(json.loads(text)["headers"]["id"] for texts in lists(client).values() for text in texts)


MOVES = {
    "one task": lambda driver: driver.broker.moves.tasks([move("a", CPU, 4, GPU, 1)]),
    "one task to a worker": lambda driver: driver.broker.moves.tasks([move("a", CPU, 4, "gpu_priority.w", 1)]),
    "a lane": lambda driver: driver.broker.moves.lane(CPU, GPU, 4, 2),
    "a lane to another level": lambda driver: driver.broker.moves.lane(CPU, CPU, 4, 2, to_level=1),
    "a lane to a worker": lambda driver: driver.broker.moves.lane(CPU, "gpu_priority.w", 4, 2),
}
anyhow = pytest.mark.parametrize("moving", MOVES.values(), ids=MOVES)


@anyhow
def test_a_server_out_of_memory_refuses_a_move_whole(driver, client, out_of_memory, moving):
    driver.submit("a", "b")
    moving(driver)  # loads the scripts and allocates memory
    driver.sim_fleet.client.flushdb()
    driver.submit("a", "b")
    before = everything(client)
    out_of_memory()
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        moving(driver)
    assert everything(client) == before


@anyhow
@pytest.mark.parametrize("broken", ["target", "source", "lanes", "record"])
def test_a_key_of_another_type_loses_no_message(driver, client, moving, broken):
    driver.submit("a", "b")
    keys = driver.sim_fleet.keys
    if broken == "target":
        for lane, level in ((GPU, 1), ("gpu_priority.w", 1), (GPU, 4), ("gpu_priority.w", 4), (CPU, 1)):
            client.set(keys.list(lane, level), "no list")
    elif broken == "source":
        client.rename(keys.list(CPU, 4), "kept")
        client.set(keys.list(CPU, 4), "no list")
    elif broken == "lanes":
        client.set(keys.lanes, "no set")
    else:
        client.delete(keys.task("a"))
        client.lpush(keys.task("a"), "no string")
    before = lists(client)
    try:
        moving(driver)
    except redis.ResponseError:
        assert lists(client) == before
    else:
        assert ids(client) == ["a", "b"]


@anyhow
def test_a_read_only_replica_refuses_a_move_whole(driver, client, moving):
    driver.submit("a", "b")
    before = everything(client)
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(redis.ResponseError, match=r"READONLY|read only"):
            moving(driver)
        assert everything(client) == before
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@anyhow
def test_scripts_are_loaded_again_after_a_script_flush(driver, client, moving):
    driver.submit("a", "b")
    moving(driver)
    client.flushdb()
    client.script_flush()
    driver.submit("a", "b")
    moving(driver)
    assert ids(client) == ["a", "b"]


def test_moves_keep_to_the_key_prefix_and_separator(valkey, client):
    layout = BrokerSettings(global_keyprefix="app-7:", sep="::")
    broker = RedisBroker(Settings(redis_url=valkey, namespace="fleet", broker=layout))
    broker.submit([outgoing_message("a"), outgoing_message("b", OWN)])
    assert broker.moves.tasks([move("a", CPU, 4, GPU, 1)]) == [MoveOutcome.MOVED]
    broker.moves.lane(OWN, CPU, 4, 1)
    assert client.llen("app-7:gpu_priority::1") == client.llen("app-7:cpu_standard::4") == 1
    assert client.exists("gpu_priority", "cpu_standard") == 0


def test_a_task_deep_in_a_list_is_moved_while_the_list_changes(driver):
    driver.submit(*(f"t{n:04}" for n in range(3000)))
    driver.join("w")
    for n in range(0, 60, 6):
        driver.claim("w")
        driver.submit(f"new-{n}")
        assert driver.broker.moves.tasks([move(f"t{1500 + n}", CPU, 4, GPU)]) == [MoveOutcome.MOVED]
    assert driver.ids(GPU, 4) == [f"t{1500 + n}" for n in range(0, 60, 6)]


def test_chosen_tasks_are_moved_in_the_order_of_the_plan(driver):
    names = [f"t{n:04}" for n in range(1000)]
    driver.submit(*names)
    steps = [move(name, CPU, 4, GPU) for name in reversed(names)]
    assert set(driver.broker.moves.tasks(steps)) == {MoveOutcome.MOVED}
    assert driver.ids(GPU, 4) == names[::-1]
