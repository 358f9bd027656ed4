"""Frames of the live screen from a real server: what is read again and what is cached."""

import json

import pytest

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Code
from morag_queue.core.model import QueueType
from morag_queue.errors import BrokerError
from morag_queue.operations.live_stats import HISTORY, FleetWatcher
from morag_queue.operations.stats import stats
from morag_queue.settings import Settings
from tests.support.records import register


@pytest.fixture
def broker(valkey):
    return RedisBroker(Settings(redis_url=valkey))


@pytest.fixture
def watcher(broker):
    return FleetWatcher(broker, broker.settings)


def hold(client, task_id, worker="worker-1", claimed_at=1000.0, **record):
    held = [worker, f"{worker}.run", task_id, "cpu_standard", 4, round(claimed_at * 1000)]
    client.hset("mq:held", f"tag-{task_id}", json.dumps(held))
    if record:
        client.set(f"mq:task:{task_id}", json.dumps(record))


def test_an_empty_fleet_gives_an_empty_frame(watcher):
    frame = watcher.observe()
    assert (frame.running, frame.journal, frame.alerts, frame.stats.workers) == ({}, (), (), ())
    assert frame.history[QueueType.CPU_BATCH] == (0,) * HISTORY


def test_history_and_rates_come_from_the_minute_counters(watcher, broker, client):
    now = broker.now()
    minute = int(now) // 60
    for ago in (0, 1, 2, 59, 60):
        client.hset(f"mq:minute:{minute - ago}", mapping={"cpu_batch|completed": ago + 1, "cpu_batch|arrived": 4})
    frame = watcher.observe()
    history = frame.history[QueueType.CPU_BATCH]
    assert (history[-3:], history[0], len(history)) == ((3, 2, 1), 60, HISTORY)
    batch = next(queue for queue in frame.stats.queues if queue.queue_type is QueueType.CPU_BATCH)
    assert batch.completions_per_minute == pytest.approx(66 / 60)
    assert 12 / 5 <= batch.recent_arrivals_per_minute <= 12 / 4, "twelve in the last four to five minutes"


def test_one_shot_and_live_stats_have_the_same_rates(watcher, broker, client):
    minute = int(broker.now()) // 60
    for ago in range(3):
        client.hset(f"mq:minute:{minute - ago}", mapping={"cpu_batch|completed": 7, "cpu_batch|arrived": 9})
    live, once = watcher.observe().stats, stats(broker, broker.settings)
    rates = [
        (queue.recent_arrivals_per_minute, queue.recent_completions_per_minute)
        for queue in (live.queues[-1], once.queues[-1])
    ]
    assert once.queues[-1].queue_type is QueueType.CPU_BATCH
    assert rates[0] == pytest.approx(rates[1], rel=0.02), "the clock moves between the two"
    assert rates[0][0] > 27 / 5


def test_the_last_two_minutes_are_read_again_and_older_ones_are_cached(watcher, broker, client):
    minute = int(broker.now()) // 60
    for ago in (1, 5):
        client.hset(f"mq:minute:{minute - ago}", "cpu_batch|failed", 1)
    watcher.observe()
    for ago in (1, 5):
        client.hset(f"mq:minute:{minute - ago}", "cpu_batch|failed", 9)
    history = watcher.observe().history[QueueType.CPU_BATCH]
    assert 9 in history[-3:-1]
    assert history[-7:-4].count(1) == 1


def test_running_tasks_are_labelled_by_source_and_sorted_by_claim_time(watcher, broker, client):
    register(client, slots=3)
    now = broker.now()
    hold(client, "b", claimed_at=now - 5, state="queued", source="/media/talks/one.mp4")
    hold(client, "a", claimed_at=now - 60, state="queued", source="https://example.org/a/b")
    hold(client, "c", claimed_at=now - 1)
    running = watcher.observe().running["worker-1"]
    assert [task.label for task in running] == ["https://example.org/a/b", "one.mp4", "c"]
    assert 60 <= running[0].seconds < 62
    client.hdel("mq:held", "tag-a", "tag-b")
    client.delete("mq:task:b")
    assert [task.label for task in watcher.observe().running["worker-1"]] == ["c"]


def test_a_frame_has_alerts_journal_entries_and_paused_queues(watcher, broker, client):
    hold(client, "a", worker="gone")
    broker.journal.write("ann@ops", "cordon", "worker-1", reason="disks", changes={})
    client.sadd("mq:paused", "cpu_batch")
    frame = watcher.observe()
    assert [alert.code for alert in frame.alerts] == [Code.WORKER_GONE_WITH_TASKS]
    paused = [queue.queue_type for queue in frame.stats.queues if queue.paused]
    assert (frame.journal[0].verb, paused) == ("cordon", [QueueType.CPU_BATCH])


def test_a_window_other_than_one_hour_is_read_from_the_broker(broker, client):
    client.hset(f"mq:minute:{int(broker.now()) // 60 - 30}", "cpu_batch|completed", 60)
    frame = FleetWatcher(broker, broker.settings, window_seconds=600.0).observe()
    assert frame.stats.window_seconds == 600
    assert all(queue.completions_per_minute == 0 for queue in frame.stats.queues)


def test_observe_works_again_after_an_error(watcher, client):
    client.execute_command("ACL", "SETUSER", "default", "-evalsha")
    try:
        with pytest.raises(BrokerError):
            watcher.observe()
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+evalsha")
    assert watcher.observe().stats.workers == ()
