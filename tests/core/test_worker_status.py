"""The status of a worker with its reason, and its drain state."""

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
        (worker("w", slots=1), 1, "busy", "1 of 1 slot in use"),
        (worker("w", beat_age=None), 0, "offline", "has sent no heartbeat yet"),
        (worker("w", beat_age=None, started_at=NOW - 60), 0, "suspect", "has just registered"),
        (worker("w", beat_age=None, started_at=NOW - 61), 0, "offline", "has sent no heartbeat yet"),
        (worker("w", fenced=True), 0, "offline", "failed over"),
        (worker("w", beat_age=300, stopped=True), 0, "offline", "shut down 5 min ago"),
        (worker("w", beat_age=61), 0, "offline", "no heartbeat for 61 s"),
        (worker("w", beat_age=60), 0, "suspect", "no heartbeat for 60 s"),
        (worker("w", beat_age=11), 4, "suspect", "no heartbeat for 11 s"),
        (worker("w", beat_age=10), 0, "online", ""),
        (worker("w", beat_age=-30), 0, "online", ""),
        (worker("w", cordon="cordoned", cordon_reason="new disk"), 4, "cordoned", "cordoned by ann: new disk"),
        (worker("w", cordon="cordoned", beat_age=15), 0, "cordoned", "cordoned by ann; no heartbeat for 15 s"),
        (worker("w", cordon="cordoned", beat_age=90), 0, "offline", "no heartbeat for 90 s; cordoned by ann"),
        (worker("w", cordon="draining"), 1, "draining", "draining by ann"),
        (worker("w", cordon="draining", beat_age=90), 1, "offline", "no heartbeat for 90 s; draining by ann"),
        (worker("w", cordon="draining"), 0, "drained", "drained by ann"),
        (worker("w", cordon="drained", beat_age=7200, stopped=True), 0, "drained", "drained by ann; shut down 2 h ago"),
    ],
)  # fmt: skip
def test_the_status_is_the_first_rule_that_applies(view, held_count, expected, reason):
    assert status(view, held_count, NOW, POLICY) == (WorkerStatus(expected), reason)


@pytest.mark.parametrize(
    ("state", "claims", "held_count", "waiting", "expected"),
    [
        (None, True, 5, 5, None),
        ("cordoned", True, 0, 0, "cordoned"),
        ("draining", True, 1, 0, "draining"),
        ("draining", True, 0, 1, "draining"),
        ("draining", True, 0, 0, "drained"),
        ("draining", False, 0, 0, "draining"),  # kombu may still deliver the message it was waiting for
        ("drained", False, 0, 0, "drained"),
        ("drained", True, 0, 1, "drained"),  # a forced pin waits there for `uncordon`
        ("drained", True, 1, 0, "draining"),
    ],
)
def test_a_worker_is_drained_when_it_holds_nothing_and_can_get_nothing(state, claims, held_count, waiting, expected):
    view = worker("w", cordon=state, claims=claims)
    assert drain_state(view, held_count, waiting) == expected


def test_messages_of_a_dead_run_do_not_make_the_new_run_busy():
    snapshot = fleet(worker("w", "gpu"), held=held("w", count=2, run="before"))
    assert status_in(snapshot, snapshot.workers[0], POLICY)[0] is WorkerStatus.ONLINE


def test_a_worker_without_the_claim_is_busy_by_its_own_heartbeat():
    assert status(worker("w", "gpu", active=2, claims=False), 0, NOW, POLICY)[0] is WorkerStatus.BUSY


def test_a_draining_worker_with_work_in_its_lane_is_still_draining():
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
def test_a_worker_out_of_service_is_never_online_or_busy(view, held_count, waiting):
    word, reason = status(view, held_count, NOW, POLICY, waiting_count=waiting)
    if view.cordon is not None or view.beat is None or view.beat.stopped:
        assert word not in {WorkerStatus.ONLINE, WorkerStatus.BUSY}
        assert reason
