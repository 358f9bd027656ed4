"""What every broker promises, run on Redis and in memory."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import Celery

from morag_queue.broker.contract import MoveCounts, MoveOutcome
from morag_queue.broker.lost_work import ResendRequest
from morag_queue.broker.requeue import RequeueRequest
from morag_queue.core.balancing.state import BalancerState, MoveRecord
from morag_queue.core.model import Cordon, QueueType, Requires, WorkerStatus
from morag_queue.core.plan import Plan, Resend, TakeBack
from morag_queue.errors import LeaseLost
from morag_queue.operations.apply import apply
from tests.support.broker_drivers import BrokerDriver, MemoryDriver, RedisDriver, move, outgoing_message

CPU, GPU = "cpu_standard", "gpu_priority"


@pytest.fixture(params=["memory", "redis"])
def rig(request: pytest.FixtureRequest) -> Iterator[BrokerDriver]:
    if request.param == "memory":
        yield MemoryDriver()
    else:
        yield RedisDriver(request.getfixturevalue("valkey"))


# -- submit, observe


def test_submitted_tasks_wait_in_order_at_their_level(rig):
    assert rig.submit("a", "b", "c") == [True, True, True]
    assert rig.submit("u", level=0) == [True]
    assert rig.places() == {(CPU, 4): ["a", "b", "c"], (CPU, 0): ["u"]}


def test_an_open_id_is_refused_and_the_others_are_queued(rig):
    rig.submit("a")
    assert rig.submit("a", "b") == [False, True]
    assert rig.ids(CPU, 4) == ["a", "b"]


def test_submitting_the_same_message_again_queues_it_once(rig):
    message = outgoing_message("a")
    assert [rig.broker.submit([message]), rig.broker.submit([message])] == [[True], [True]]
    assert rig.ids(CPU, 4) == ["a"]


def test_an_id_may_be_used_again_after_its_task_has_ended(rig):
    rig.join("w")
    rig.submit("a")
    rig.claim("w")
    rig.end("a")
    assert rig.submit("a") == [True]


def test_a_snapshot_has_lengths_and_both_ends(rig):
    rig.submit("a", "b", "c", "d", "e")
    view = rig.broker.observe(depth=2)[0].lane_by_name[CPU]
    assert view.lengths == (0, 0, 0, 0, 5, 0, 0, 0, 0, 0)
    assert [one.task_id for one in view.heads[4]] == ["a", "b"]
    assert [one.task_id for one in view.tails[4]] == ["e", "d"]
    assert view.oldest == 1000.0


def test_a_snapshot_of_a_workers_lane_has_its_oldest_entry_only(rig):
    rig.submit("a", "b", lane="cpu_standard.w")
    view = rig.broker.observe(depth=2)[0].lane_by_name["cpu_standard.w"]
    assert ([one.task_id for one in view.heads[4]], view.tails[4], view.worker) == (["a"], (), "w")


def test_a_foreign_message_is_counted_and_in_neither_end(rig):
    rig.push("not json")
    view = rig.broker.observe()[0].lane_by_name[CPU]
    assert (view.foreign, view.heads[4], view.length) == (1, (), 1)


def test_a_claimed_task_is_held_and_in_no_lane(rig):
    rig.join("w", slots=2)
    rig.submit("a", "b")
    assert rig.claim("w") == "a"
    snapshot = rig.broker.observe()[0]
    (held,) = snapshot.held
    assert (held.task_id, held.worker, held.lane, held.level) == ("a", "w", CPU, 4)
    assert rig.ids(CPU, 4) == ["b"]
    assert snapshot.held_count(snapshot.worker_by_id["w"]) == 1


def test_claims_take_urgent_tasks_first_then_the_own_lane_then_the_shared_one(rig):
    rig.join("w")
    rig.submit("shared")
    rig.submit("own", lane="cpu_standard.w")
    rig.submit("urgent", level=0)
    assert [rig.claim("w") for _ in range(4)] == ["urgent", "own", "shared", None]


def test_claims_skip_a_foreign_message_and_leave_it(rig):
    rig.join("w")
    rig.push("not json")
    rig.submit("a")
    assert [rig.claim("w"), rig.claim("w")] == ["a", None]
    assert rig.ids(CPU, 4) == ["not json"]


def test_an_ended_task_is_in_the_records_the_totals_and_the_windows(rig):
    rig.join("w")
    rig.submit("a", "b")
    rig.claim("w")
    rig.end("a", run_seconds=30)
    snapshot, totals = rig.broker.observe()
    assert rig.broker.records(["a", "b", "none"]).keys() == {"a", "b"}
    assert [rig.broker.records([one])[one].state for one in ("a", "b")] == ["completed", "queued"]
    assert (totals[QueueType.CPU_STANDARD].completed, snapshot.worker_by_id["w"].totals.completed) == (1, 1)
    window = rig.broker.windows(snapshot.taken_at, 600)[QueueType.CPU_STANDARD]
    assert (window.seconds, window.arrivals, window.completed) == (600, 2, 1)
    assert window.mean_run_seconds == pytest.approx(30)
    assert rig.broker.windows(snapshot.taken_at, 600)[QueueType.GPU_PRIORITY].arrivals == 0


# -- whole lanes


def test_a_lane_is_moved_in_order_behind_those_that_wait(rig):
    rig.submit("x")
    rig.submit("a", "b", "c", lane="cpu_standard.w")
    rig.submit("other level", lane="cpu_standard.w", level=6)
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 3) == MoveCounts(3, 0)
    assert rig.places() == {(CPU, 4): ["x", "a", "b", "c"], ("cpu_standard.w", 6): ["other level"]}
    assert rig.messages(CPU, 4)[1]["properties"]["delivery_info"] == {"exchange": "", "routing_key": CPU}


def test_a_new_worker_lane_is_known_once_it_has_a_message(rig):
    rig.submit("a")
    rig.broker.moves.lane(CPU, "cpu_standard.new", 4, 1)
    assert rig.places() == {("cpu_standard.new", 4): ["a"]}


def test_no_more_messages_are_moved_than_requested(rig):
    rig.submit("a", "b", "c", lane="cpu_standard.w")
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 2) == MoveCounts(2, 0)
    assert rig.places() == {(CPU, 4): ["a", "b"], ("cpu_standard.w", 4): ["c"]}


def test_foreign_messages_stay_in_their_lane_and_order(rig):
    for n in range(3):
        rig.push(f"foreign {n}", "cpu_standard.w")
        rig.submit(f"t{n}", lane="cpu_standard.w")
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 6) == MoveCounts(3, 3)
    assert rig.ids(CPU, 4) == ["t0", "t1", "t2"]
    assert rig.ids("cpu_standard.w", 4) == ["foreign 0", "foreign 1", "foreign 2"]


@pytest.mark.parametrize("foreign_at", [0, 3, 250, 600, 999])
def test_foreign_messages_hold_up_no_other_message(rig, foreign_at):
    names = [f"t{n:04}" for n in range(1000)]
    rig.submit(*names[:foreign_at], lane="cpu_standard.w")
    rig.push("foreign 1", "cpu_standard.w")
    rig.push("foreign 2", "cpu_standard.w")
    rig.submit(*names[foreign_at:], lane="cpu_standard.w")
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 1002) == MoveCounts(1000, 2)
    assert rig.places() == {(CPU, 4): names, ("cpu_standard.w", 4): ["foreign 1", "foreign 2"]}


def test_gpu_work_stays_in_its_lane_with_keeps_gpu(rig):
    rig.submit("film", lane="cpu_standard.w", requires=Requires.GPU)
    rig.submit("page", lane="cpu_standard.w", kwargs={"requires": "gpu"})
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 2, keeps_gpu=True) == MoveCounts(1, 0, 1)
    assert rig.places() == {(CPU, 4): ["page"], ("cpu_standard.w", 4): ["film"]}


def test_an_empty_lane_moves_nothing(rig):
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 10) == MoveCounts(0, 0)


# -- one task


def test_a_moved_task_has_its_new_lane_and_level_in_message_and_ledger(rig):
    rig.submit("a", "b", "c", kwargs={"lane": "x", "level": 7, "nested": {"priority": 4, "empty": {}, "list": []}})
    rig.submit("z", lane=GPU, level=2)
    assert rig.broker.moves.tasks([move("b", CPU, 4, GPU, 2)]) == [MoveOutcome.MOVED]
    assert rig.places() == {(CPU, 4): ["a", "c"], (GPU, 2): ["z", "b"]}
    moved = rig.messages(GPU, 2)[1]
    assert (moved["properties"]["priority"], moved["properties"]["delivery_info"]["routing_key"]) == (2, GPU)
    assert moved["headers"]["morag_queue"]["priority"] == "NORMAL"
    record = rig.broker.records(["b"])["b"]
    assert (record.lane, record.level, record.priority.name) == (GPU, 2, "NORMAL")
    assert record.fields["kwargs"] == {"lane": "x", "level": 7, "nested": {"priority": 4, "empty": {}, "list": []}}


def test_a_move_changes_nothing_else_in_the_message(rig):
    odd = {"priority": 4, "routing_key": CPU, "text": '"priority": 4, "routing_key": "cpu_standard"', "é": "\u2028"}
    rig.submit("a", args=(odd, {}, [], 1e300, None), source="s")
    (before,) = rig.messages(CPU, 4)
    before = json.loads(json.dumps(before))
    rig.broker.moves.tasks([move("a", CPU, 4, GPU, 1)])
    (after,) = rig.messages(GPU, 1)
    before["properties"] |= {"priority": 1, "delivery_info": {"exchange": "", "routing_key": GPU}}
    assert after == before


def test_a_move_within_a_lane_changes_the_level(rig):
    rig.submit("a", "b")
    assert rig.broker.moves.tasks([move("b", CPU, 4, CPU, 1)]) == [MoveOutcome.MOVED]
    assert rig.places() == {(CPU, 1): ["b"], (CPU, 4): ["a"]}


def test_a_task_that_is_gone_is_not_moved_and_the_others_are(rig):
    rig.join("w")
    rig.submit("a", "b")
    rig.claim("w")
    answer = rig.broker.moves.tasks([move("a", CPU, 4, GPU), move("b", CPU, 4, GPU), move("b", CPU, 4, GPU)])
    assert answer == [MoveOutcome.GONE, MoveOutcome.MOVED, MoveOutcome.GONE]
    assert rig.places() == {(GPU, 4): ["b"]}


def test_a_task_at_another_level_than_the_plan_says_is_gone(rig):
    rig.submit("a", level=6)
    assert rig.broker.moves.tasks([move("a", CPU, 4, GPU)]) == [MoveOutcome.GONE]


@pytest.mark.parametrize("n", [0, 63, 64, 150, 236, 299])
def test_a_task_is_found_wherever_it_is_in_its_list(rig, n):
    names = [f"t{one:03}" for one in range(300)]
    rig.submit(*names)
    assert rig.broker.moves.tasks([move(names[n], CPU, 4, GPU)]) == [MoveOutcome.MOVED]
    assert rig.ids(CPU, 4) == names[:n] + names[n + 1 :]
    assert rig.ids(GPU, 4) == [names[n]]


def test_an_id_that_is_part_of_another_or_in_arguments_finds_its_own_task(rig):
    rig.submit("a1", args=("a",))
    rig.submit("xa", kwargs={"id": "a"})
    rig.submit("a")
    assert rig.broker.moves.tasks([move("a", CPU, 4, GPU)]) == [MoveOutcome.MOVED]
    assert rig.ids(CPU, 4) == ["a1", "xa"]


@pytest.mark.parametrize("task_id", ['qu"ote', "back\\slash", "é漢", "sl/ash", "%d.*[a]", "line\nbreak", " "])
def test_any_id_can_be_moved(rig, task_id):
    rig.submit("before", task_id, "after")
    assert rig.broker.moves.tasks([move(task_id, CPU, 4, GPU, 1)]) == [MoveOutcome.MOVED]
    assert rig.ids(GPU, 1) == [task_id]
    assert rig.broker.records([task_id])[task_id].level == 1


def test_a_gpu_task_is_not_moved_with_keeps_gpu(rig):
    rig.submit("film", lane=GPU, requires=Requires.GPU)
    rig.submit("image", lane=GPU, requires=Requires.GPU_PREFERRED)
    steps = [move("film", GPU, 4, CPU, keeps_gpu=True), move("image", GPU, 4, CPU, keeps_gpu=True)]
    assert rig.broker.moves.tasks(steps) == [MoveOutcome.GPU, MoveOutcome.MOVED]
    assert rig.places() == {(GPU, 4): ["film"], (CPU, 4): ["image"]}


def test_a_move_to_a_workers_lane_makes_that_lane_known(rig):
    rig.submit("a")
    rig.broker.moves.tasks([move("a", CPU, 4, "cpu_standard.w.1")])
    assert rig.places() == {("cpu_standard.w.1", 4): ["a"]}


@pytest.mark.parametrize(
    "broken",
    [
        {"properties": {"delivery_tag": "t", "priority": 4}},
        {"properties": {"delivery_tag": "t", "priority": 4, "delivery_info": {"exchange": ""}}},
        {"properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": CPU}}},
    ],
    ids=["no delivery info", "no routing key", "no priority"],
)
def test_a_message_without_its_fields_stays_as_it_is(rig, broken):
    text = json.dumps({"body": "", "headers": {"id": "odd"}} | broken)
    rig.push(text)
    assert rig.broker.moves.tasks([move("odd", CPU, 4, GPU, 1)]) == [MoveOutcome.FOREIGN]
    assert rig.messages(CPU, 4) == [json.loads(text)]


@pytest.mark.parametrize(
    "how", [{}, {"serializer": "pickle"}, {"compression": "zlib"}, {"compression": "bzip2"}], ids=str
)
def test_messages_of_any_serializer_and_compression_are_moved(rig, how):
    with Celery("producer", broker="memory://", set_as_current=False) as app:
        app.conf.task_serializer = how.get("serializer", "json")
        app.conf.task_compression = how.get("compression")
        from morag_queue.broker.celery_message import MessageBuilder
        from tests.support import broker_drivers

        usual, broker_drivers._WIRE = broker_drivers._WIRE, MessageBuilder(app)
        try:
            rig.submit("a", args=({"n": 1, "empty": {}},))
        finally:
            broker_drivers._WIRE = usual
    (before,) = rig.messages(CPU, 4)
    body = before["body"]
    assert rig.broker.moves.tasks([move("a", CPU, 4, GPU, 1)]) == [MoveOutcome.MOVED]
    assert rig.messages(GPU, 1)[0]["body"] == body


# -- requeue held messages, resend lost tasks


def requeue(rig, task_id, **fields) -> RequeueRequest:
    """The request to requeue a held task to cpu_standard."""
    held = next(one for one in rig.broker.observe()[0].held if one.task_id == task_id)
    known = {"incarnation": held.incarnation, "task_id": task_id, "lane": CPU, "level": 4, "why": "w died"}
    return RequeueRequest(held.tag, **(known | fields))


def resend(rig, task_id) -> ResendRequest:
    """The request to send an open task again, as it was submitted."""
    seen = rig.broker.records([task_id])[task_id].text
    return ResendRequest(task_id, seen, seen, outgoing_message(task_id).text, CPU, 4, "it was lost")


def test_a_requeued_message_is_first_in_its_lane_with_a_new_tag_and_address(rig):
    rig.join("w", slots=2)
    rig.submit("a", lane="cpu_standard.w")
    rig.submit("b")
    assert rig.claim("w") == "a"
    assert rig.broker.requeues.apply([requeue(rig, "a")]) == ["moved"]
    assert rig.places() == {(CPU, 4): ["a", "b"]}
    first = rig.messages(CPU, 4)[0]["properties"]
    assert first["delivery_info"]["routing_key"] == CPU
    assert rig.broker.observe()[0].held == ()
    assert rig.claim("w") == "a"


def test_a_message_is_requeued_once_and_only_from_the_named_holder(rig):
    rig.join("w")
    rig.submit("a")
    rig.claim("w")
    right, wrong = requeue(rig, "a"), requeue(rig, "a", incarnation="w.0")
    assert rig.broker.requeues.apply([wrong, right, right]) == ["gone", "moved", "gone"]
    assert rig.ids(CPU, 4) == ["a"]


def test_a_message_that_was_touched_since_is_not_requeued(rig):
    rig.join("w")
    rig.submit("a")
    rig.claim("w")
    now = rig.broker.now()
    assert rig.broker.requeues.apply([requeue(rig, "a", untouched_since=now - 60)]) == ["gone"]
    assert rig.broker.requeues.apply([requeue(rig, "a", untouched_since=now + 60)]) == ["moved"]


def test_a_requeued_message_gets_an_eta_only_if_it_has_none(rig):
    rig.join("w", slots=2)
    rig.submit("a")
    for eta in ("2030-01-01T00:00:00+00:00", "2040-01-01T00:00:00+00:00"):
        rig.claim("w")
        rig.broker.requeues.apply([requeue(rig, "a", eta=eta)])
        assert rig.messages(CPU, 4)[0]["headers"]["eta"] == "2030-01-01T00:00:00+00:00"


def test_a_task_that_too_many_workers_die_over_is_quarantined(rig):
    rig.join("w")
    rig.submit("a")
    for death in (1, 2, 3):
        rig.claim("w")
        outcome = "moved" if death < 3 else "quarantined"
        assert rig.broker.requeues.apply([requeue(rig, "a", max_deaths=2)]) == [outcome]
        assert rig.broker.evidence.attempts(["a", "b"]) == ({"a": death} if death < 3 else {})
    assert rig.places() == {}
    assert rig.broker.records(["a"])["a"].state == "quarantined"
    assert rig.submit("a") == [False], "a quarantined task is still open"


def test_a_lost_task_is_resent_once_and_first_in_its_lane(rig):
    rig.submit("a")
    rig.join("w")
    assert rig.claim("w") == "a"
    rig.submit("b")
    request = resend(rig, "a")
    request = replace(request, record=json.dumps(json.loads(request.seen) | {"attempts": 1}))
    assert [rig.broker.lost.resend(request, 3) for _ in range(2)] == ["resent", "changed"]
    assert rig.ids(CPU, 4) == ["a", "b"]
    assert rig.broker.evidence.attempts(["a"]) == {"a": 1}


def test_a_task_that_is_lost_too_often_is_quarantined(rig):
    rig.submit("a")
    rig.join("w")
    rig.claim("w")
    assert [rig.broker.lost.resend(resend(rig, "a"), 1) for _ in range(2)] == ["resent", "quarantined"]
    assert rig.broker.records(["a"])["a"].state == "quarantined"


def test_a_plan_of_recovery_is_applied_and_counted(rig):
    rig.join("w", slots=3)
    rig.submit("a", "b", "c")
    assert [rig.claim("w") for _ in range(3)] == ["a", "b", "c"]
    held = rig.broker.observe()[0].held
    steps = [
        TakeBack(
            task_id=one.task_id, tag=one.tag, worker="w", incarnation=one.incarnation, target=CPU, level=4,
            reason="dead", max_deaths=0 if one.task_id == "b" else 3,
        )
        for one in held[::-1]
    ]  # fmt: skip
    lost = Resend(task_id="x", reason="lost")
    plan = Plan(plan_id="p", verb="failover", fleet="", taken_at=0.0, steps=(*steps, lost))
    done = apply(rig.broker, plan) + apply(rig.broker, plan)
    assert (done.plan_id, done.taken_back, done.quarantined, len(done.rejected)) == ("p", 2, 1, 3)
    assert rig.ids(CPU, 4) == ["a", "c"]


def test_a_lost_task_is_resent_to_the_target_of_its_step(rig):
    rig.submit("film", lane="cpu_standard.w", requires=Requires.GPU)
    rig.join("w")
    rig.claim("w")
    step = Resend(task_id="film", reason="lost", target=GPU)
    assert apply(rig.broker, Plan(plan_id="p", verb="sweep", fleet="", taken_at=0.0, steps=(step,))).resent == 1
    assert rig.ids(GPU, 4) == ["film"]
    record = rig.broker.records(["film"])["film"]
    assert (record.queue, record.lane, record.requires) == (GPU, GPU, "gpu")


# -- fences and cordons


def test_only_the_incarnation_that_acts_is_fenced(rig):
    rig.join("w")
    assert rig.broker.evidence.fence("w", "w.0") == "w.1", "another incarnation acts"
    assert rig.broker.evidence.fence("w", "w.1") == ""
    assert rig.broker.observe()[0].worker_by_id["w"].fenced
    assert rig.broker.evidence.fence("w", "w.1") == "fenced"


def test_a_cordon_is_written_over_the_expected_states_only(rig):
    rig.join("w")
    cordoned = Cordon(state=WorkerStatus.CORDONED, who="ann", at=1.0)
    assert rig.broker.cordons.put("w", cordoned, (WorkerStatus.DRAINING,)) is False
    assert rig.broker.cordons.put("w", cordoned, (None,)) is True
    assert rig.broker.cordons.put("w", cordoned, (None,)) is False
    assert rig.broker.cordons.get("w") == rig.broker.observe()[0].worker_by_id["w"].cordon == cordoned
    assert rig.broker.cordons.put("w", None, (WorkerStatus.CORDONED,)) is True
    assert rig.broker.cordons.get("w") is None


def test_a_cordon_past_its_end_is_not_in_force(rig):
    rig.join("w")
    rig.broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED, until=1.0), (None,))
    assert rig.broker.observe()[0].worker_by_id["w"].cordon is None
    assert rig.broker.cordons.put("w", Cordon(state=WorkerStatus.DRAINING), (None,)) is True


def test_a_cordoned_worker_claims_from_its_own_lanes_and_a_draining_one_nothing(rig):
    rig.join("w", slots=2)
    rig.submit("shared")
    rig.submit("own", lane="cpu_standard.w")
    rig.broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED), (None,))
    assert [rig.claim("w"), rig.claim("w")] == ["own", None]
    rig.broker.cordons.put("w", Cordon(state=WorkerStatus.DRAINING), (WorkerStatus.CORDONED,))
    rig.submit("late", lane="cpu_standard.w")
    assert rig.claim("w") is None


# -- the lease, and what it fences


def test_a_second_holder_gets_the_lease_of_the_first(rig):
    mine = rig.broker.leases.take("me", "ann", "watch", 60)
    theirs = rig.broker.leases.take("you", "bob", "watch", 60)
    assert (mine.holder, mine.term, mine.who, mine.verb) == ("me", 1, "ann", "watch")
    assert theirs == mine == rig.broker.leases.current()
    assert mine.until - mine.since == pytest.approx(60, abs=0.01)


def test_taking_ones_own_lease_again_keeps_the_term(rig):
    first = rig.broker.leases.take("me", "ann", "watch", 60)
    again = rig.broker.leases.take("me", "ann", "watch", 90)
    assert (again.term, again.since) == (first.term, first.since)
    assert again.until > first.until + 29


def test_a_renewed_lease_expires_later(rig):
    lease = rig.broker.leases.take("me", "ann", "watch", 60)
    renewed = rig.broker.leases.renew(lease, 90)
    assert renewed is not None
    assert (renewed.term, rig.broker.leases.current()) == (1, renewed)


def test_after_expiry_another_holder_gets_a_new_term_and_the_old_lease_is_void(rig):
    old = rig.broker.leases.take("me", "ann", "watch", 60)
    rig.expire_lease()
    assert rig.broker.leases.current() is None
    new = rig.broker.leases.take("you", "bob", "watch", 60)
    assert (new.holder, new.term) == ("you", 2)
    assert rig.broker.leases.renew(old, 60) is None
    assert rig.broker.leases.give_up(old) is False
    assert rig.broker.leases.current() == new


def test_a_lease_given_up_is_free_and_its_term_is_not_reused(rig):
    lease = rig.broker.leases.take("me", "ann", "watch", 60)
    assert rig.broker.leases.give_up(lease) is True
    assert rig.broker.leases.current() is None
    assert rig.broker.leases.take("me", "ann", "watch", 60).term == 2


def test_a_holder_that_returns_after_expiry_gets_a_new_term(rig):
    rig.broker.leases.take("me", "ann", "watch", 60)
    rig.expire_lease()
    assert rig.broker.leases.take("me", "ann", "watch", 60).term == 2


def test_a_snapshot_names_the_leader(rig):
    assert rig.broker.observe()[0].leader is None
    rig.broker.leases.take("me", "ann", "watch", 60)
    leader = rig.broker.observe()[0].leader
    assert (leader.holder, leader.term, leader.who) == ("me", 1, "ann")


def test_a_write_with_an_expired_term_changes_nothing(rig):
    rig.submit("a", "b")
    rig.submit("c", lane="cpu_standard.w")
    rig.broker.leases.take("me", "ann", "watch", 60)
    rig.expire_lease()
    for renewed in (False, True):  # without a new leader, and with one
        if renewed:
            rig.broker.leases.take("you", "bob", "watch", 60)
        with pytest.raises(LeaseLost, match="later changes were rejected"):
            rig.broker.moves.tasks([move("a", CPU, 4, GPU)], term="1")
        with pytest.raises(LeaseLost):
            rig.broker.moves.lane("cpu_standard.w", CPU, 4, 1, term="1")
        with pytest.raises(LeaseLost):
            rig.broker.state_store.save(BalancerState(at=1.0), term="1")
        with pytest.raises(LeaseLost):
            rig.broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED), (None,), term="1")
        with pytest.raises(LeaseLost), rig.broker.translated():
            rig.broker.requeues.apply([RequeueRequest("tag", "w.1", "a", CPU, 4)], term="1")
        with pytest.raises(LeaseLost), rig.broker.translated():
            rig.broker.lost.resend(resend(rig, "a"), 3, term="1")
    assert rig.places() == {(CPU, 4): ["a", "b"], ("cpu_standard.w", 4): ["c"]}
    assert rig.broker.state_store.load() == BalancerState()


def test_a_write_with_the_current_term_is_accepted(rig):
    rig.submit("a")
    rig.submit("c", lane="cpu_standard.w")
    rig.broker.leases.take("me", "ann", "watch", 60)
    assert rig.broker.moves.tasks([move("a", CPU, 4, GPU)], term="1") == [MoveOutcome.MOVED]
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 1, term="1") == MoveCounts(1, 0)
    rig.broker.state_store.save(BalancerState(at=1.0), term="1")
    assert rig.broker.state_store.load().at == 1.0


# -- the journal and the balancer state


def test_the_journal_keeps_order_and_finds_entries_by_id(rig):
    ids = [rig.broker.journal.write("ann", "drain", f"w{n}", reason="disk", changes={"n": n}) for n in range(3)]
    assert [one.entry_id for one in rig.broker.journal.latest(2)] == ids[:0:-1]
    entry = rig.broker.journal.get(ids[0])
    assert entry is not None
    assert (entry.who, entry.verb, entry.subject, entry.reason, entry.changes) == (
        "ann",
        "drain",
        "w0",
        "disk",
        {"n": 0},
    )
    assert entry.at == pytest.approx(rig.broker.now(), abs=5)
    assert rig.broker.journal.get("1-1") is None


def test_a_saved_balancer_state_is_loaded_unchanged(rig):
    memory = BalancerState(
        at=5.0, tick_at=5.0, tick_moves=2, tokens={"gpu": 1.5}, moved={"a": MoveRecord(count=1, at=4.0)}
    )
    rig.broker.state_store.save(memory)
    assert rig.broker.state_store.load() == memory
