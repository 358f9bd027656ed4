"""The lanes that a worker reads, and the order in which it takes their tasks."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from morag_queue.broker.keys import KOMBU_SEP, Keys
from morag_queue.errors import MoragQueueError
from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet

WORKER = "worker-cpu-1"
Make = Callable[..., AgentFleet]
LAYOUTS = {"default": Keys(), "prefix and separator": Keys("mq", "app-7:", "::")}


def options_of(keys: Keys) -> dict[str, Any]:
    options = {"global_keyprefix": keys.prefix} if keys.prefix else {}
    return options | ({"sep": keys.sep} if keys.sep != KOMBU_SEP else {})


@pytest.mark.parametrize("keys", LAYOUTS.values(), ids=LAYOUTS)
def test_a_busy_worker_takes_tasks_by_level_first_and_its_own_lanes_before_shared_ones(
    keys: Keys, make_agent_fleet: Make
) -> None:
    """In each layout of keys, and although the pool replaces its process in between."""
    fleet = make_agent_fleet(conf={"broker_transport_options": options_of(keys), "worker_max_tasks_per_child": 9})
    fleet.keys = fleet._keys = keys
    fleet.start_worker(WORKER)
    first = fleet.submit("t.hold", str(fleet.release_file()))
    fleet.until_started(first)
    lanes = [f"cpu_standard.{WORKER}", f"cpu_batch.{WORKER}", "cpu_standard", "cpu_batch"]
    places = [(level, place) for level in (0, 2, 5, 9) for place in range(len(lanes))]
    shuffled = Random(3).sample(places, len(places))
    sent = {fleet.submit("t.later", lane=lanes[place], level=level): (level, place) for level, place in shuffled}

    fleet.release_file().touch()

    fleet.until_ran([first, *sent])
    started = [one["task"] for one in fleet.events("start")]
    assert [sent[task] for task in started if task in sent] == sorted(places)
    assert set(fleet.counts().values()) == {1}
    assert len({one["pid"] for one in fleet.events("start")}) == 2, "the process of the pool was not replaced"
    fleet.until_nothing_is_unacked()


@pytest.mark.parametrize(
    ("selected", "served"),
    [
        (None, {"cpu_standard", "cpu_batch"}),
        ("cpu_batch", {"cpu_batch"}),
        ("cpu_batch,mine", {"cpu_batch"}),
    ],
)
def test_a_worker_reads_its_own_lanes_and_the_selected_queues(
    selected: str | None, served: set[str], make_agent_fleet: Make
) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER, options=("-Q", selected) if selected else ())

    assert set(json.loads(fleet.redis.hget(fleet.keys.workers, WORKER))["queues"]) == served
    others = {"cpu_standard", "cpu_batch"} - served
    left = [fleet.submit("t.later", lane=lane, level=0) for lane in sorted(others)]
    sent = [fleet.submit("t.later", lane=lane) for lane in sorted(served)]
    sent += [fleet.submit("t.later", lane=f"{lane}.{WORKER}", level=9) for lane in sorted(served)]
    if selected and "mine" in selected:
        sent.append(fleet.send("mine", task="t.later"))

    fleet.until_ran(sent)
    assert not fleet.counts().keys() & set(left), "it read a queue that was not selected"


def test_a_worker_refuses_to_start_for_a_queue_that_its_capability_does_not_serve(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()

    with pytest.raises(MoragQueueError, match=f"{WORKER} is a cpu worker and does not serve gpu_priority: remove it"):
        fleet.start_worker(WORKER, options=("-Q", "gpu_priority,cpu_batch"))


def test_a_worker_refuses_to_start_with_an_unsupported_pool(make_agent_fleet: Make) -> None:
    pytest.importorskip("gevent")
    fleet = make_agent_fleet()

    with pytest.raises(MoragQueueError, match="the gevent pool is not supported"):
        fleet.start_worker(WORKER, options=("-P", "gevent"))


def test_an_idle_worker_obeys_a_cordon_and_a_pause_and_resumes_after_them(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER)
    fleet.redis.hset(fleet.keys.cordons, WORKER, json.dumps({"state": "cordoned"}))
    fleet.redis.sadd(fleet.keys.paused, "cpu_batch")
    kept = [fleet.submit("t.later"), fleet.submit("t.later", lane="cpu_batch")]
    own = fleet.submit("t.later", lane=f"cpu_standard.{WORKER}")

    fleet.until_ran([own])
    assert not fleet.counts().keys() & set(kept), "it took from a shared or paused lane"

    fleet.redis.hdel(fleet.keys.cordons, WORKER)
    fleet.redis.srem(fleet.keys.paused, "cpu_batch")
    fleet.until_ran(kept)
    until(lambda: fleet.unacked_counts() == (0, 0, 0), 10, lambda: str(fleet.where()))


def test_the_heartbeat_contains_the_clock_and_the_record_the_prefetch_setting(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet(conf={"worker_disable_prefetch": True})
    fleet.start_worker(WORKER)
    beat = json.loads(fleet.redis.hget("mq:beats", WORKER))
    assert beat["clock"] == pytest.approx(beat["at"], abs=60)
    assert json.loads(fleet.redis.hget("mq:workers", WORKER))["settings"]["disable_prefetch"] is True
