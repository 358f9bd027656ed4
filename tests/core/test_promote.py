"""Before → after: which entries are promoted within their lane."""

import pytest

from morag_queue.core.balancing.state import BalancerState, Pool
from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType
from morag_queue.core.policy import Order, Policy
from tests.core.fleets import NOW, fleet, held, usual_fleet, worker
from tests.core.lanes_in_words import entry, moves, turn, waiting, why_not

CPU, GPU = QueueType.CPU_STANDARD, QueueType.GPU_PRIORITY
FRESH = BalancerState(at=NOW, tick_at=NOW)  # no tokens were earned
# Enough work arrives that no batch is ending.
BUSY = {queue: Window(seconds=600, arrivals=10_000) for queue in QueueType}


def test_a_low_task_past_the_maximum_wait_of_its_priority_is_promoted():
    before = usual_fleet(lanes=(waiting(CPU, {4: [entry("young")], 6: [entry("old", waited=130, priority="LOW")]}),))
    plan = turn(before, windows=BUSY).plan
    assert moves(plan) == ["old cpu_standard/6 → cpu_standard/1"]
    assert plan.steps[0].reason == "starvation guard: it has waited 130 min, the limit of LOW is 120 min"


def test_no_entry_is_promoted_before_its_maximum_wait():
    before = usual_fleet(
        lanes=(waiting(CPU, {4: [entry("a", waited=59)], 6: [entry("b", waited=119, priority="LOW")]}),)
    )
    assert moves(turn(before, windows=BUSY).plan) == []


def test_the_most_overdue_entry_goes_first_not_the_longest_waiting():
    lane = waiting(CPU, {4: [entry("normal", waited=200)], 8: [entry("batch", waited=300, priority="BATCH")]})
    plan = turn(usual_fleet(lanes=(lane,)), windows=BUSY).plan
    assert moves(plan) == ["normal cpu_standard/4 → cpu_standard/1", "batch cpu_standard/8 → cpu_standard/1"]


def test_promotion_stops_when_the_pool_has_used_up_its_tokens():
    # 7 slots read CPU work: 5 % of them for a minute are 21 s; the first task costs 10 minutes
    starved = [entry("a", waited=300, minutes=10), entry("b", waited=299)]
    minute_ago = BalancerState(at=NOW - 60, tick_at=NOW - 60)
    after = turn(usual_fleet(lanes=(waiting(CPU, {4: starved}),)), minute_ago, windows=BUSY)
    assert moves(after.plan) == ["a cpu_standard/4 → cpu_standard/1"]
    assert why_not(after.plan, "b") == [
        "starvation guard: the cpu pool has used up its share of slots for starving tasks"
    ]
    assert after.state.tokens[Pool.CPU] == pytest.approx(21 - 600)


def test_the_tokens_of_a_pool_are_bounded():
    after = turn(usual_fleet(), BalancerState(at=NOW - 1e6, tick_at=NOW), windows=BUSY)
    assert after.state.tokens[Pool.CPU] == pytest.approx(0.05 * 7 * 1800)


def test_a_promoted_entry_gets_a_polled_level_behind_urgent():
    stepped = worker("w", "cpu", priority_steps=(0, 3, 6, 9))
    before = fleet(stepped, lanes=(waiting(CPU, {6: [entry("old", waited=500, priority="LOW")]}),))
    assert moves(turn(before, windows=BUSY).plan) == ["old cpu_standard/6 → cpu_standard/3"]


def test_entries_of_a_paused_queue_are_not_promoted():
    before = usual_fleet(lanes=(waiting(CPU, {4: [entry("old", waited=500)]}),), paused=frozenset({CPU}))
    assert moves(turn(before, windows=BUSY).plan) == []


def test_age_improves_a_level_in_weighted_order_only():
    lane = waiting(CPU, {6: [entry("a", waited=50, minutes=1, priority="NORMAL")]})
    weighted = turn(usual_fleet(lanes=(lane,)), policy=Policy(order=Order.WEIGHTED), windows=BUSY).plan
    assert [step.to_level < 6 and step.rule for step in weighted.steps] == ["promotion by age"]
    assert moves(turn(usual_fleet(lanes=(lane,)), windows=BUSY).plan) == []


def test_age_never_makes_a_level_worse():
    lane = waiting(CPU, {1: [entry("long", waited=50, minutes=200)]})
    assert moves(turn(usual_fleet(lanes=(lane,)), policy=Policy(order=Order.WEIGHTED), windows=BUSY).plan) == []


def test_the_longest_task_starts_first_when_a_batch_ends():
    lane = waiting(CPU, {4: [entry("s1"), entry("s2")], 5: [entry("long", minutes=30)]})
    plan = turn(usual_fleet(lanes=(lane,)), FRESH).plan
    assert moves(plan) == ["long cpu_standard/5 → cpu_standard/1"]
    assert plan.steps[0].reason == "drain guard: it takes 30 min, all waiting work 5 min of the cpu pool"


def test_no_batch_ends_while_work_keeps_arriving():
    lane = waiting(CPU, {4: [entry("s1"), entry("s2")], 5: [entry("long", minutes=30)]})
    assert moves(turn(usual_fleet(lanes=(lane,)), FRESH, windows=BUSY).plan) == []


def test_a_long_task_without_work_ahead_of_it_stays():
    alone = usual_fleet(lanes=(waiting(CPU, {5: [entry("long", minutes=30)]}),))
    assert moves(turn(alone, FRESH).plan) == []


def test_a_small_fleet_promotes_only_the_longest_task_per_tick():
    lane = waiting(CPU, {4: [entry("s1")], 5: [entry("long", minutes=30), entry("longer", minutes=40)]})
    plan = turn(usual_fleet(lanes=(lane,)), FRESH).plan
    assert moves(plan) == ["longer cpu_standard/5 → cpu_standard/1"]
    assert why_not(plan, "long") == ["drain guard: enough long tasks of the cpu pool were promoted in this tick"]


def test_the_batch_of_the_gpu_pool_ends_independently_of_the_cpu_pool():
    # GPU work ends while CPU work keeps arriving
    lanes = (
        waiting(GPU, {1: [entry("g", "gpu", priority="HIGH")], 5: [entry("film", "gpu", minutes=90)]}),
        waiting(CPU, {4: [entry("c")], 5: [entry("book", minutes=90)]}),
    )
    arriving = {CPU: Window(seconds=600, arrivals=10_000)}
    before = usual_fleet(lanes=lanes, held=held("worker-gpu-1", GPU))
    assert moves(turn(before, FRESH, windows=arriving).plan) == ["film gpu_priority/5 → gpu_priority/1"]
