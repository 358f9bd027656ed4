"""For any fleet and queues: nothing is lost, duplicated or misplaced, and balancing comes to rest."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_queue.core.levels import level
from morag_queue.core.model import Cordon, QueuePriority, QueueType, Requires, WorkerStatus
from morag_queue.core.plan import MoveTask
from morag_queue.core.policy import Order, Policy
from morag_queue.core.routing.router import choose_queue
from morag_queue.operations.rebalance import preview, run_once
from morag_queue.settings import Settings
from tests.support.broker_drivers import MemoryDriver, worker_info

CPU_LANES = (QueueType.CPU_STANDARD, QueueType.CPU_BATCH)

task = st.fixed_dictionaries(
    {
        "requires": st.sampled_from(Requires),
        "priority": st.sampled_from(QueuePriority),
        "minutes": st.floats(0.01, 300),
        "waited_minutes": st.floats(0, 600),
        "pinned": st.sampled_from([None, None, None, "w0", "w1", "w2", "gone"]),
    }
)
worker = st.fixed_dictionaries(
    {
        "capability": st.sampled_from(["cpu", "gpu", "hybrid"]),
        "slots": st.integers(1, 8),
        "state": st.sampled_from(["online", "online", "online", "dead", "draining", "cordoned", "paused at start"]),
        "claims": st.integers(0, 8),
    }
)
fleets = st.tuples(st.lists(worker, max_size=4), st.lists(task, max_size=40), st.sampled_from(Order))
eagerly = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def staged(fleet) -> tuple[MemoryDriver, Settings]:
    """A fleet with its tasks queued as by routing, some of them claimed."""
    workers, tasks, order = fleet
    driver = MemoryDriver()
    for n, task in enumerate(tasks):
        queue = choose_queue(task["requires"], task["priority"])
        best = task["minutes"] * (0.2 if task["requires"] is Requires.GPU_PREFERRED else 1.0)
        pinned = task["pinned"]
        driver.submit(
            f"t{n}", lane=queue.value if pinned is None else f"{queue.value}.{pinned}",
            level=level(task["priority"], best, order), requires=task["requires"], priority=task["priority"],
            estimated_duration=task["minutes"], enqueued_at=driver.clock - 60 * task["waited_minutes"], worker=pinned,
        )  # fmt: skip
    for n, worker in enumerate(workers):
        name = f"w{n}"
        driver.broker.register(worker_info(name, worker["capability"], worker["slots"]))
        driver.broker.beat(name)
        for _ in range(min(worker["claims"], worker["slots"])):
            driver.claim(name)
        if worker["state"] == "dead":
            driver.broker.beat(name, stopped=True)
        elif worker["state"] in ("draining", "cordoned"):
            driver.broker.cordons.put(name, Cordon(state=WorkerStatus(worker["state"])), (None,))
    return driver, Settings(policy=Policy(order=order))


def everywhere(driver: MemoryDriver) -> list[str]:
    held = [message.task_id for message in driver.broker.observe()[0].held]
    return sorted(held + [task_id for ids in driver.places().values() for task_id in ids])


@given(fleets)
@eagerly
def test_every_task_is_in_one_place_before_and_after(fleet):
    driver, configured = staged(fleet)
    before = everywhere(driver)
    done = run_once(driver.broker, configured, who="ann")
    assert everywhere(driver) == before
    assert done.rejected == ()
    assert done.moved_tasks == sum(decision.tasks for decision in done.decisions)


@given(fleets)
@eagerly
def test_tasks_that_are_not_moved_keep_their_order(fleet):
    driver, configured = staged(fleet)
    before = driver.places()
    plan, _ = preview(driver.broker, configured)
    chosen = {step.task_id for step in plan.steps if isinstance(step, MoveTask)}
    run_once(driver.broker, configured, who="ann")
    after = driver.places()
    for (lane, n), ids in before.items():
        stayed = [task_id for task_id in ids if task_id not in chosen]
        there = [
            task_id for place in dict.fromkeys([lane, lane.partition(".")[0]]) for task_id in after.get((place, n), [])
        ]
        assert [task_id for task_id in there if task_id in set(stayed)] == stayed


@given(fleets)
@eagerly
def test_gpu_work_never_enters_a_lane_that_a_cpu_worker_reads(fleet):
    driver, configured = staged(fleet)
    for _ in range(3):
        run_once(driver.broker, configured, who="ann")
        driver.clock += 31
    for (lane, n), ids in driver.places().items():
        if lane.partition(".")[0] in CPU_LANES:
            needy = [
                message
                for message in driver.messages(lane, n)
                if message["headers"]["morag_queue"]["requires"] == "gpu"
            ]
            assert needy == [], (lane, ids)


@given(fleets)
@eagerly
def test_apply_then_plan_is_empty(fleet):
    driver, configured = staged(fleet)
    run_once(driver.broker, configured, who="ann")
    plan, _ = preview(driver.broker, configured)
    assert plan.steps == ()


@pytest.mark.slow
@given(fleets)
@eagerly
def test_in_an_idle_fleet_a_task_is_moved_at_most_twice_and_only_for_its_wait(fleet):
    driver, configured = staged(fleet)
    moves: dict[str, int] = {}
    late: list[str] = []
    for turn in range(120):
        driver.clock += 31 if turn < 60 else 20 * 60
        for name, view in driver.broker.observe()[0].worker_by_id.items():
            if view.beat and not view.beat.stopped:
                driver.broker.beat(name)
        done = run_once(driver.broker, configured, who="ann")
        for decision in done.decisions:
            if decision.task_id is not None:
                moves[decision.task_id] = moves.get(decision.task_id, 0) + 1
        late += [decision.reason for decision in done.decisions] if turn >= 60 else []
    assert max(moves.values(), default=0) <= 2
    assert [why for why in late if not why.startswith(("starvation guard", "promotion by age"))] == []


@given(fleets)
@eagerly
def test_moves_within_a_lane_only_improve_the_level(fleet):
    driver, configured = staged(fleet)
    plan, _ = preview(driver.broker, configured)
    for step in plan.steps:
        if isinstance(step, MoveTask) and step.source == step.target:
            assert step.to_level < step.level
            assert step.to_level >= 1


@given(fleets, st.integers(0, 5))
@eagerly
def test_optional_moves_stay_within_the_budget(fleet, most):
    driver, configured = staged(fleet)
    plan, _ = preview(driver.broker, configured, max_moves=most)
    assert sum(step.rule != "evacuation" for step in plan.steps) <= most
