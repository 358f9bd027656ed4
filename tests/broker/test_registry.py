"""register.lua and beat.lua: one live process per name, and the effects of a heartbeat."""

import json

import pytest

from morag_queue.broker.workers import Registry
from morag_queue.core.model import Capability, Heartbeat, WorkerInfo
from tests.broker.conftest import Bench, MakeFull


@pytest.fixture
def registry(bench: Bench) -> Registry:
    return Registry(bench.client, bench.keys, 60)


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
    assert (acting.incarnation, acting.info, acting.beat) == ("run-1", info(), None)


def test_a_second_live_process_is_refused(registry: Registry, bench: Bench) -> None:
    registry.register(info("run-1"))
    registry.beat("w1", "run-1", {}, [])
    before = bench.everything()

    assert registry.register(info("run-2")) == "run-1"
    assert registry.register(info("run-2"), replaces="run-0") == "run-1"

    assert bench.everything() == before


def test_a_dead_incarnation_is_replaced_and_its_heartbeat_dropped(registry: Registry) -> None:
    registry.register(info("run-1"))
    registry.beat("w1", "run-1", {"stopped": True}, [])

    assert registry.register(info("run-2"), replaces="run-1") == ""

    acting = registry.acting("w1")
    assert acting is not None
    assert (acting.incarnation, acting.beat) == ("run-2", None)


def test_the_same_incarnation_may_register_again(registry: Registry) -> None:
    assert [registry.register(info()), registry.register(info())] == ["", ""]


def test_a_heartbeat_is_recorded_by_the_servers_clock(registry: Registry, bench: Bench) -> None:
    registry.register(info())

    assert registry.beat("w1", "run-1", {"cpu_percent": 12.5, "active": 2}, []) == "ok"

    beat = Heartbeat.model_validate_json(bench.client.hget(bench.keys.beats, "w1") or b"")
    assert (beat.cpu_percent, beat.active, beat.stopped) == (12.5, 2, False)
    assert beat.at == pytest.approx(registry.now(), abs=5)


def test_a_heartbeat_touches_held_messages_and_no_others(registry: Registry, bench: Bench) -> None:
    registry.register(info())
    bench.client.zadd(bench.keys.unacked_index, {"mine": 1.0, "another's": 1.0})

    registry.beat("w1", "run-1", {}, ["mine", "acknowledged meanwhile"])

    index = dict(bench.client.zrange(bench.keys.unacked_index, 0, -1, withscores=True))
    assert index[b"another's"] == 1.0
    assert index[b"mine"] == pytest.approx(registry.now(), abs=5)
    assert b"acknowledged meanwhile" not in index


def test_a_heartbeat_of_a_fenced_worker_is_refused(registry: Registry, bench: Bench) -> None:
    registry.register(info("run-1"))
    bench.client.zadd(bench.keys.unacked_index, {"mine": 1.0})
    bench.client.hset(bench.keys.incarnations, "w1", "run-2")
    before = bench.everything()

    assert registry.beat("w1", "run-1", {}, ["mine"]) == "fenced"

    assert bench.everything() == before


def test_a_heartbeat_is_unknown_after_the_registry_was_lost(registry: Registry, bench: Bench) -> None:
    registry.register(info())
    bench.client.flushdb()

    assert registry.beat("w1", "run-1", {}, []) == "unknown"
    assert bench.everything() == {}


@pytest.mark.parametrize(("state", "pulse"), [("cordoned", "ok"), ("draining", "draining"), ("drained", "draining")])
def test_a_heartbeat_is_answered_by_the_state_of_the_cordon(
    state: str, pulse: str, registry: Registry, bench: Bench
) -> None:
    registry.register(info())
    bench.client.hset(bench.keys.cordons, "w1", json.dumps({"state": state}))

    assert registry.beat("w1", "run-1", {}, []) == pulse


def test_heartbeats_succeed_on_a_server_out_of_memory(
    registry: Registry, bench: Bench, out_of_memory: MakeFull
) -> None:
    registry.register(info())
    registry.beat("w1", "run-1", {}, [])
    bench.client.zadd(bench.keys.unacked_index, {"mine": 1.0})
    out_of_memory()

    assert registry.beat("w1", "run-1", {"active": 3}, ["mine"]) == "ok"

    assert json.loads(bench.client.hget(bench.keys.beats, "w1") or b"")["active"] == 3
    assert (bench.client.zscore(bench.keys.unacked_index, "mine") or 0) > 1.0


def test_a_connection_is_found_by_its_whole_name_only(registry: Registry, bench: Bench) -> None:
    bench.client.client_setname("mq.w1.h.7.ab")

    assert registry.is_connected("mq.w1.h.7.ab")
    assert not registry.is_connected("mq.w1.h.7")
    assert not registry.is_connected("mq.w2.h.7.ab")
