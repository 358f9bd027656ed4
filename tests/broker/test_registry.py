"""register.lua and beat.lua: one live process per name, and the effects of a heartbeat."""

import json
from dataclasses import replace
from typing import Any

import pytest

from morag_queue.agent.claim_request import ClaimLane
from morag_queue.broker.codec import WorkerProcess
from morag_queue.broker.workers import Registry
from morag_queue.core.model import Capability, Heartbeat, WorkerInfo
from tests.broker.conftest import MakeFull, ScriptRunner


@pytest.fixture
def registry(runner: ScriptRunner) -> Registry:
    return Registry(runner.client, runner.keys, 60)


def info(incarnation: str = "run-1", worker: str = "w1") -> WorkerInfo:
    return WorkerInfo(
        worker=worker, incarnation=incarnation, host="h", pid=7, capability=Capability.CPU, queues=("cpu_standard",),
        slots=1,
    )  # fmt: skip


def test_no_incarnation_acts_under_an_unregistered_name(registry: Registry) -> None:
    assert registry.acting("w1") is None


def test_a_registered_worker_acts_under_its_name(registry: Registry) -> None:
    assert registry.register(info()) == ""

    acting = registry.acting("w1")
    assert acting is not None
    assert (acting.incarnation, acting.process, acting.beat) == ("run-1", WorkerProcess("h", 7, "", 0.0), None)


def test_a_second_live_process_is_refused(registry: Registry, runner: ScriptRunner) -> None:
    registry.register(info("run-1"))
    registry.beat("w1", "run-1", {}, [])
    before = runner.everything()

    assert registry.register(info("run-2")) == "run-1"
    assert registry.register(info("run-2"), replaces="run-0") == "run-1"

    assert runner.everything() == before


def test_a_dead_incarnation_is_replaced_and_its_heartbeat_dropped(registry: Registry) -> None:
    registry.register(info("run-1"))
    registry.beat("w1", "run-1", {"stopped": True}, [])

    assert registry.register(info("run-2"), replaces="run-1") == ""

    acting = registry.acting("w1")
    assert acting is not None
    assert (acting.incarnation, acting.beat) == ("run-2", None)


def test_the_same_incarnation_may_register_again(registry: Registry) -> None:
    assert [registry.register(info()), registry.register(info())] == ["", ""]


def test_a_heartbeat_is_recorded_by_the_servers_clock(registry: Registry, runner: ScriptRunner) -> None:
    registry.register(info())

    assert registry.beat("w1", "run-1", {"cpu_percent": 12.5, "active": 2}, []) == "ok"

    beat = Heartbeat.model_validate_json(runner.client.hget(runner.keys.beats, "w1") or b"")
    assert (beat.cpu_percent, beat.active, beat.stopped) == (12.5, 2, False)
    assert beat.at == pytest.approx(registry.now(), abs=5)


def test_a_heartbeat_touches_held_messages_and_no_others(registry: Registry, runner: ScriptRunner) -> None:
    registry.register(info())
    runner.client.zadd(runner.keys.unacked_index, {"mine": 1.0, "another's": 1.0})

    registry.beat("w1", "run-1", {}, ["mine", "acknowledged meanwhile"])

    index = dict(runner.client.zrange(runner.keys.unacked_index, 0, -1, withscores=True))
    assert index[b"another's"] == 1.0
    assert index[b"mine"] == pytest.approx(registry.now(), abs=5)
    assert b"acknowledged meanwhile" not in index


def test_a_heartbeat_of_a_fenced_worker_is_refused(registry: Registry, runner: ScriptRunner) -> None:
    registry.register(info("run-1"))
    runner.client.zadd(runner.keys.unacked_index, {"mine": 1.0})
    runner.client.hset(runner.keys.incarnations, "w1", "run-2")
    before = runner.everything()

    assert registry.beat("w1", "run-1", {}, ["mine"]) == "fenced"

    assert runner.everything() == before


def test_a_heartbeat_is_unknown_after_the_registry_was_lost(registry: Registry, runner: ScriptRunner) -> None:
    registry.register(info())
    runner.client.flushdb()

    assert registry.beat("w1", "run-1", {}, []) == "unknown"
    assert runner.everything() == {}


@pytest.mark.parametrize(("state", "pulse"), [("cordoned", "ok"), ("draining", "draining"), ("drained", "draining")])
def test_a_heartbeat_is_answered_by_the_state_of_the_cordon(
    state: str, pulse: str, registry: Registry, runner: ScriptRunner
) -> None:
    registry.register(info())
    runner.client.hset(runner.keys.cordons, "w1", json.dumps({"state": state}))

    assert registry.beat("w1", "run-1", {}, []) == pulse


def test_heartbeats_succeed_on_a_server_out_of_memory(
    registry: Registry, runner: ScriptRunner, out_of_memory: MakeFull
) -> None:
    registry.register(info())
    registry.beat("w1", "run-1", {}, [])
    runner.client.zadd(runner.keys.unacked_index, {"mine": 1.0})
    out_of_memory()

    assert registry.beat("w1", "run-1", {"active": 3}, ["mine"]) == "ok"

    assert json.loads(runner.client.hget(runner.keys.beats, "w1") or b"")["active"] == 3
    assert (runner.client.zscore(runner.keys.unacked_index, "mine") or 0) > 1.0


def test_a_connection_is_found_by_its_whole_name_only(registry: Registry, runner: ScriptRunner) -> None:
    runner.client.client_setname("mq.w1.h.7.ab")

    assert registry.is_connected("mq.w1.h.7.ab")
    assert not registry.is_connected("mq.w1.h.7")
    assert not registry.is_connected("mq.w2.h.7.ab")


# -- messages of an ended run


GPU_WORK = {"headers": {"morag_queue": {"requires": "gpu"}}}


def claimed(runner: ScriptRunner, lane: str, **more: Any) -> str:
    """Send a message to a lane of w1 and claim it."""
    task_id = runner.send(lane, **more)
    queue = lane.partition(".")[0]
    assert runner.claimed_ids(lanes=[ClaimLane(lane, queue, is_own=True)]) == [task_id]
    return task_id


def take_back_under_cordon(registry: Registry, runner: ScriptRunner, **cordon: Any) -> None:
    runner.client.hset(runner.keys.cordons, "w1", json.dumps({"state": "cordoned", "who": "x", "at": 1.0, **cordon}))
    assert registry.take_back("w1", "run-1") == 1


def test_messages_of_a_worker_out_of_service_return_to_the_shared_lane(
    registry: Registry, runner: ScriptRunner
) -> None:
    task_id = claimed(runner, "cpu_standard.w1")

    take_back_under_cordon(registry, runner)

    assert [json.loads(raw)["headers"]["id"] for raw in runner.waiting("cpu_standard")] == [task_id]


def test_an_expired_cordon_does_not_move_messages_to_the_shared_lane(registry: Registry, runner: ScriptRunner) -> None:
    claimed(runner, "cpu_standard.w1")

    take_back_under_cordon(registry, runner, until=2.0)

    assert len(runner.waiting("cpu_standard.w1")) == 1


def test_gpu_work_of_a_worker_out_of_service_stays_out_of_the_lane_of_a_cpu_queue(
    registry: Registry, runner: ScriptRunner
) -> None:
    claimed(runner, "cpu_standard.w1", **GPU_WORK)

    take_back_under_cordon(registry, runner)

    assert (len(runner.waiting("cpu_standard.w1")), runner.waiting("cpu_standard")) == (1, [])


@pytest.mark.parametrize(("reader", "lane"), [(Capability.GPU, "gpu_priority"), (Capability.CPU, "gpu_priority.w1")])
def test_gpu_work_returns_to_a_shared_gpu_lane_unless_a_worker_without_a_gpu_reads_it(
    reader: Capability, lane: str, registry: Registry, runner: ScriptRunner
) -> None:
    registry.register(replace(info("run-9", "w9"), capability=reader, queues=("gpu_priority",)))
    claimed(runner, "gpu_priority.w1", **GPU_WORK)

    take_back_under_cordon(registry, runner)

    assert len(runner.waiting(lane)) == 1
