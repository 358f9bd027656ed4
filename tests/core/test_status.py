import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.model import WorkerStatus
from morag_queue.core.policy import Policy
from morag_queue.core.worker_status import drain_state, status, status_in
from tests.core.fleets import NOW, fleet, held, queued, worker

POLICY = Policy()


@pytest.mark.parametrize(
    ("view", "held_count", "expected", "reason"),
    [
        (worker("w", "gpu"), 0, "online", ""),
        (worker("w", "gpu"), 1, "online", ""),
        (worker("w", "gpu"), 2, "busy", "2 of 2 slots in use"),
        (worker("w", beat_age=None), 0, "offline", "has sent no heartbeat yet"),
        (worker("w", beat_age=300, stopped=True), 0, "offline", "shut down 5 min ago"),
        (worker("w", beat_age=61), 0, "offline", "no beat for 61 s"),
        (worker("w", beat_age=60), 0, "suspect", "no beat for 60 s"),
        (worker("w", beat_age=11), 4, "suspect", "no beat for 11 s"),
        (worker("w", beat_age=10), 0, "online", ""),
        (worker("w", beat_age=-30), 0, "online", ""),
        (worker("w", cordon="cordoned", cordon_reason="new disk"), 4, "cordoned", "cordoned by ann: new disk"),
        (worker("w", cordon="cordoned", beat_age=15), 0, "cordoned", "cordoned by ann; no beat for 15 s"),
        (worker("w", cordon="cordoned", beat_age=90), 0, "offline", "no beat for 90 s; cordoned by ann"),
        (worker("w", cordon="draining"), 1, "draining", "draining by ann"),
        (worker("w", cordon="draining", beat_age=90), 1, "offline", "no beat for 90 s; draining by ann"),
        (worker("w", cordon="draining"), 0, "drained", "drained by ann"),
        (worker("w", cordon="drained", beat_age=7200, stopped=True), 0, "drained", "drained by ann; shut down 2 h ago"),
    ],
)  # fmt: skip
def test_a_worker_is_in_one_word_what_matters_most_about_it(view, held_count, expected, reason):
    assert status(view, held_count, NOW, POLICY) == (WorkerStatus(expected), reason)


@pytest.mark.parametrize(
    ("state", "claims", "held_count", "waiting", "expected"),
    [
        (None, True, 5, 5, None),
        ("cordoned", True, 0, 0, "cordoned"),
        ("draining", True, 1, 0, "draining"),
        ("draining", True, 0, 1, "draining"),
        ("draining", True, 0, 0, "drained"),
        ("draining", False, 0, 0, "draining"),  # stock kombu may still bring the message it was waiting for
        ("drained", False, 0, 0, "drained"),
        ("drained", True, 0, 1, "drained"),  # a pin that was forced waits there for `uncordon`
        ("drained", True, 1, 0, "draining"),
    ],
)
def test_a_drain_is_done_when_nothing_is_held_and_nothing_can_come(state, claims, held_count, waiting, expected):
    view = worker("w", cordon=state, claims=claims)
    assert drain_state(view, held_count, waiting) == expected


def test_what_a_dead_run_of_a_worker_left_behind_does_not_make_the_new_run_busy():
    snapshot = fleet(worker("w", "gpu"), held=held("w", count=2, run="before"))
    assert status_in(snapshot, snapshot.workers[0], POLICY)[0] is WorkerStatus.ONLINE


def test_a_worker_without_the_claim_is_busy_by_what_it_says_of_itself():
    assert status(worker("w", "gpu", active=2, claims=False), 0, NOW, POLICY)[0] is WorkerStatus.BUSY


def test_a_draining_worker_with_work_in_its_own_lane_is_still_draining():
    from_lane = worker("w", cordon="draining")
    snapshot = fleet(from_lane, lanes=(queued("cpu_standard", 1, "w"),))
    assert status_in(snapshot, from_lane, POLICY)[0] is WorkerStatus.DRAINING


views = st.builds(
    worker,
    st.just("w"),
    st.sampled_from(["cpu", "gpu", "hybrid"]),
    beat_age=st.none() | st.floats(-1e6, 1e6),
    stopped=st.booleans(),
    cordon=st.none() | st.sampled_from(["cordoned", "draining", "drained"]),
    claims=st.booleans(),
)


@given(views, st.integers(0, 9), st.integers(0, 9))
def test_a_worker_out_of_service_is_never_called_online_or_busy(view, held_count, waiting):
    word, reason = status(view, held_count, NOW, POLICY, waiting_count=waiting)
    if view.cordon is not None or view.beat is None or view.beat.stopped:
        assert word not in {WorkerStatus.ONLINE, WorkerStatus.BUSY}
        assert reason
