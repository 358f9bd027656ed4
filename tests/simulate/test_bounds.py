"""The lower bounds: cases solved by hand, and all schedules of tiny cases."""

from itertools import permutations, product
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morag_queue.core.model import Capability, ContentType, QueuePriority, Requires
from morag_queue.simulate.bounds import flow_bound, fluid_seconds, makespan_bound
from morag_queue.simulate.model import SimTask, SimWorker

GPU, HYBRID, CPU = (
    SimWorker("gpu-1", Capability.GPU, 1),
    SimWorker("hybrid-1", Capability.HYBRID, 1),
    SimWorker("cpu-1", Capability.CPU, 1),
)


def task(
    number: int, minutes: float, requires: Requires = Requires.CPU, priority: QueuePriority = QueuePriority.NORMAL
) -> SimTask:
    return SimTask(number, 0.0, ContentType.DOCUMENT, requires, priority, minutes, minutes)


def test_two_tasks_on_one_slot_end_after_one_and_three_minutes() -> None:
    assert flow_bound([CPU], [task(0, 2.0), task(1, 1.0)]) == pytest.approx((60 + 180) / 2)


def test_the_more_important_task_goes_first_if_it_is_not_too_long() -> None:
    tasks = [task(0, 1.0, priority=QueuePriority.BATCH), task(1, 2.0, priority=QueuePriority.URGENT)]
    assert flow_bound([CPU], tasks) == pytest.approx((10 * 120 + 1 * 180) / 11)


def test_a_task_that_arrives_later_starts_later() -> None:
    tasks = [task(0, 1.0), task(1, 1.0)._replace(arrival_s=600.0)]
    assert flow_bound([CPU], tasks) == pytest.approx(60.0)


def test_work_that_prefers_a_gpu_is_divided_between_gpu_and_cpu() -> None:
    """x minutes on the GPU take 0.2 x, the rest takes 2 (1 − x): equal at x = 10 ÷ 11."""
    assert fluid_seconds([GPU, CPU], {Requires.GPU_PREFERRED: 1.0}) == pytest.approx(2 / 11)


def test_a_hybrid_takes_what_the_others_leave() -> None:
    """One unit of GPU work and one of CPU work, and a third slot for both: two thirds of a unit each."""
    assert fluid_seconds([GPU, HYBRID, CPU], {Requires.GPU: 1.0, Requires.CPU: 1.0}) == pytest.approx(2 / 3)


def test_a_fleet_without_a_gpu_never_ends_work_that_requires_one() -> None:
    assert fluid_seconds([CPU], {Requires.GPU: 1.0}) == inf


def test_a_batch_takes_at_least_as_long_as_its_longest_task() -> None:
    assert makespan_bound([CPU, CPU], [task(0, 5.0), task(1, 1.0)]) == 300.0
    assert makespan_bound([CPU], [task(0, 5.0), task(1, 1.0)]) == pytest.approx(360.0)


TASKS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from(Requires), st.sampled_from(QueuePriority)),
    min_size=1,
    max_size=4,
).map(lambda rows: [task(n, *row) for n, row in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(TASKS)
def test_no_schedule_of_a_tiny_case_is_better_than_the_bounds(tasks: list[SimTask]) -> None:
    """All tasks are there at the start, so the best schedule runs each worker's tasks in some order without a gap."""
    fleet = [GPU, HYBRID, CPU]
    flow, makespan = inf, inf
    for places in product(fleet, repeat=len(tasks)):
        for order in permutations(tasks):
            ends, total = dict.fromkeys(fleet, 0.0), 0.0
            for one in order:
                worker = places[one.number]
                is_cpu_work_on_gpu = worker is GPU and one.requires is Requires.CPU
                ends[worker] += inf if is_cpu_work_on_gpu else one.seconds_on(worker.capability)
                total += int(one.priority) * ends[worker]
            flow, makespan = min(flow, total), min(makespan, max(ends.values()))
    weights = sum(int(one.priority) for one in tasks)
    assert flow_bound(fleet, tasks) <= flow / weights + 1e-6
    assert makespan_bound(fleet, tasks) <= makespan + 1e-6
