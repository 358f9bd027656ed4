"""What is kept between two turns: rest, refusals, budgets, and that it stays small."""

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
        MoveTask(task_id=one, source="cpu_standard", target="cpu_standard", level=4, to_level=1, reason="")
        for one in task_ids
    ]
    return Plan(plan_id="p", verb="rebalance", fleet="", taken_at=NOW, steps=tuple(steps))


def test_at_most_ten_are_moved_a_tick_in_a_small_fleet_and_a_person_may_say_otherwise():
    first = turn(starved(16), windows=BUSY)
    assert len(first.plan.steps) == 10
    assert why_not(first.plan, "this turn") == ["the budget of 10 moves is used up"]
    assert len(turn(starved(16), windows=BUSY, max_moves=3).plan.steps) == 3


def test_a_turn_that_follows_at_once_finds_nothing_to_do():
    first = turn(starved(4), windows=BUSY)
    again = turn(starved(4), first.state, windows=BUSY)
    assert (len(first.plan.steps), again.plan.steps) == (4, ())
    assert why_not(again.plan, "this turn") == ["nothing more is moved while the last moves settle, for 5.0 s"]


def test_what_is_left_of_the_budget_is_for_the_same_tick_and_the_next_tick_has_its_own():
    early = BalancerState(at=NOW - 10, acted_at=NOW - 10, tick_at=NOW - 10, tick_moves=8, tokens={"cpu": 500})
    late = early.model_copy(update={"tick_at": NOW - 30})
    assert len(turn(starved(16), early, windows=BUSY).plan.steps) == 2
    assert len(turn(starved(16), late, windows=BUSY).plan.steps) == 10


def test_a_moved_task_rests_a_minute_and_is_moved_twice_in_its_life():
    def with_mark(count: int, age: float) -> BalancerState:
        return BalancerState(moved={"s00": MoveRecord(count=count, at=NOW - age)})

    assert why_not(turn(starved(1), with_mark(1, 59), windows=BUSY).plan, "s00") == [
        "starvation guard: it was moved 59 s ago"
    ]
    assert len(turn(starved(1), with_mark(1, 61), windows=BUSY).plan.steps) == 1
    assert why_not(turn(starved(1), with_mark(2, 9999), windows=BUSY).plan, "s00") == [
        "starvation guard: it was moved 2 times already"
    ]


def test_a_refused_move_is_not_tried_again_for_five_minutes_and_does_not_count():
    refusal = Applied(plan_id="p", rejected=(Rejected(task_id="s00", reason="it is no longer there"),))
    memory = after_applying(BalancerState(), plan_of("s00", "s01"), refusal, NOW, BalancingPolicy())
    assert memory.moved == {"s01": MoveRecord(count=1, at=NOW)}
    assert moves(turn(starved(1), memory, windows=BUSY).plan) == []
    assert len(turn(starved(1), BalancerState(refused={"s00": NOW - 301}), windows=BUSY).plan.steps) == 1


def test_the_memory_keeps_the_latest_and_forgets_the_rest():
    memory = BalancerState(
        moved={f"t{n}": MoveRecord(count=1, at=NOW - 999) for n in range(REMEMBERED)}, refused={"old": NOW - 400}
    )
    after = after_applying(memory, plan_of("t0", "new"), Applied(plan_id="p", moved=2), NOW, BalancingPolicy())
    assert len(after.moved) == REMEMBERED
    assert list(after.moved)[-2:] == ["t0", "new"]
    assert after.moved["t0"].count == 2
    assert "t1" not in after.moved
    assert after.refused == {}


def test_the_memory_survives_as_json():
    memory = turn(starved(4), windows=BUSY).state
    assert BalancerState.model_validate_json(memory.model_dump_json()) == memory


def test_a_clock_that_was_set_back_stops_nothing_for_ever():
    future = BalancerState(
        at=NOW + 1e6, acted_at=NOW + 1e6, tick_at=NOW + 1e6, tick_moves=10, refused={"s00": NOW + 1e6}
    )
    assert len(turn(starved(1), future.model_copy(update={"tokens": {"cpu": 99}}), windows=BUSY).plan.steps) == 1


def test_the_figures_that_a_turn_needs_are_those_of_the_last_twenty_ticks():
    assert window_seconds(Policy()) == 600
