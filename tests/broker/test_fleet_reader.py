"""What a producer reads of the fleet, against the whole snapshot."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from morag_queue.broker.fleet_reader import FleetReader
from morag_queue.core.model import ContentType, Cordon, Pause, QueuePriority, QueueType, Requires, WorkerStatus
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.routing.feasibility import WorkerLoad, worker_loads
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Placement, TaskProfile
from morag_queue.core.snapshot import Snapshot
from tests.support.simulated_fleet import SimulatedFleet


@pytest.fixture
def busy_fleet(sim_fleet: SimulatedFleet) -> SimulatedFleet:
    """A fleet with everything that routing looks at."""
    for name in ("worker-é", "worker.2", "cordoned", "fenced", "silent"):
        sim_fleet.join(name, slots=2)
    sim_fleet.join("gpu", "gpu", content_types=("video", "web"), memory_gb=64)
    broker, client, keys = sim_fleet.broker, sim_fleet.client, sim_fleet.keys
    broker.cordons.put("cordoned", Cordon(state=WorkerStatus.CORDONED, reason="disk"), (None,))
    broker.pauses.put(QueueType.CPU_BATCH, Pause())
    assert broker.evidence.fence("fenced", "fenced.1") == ""
    client.hdel(keys.beats, "silent")
    client.set(keys.corrections, json.dumps({"video|gpu|1": [3, 0.5]}))
    sim_fleet.submit("a", "b", "c")
    assert sim_fleet.claim("worker.2") == "a"
    sim_fleet.submit("d", "e", worker="worker.2")
    client.sadd("_kombu.binding.celery.pidbox", "\x06\x16\x06\x16plain@host.celery.pidbox")
    return sim_fleet


def reader(sim_fleet: SimulatedFleet, with_loads: bool = True) -> FleetReader:
    return FleetReader(sim_fleet.client, sim_fleet.keys, sim_fleet.settings, with_loads=with_loads)


def places(snapshot: Snapshot, policy: Policy, loads: Mapping[str, WorkerLoad] | None = None) -> list[Any]:
    """Return where tasks of every kind go, one after the other, and their expected workers."""
    router = Router(snapshot, policy, Queues(), loads=loads)
    kinds = product(Requires, QueuePriority, (ContentType.VIDEO, ContentType.IMAGE), (0.4, 100.0))
    placed = [router.route(TaskProfile(*kind[:3], 1.0, kind[3])) for kind in kinds]
    return [(one[1:], one.decision.worker_id) if isinstance(one, Placement) else one for one in placed]


def without_reasons(loads: Mapping[str, WorkerLoad]) -> dict[str, WorkerLoad]:
    """Return the loads without the reasons, some of which name an age."""
    return {worker: replace(load, reason="") for worker, load in loads.items()}


def test_it_reads_the_same_as_a_whole_snapshot(busy_fleet: SimulatedFleet) -> None:
    read, loads = reader(busy_fleet).read()
    whole = busy_fleet.broker.observe()[0]

    assert without_reasons(loads) == without_reasons(worker_loads(whole, Policy()))
    assert set(read.held) == set(whole.held) != set()
    for name in ("paused", "corrections", "steps", "nodes"):
        assert getattr(read, name) == getattr(whole, name) != type(getattr(read, name))()
    assert read.waiting_count("worker.2") == whole.waiting_count("worker.2") == 2
    assert 0 <= whole.taken_at - read.taken_at < 60


@pytest.mark.parametrize("binding", list(Binding))
def test_tasks_go_where_a_whole_snapshot_sends_them(binding: Binding, busy_fleet: SimulatedFleet) -> None:
    read, loads = reader(busy_fleet).read()
    policy = Policy(binding=binding)
    assert places(read, policy, loads) == places(busy_fleet.broker.observe()[0], policy)


def test_without_loads_the_places_of_late_binding_are_the_same(busy_fleet: SimulatedFleet) -> None:
    read, loads = reader(busy_fleet, with_loads=False).read()

    assert (read.held, read.lanes) == ((), ())
    placed = places(read, Policy(), loads)
    assert [one[0] for one in placed] == [one[0] for one in places(busy_fleet.broker.observe()[0], Policy())]


def test_the_load_of_a_worker_is_replaced_when_it_changes(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.join("idle")
    sim_fleet.join("w", slots=2)
    fleet = reader(sim_fleet)
    first = fleet.read()[1]
    sim_fleet.submit("a", worker="w")

    second = fleet.read()[1]
    assert second["idle"] is first["idle"]
    assert (first["w"].load, second["w"].load) == (0, 1)
    assert fleet.read()[1]["w"] is second["w"]


def test_a_registration_is_read_once_and_again_when_it_changes(sim_fleet: SimulatedFleet) -> None:
    def registrations_read() -> int:
        return int(sim_fleet.client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))

    info = sim_fleet.join("w", slots=1)
    fleet = reader(sim_fleet)
    fleet.read()
    before = registrations_read()
    fleet.read()
    assert registrations_read() == before

    new_run = replace(info, incarnation="w.2", slots=4)
    sim_fleet.broker.registry.register(new_run, replaces="w.1")
    sim_fleet.join("another", slots=2)
    assert {worker: load.slots for worker, load in fleet.read()[1].items()} == {"w": 4, "another": 2}
    assert registrations_read() == before + 1, "in one command"


def test_a_program_that_registers_a_worker_anew_is_noticed_later(
    sim_fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = sim_fleet.join("w", slots=1)
    fleet = reader(sim_fleet)
    fleet.read()
    sim_fleet.broker.registry.register(replace(info, slots=4))
    monkeypatch.setattr("morag_queue.broker.fleet_reader.monotonic", lambda: float("inf"))
    assert fleet.read()[1]["w"].slots == 4


def test_the_work_has_pauses_by_the_size_of_the_fleet(sim_fleet: SimulatedFleet) -> None:
    def pauses() -> int:
        counted: list[None] = []
        reader(sim_fleet).read(lambda: counted.append(None))
        return len(counted)

    sim_fleet.join("w")
    small = pauses()
    for n in range(250):
        sim_fleet.join(f"worker-{n}")
        sim_fleet.client.sadd(sim_fleet.keys.lanes, f"cpu_standard.worker-{n}")
    # Registrations, heartbeats, lanes: each a hundred at a time.
    assert pauses() >= small + 6
