"""Before → after: work that prefers a GPU between GPU and CPU lanes."""

from morag_queue.core.balancing.state import BalancerState, MoveRecord
from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType
from tests.core.fleets import NOW, fleet, held, worker
from tests.core.lanes_in_words import entry, moves, turn, waiting, why_not

CPU, FALLBACK, PRIORITY = QueueType.CPU_STANDARD, QueueType.GPU_FALLBACK, QueueType.GPU_PRIORITY
FRESH = BalancerState(at=NOW, tick_at=NOW)
WINDOWS = {queue: Window(seconds=600, arrivals=10_000) for queue in QueueType}


def small_fleet(*lanes, cpu_held: int = 0, gpu_held: int = 2, **more):
    """One GPU worker with 2 slots, one CPU worker with 4."""
    hands = held("gpu-1", FALLBACK, gpu_held) + held("cpu-1", CPU, cpu_held)
    return fleet(worker("gpu-1", "gpu"), worker("cpu-1", "cpu"), held=hands, lanes=lanes, **more)


def images(count: int, minutes: float = 1.0, **more):
    return [entry(f"i{n}", "gpu_preferred", minutes=minutes, queue=FALLBACK, **more) for n in range(count)]


def test_the_newest_entries_of_a_long_gpu_queue_spill_to_idle_cpu_slots():
    # 100 × 12 s on 2 slots are 10 min; a CPU needs 2 min for one
    plan = turn(small_fleet(waiting(FALLBACK, {4: images(100)}, depth=8)), FRESH, windows=WINDOWS).plan
    assert moves(plan) == [f"i{n} gpu_fallback/4 → cpu_standard/4" for n in (99, 98, 97, 96)]
    assert plan.steps[0].reason == "spill: it would end in 11.0 min on a GPU, in 2.0 min on a CPU"
    assert plan.steps[0].estimated_improvement > 8
    assert 0.7 < plan.steps[0].confidence < 1


def test_nothing_spills_when_the_gpu_ends_it_as_soon():
    plan = turn(small_fleet(waiting(FALLBACK, {4: images(3)})), FRESH, windows=WINDOWS).plan
    assert moves(plan) == []
    assert why_not(plan, "i2") == ["spill: no gain: it would end in 1.3 min on a GPU, in 2.0 min on a CPU"]


def test_a_spill_must_gain_a_quarter_of_the_cpu_run_time():
    # 2.3 min against 2 × 1.25
    assert moves(turn(small_fleet(waiting(FALLBACK, {4: images(11)})), FRESH, windows=WINDOWS).plan) == []


def test_a_higher_priority_gains_more_and_goes_first():
    lanes = (
        waiting(FALLBACK, {4: images(100)}, depth=4),
        waiting(PRIORITY, {2: [entry("high", "gpu_preferred", priority="HIGH", minutes=1, queue=PRIORITY)]}, more=100),
    )
    plan = turn(small_fleet(*lanes), FRESH, windows=WINDOWS).plan
    assert moves(plan)[0] == "high gpu_priority/2 → cpu_standard/2"


def test_work_that_requires_a_gpu_never_spills():
    films = [entry(f"f{n}", "gpu", queue=PRIORITY) for n in range(100)]
    assert moves(turn(small_fleet(waiting(PRIORITY, {4: films})), FRESH, windows=WINDOWS).plan) == []


def test_tasks_pinned_to_an_unregistered_worker_do_not_stop_spilling():
    lanes = (waiting(FALLBACK, {4: images(100)}), waiting(CPU, {4: [entry("c")]}, "gone"))
    assert moves(turn(small_fleet(*lanes), FRESH, windows=WINDOWS).plan)


def test_nothing_spills_while_cpu_work_waits():
    lanes = (waiting(FALLBACK, {4: images(100)}), waiting(CPU, {4: [entry("c")]}))
    plan = turn(small_fleet(*lanes), FRESH, windows=WINDOWS).plan
    assert moves(plan) == []
    assert why_not(plan, "cpu_standard") == ["spill: 1 task already waits in the CPU lanes"]


def test_nothing_spills_to_busy_cpu_slots():
    plan = turn(small_fleet(waiting(FALLBACK, {4: images(100)}), cpu_held=4), FRESH, windows=WINDOWS).plan
    assert moves(plan) == []
    assert why_not(plan, "cpu_standard") == ["spill: 0 of 4 CPU slots are idle, and 10% stay free"]


def test_no_more_entries_spill_than_slots_are_idle():
    plan = turn(small_fleet(waiting(FALLBACK, {4: images(100)}), cpu_held=3), FRESH, windows=WINDOWS).plan
    assert len(plan.steps) == 1


def test_work_that_prefers_a_gpu_spills_when_no_gpu_is_in_service():
    gone = fleet(
        worker("gpu-1", "gpu", beat_age=500), worker("cpu-1"), lanes=(waiting(FALLBACK, {4: images(2, minutes=30)}),)
    )
    assert moves(turn(gone, FRESH, windows=WINDOWS).plan) == [
        "i1 gpu_fallback/4 → cpu_standard/4",
        "i0 gpu_fallback/4 → cpu_standard/4",
    ]


def test_nothing_spills_to_a_paused_cpu_queue():
    before = small_fleet(waiting(FALLBACK, {4: images(100)}), paused=frozenset({CPU}))
    assert why_not(turn(before, FRESH, windows=WINDOWS).plan, "cpu_standard") == ["spill: cpu_standard is paused"]


def test_a_spilled_entry_gets_a_level_that_cpu_workers_poll():
    stepped = worker("cpu-1", "cpu", priority_steps=(0, 3, 6, 9))
    before = fleet(
        worker("gpu-1", "gpu"), stepped, held=held("gpu-1", FALLBACK, 2), lanes=(waiting(FALLBACK, {5: images(100)}),)
    )
    assert moves(turn(before, FRESH, windows=WINDOWS).plan)[0] == "i99 gpu_fallback/5 → cpu_standard/6"


def test_spilled_work_returns_when_the_gpus_are_free_again():
    before = small_fleet(waiting(CPU, {4: images(1, waited=5)}), cpu_held=4, gpu_held=0)
    plan = turn(before, FRESH, windows=WINDOWS).plan
    assert moves(plan) == ["i0 cpu_standard/4 → gpu_fallback/4"]
    assert plan.steps[0].reason == "return: it would end in 0.2 min on a GPU, in 2.0 min on a CPU"


def test_spilled_work_stays_for_at_least_two_ticks():
    marked = FRESH.model_copy(update={"moved": {"i0": MoveRecord(count=1, at=NOW - 59)}})
    before = small_fleet(waiting(CPU, {4: images(1, waited=50)}), cpu_held=4, gpu_held=0)
    assert moves(turn(before, marked, windows=WINDOWS).plan) == []


def test_spilled_work_stays_when_the_gain_is_too_small():
    before = small_fleet(waiting(CPU, {4: images(1, waited=5)}), cpu_held=4, gpu_held=2)
    plan = turn(before, FRESH, windows=WINDOWS).plan
    assert moves(plan) == []
    assert why_not(plan, "i0") == [
        "return: the gain is too small: it would end in 1.1 min on a GPU, in 2.0 min on a CPU"
    ]


def test_work_submitted_to_the_cpu_queue_is_not_returned():
    mine = entry("mine", "gpu_preferred", waited=5, queue=CPU)
    before = small_fleet(waiting(CPU, {4: [mine]}), cpu_held=4, gpu_held=0)
    assert moves(turn(before, FRESH, windows=WINDOWS).plan) == []


def test_returned_work_counts_as_queued_at_the_gpus():
    # each that goes back makes the wait longer for the next: not all of them win
    before = small_fleet(waiting(CPU, {4: images(60, waited=5)}), cpu_held=4, gpu_held=0)
    after = turn(before, FRESH, windows=WINDOWS, max_moves=100)
    assert len(after.plan.steps) == 8  # 6 s a place in the line, up to a minute in all
