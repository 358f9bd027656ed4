"""Counters: the counts of the current minute, their folding into minutes, hours and all time, and their readers."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import redis

from morag_queue.broker.broken import BrokenValues
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.counters import fleet_counters
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import QueueType
from morag_queue.settings import Settings
from tests.broker.conftest import ScriptRunner

BATCH = QueueType.CPU_BATCH
_ids = count()


def arrive(runner: ScriptRunner, number: int = 1) -> None:
    """Submit messages, each of which counts as arrived."""
    messages = [OutgoingMessage(f"t{next(_ids)}", "m", "{}", BATCH, BATCH, 4, False) for _ in range(number)]
    Ledger(runner.client, runner.keys, 60).submit(messages)


def pass_minutes(runner: ScriptRunner, number: int) -> int:
    """Move the current counts to an earlier minute, as if that many had passed since; return that minute."""
    minute = int(runner.client.hget(runner.keys.current, "minute") or 0) - number
    runner.client.hset(runner.keys.current, "minute", minute)
    return minute


@pytest.fixture
def broker(runner: ScriptRunner) -> RedisBroker:
    broker = RedisBroker(Settings(redis_url=runner.client_url), runner.client)
    broker.keys = runner.keys
    return broker


@pytest.fixture
def now(runner: ScriptRunner) -> float:
    return float(runner.client.time()[0])


def test_the_counts_of_an_earlier_minute_are_folded_once_into_minute_hour_and_all_time(runner: ScriptRunner) -> None:
    arrive(runner, 2)
    minute = pass_minutes(runner, 3)
    arrive(runner)
    arrive(runner)

    k = runner.keys
    folded = {b"cpu_batch|arrived": b"2"}
    assert runner.client.hgetall(k.minute(minute * 60)) == folded
    assert runner.client.hgetall(k.hour(minute * 60)) == folded
    assert runner.client.hgetall(k.figures) == folded
    assert runner.client.hget(k.current, "cpu_batch|arrived") == b"2"
    assert 24 * 3600 < runner.client.ttl(k.minute(minute * 60)) <= 25 * 3600
    assert 31 * 86400 < runner.client.ttl(k.hour(minute * 60)) <= 32 * 86400
    assert runner.client.ttl(k.figures) == runner.client.ttl(k.current) == -1


def test_counts_are_added_to_those_that_another_version_wrote(runner: ScriptRunner) -> None:
    arrive(runner)
    minute = pass_minutes(runner, 1)
    for key in (runner.keys.minute(minute * 60), runner.keys.hour(minute * 60), runner.keys.figures):
        runner.client.hset(key, mapping={"cpu_batch|arrived": 10, "cpu_batch|completed": 1})

    arrive(runner)

    for key in (runner.keys.minute(minute * 60), runner.keys.hour(minute * 60), runner.keys.figures):
        assert runner.client.hgetall(key) == {b"cpu_batch|arrived": b"11", b"cpu_batch|completed": b"1"}


@pytest.mark.parametrize("value", ["", "x", "-", "{}"])
def test_counts_without_a_minute_count_in_this_one(
    value: str, runner: ScriptRunner, broker: RedisBroker, now: float
) -> None:
    runner.client.hset(runner.keys.current, mapping={"minute": value, "cpu_batch|arrived": 1})

    assert broker.windows(now, 300)[BATCH].arrivals == 0
    arrive(runner)
    assert broker.windows(now + 1, 300)[BATCH].arrivals == 2


def test_a_counter_that_is_no_number_does_not_stop_the_others(runner: ScriptRunner) -> None:
    arrive(runner)
    minute = pass_minutes(runner, 1)
    runner.client.hset(runner.keys.figures, "cpu_batch|arrived", "x")

    arrive(runner)

    assert runner.client.hgetall(runner.keys.minute(minute * 60)) == {b"cpu_batch|arrived": b"1"}
    assert runner.client.hget(runner.keys.current, "cpu_batch|arrived") == b"1"


@pytest.mark.parametrize("is_folded", [False, True])
def test_readers_add_the_current_counts_to_their_minute_and_hour(
    is_folded: bool, runner: ScriptRunner, broker: RedisBroker, now: float
) -> None:
    arrive(runner, 3)
    minute = pass_minutes(runner, 4)
    if is_folded:
        Ledger(runner.client, runner.keys, 60).submit(
            [OutgoingMessage(f"t{next(_ids)}", "m", "{}", "cpu_standard", "cpu_standard", 4, False)]
        )

    def arrivals(seconds: float) -> int:
        return broker.windows(now, seconds)[BATCH].arrivals

    assert (arrivals(180), arrivals(360), arrivals(24 * 3600)) == (0, 3, 3)
    by_minute = broker.minutes([minute - 1, minute, minute + 1])
    assert [windows[BATCH].arrivals for windows in by_minute] == [0, 3, 0]


def test_counters_of_all_time_add_the_current_counts_and_have_no_arrivals(runner: ScriptRunner) -> None:
    arrive(runner)
    one_end = {"cpu_batch|completed": 1, "cpu_batch|run_ms": 2000, "cpu_batch|run|42": 1, "cpu_batch|wait|3": 1}
    runner.client.hset(runner.keys.current, mapping=one_end)
    runner.client.hset(runner.keys.figures, mapping={**one_end, "another queue|completed": 1})

    found = fleet_counters(runner.client, runner.keys, BrokenValues(runner.keys)).queues[BATCH]

    assert (found.ended, found.waits, found.runs) == ({"completed": 2}, {3: 2}, {42: 2})
    assert (found.wait_seconds, found.run_seconds) == (0.0, 4.0)


class InterruptedPipeline:
    """A pipeline without a transaction, with other commands of the server between its own."""

    def __init__(self, client: redis.Redis, interrupt: Callable[[], None]) -> None:
        self._client, self._interrupt, self._answers = client, interrupt, list[Any]()

    def __getattr__(self, command: str) -> Callable[..., None]:
        def send(*args: Any) -> None:
            self._answers.append(getattr(self._client, command)(*args))
            self._interrupt()

        return send

    def execute(self, raise_on_error: bool) -> list[Any]:
        return self._answers


@pytest.mark.parametrize("which", ["windows", "with the fleet", "all time"])
def test_a_fold_during_a_reading_counts_nothing_twice(
    which: str, runner: ScriptRunner, broker: RedisBroker, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, keys = runner.client, runner.keys
    arrive(runner)
    client.hset(keys.current, "cpu_batch|completed", 1)
    pass_minutes(runner, 1)
    broker.observe()  # the server has the script
    plain = client.pipeline

    def pipeline(transaction: bool) -> Any:
        return plain(transaction) if transaction else InterruptedPipeline(client, lambda: arrive(runner))

    monkeypatch.setattr(client, "pipeline", pipeline)
    if which == "windows":
        assert broker.windows(now + 60, 3600)[BATCH].completed == 1
        assert client.exists(keys.figures), "it was folded during the reading"
    elif which == "with the fleet":
        assert broker.observe_with_windows(3600)[2][0][BATCH].completed == 1
        assert client.exists(keys.figures), "it was folded during the reading"
    else:
        assert fleet_counters(client, keys, BrokenValues(keys)).queues[BATCH].ended == {"completed": 1}
