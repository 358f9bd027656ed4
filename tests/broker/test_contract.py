"""What every broker promises, run on Valkey, on the installed Redis and in memory."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from celery import Celery

from morag_queue.broker.contract import MoveCounts, MoveOutcome
from morag_queue.broker.lost_work import ResendRequest
from morag_queue.broker.requeue import RequeueRequest
from morag_queue.core.balancing.state import BalancerState, MoveRecord
from morag_queue.core.model import Cordon, QueueType, Requires, WorkerStatus
from morag_queue.core.plan import Plan, Resend, TakeBack
from morag_queue.errors import LeaseLost
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.operations.apply import apply
from tests.support.broker_drivers import BrokerDriver, MemoryDriver, RedisDriver, move, outgoing_message

CPU, GPU = "cpu_standard", "gpu_priority"


@pytest.fixture(scope="module")
def installed_redis() -> Iterator[str]:
    """The URL of the Redis server that is installed on this machine."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed")
    with Sandbox() as sandbox:
        server = Server(sandbox, binary=Path(binary))
        yield server.url
        server.stop()


@pytest.fixture(params=["memory", "valkey", "redis"])
def driver(request: pytest.FixtureRequest) -> Iterator[BrokerDriver]:
    match request.param:
        case "memory":
            yield MemoryDriver()
        case "valkey":
            yield RedisDriver(request.getfixturevalue("valkey"))
        case "redis":
            url = request.getfixturevalue("installed_redis")
            with redis.Redis.from_url(url) as client:
                client.flushall()
            yield RedisDriver(url)


# -- submit, observe


def test_submitted_tasks_wait_in_order_at_their_level(driver):
    assert driver.submit("a", "b", "c") == [True, True, True]
    assert driver.submit("u", level=0) == [True]
    assert driver.places() == {(CPU, 4): ["a", "b", "c"], (CPU, 0): ["u"]}


def test_an_open_id_is_refused_and_the_others_are_queued(driver):
    driver.submit("a")
    assert driver.submit("a", "b") == [False, True]
    assert driver.ids(CPU, 4) == ["a", "b"]


def test_submitting_the_same_message_again_queues_it_once(driver):
    message = outgoing_message("a")
    assert [driver.broker.submit([message]), driver.broker.submit([message])] == [[True], [True]]
    assert driver.ids(CPU, 4) == ["a"]


def test_an_id_may_be_used_again_after_its_task_has_ended(driver):
    driver.join("w")
    driver.submit("a")
    driver.claim("w")
    driver.end("a")
    assert driver.submit("a") == [True]


def test_a_snapshot_has_lengths_and_both_ends(driver):
    driver.submit("a", "b", "c", "d", "e")
    view = driver.broker.observe(depth=2)[0].lane_by_name[CPU]
    assert view.lengths == (0, 0, 0, 0, 5, 0, 0, 0, 0, 0)
    assert [one.task_id for one in view.heads[4]] == ["a", "b"]
    assert [one.task_id for one in view.tails[4]] == ["e", "d"]
    assert view.oldest == 1000.0


def test_a_snapshot_of_a_workers_lane_has_its_oldest_entry_only(driver):
    driver.submit("a", "b", lane="cpu_standard.w")
    view = driver.broker.observe(depth=2)[0].lane_by_name["cpu_standard.w"]
    assert ([one.task_id for one in view.heads[4]], view.tails[4], view.worker) == (["a"], (), "w")


def test_a_foreign_message_is_counted_and_in_neither_end(driver):
    driver.push("not json")
    view = driver.broker.observe()[0].lane_by_name[CPU]
    assert (view.foreign, view.heads[4], view.length) == (1, (), 1)


def test_a_claimed_task_is_held_and_in_no_lane(driver):
    driver.join("w", slots=2)
    driver.submit("a", "b")
    assert driver.claim("w") == "a"
    snapshot = driver.broker.observe()[0]
    (held,) = snapshot.held
    assert (held.task_id, held.worker, held.lane, held.level) == ("a", "w", CPU, 4)
    assert driver.ids(CPU, 4) == ["b"]
    assert snapshot.held_count(snapshot.worker_by_id["w"]) == 1


def test_claims_take_urgent_tasks_first_then_the_own_lane_then_the_shared_one(driver):
    driver.join("w")
    driver.submit("shared")
    driver.submit("own", lane="cpu_standard.w")
    driver.submit("urgent", level=0)
    assert [driver.claim("w") for _ in range(4)] == ["urgent", "own", "shared", None]


def test_claims_skip_a_foreign_message_and_leave_it(driver):
    driver.join("w")
    driver.push("not json")
    driver.submit("a")
    assert [driver.claim("w"), driver.claim("w")] == ["a", None]
    assert driver.ids(CPU, 4) == ["not json"]


def test_an_ended_task_is_in_the_records_the_totals_and_the_windows(driver):
    driver.join("w")
    driver.submit("a", "b")
    driver.claim("w")
    driver.end("a", run_seconds=30)
    snapshot, totals = driver.broker.observe()
    assert driver.broker.records(["a", "b", "none"]).keys() == {"a", "b"}
    assert [driver.broker.records([one])[one].state for one in ("a", "b")] == ["completed", "queued"]
    assert (totals[QueueType.CPU_STANDARD].completed, snapshot.worker_by_id["w"].totals.completed) == (1, 1)
    window = driver.broker.windows(snapshot.taken_at, 600)[QueueType.CPU_STANDARD]
    assert (window.arrivals, window.completed) == (2, 1)
    assert window.seconds == pytest.approx(540 + snapshot.taken_at % 60), "nine whole minutes and a part of one"
    assert window.mean_run_seconds == pytest.approx(30)
    assert driver.broker.windows(snapshot.taken_at, 600)[QueueType.GPU_PRIORITY].arrivals == 0
    later, _, (read_with_it,) = driver.broker.observe_with_windows(600)
    assert read_with_it == driver.broker.windows(later.taken_at, 600)


# -- whole lanes


def test_a_lane_is_moved_in_order_behind_those_that_wait(driver):
    driver.submit("x")
    driver.submit("a", "b", "c", lane="cpu_standard.w")
    driver.submit("other level", lane="cpu_standard.w", level=6)
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 3) == MoveCounts(3, 0)
    assert driver.places() == {(CPU, 4): ["x", "a", "b", "c"], ("cpu_standard.w", 6): ["other level"]}
    assert driver.messages(CPU, 4)[1]["properties"]["delivery_info"] == {"exchange": "", "routing_key": CPU}


def test_a_new_worker_lane_is_known_once_it_has_a_message(driver):
    driver.submit("a")
    driver.broker.moves.lane(CPU, "cpu_standard.new", 4, 1)
    assert driver.places() == {("cpu_standard.new", 4): ["a"]}


def test_no_more_messages_are_moved_than_requested(driver):
    driver.submit("a", "b", "c", lane="cpu_standard.w")
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 2) == MoveCounts(2, 0)
    assert driver.places() == {(CPU, 4): ["a", "b"], ("cpu_standard.w", 4): ["c"]}


def test_foreign_messages_stay_in_their_lane_and_order(driver):
    for n in range(3):
        driver.push(f"foreign {n}", "cpu_standard.w")
        driver.submit(f"t{n}", lane="cpu_standard.w")
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 6) == MoveCounts(3, 3)
    assert driver.ids(CPU, 4) == ["t0", "t1", "t2"]
    assert driver.ids("cpu_standard.w", 4) == ["foreign 0", "foreign 1", "foreign 2"]


@pytest.mark.parametrize("foreign_at", [0, 3, 250, 600, 999])
def test_foreign_messages_hold_up_no_other_message(driver, foreign_at):
    names = [f"t{n:04}" for n in range(1000)]
    driver.submit(*names[:foreign_at], lane="cpu_standard.w")
    driver.push("foreign 1", "cpu_standard.w")
    driver.push("foreign 2", "cpu_standard.w")
    driver.submit(*names[foreign_at:], lane="cpu_standard.w")
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 1002) == MoveCounts(1000, 2)
    assert driver.places() == {(CPU, 4): names, ("cpu_standard.w", 4): ["foreign 1", "foreign 2"]}


def test_gpu_work_stays_in_its_lane_with_keeps_gpu(driver):
    driver.submit("film", lane="cpu_standard.w", requires=Requires.GPU)
    driver.submit("page", lane="cpu_standard.w", kwargs={"requires": "gpu"})
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 2, keeps_gpu=True) == MoveCounts(1, 0, 1)
    assert driver.places() == {(CPU, 4): ["page"], ("cpu_standard.w", 4): ["film"]}


def test_an_empty_lane_moves_nothing(driver):
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 10) == MoveCounts(0, 0)


# -- one task


def test_a_moved_task_has_its_new_lane_and_level_in_message_and_ledger(driver):
    driver.submit("a", "b", "c", kwargs={"lane": "x", "level": 7, "nested": {"priority": 4, "empty": {}, "list": []}})
    driver.submit("z", lane=GPU, level=2)
    assert driver.broker.moves.tasks([move("b", CPU, 4, GPU, 2)]) == [MoveOutcome.MOVED]
    assert driver.places() == {(CPU, 4): ["a", "c"], (GPU, 2): ["z", "b"]}
    moved = driver.messages(GPU, 2)[1]
    assert (moved["properties"]["priority"], moved["properties"]["delivery_info"]["routing_key"]) == (2, GPU)
    assert moved["headers"]["morag_queue"]["priority"] == "NORMAL"
    record = driver.broker.records(["b"])["b"]
    assert (record.lane, record.level, record.priority.name) == (GPU, 2, "NORMAL")
    assert record.fields["kwargs"] == {"lane": "x", "level": 7, "nested": {"priority": 4, "empty": {}, "list": []}}


def test_a_move_changes_nothing_else_in_the_message(driver):
    odd = {"priority": 4, "routing_key": CPU, "text": '"priority": 4, "routing_key": "cpu_standard"', "é": "\u2028"}
    driver.submit("a", args=(odd, {}, [], 1e300, None), source="s")
    (before,) = driver.messages(CPU, 4)
    before = json.loads(json.dumps(before))
    driver.broker.moves.tasks([move("a", CPU, 4, GPU, 1)])
    (after,) = driver.messages(GPU, 1)
    before["properties"] |= {"priority": 1, "delivery_info": {"exchange": "", "routing_key": GPU}}
    assert after == before


def test_a_move_within_a_lane_changes_the_level(driver):
    driver.submit("a", "b")
    assert driver.broker.moves.tasks([move("b", CPU, 4, CPU, 1)]) == [MoveOutcome.MOVED]
    assert driver.places() == {(CPU, 1): ["b"], (CPU, 4): ["a"]}


def test_a_task_that_is_gone_is_not_moved_and_the_others_are(driver):
    driver.join("w")
    driver.submit("a", "b")
    driver.claim("w")
    answer = driver.broker.moves.tasks([move("a", CPU, 4, GPU), move("b", CPU, 4, GPU), move("b", CPU, 4, GPU)])
    assert answer == [MoveOutcome.GONE, MoveOutcome.MOVED, MoveOutcome.GONE]
    assert driver.places() == {(GPU, 4): ["b"]}


def test_a_task_at_another_level_than_the_plan_says_is_gone(driver):
    driver.submit("a", level=6)
    assert driver.broker.moves.tasks([move("a", CPU, 4, GPU)]) == [MoveOutcome.GONE]


@pytest.mark.parametrize("n", [0, 63, 64, 150, 236, 299])
def test_a_task_is_found_wherever_it_is_in_its_list(driver, n):
    names = [f"t{one:03}" for one in range(300)]
    driver.submit(*names)
    assert driver.broker.moves.tasks([move(names[n], CPU, 4, GPU)]) == [MoveOutcome.MOVED]
    assert driver.ids(CPU, 4) == names[:n] + names[n + 1 :]
    assert driver.ids(GPU, 4) == [names[n]]


def test_a_lane_moves_to_another_level_in_its_order_with_its_new_priority(driver):
    names = [f"t{one:03}" for one in range(600)]
    driver.submit("before", level=3)
    driver.submit(*names)
    assert driver.broker.moves.lane(CPU, CPU, 4, 600, to_level=3) == MoveCounts(600, 0)
    assert driver.places() == {(CPU, 3): ["before", *names]}
    assert driver.broker.moves.tasks([move("t000", CPU, 3, CPU, 9)]) == [MoveOutcome.MOVED], "its text was rewritten"


def test_an_id_that_is_part_of_another_or_in_arguments_finds_its_own_task(driver):
    driver.submit("a1", args=("a",))
    driver.submit("xa", kwargs={"id": "a"})
    driver.submit("a")
    assert driver.broker.moves.tasks([move("a", CPU, 4, GPU)]) == [MoveOutcome.MOVED]
    assert driver.ids(CPU, 4) == ["a1", "xa"]


@pytest.mark.parametrize("task_id", ['qu"ote', "back\\slash", "é漢", "sl/ash", "%d.*[a]", "line\nbreak", " "])
def test_any_id_can_be_moved(driver, task_id):
    driver.submit("before", task_id, "after")
    assert driver.broker.moves.tasks([move(task_id, CPU, 4, GPU, 1)]) == [MoveOutcome.MOVED]
    assert driver.ids(GPU, 1) == [task_id]
    assert driver.broker.records([task_id])[task_id].level == 1


def test_a_gpu_task_is_not_moved_with_keeps_gpu(driver):
    driver.submit("film", lane=GPU, requires=Requires.GPU)
    driver.submit("image", lane=GPU, requires=Requires.GPU_PREFERRED)
    steps = [move("film", GPU, 4, CPU, keeps_gpu=True), move("image", GPU, 4, CPU, keeps_gpu=True)]
    assert driver.broker.moves.tasks(steps) == [MoveOutcome.GPU, MoveOutcome.MOVED]
    assert driver.places() == {(GPU, 4): ["film"], (CPU, 4): ["image"]}


def test_a_move_to_a_workers_lane_makes_that_lane_known(driver):
    driver.submit("a")
    driver.broker.moves.tasks([move("a", CPU, 4, "cpu_standard.w.1")])
    assert driver.places() == {("cpu_standard.w.1", 4): ["a"]}


@pytest.mark.parametrize(
    "broken",
    [
        {"properties": {"delivery_tag": "t", "priority": 4}},
        {"properties": {"delivery_tag": "t", "priority": 4, "delivery_info": {"exchange": ""}}},
        {"properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": CPU}}},
    ],
    ids=["no delivery info", "no routing key", "no priority"],
)
def test_a_message_without_its_fields_stays_as_it_is(driver, broken):
    text = json.dumps({"body": "", "headers": {"id": "odd"}} | broken)
    driver.push(text)
    assert driver.broker.moves.tasks([move("odd", CPU, 4, GPU, 1)]) == [MoveOutcome.FOREIGN]
    assert driver.messages(CPU, 4) == [json.loads(text)]


@pytest.mark.parametrize(
    "how", [{}, {"serializer": "pickle"}, {"compression": "zlib"}, {"compression": "bzip2"}], ids=str
)
def test_messages_of_any_serializer_and_compression_are_moved(driver, how):
    with Celery("producer", broker="memory://", set_as_current=False) as app:
        app.conf.task_serializer = how.get("serializer", "json")
        app.conf.task_compression = how.get("compression")
        from morag_queue.broker.celery_message import MessageBuilder
        from tests.support import broker_drivers

        usual, broker_drivers._WIRE = broker_drivers._WIRE, MessageBuilder(app)
        try:
            driver.submit("a", args=({"n": 1, "empty": {}},))
        finally:
            broker_drivers._WIRE = usual
    (before,) = driver.messages(CPU, 4)
    body = before["body"]
    assert driver.broker.moves.tasks([move("a", CPU, 4, GPU, 1)]) == [MoveOutcome.MOVED]
    assert driver.messages(GPU, 1)[0]["body"] == body


# -- requeue held messages, resend lost tasks


def requeue(driver, task_id, **fields) -> RequeueRequest:
    """The request to requeue a held task to cpu_standard."""
    held = next(one for one in driver.broker.observe()[0].held if one.task_id == task_id)
    known = {"incarnation": held.incarnation, "task_id": task_id, "lane": CPU, "level": 4, "why": "w died"}
    return RequeueRequest(held.tag, **(known | fields))


def resend(driver, task_id) -> ResendRequest:
    """The request to send an open task again, as it was submitted."""
    seen = driver.broker.records([task_id])[task_id].text
    return ResendRequest(task_id, seen, seen, outgoing_message(task_id).text, CPU, 4, "it was lost")


def test_a_requeued_message_is_first_in_its_lane_with_a_new_tag_and_address(driver):
    driver.join("w", slots=2)
    driver.submit("a", lane="cpu_standard.w")
    driver.submit("b")
    assert driver.claim("w") == "a"
    assert driver.broker.requeues.apply([requeue(driver, "a")]) == ["moved"]
    assert driver.places() == {(CPU, 4): ["a", "b"]}
    first = driver.messages(CPU, 4)[0]["properties"]
    assert first["delivery_info"]["routing_key"] == CPU
    assert driver.broker.observe()[0].held == ()
    assert driver.claim("w") == "a"


def test_a_message_is_requeued_once_and_only_from_the_named_holder(driver):
    driver.join("w")
    driver.submit("a")
    driver.claim("w")
    right, wrong = requeue(driver, "a"), requeue(driver, "a", incarnation="w.0")
    assert driver.broker.requeues.apply([wrong, right, right]) == ["gone", "moved", "gone"]
    assert driver.ids(CPU, 4) == ["a"]


def test_a_message_that_was_touched_since_is_not_requeued(driver):
    driver.join("w")
    driver.submit("a")
    driver.claim("w")
    now = driver.broker.now()
    assert driver.broker.requeues.apply([requeue(driver, "a", untouched_since=now - 60)]) == ["gone"]
    assert driver.broker.requeues.apply([requeue(driver, "a", untouched_since=now + 60)]) == ["moved"]


def test_a_requeued_message_gets_an_eta_only_if_it_has_none(driver):
    driver.join("w", slots=2)
    driver.submit("a")
    for eta in ("2030-01-01T00:00:00+00:00", "2040-01-01T00:00:00+00:00"):
        driver.claim("w")
        driver.broker.requeues.apply([requeue(driver, "a", eta=eta)])
        assert driver.messages(CPU, 4)[0]["headers"]["eta"] == "2030-01-01T00:00:00+00:00"


def test_a_task_that_too_many_workers_die_over_is_quarantined(driver):
    driver.join("w")
    driver.submit("a")
    for death in (1, 2, 3):
        driver.claim("w")
        outcome = "moved" if death < 3 else "quarantined"
        assert driver.broker.requeues.apply([requeue(driver, "a", max_deaths=2)]) == [outcome]
        assert driver.broker.evidence.attempts(["a", "b"]) == ({"a": death} if death < 3 else {})
    assert driver.places() == {}
    assert driver.broker.records(["a"])["a"].state == "quarantined"
    assert driver.submit("a") == [False], "a quarantined task is still open"


def test_a_lost_task_is_resent_once_and_first_in_its_lane(driver):
    driver.submit("a")
    driver.join("w")
    assert driver.claim("w") == "a"
    driver.submit("b")
    request = resend(driver, "a")
    request = replace(request, record=json.dumps(json.loads(request.seen) | {"attempts": 1}))
    assert [driver.broker.lost.resend(request, 3) for _ in range(2)] == ["resent", "changed"]
    assert driver.ids(CPU, 4) == ["a", "b"]
    assert driver.broker.evidence.attempts(["a"]) == {"a": 1}


def test_a_task_that_is_lost_too_often_is_quarantined(driver):
    driver.submit("a")
    driver.join("w")
    driver.claim("w")
    assert [driver.broker.lost.resend(resend(driver, "a"), 1) for _ in range(2)] == ["resent", "quarantined"]
    assert driver.broker.records(["a"])["a"].state == "quarantined"


def test_a_plan_of_recovery_is_applied_and_counted(driver):
    driver.join("w", slots=3)
    driver.submit("a", "b", "c")
    assert [driver.claim("w") for _ in range(3)] == ["a", "b", "c"]
    held = driver.broker.observe()[0].held
    steps = [
        TakeBack(
            task_id=one.task_id, tag=one.tag, worker="w", incarnation=one.incarnation, target=CPU, level=4,
            reason="dead", max_deaths=0 if one.task_id == "b" else 3,
        )
        for one in held[::-1]
    ]  # fmt: skip
    lost = Resend(task_id="x", reason="lost")
    plan = Plan(plan_id="p", verb="failover", fleet="", taken_at=0.0, steps=(*steps, lost))
    done = apply(driver.broker, plan) + apply(driver.broker, plan)
    assert (done.plan_id, done.taken_back, done.quarantined, len(done.rejected)) == ("p", 2, 1, 3)
    assert driver.ids(CPU, 4) == ["a", "c"]


def test_a_lost_task_is_resent_to_the_target_of_its_step(driver):
    driver.submit("film", lane="cpu_standard.w", requires=Requires.GPU)
    driver.join("w")
    driver.claim("w")
    step = Resend(task_id="film", reason="lost", target=GPU)
    assert apply(driver.broker, Plan(plan_id="p", verb="sweep", fleet="", taken_at=0.0, steps=(step,))).resent == 1
    assert driver.ids(GPU, 4) == ["film"]
    record = driver.broker.records(["film"])["film"]
    assert (record.queue, record.lane, record.requires) == (GPU, GPU, "gpu")


# -- fences and cordons


def test_only_the_incarnation_that_acts_is_fenced(driver):
    driver.join("w")
    assert driver.broker.evidence.fence("w", "w.0") == "w.1", "another incarnation acts"
    assert driver.broker.evidence.fence("w", "w.1") == ""
    assert driver.broker.observe()[0].worker_by_id["w"].fenced
    assert driver.broker.evidence.fence("w", "w.1") == "fenced"


def test_a_cordon_is_written_over_the_expected_states_only(driver):
    driver.join("w")
    cordoned = Cordon(state=WorkerStatus.CORDONED, who="ann", at=1.0)
    assert driver.broker.cordons.put("w", cordoned, (WorkerStatus.DRAINING,)) is False
    assert driver.broker.cordons.put("w", cordoned, (None,)) is True
    assert driver.broker.cordons.put("w", cordoned, (None,)) is False
    assert driver.broker.cordons.get("w") == driver.broker.observe()[0].worker_by_id["w"].cordon == cordoned
    assert driver.broker.cordons.put("w", None, (WorkerStatus.CORDONED,)) is True
    assert driver.broker.cordons.get("w") is None


def test_a_cordon_past_its_end_is_not_in_force(driver):
    driver.join("w")
    driver.broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED, until=1.0), (None,))
    assert driver.broker.observe()[0].worker_by_id["w"].cordon is None
    assert driver.broker.cordons.put("w", Cordon(state=WorkerStatus.DRAINING), (None,)) is True


def test_a_cordoned_worker_claims_from_its_own_lanes_and_a_draining_one_nothing(driver):
    driver.join("w", slots=2)
    driver.submit("shared")
    driver.submit("own", lane="cpu_standard.w")
    driver.broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED), (None,))
    assert [driver.claim("w"), driver.claim("w")] == ["own", None]
    driver.broker.cordons.put("w", Cordon(state=WorkerStatus.DRAINING), (WorkerStatus.CORDONED,))
    driver.submit("late", lane="cpu_standard.w")
    assert driver.claim("w") is None


# -- the lease, and what it fences


def test_a_second_holder_gets_the_lease_of_the_first(driver):
    mine = driver.broker.leases.take("me", "ann", "watch", 60)
    theirs = driver.broker.leases.take("you", "bob", "watch", 60)
    assert (mine.holder, mine.term, mine.who, mine.verb) == ("me", 1, "ann", "watch")
    assert theirs == mine == driver.broker.leases.current()
    assert mine.until - mine.since == pytest.approx(60, abs=0.01)


def test_taking_ones_own_lease_again_keeps_the_term(driver):
    first = driver.broker.leases.take("me", "ann", "watch", 60)
    again = driver.broker.leases.take("me", "ann", "watch", 90)
    assert (again.term, again.since) == (first.term, first.since)
    assert again.until > first.until + 29


def test_a_renewed_lease_expires_later(driver):
    lease = driver.broker.leases.take("me", "ann", "watch", 60)
    renewed = driver.broker.leases.renew(lease, 90)
    assert renewed is not None
    assert (renewed.term, driver.broker.leases.current()) == (1, renewed)


def test_after_expiry_another_holder_gets_a_new_term_and_the_old_lease_is_void(driver):
    old = driver.broker.leases.take("me", "ann", "watch", 60)
    driver.expire_lease()
    assert driver.broker.leases.current() is None
    new = driver.broker.leases.take("you", "bob", "watch", 60)
    assert (new.holder, new.term) == ("you", 2)
    assert driver.broker.leases.renew(old, 60) is None
    assert driver.broker.leases.give_up(old) is False
    assert driver.broker.leases.current() == new


def test_a_lease_given_up_is_free_and_its_term_is_not_reused(driver):
    lease = driver.broker.leases.take("me", "ann", "watch", 60)
    assert driver.broker.leases.give_up(lease) is True
    assert driver.broker.leases.current() is None
    assert driver.broker.leases.take("me", "ann", "watch", 60).term == 2


def test_a_holder_that_returns_after_expiry_gets_a_new_term(driver):
    driver.broker.leases.take("me", "ann", "watch", 60)
    driver.expire_lease()
    assert driver.broker.leases.take("me", "ann", "watch", 60).term == 2


def test_a_snapshot_names_the_leader(driver):
    assert driver.broker.observe()[0].leader is None
    driver.broker.leases.take("me", "ann", "watch", 60)
    leader = driver.broker.observe()[0].leader
    assert (leader.holder, leader.term, leader.who) == ("me", 1, "ann")


def test_a_write_with_an_expired_term_changes_nothing(driver):
    driver.submit("a", "b")
    driver.submit("c", lane="cpu_standard.w")
    driver.broker.leases.take("me", "ann", "watch", 60)
    driver.expire_lease()
    for renewed in (False, True):  # without a new leader, and with one
        if renewed:
            driver.broker.leases.take("you", "bob", "watch", 60)
        with pytest.raises(LeaseLost, match="later changes were rejected"):
            driver.broker.moves.tasks([move("a", CPU, 4, GPU)], term="1")
        with pytest.raises(LeaseLost):
            driver.broker.moves.lane("cpu_standard.w", CPU, 4, 1, term="1")
        with pytest.raises(LeaseLost):
            driver.broker.state_store.save(BalancerState(at=1.0), term="1")
        with pytest.raises(LeaseLost):
            driver.broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED), (None,), term="1")
        with pytest.raises(LeaseLost), driver.broker.translated():
            driver.broker.requeues.apply([RequeueRequest("tag", "w.1", "a", CPU, 4)], term="1")
        with pytest.raises(LeaseLost), driver.broker.translated():
            driver.broker.lost.resend(resend(driver, "a"), 3, term="1")
    assert driver.places() == {(CPU, 4): ["a", "b"], ("cpu_standard.w", 4): ["c"]}
    assert driver.broker.state_store.load() == BalancerState()


def test_a_write_with_the_current_term_is_accepted(driver):
    driver.submit("a")
    driver.submit("c", lane="cpu_standard.w")
    driver.broker.leases.take("me", "ann", "watch", 60)
    assert driver.broker.moves.tasks([move("a", CPU, 4, GPU)], term="1") == [MoveOutcome.MOVED]
    assert driver.broker.moves.lane("cpu_standard.w", CPU, 4, 1, term="1") == MoveCounts(1, 0)
    driver.broker.state_store.save(BalancerState(at=1.0), term="1")
    assert driver.broker.state_store.load().at == 1.0


# -- the journal and the balancer state


def test_the_journal_keeps_order_and_finds_entries_by_id(driver):
    ids = [driver.broker.journal.write("ann", "drain", f"w{n}", reason="disk", changes={"n": n}) for n in range(3)]
    assert [one.entry_id for one in driver.broker.journal.latest(2)] == ids[:0:-1]
    entry = driver.broker.journal.get(ids[0])
    assert entry is not None
    assert (entry.who, entry.verb, entry.subject, entry.reason, entry.changes) == (
        "ann",
        "drain",
        "w0",
        "disk",
        {"n": 0},
    )
    assert entry.at == pytest.approx(driver.broker.now(), abs=5)
    assert driver.broker.journal.get("1-1") is None


def test_a_saved_balancer_state_is_loaded_unchanged(driver):
    memory = BalancerState(
        at=5.0, tick_at=5.0, tick_moves=2, tokens={"gpu": 1.5}, moved={"a": MoveRecord(count=1, at=4.0)}
    )
    driver.broker.state_store.save(memory)
    assert driver.broker.state_store.load() == memory
