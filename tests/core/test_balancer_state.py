"""The balancer state between two turns: rest, rejections, budgets, and its bounded size."""

from morag_queue.core.balancing.rebalance import window_seconds
from morag_queue.core.balancing.state import REMEMBERED, BalancerState, MoveRecord, after_applying
from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType
from morag_queue.core.plan import Applied, MoveTask, Plan, Rejected
from morag_queue.core.policy import BalancingPolicy, Policy
from tests.core.fleets import NOW, usual_fleet
from tests.core.lanes_in_words import entry, moves, turn, waiting, why_not

CPU = QueueType.CPU_STANDARD
BUSY = {queue: Window(seconds=600, arrivals=10_000) for queue in QueueType}


def starved(count: int):
    return usual_fleet(
        lanes=(waiting(CPU, {4: [entry(f"s{n:02}", waited=100 - n, minutes=0.1) for n in range(count)]}),)
    )


def plan_of(*task_ids: str) -> Plan:
    steps = [
        MoveTask(task_id=task_id, source="cpu_standard", target="cpu_standard", level=4, to_level=1, reason="")
        for task_id in task_ids
    ]
    return Plan(plan_id="p", verb="rebalance", fleet="", taken_at=NOW, steps=tuple(steps))


def test_a_small_fleet_moves_ten_tasks_per_tick_unless_max_moves_is_given():
    first = turn(starved(16), windows=BUSY)
    assert len(first.plan.steps) == 10
    assert why_not(first.plan, "this turn") == ["the budget of 10 moves is used up"]
    assert len(turn(starved(16), windows=BUSY, max_moves=3).plan.steps) == 3


def test_a_turn_that_follows_at_once_plans_nothing():
    first = turn(starved(4), windows=BUSY)
    again = turn(starved(4), first.state, windows=BUSY)
    assert (len(first.plan.steps), again.plan.steps) == (4, ())
    assert why_not(again.plan, "this turn") == ["no optional moves for 5.0 s, until the last moves have settled"]


def test_the_budget_is_per_tick():
    early = BalancerState(at=NOW - 10, acted_at=NOW - 10, tick_at=NOW - 10, tick_moves=8, tokens={"cpu": 500})
    late = early.model_copy(update={"tick_at": NOW - 30})
    assert len(turn(starved(16), early, windows=BUSY).plan.steps) == 2
    assert len(turn(starved(16), late, windows=BUSY).plan.steps) == 10


def test_a_moved_task_rests_for_a_minute_and_is_moved_at_most_twice():
    def with_mark(count: int, age: float) -> BalancerState:
        return BalancerState(moved={"s00": MoveRecord(count=count, at=NOW - age)})

    assert why_not(turn(starved(1), with_mark(1, 59), windows=BUSY).plan, "s00") == [
        "starvation guard: it was moved 59 s ago"
    ]
    assert len(turn(starved(1), with_mark(1, 61), windows=BUSY).plan.steps) == 1
    assert why_not(turn(starved(1), with_mark(2, 9999), windows=BUSY).plan, "s00") == [
        "starvation guard: it was already moved 2 times"
    ]


def test_a_rejected_move_is_not_retried_for_five_minutes_and_is_not_counted():
    refusal = Applied(plan_id="p", rejected=(Rejected(task_id="s00", reason="it is no longer there"),))
    state = after_applying(BalancerState(), plan_of("s00", "s01"), refusal, NOW, BalancingPolicy())
    assert state.moved == {"s01": MoveRecord(count=1, at=NOW)}
    assert moves(turn(starved(1), state, windows=BUSY).plan) == []
    assert len(turn(starved(1), BalancerState(refused={"s00": NOW - 301}), windows=BUSY).plan.steps) == 1


def test_the_state_keeps_the_latest_moves_and_forgets_outdated_ones():
    state = BalancerState(
        moved={f"t{n}": MoveRecord(count=1, at=NOW - 999) for n in range(REMEMBERED)}, refused={"old": NOW - 400}
    )
    after = after_applying(state, plan_of("t0", "new"), Applied(plan_id="p", moved=2), NOW, BalancingPolicy())
    assert len(after.moved) == REMEMBERED
    assert list(after.moved)[-2:] == ["t0", "new"]
    assert after.moved["t0"].count == 2
    assert "t1" not in after.moved
    assert after.refused == {}


def test_the_state_survives_a_round_trip_through_json():
    state = turn(starved(4), windows=BUSY).state
    assert BalancerState.model_validate_json(state.model_dump_json()) == state


def test_a_clock_that_was_set_back_does_not_stop_balancing():
    future = BalancerState(
        at=NOW + 1e6, acted_at=NOW + 1e6, tick_at=NOW + 1e6, tick_moves=10, refused={"s00": NOW + 1e6}
    )
    assert len(turn(starved(1), future.model_copy(update={"tokens": {"cpu": 99}}), windows=BUSY).plan.steps) == 1


def test_a_turn_counts_arrivals_of_the_last_twenty_ticks():
    assert window_seconds(Policy()) == 600
