"""Whole simulations: nothing is lost, nothing starts twice, and the order of the policies is that of the findings."""

import pytest

from morag_queue.core.model import Capability, ContentType, QueuePriority, Requires
from morag_queue.core.policy import Binding, Order
from morag_queue.settings import Settings
from morag_queue.simulate.generate import Arrivals, fleet_of, generate, outages
from morag_queue.simulate.model import Outage, SimTask, SimWorker
from morag_queue.simulate.result import PolicyResult
from morag_queue.simulate.run import PolicyName, run, simulate

FLEETS = {4: fleet_of(1, 1, 2), 32: fleet_of(8, 8, 16)}
ALL = list(PolicyName)


def results(
    size: int, *, order: Order = Order.STRICT, load: float = 0.8, seed: int = 1, failing: bool = False
) -> dict[str, PolicyResult]:
    fleet, tasks = FLEETS[size], {4: 300, 32: 1_600}[size]
    arriving = generate(fleet, tasks=tasks, load=load, noise=0.5, arrivals=Arrivals.BURSTS, seed=seed)
    falls = outages(fleet, until_s=arriving[-1].arrival_s, mtbf_s=4 * 3600, repair_s=600, seed=seed) if failing else []
    found = simulate(ALL, arriving, fleet, falls, settings=Settings(), order=order)
    return {one.policy: one for one in found}


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("size", FLEETS)
def test_balanced_beats_static_and_seed_and_loses_nothing(size: int, order: Order) -> None:
    found = results(size, order=order)
    balanced, static, seed = (found[name].weighted_mean_flow_s for name in ("balanced", "static", "seed"))
    assert balanced < 0.7 * static
    assert balanced < 0.8 * seed
    assert all(one.weighted_mean_flow_s >= one.lower_bound_s for one in found.values())
    assert [(one.lost, one.started_twice, one.restarted) for one in found.values()] == [(0, 0, 0)] * 3


def test_workers_that_fall_and_rise_lose_nothing_and_start_twice_only_what_they_ran() -> None:
    found = results(32, failing=True)
    assert [(one.lost, one.started_twice) for one in found.values()] == [(0, 0)] * 3
    assert all(one.restarted > 0 for one in found.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (
        [one.model_dump_json() for one in results(4, seed=seed, failing=True).values()] for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def task(number: int, at: float, minutes: float, requires: Requires, priority: QueuePriority) -> SimTask:
    return SimTask(number, at, ContentType.DOCUMENT, requires, priority, minutes, minutes)


def test_urgent_work_overtakes_all_that_waits() -> None:
    batch = [task(n, 0.0, 10.0, Requires.CPU, QueuePriority.BATCH) for n in range(20)]
    arriving = [*batch, task(20, 60.0, 1.0, Requires.CPU, QueuePriority.URGENT)]
    fleet = [SimWorker("cpu-1", Capability.CPU, 1)]
    started = {name: run(name, arriving, fleet, settings=Settings()).first_start[20] for name in ALL}
    assert started[PolicyName.BALANCED] == 600.0
    assert started[PolicyName.STATIC] == started[PolicyName.SEED] == 20 * 600.0


def test_what_a_fallen_worker_ran_starts_elsewhere_a_minute_later() -> None:
    fleet = [SimWorker("cpu-1", Capability.CPU, 1), SimWorker("cpu-2", Capability.CPU, 1)]
    arriving = [task(0, 0.0, 10.0, Requires.CPU, QueuePriority.NORMAL)]
    falls = [Outage("cpu-1", 120.0, 9000.0)]
    ends = {
        name: run(name, arriving, fleet, falls, settings=Settings())
        for name in (PolicyName.STATIC, PolicyName.BALANCED)
    }
    assert ends[PolicyName.BALANCED].last_start[0] == 180.0
    assert ends[PolicyName.STATIC].last_start[0] == 3600.0  # the visibility timeout


def test_work_that_no_worker_can_run_counts_as_lost() -> None:
    arriving = [task(0, 0.0, 1.0, Requires.GPU, QueuePriority.NORMAL)]
    fleet = [SimWorker("cpu-1", Capability.CPU, 1)]
    (found,) = simulate([PolicyName.BALANCED], arriving, fleet, settings=Settings())
    assert found.lost == 1


def test_early_binding_runs_all_tasks_too() -> None:
    arriving = generate(FLEETS[4], tasks=200, load=0.8, noise=0.5, arrivals=Arrivals.POISSON, seed=1)
    outcome = run(PolicyName.BALANCED, arriving, FLEETS[4], settings=Settings(), binding=Binding.EARLY)
    assert list(outcome.starts) == [1] * 200
