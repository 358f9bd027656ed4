import pytest

from morag_queue.core.histogram import Window, bucket
from morag_queue.core.model import Lease, QueueType, WorkerStatus
from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import Totals
from morag_queue.core.stats import fleet_stats, queue_stats, serving_workers, worker_stats
from tests.core.fleets import fleet, held, queued, usual_fleet, worker
from tests.core.lanes_in_words import entry, waiting

POLICY = Policy()
GPU = QueueType.GPU_PRIORITY
LEASE = Lease(holder="x", term=7, who="ann", verb="watch", since=1.0, until=16.0)
NO_WINDOW, NO_TOTALS = Window(), Totals()


def stats_of(snapshot, window=NO_WINDOW, totals=NO_TOTALS):
    return queue_stats(GPU, snapshot, window, totals, serving_workers(snapshot, POLICY)[GPU], Window())


def test_a_queue_counts_waiting_tasks_of_all_its_lanes_and_held_and_ended_tasks():
    snapshot = usual_fleet(
        lanes=(queued(GPU, 5), queued(GPU, 2, "worker-gpu-1", level=0), queued(QueueType.CPU_BATCH, 9)),
        held=held("worker-gpu-1", GPU, 2),
    )
    stats = stats_of(snapshot, totals=Totals(completed=10, failed=1))
    assert (stats.pending_tasks, stats.processing_tasks, stats.completed_tasks, stats.failed_tasks) == (7, 2, 10, 1)
    assert stats.total_tasks == 20
    assert stats.pending_by_priority == {"URGENT": 2, "HIGH": 0, "NORMAL": 5, "LOW": 0, "BATCH": 0}
    assert stats.worker_count == 3


@pytest.mark.parametrize(
    ("window", "totals", "minutes"),
    [
        (Window(60, completed=2, run_seconds=240, runs={1: 2}), Totals(1, 0, 999), 20.0),  # 70 × 2 min ÷ 7 slots
        (Window(), Totals(1, 1, 240), 20.0),
        (Window(), Totals(), 10.0),  # one minute each is assumed
    ],
)
def test_backlog_is_the_waiting_work_divided_by_the_serving_slots(window, totals, minutes):
    assert stats_of(usual_fleet(lanes=(queued(GPU, 70),)), window, totals).backlog_time == pytest.approx(minutes)


def test_backlog_uses_estimates_weighted_by_list_length_until_a_task_has_ended():
    lanes = (waiting(GPU, {2: [entry("a", minutes=4)], 5: [entry("b", minutes=10)] * 2}),)
    assert stats_of(usual_fleet(lanes=lanes)).backlog_time == pytest.approx((4 + 10 + 10) / 7)
    measured = stats_of(usual_fleet(lanes=lanes), Window(600, completed=1, run_seconds=60, runs={1: 1}))
    assert measured.backlog_time == pytest.approx(3 / 7)


def test_backlog_without_a_serving_worker_counts_one_slot():
    stats = stats_of(fleet(worker("g", "gpu", beat_age=99), lanes=(queued(GPU, 3),)))
    assert (stats.worker_count, stats.backlog_time) == (0, 3.0)


def test_waits_come_from_the_window_and_the_oldest_wait_from_the_lanes():
    window = Window(600, arrivals=20, completed=4, failed=1, wait_seconds=600, waits={bucket(30): 19, bucket(90): 1})
    stats = stats_of(usual_fleet(lanes=(queued(GPU, 1, age=120), queued(GPU, 1, "worker-gpu-1", age=300))), window)
    assert stats.average_wait_time == pytest.approx(0.5)
    assert stats.p95_wait_time == pytest.approx(0.5, rel=0.1)
    assert stats.oldest_wait_time == pytest.approx(5.0)
    assert (stats.arrivals_per_minute, stats.completions_per_minute) == (2.0, 0.5)


def test_recent_rates_are_those_of_the_last_minutes_whatever_the_window():
    snapshot = usual_fleet()
    recent = {GPU: Window(270, arrivals=9, completed=5, failed=4)}
    stats = fleet_stats(snapshot, {GPU: Window(3600, arrivals=9)}, {}, POLICY, window_seconds=3600, recent=recent)
    gpu = next(queue for queue in stats.queues if queue.queue_type is GPU)
    assert (gpu.recent_arrivals_per_minute, gpu.recent_completions_per_minute) == (2.0, 2.0)
    assert gpu.arrivals_per_minute == pytest.approx(9 / 60)


def test_a_worker_has_active_and_assigned_tasks_status_and_heartbeat_age():
    g = worker("g", "gpu", active=1, reserved=1, beat_age=3)
    snapshot = fleet(g, held=held("g", GPU, 2), lanes=(queued(GPU, 1, "g"),))
    stats = worker_stats(snapshot.workers[0], snapshot, POLICY)
    assert (stats.active_tasks, stats.assigned_tasks, stats.max_concurrent_tasks) == (1, 3, 2)
    assert (stats.status, stats.last_heartbeat_seconds) == (WorkerStatus.BUSY, 3.0)


@pytest.mark.parametrize(
    ("active", "reserved", "held_count", "expected"),
    [(0, 0, 1, 1), (1, 0, 0, 0), (0, 1, 1, 0), (1, 1, 2, 1), (2, 0, 9, 2)],
    ids=["claimed since", "ended since", "waits for its ETA", "one of two", "prefetched since"],
)
def test_active_tasks_are_held_tasks_without_reserved_ones(active, reserved, held_count, expected):
    snapshot = fleet(worker("g", "gpu", active=active, reserved=reserved), held=held("g", GPU, held_count))
    assert worker_stats(snapshot.workers[0], snapshot, POLICY).active_tasks == expected


@pytest.mark.parametrize("gone", [{"beat_age": 61}, {"stopped": True}, {"beat_age": None}, {"fenced": True}])
def test_an_offline_worker_has_no_active_tasks(gone):
    snapshot = fleet(worker("g", "gpu", active=2, **gone))
    stats = worker_stats(snapshot.workers[0], snapshot, POLICY)
    assert (stats.active_tasks, stats.status) == (0, WorkerStatus.OFFLINE)


def test_fleet_stats_have_all_four_queues_and_workers_sorted_by_id():
    snapshot = fleet(worker("b"), worker("a"), leader=LEASE)
    stats = fleet_stats(snapshot, {}, {}, POLICY, window_seconds=3600, recent={})
    assert [queue.queue_type for queue in stats.queues] == list(QueueType)
    assert [worker.worker for worker in stats.workers] == ["a", "b"]
    assert stats.leader == LEASE
    assert stats.model_dump_json()
