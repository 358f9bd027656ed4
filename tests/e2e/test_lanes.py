"""Which lanes a worker reads, and in which order it takes what lies there."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from morag_queue.broker.keys import KOMBU_SEP, Keys
from morag_queue.errors import MoragQueueError
from morag_queue.local.waiting import until
from tests.e2e.conftest import AgentFleet

WORKER = "worker-cpu-1"
Make = Callable[..., AgentFleet]
LAYOUTS = {"default": Keys(), "prefix and separator": Keys("mq", "app-7:", "::")}


def options_of(keys: Keys) -> dict[str, Any]:
    options = {"global_keyprefix": keys.prefix} if keys.prefix else {}
    return options | ({"sep": keys.sep} if keys.sep != KOMBU_SEP else {})


@pytest.mark.parametrize("keys", LAYOUTS.values(), ids=LAYOUTS)
def test_a_busy_worker_takes_level_before_lane_and_own_before_shared(keys: Keys, make_agents: Make) -> None:
    """In each layout of keys, and while the pool replaces its process on the way."""
    fleet = make_agents(conf={"broker_transport_options": options_of(keys), "worker_max_tasks_per_child": 9})
    fleet.keys = fleet._keys = keys
    fleet.start_worker(WORKER)
    first = fleet.submit("t.hold", str(fleet.gate()))
    fleet.until_started(first)
    lanes = [f"cpu_standard.{WORKER}", f"cpu_batch.{WORKER}", "cpu_standard", "cpu_batch"]
    places = [(level, place) for level in (0, 2, 5, 9) for place in range(len(lanes))]
    shuffled = Random(3).sample(places, len(places))
    sent = {fleet.submit("t.later", lane=lanes[place], level=level): (level, place) for level, place in shuffled}

    fleet.gate().touch()

    fleet.until_ran([first, *sent])
    started = [one["task"] for one in fleet.events("start")]
    assert [sent[task] for task in started if task in sent] == sorted(places)
    assert set(fleet.counts().values()) == {1}
    assert len({one["pid"] for one in fleet.events("start")}) == 2, "the process of the pool was not replaced"
    fleet.until_empty()


@pytest.mark.parametrize(
    ("selected", "served"),
    [
        (None, {"cpu_standard", "cpu_batch"}),
        ("cpu_batch", {"cpu_batch"}),
        ("cpu_batch,mine", {"cpu_batch"}),
    ],
)
def test_a_worker_reads_its_own_lanes_and_those_that_it_is_told_to(
    selected: str | None, served: set[str], make_agents: Make
) -> None:
    fleet = make_agents()
    fleet.start_worker(WORKER, options=("-Q", selected) if selected else ())

    assert set(json.loads(fleet.redis.hget(fleet.keys.workers, WORKER))["queues"]) == served
    others = {"cpu_standard", "cpu_batch"} - served
    left = [fleet.submit("t.later", lane=lane, level=0) for lane in sorted(others)]
    sent = [fleet.submit("t.later", lane=lane) for lane in sorted(served)]
    sent += [fleet.submit("t.later", lane=f"{lane}.{WORKER}", level=9) for lane in sorted(served)]
    if selected and "mine" in selected:
        sent.append(fleet.send("mine", task="t.later"))

    fleet.until_ran(sent)
    assert not fleet.counts().keys() & set(left), "it took what it is not to read"


def test_a_queue_that_this_kind_of_worker_does_not_serve_is_refused(make_agents: Make) -> None:
    fleet = make_agents()

    with pytest.raises(MoragQueueError, match=f"{WORKER} is a cpu worker and does not serve gpu_priority: remove it"):
        fleet.start_worker(WORKER, options=("-Q", "gpu_priority,cpu_batch"))


def test_a_pool_that_the_claim_cannot_work_with_is_refused(make_agents: Make) -> None:
    pytest.importorskip("gevent")
    fleet = make_agents()

    with pytest.raises(MoragQueueError, match="the gevent pool is not supported"):
        fleet.start_worker(WORKER, options=("-P", "gevent"))


def test_cordoned_paused_and_back_an_idle_worker_hears_of_it(make_agents: Make) -> None:
    fleet = make_agents()
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
    until(lambda: fleet.in_flight() == (0, 0, 0), 10, lambda: str(fleet.where()))


def test_a_beat_carries_the_workers_clock_and_its_record_whether_it_prefetches(make_agents: Make) -> None:
    fleet = make_agents(conf={"worker_disable_prefetch": True})
    fleet.start_worker(WORKER)
    beat = json.loads(fleet.redis.hget("mq:beats", WORKER))
    assert beat["clock"] == pytest.approx(beat["at"], abs=60)
    assert json.loads(fleet.redis.hget("mq:workers", WORKER))["settings"]["disable_prefetch"] is True
