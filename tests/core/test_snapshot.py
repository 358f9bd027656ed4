from morag_queue.core.model import QueueType
from tests.core.fleets import NOW, fleet, held, queued, worker

GPU, CPU = QueueType.GPU_PRIORITY, QueueType.CPU_STANDARD


def test_a_snapshot_indexes_lanes_workers_and_held_messages_by_name():
    snapshot = fleet(
        worker("a", "gpu"),
        worker("b"),
        held=held("a", GPU, 2) + held("a", GPU, 1, run="before"),
        lanes=(queued(GPU, 5), queued(GPU, 1, "a", age=90.0), queued(CPU, 3)),
    )
    assert snapshot.worker_by_id["b"].info.capability == "cpu"
    assert snapshot.lane_by_name["gpu_priority.a"].oldest == NOW - 90
    assert snapshot.pending[GPU] == 6
    assert snapshot.pending[QueueType.CPU_BATCH] == 0
    assert len(snapshot.held_by_worker["a"]) == 3
    assert snapshot.held_count(snapshot.worker_by_id["a"]) == 2
    assert (snapshot.waiting_count("a"), snapshot.waiting_count("b")) == (1, 0)
    assert [view.worker for view in snapshot.lanes_by_queue[GPU]] == [None, "a"]


def test_an_empty_lane_has_no_oldest_message():
    assert queued(GPU, 0).oldest is None
