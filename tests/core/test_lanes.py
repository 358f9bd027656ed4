import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.lanes import lane, queue_of, split
from morag_queue.core.model import QueueType


@given(st.sampled_from(QueueType), st.none() | st.text())
def test_split_returns_the_queue_and_the_worker_of_any_lane(queue, worker):
    assert split(lane(queue, worker)) == (queue, worker)


@pytest.mark.parametrize("worker", ["worker-1.example.org", "a*b?[c]", "."])
def test_dots_and_glob_characters_of_a_worker_id_are_kept(worker):
    assert split(lane(QueueType.CPU_BATCH, worker)) == ("cpu_batch", worker)


def test_a_lane_is_named_queue_or_queue_dot_worker():
    assert lane(QueueType.GPU_PRIORITY) == "gpu_priority"
    assert lane(QueueType.GPU_PRIORITY, "worker-gpu-1") == "gpu_priority.worker-gpu-1"


def test_the_lane_of_another_application_belongs_to_no_queue():
    assert queue_of("celery") is None
    assert queue_of("gpu_priority.worker-gpu-1") is QueueType.GPU_PRIORITY
