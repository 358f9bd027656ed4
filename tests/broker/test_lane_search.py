"""Search a long list for one task by its id and enqueue time, at few places."""

import json
from collections.abc import Callable, Sequence

import pytest
import redis

from morag_queue.broker.keys import Keys
from morag_queue.broker.lane_search import LaneSearch

LENGTH = 20_000
LANE, LEVEL = "cpu_standard", 4


def message(task_id: str, at: float | str | None) -> str:
    header = {} if at is None else {"morag_queue": {"enqueued_at": at}}
    properties = {"delivery_tag": task_id}
    return json.dumps({"body": "", "headers": {"id": task_id, "task": "t", **header}, "properties": properties})


@pytest.fixture
def fill(client: redis.Redis) -> Callable[[Sequence[float | str | None]], LaneSearch]:
    """Fill the list with a task for each time, the first of which is taken next: depth 1, id `task-1`."""

    def push(times: Sequence[float | str | None]) -> LaneSearch:
        for start in range(0, len(times), 5000):
            part = enumerate(times[start : start + 5000], start + 1)
            client.lpush(Keys().list(LANE, LEVEL), *(message(f"task-{n}", at) for n, at in part))
        return LaneSearch(client, Keys())

    return push


def steady(n: int) -> float:
    return 1000.0 + n


def burst_then_few(n: int) -> float:
    return 1000.0 + n / 1e6 if n < 0.9 * LENGTH else 1001.0 + 10 * (n - 0.9 * LENGTH)


def bursts(n: int) -> float:
    return 1000.0 + 3600 * (n // 4000) + n % 4000 / 1e5


def in_batches(n: int) -> float:
    return 1000.0 + n // 1000


@pytest.mark.parametrize("arrival", [steady, burst_then_few, bursts, in_batches])
def test_a_task_is_found_at_every_depth_by_reading_a_small_part_of_the_list(client, fill, arrival):
    search = fill([arrival(n) for n in range(LENGTH)])
    for depth in (1, 2, 150, 4000, 4001, 9999, 10_000, 12_345, 17_999, 18_000, 18_001, LENGTH - 200, LENGTH):
        client.config_resetstat()
        found = search.by_id(f"task-{depth}", LANE, LEVEL, LENGTH, arrival(depth - 1))
        assert found is not None, depth
        assert (found.depth, json.loads(found.raw)["headers"]["id"]) == (depth, f"task-{depth}")
        assert client.info("commandstats")["cmdstat_lrange"]["calls"] <= 40, depth


def test_a_task_of_a_steady_stream_is_found_at_the_second_place(client, fill):
    search = fill([steady(n) for n in range(LENGTH)])
    client.config_resetstat()
    assert search.by_id("task-7777", LANE, LEVEL, LENGTH, steady(7776)) is not None
    assert client.info("commandstats")["cmdstat_lrange"]["calls"] == 3, "both ends, and its place"


def test_a_list_that_has_grown_or_shrunk_since_its_length_was_read_is_searched(client, fill):
    search = fill([steady(n) for n in range(5000)])
    for length in (4000, 6000):
        assert search.by_id("task-2500", LANE, LEVEL, length, steady(2499)) is not None, length


def test_a_task_that_is_not_there_is_not_found(client, fill):
    search = fill([steady(n) for n in range(5000)])
    for at in (0.0, steady(0), steady(2500), steady(4999), 1e9):
        assert search.by_id("other", LANE, LEVEL, 5000, at) is None


def test_messages_without_a_usable_time_are_no_obstacle(client, fill):
    times = ["soon", None, "0x1", "1e", ""]
    search = fill([times[n % 5] if n % 7 else steady(n) for n in range(5000)])
    found = [search.by_id(f"task-{depth}", LANE, LEVEL, 5000, steady(depth - 1)) for depth in (1, 2500, 5000)]
    assert [waiting and waiting.depth for waiting in found] == [1, 2500, 5000]
    assert search.by_id("task-1", LANE, LEVEL, 5000, float("nan")) is not None


def test_an_empty_list_has_no_task(client):
    assert LaneSearch(client, Keys()).by_id("a", LANE, LEVEL, 0, 1.0) is None
