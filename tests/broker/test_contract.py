"""What every broker promises, run on the real one and on the one in memory."""

import json
from collections.abc import Iterator

import pytest
from celery import Celery

from morag_queue.broker.contract import MoveCounts, MoveOutcome
from morag_queue.core.balancing.state import BalancerState, MoveRecord
from morag_queue.core.model import QueueType, Requires
from morag_queue.errors import LeaseLost
from tests.support.broker_drivers import BrokerDriver, MemoryDriver, RedisDriver, move, outgoing_message

CPU, GPU = "cpu_standard", "gpu_priority"
CPU_ONLY = frozenset({QueueType.CPU_STANDARD, QueueType.CPU_BATCH})


@pytest.fixture(params=["memory", "redis"])
def rig(request: pytest.FixtureRequest) -> Iterator[BrokerDriver]:
    if request.param == "memory":
        yield MemoryDriver()
    else:
        yield RedisDriver(request.getfixturevalue("valkey"))


# -- submit, observe


def test_what_is_submitted_waits_in_its_order_at_its_level(rig):
    assert rig.submit("a", "b", "c") == [True, True, True]
    assert rig.submit("u", level=0) == [True]
    assert rig.places() == {(CPU, 4): ["a", "b", "c"], (CPU, 0): ["u"]}


def test_an_id_that_is_still_open_is_refused_and_the_others_are_queued(rig):
    rig.submit("a")
    assert rig.submit("a", "b") == [False, True]
    assert rig.ids(CPU, 4) == ["a", "b"]


def test_the_same_call_again_is_no_second_submit(rig):
    message = outgoing_message("a")
    assert [rig.broker.submit([message]), rig.broker.submit([message])] == [[True], [True]]
    assert rig.ids(CPU, 4) == ["a"]


def test_an_id_may_be_used_again_when_it_has_ended(rig):
    rig.join("w")
    rig.submit("a")
    rig.claim("w")
    rig.end("a")
    assert rig.submit("a") == [True]


def test_the_picture_has_lengths_and_both_ends(rig):
    rig.submit("a", "b", "c", "d", "e")
    view = rig.broker.observe(depth=2)[0].lane_by_name[CPU]
    assert view.lengths == (0, 0, 0, 0, 5, 0, 0, 0, 0, 0)
    assert [one.task_id for one in view.heads[4]] == ["a", "b"]
    assert [one.task_id for one in view.tails[4]] == ["e", "d"]
    assert view.oldest == 1000.0


def test_the_picture_of_a_workers_lane_has_the_oldest_alone(rig):
    rig.submit("a", "b", lane="cpu_standard.w")
    view = rig.broker.observe(depth=2)[0].lane_by_name["cpu_standard.w"]
    assert ([one.task_id for one in view.heads[4]], view.tails[4], view.worker) == (["a"], (), "w")


def test_what_is_foreign_is_counted_and_in_no_end(rig):
    rig.push("not json")
    view = rig.broker.observe()[0].lane_by_name[CPU]
    assert (view.foreign, view.heads[4], view.length) == (1, (), 1)


def test_a_claimed_task_is_in_hands_and_in_no_lane(rig):
    rig.join("w", slots=2)
    rig.submit("a", "b")
    assert rig.claim("w") == "a"
    snapshot = rig.broker.observe()[0]
    (held,) = snapshot.held
    assert (held.task_id, held.worker, held.lane, held.level) == ("a", "w", CPU, 4)
    assert rig.ids(CPU, 4) == ["b"]
    assert snapshot.held_count(snapshot.worker_by_id["w"]) == 1


def test_urgent_goes_first_then_ones_own_lane_then_the_shared_one(rig):
    rig.join("w")
    rig.submit("shared")
    rig.submit("own", lane="cpu_standard.w")
    rig.submit("urgent", level=0)
    assert [rig.claim("w") for _ in range(4)] == ["urgent", "own", "shared", None]


def test_a_foreign_message_is_passed_over_and_stays(rig):
    rig.join("w")
    rig.push("not json")
    rig.submit("a")
    assert [rig.claim("w"), rig.claim("w")] == ["a", None]
    assert rig.ids(CPU, 4) == ["not json"]


def test_what_has_ended_is_in_the_records_the_totals_and_the_windows(rig):
    rig.join("w")
    rig.submit("a", "b")
    rig.claim("w")
    rig.end("a", run_seconds=30)
    snapshot, totals = rig.broker.observe()
    assert rig.broker.records(["a", "b", "none"]).keys() == {"a", "b"}
    assert [rig.broker.records([one])[one]["state"] for one in ("a", "b")] == ["completed", "queued"]
    assert (totals[QueueType.CPU_STANDARD].completed, snapshot.worker_by_id["w"].totals.completed) == (1, 1)
    window = rig.broker.windows(snapshot.taken_at, 600)[QueueType.CPU_STANDARD]
    assert (window.seconds, window.arrivals, window.completed) == (600, 2, 1)
    assert window.mean_run_seconds == pytest.approx(30)
    assert rig.broker.windows(snapshot.taken_at, 600)[QueueType.GPU_PRIORITY].arrivals == 0


# -- whole lanes


def test_a_lane_is_moved_behind_those_that_wait_in_its_order(rig):
    rig.submit("x")
    rig.submit("a", "b", "c", lane="cpu_standard.w")
    rig.submit("other level", lane="cpu_standard.w", level=6)
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 3) == MoveCounts(3, 0)
    assert rig.places() == {(CPU, 4): ["x", "a", "b", "c"], ("cpu_standard.w", 6): ["other level"]}
    assert rig.messages(CPU, 4)[1]["properties"]["delivery_info"] == {"exchange": "", "routing_key": CPU}


def test_a_workers_lane_that_was_never_used_is_known_once_something_is_in_it(rig):
    rig.submit("a")
    rig.broker.moves.lane(CPU, "cpu_standard.new", 4, 1)
    assert rig.places() == {("cpu_standard.new", 4): ["a"]}


def test_no_more_is_moved_than_was_asked_for(rig):
    rig.submit("a", "b", "c", lane="cpu_standard.w")
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 2) == MoveCounts(2, 0)
    assert rig.places() == {(CPU, 4): ["a", "b"], ("cpu_standard.w", 4): ["c"]}


def test_foreign_messages_stay_where_they_are_in_their_order(rig):
    for n in range(3):
        rig.push(f"foreign {n}", "cpu_standard.w")
        rig.submit(f"t{n}", lane="cpu_standard.w")
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 6) == MoveCounts(3, 3)
    assert rig.ids(CPU, 4) == ["t0", "t1", "t2"]
    assert rig.ids("cpu_standard.w", 4) == ["foreign 0", "foreign 1", "foreign 2"]


@pytest.mark.parametrize("foreign_at", [0, 3, 250, 600, 999])
def test_foreign_messages_among_many_keep_nobody_back(rig, foreign_at):
    names = [f"t{n:04}" for n in range(1000)]
    rig.submit(*names[:foreign_at], lane="cpu_standard.w")
    rig.push("foreign 1", "cpu_standard.w")
    rig.push("foreign 2", "cpu_standard.w")
    rig.submit(*names[foreign_at:], lane="cpu_standard.w")
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 1002) == MoveCounts(1000, 2)
    assert rig.places() == {(CPU, 4): names, ("cpu_standard.w", 4): ["foreign 1", "foreign 2"]}


def test_what_needs_a_gpu_stays_where_that_is_asked_for(rig):
    rig.submit("film", lane="cpu_standard.w", requires=Requires.GPU)
    rig.submit("page", lane="cpu_standard.w", kwargs={"requires": "gpu"})
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 2, keeps_gpu=True) == MoveCounts(1, 0, 1)
    assert rig.places() == {(CPU, 4): ["page"], ("cpu_standard.w", 4): ["film"]}


def test_a_lane_that_is_empty_moves_nothing(rig):
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 10) == MoveCounts(0, 0)


# -- one task


def test_one_task_goes_to_another_lane_and_level_and_is_written_so_everywhere(rig):
    rig.submit("a", "b", "c", kwargs={"lane": "x", "level": 7, "nested": {"priority": 4, "empty": {}, "list": []}})
    rig.submit("z", lane=GPU, level=2)
    assert rig.broker.moves.tasks([move("b", CPU, 4, GPU, 2)]) == [MoveOutcome.MOVED]
    assert rig.places() == {(CPU, 4): ["a", "c"], (GPU, 2): ["z", "b"]}
    moved = rig.messages(GPU, 2)[1]
    assert (moved["properties"]["priority"], moved["properties"]["delivery_info"]["routing_key"]) == (2, GPU)
    assert moved["headers"]["morag_queue"]["priority"] == "NORMAL"
    record = rig.broker.records(["b"])["b"]
    assert (record["lane"], record["level"], record["priority"]) == (GPU, 2, "NORMAL")
    assert record["kwargs"] == {"lane": "x", "level": 7, "nested": {"priority": 4, "empty": {}, "list": []}}


def test_nothing_else_of_a_moved_message_is_changed(rig):
    odd = {"priority": 4, "routing_key": CPU, "text": '"priority": 4, "routing_key": "cpu_standard"', "é": "\u2028"}
    rig.submit("a", args=(odd, {}, [], 1e300, None), source="s")
    (before,) = rig.messages(CPU, 4)
    before = json.loads(json.dumps(before))
    rig.broker.moves.tasks([move("a", CPU, 4, GPU, 1)])
    (after,) = rig.messages(GPU, 1)
    before["properties"] |= {"priority": 1, "delivery_info": {"exchange": "", "routing_key": GPU}}
    assert after == before


def test_a_move_inside_a_lane_brings_a_task_forward(rig):
    rig.submit("a", "b")
    assert rig.broker.moves.tasks([move("b", CPU, 4, CPU, 1)]) == [MoveOutcome.MOVED]
    assert rig.places() == {(CPU, 1): ["b"], (CPU, 4): ["a"]}


def test_a_task_that_is_no_longer_there_is_refused_and_the_others_are_moved(rig):
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


def test_an_id_that_is_part_of_another_or_stands_in_arguments_finds_its_own_task(rig):
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
    assert rig.broker.records([task_id])[task_id]["level"] == 1


def test_what_needs_a_gpu_does_not_enter_a_lane_that_a_worker_without_one_reads(rig):
    rig.submit("film", lane=GPU, requires=Requires.GPU)
    rig.submit("image", lane=GPU, requires=Requires.GPU_PREFERRED)
    steps = [move("film", GPU, 4, CPU), move("image", GPU, 4, CPU)]
    assert rig.broker.moves.tasks(steps, CPU_ONLY) == [MoveOutcome.GPU, MoveOutcome.MOVED]
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


# -- the lease, and what it fences


def test_one_leads_and_another_is_told_who(rig):
    mine = rig.broker.leases.take("me", "ann", "watch", 60)
    theirs = rig.broker.leases.take("you", "bob", "watch", 60)
    assert (mine.holder, mine.term, mine.who, mine.verb) == ("me", 1, "ann", "watch")
    assert theirs == mine == rig.broker.leases.current()
    assert mine.until - mine.since == pytest.approx(60, abs=0.01)


def test_who_takes_it_again_keeps_the_term(rig):
    first = rig.broker.leases.take("me", "ann", "watch", 60)
    again = rig.broker.leases.take("me", "ann", "watch", 90)
    assert (again.term, again.since) == (first.term, first.since)
    assert again.until > first.until + 29


def test_a_renewed_lease_lives_from_now_on(rig):
    lease = rig.broker.leases.take("me", "ann", "watch", 60)
    renewed = rig.broker.leases.renew(lease, 90)
    assert renewed is not None
    assert (renewed.term, rig.broker.leases.current()) == (1, renewed)


def test_after_its_end_another_leads_with_a_new_term_and_the_old_one_is_out(rig):
    old = rig.broker.leases.take("me", "ann", "watch", 60)
    rig.expire_lease()
    assert rig.broker.leases.current() is None
    new = rig.broker.leases.take("you", "bob", "watch", 60)
    assert (new.holder, new.term) == ("you", 2)
    assert rig.broker.leases.renew(old, 60) is None
    assert rig.broker.leases.give_up(old) is False
    assert rig.broker.leases.current() == new


def test_a_lease_that_is_given_up_is_free_and_its_term_never_comes_again(rig):
    lease = rig.broker.leases.take("me", "ann", "watch", 60)
    assert rig.broker.leases.give_up(lease) is True
    assert rig.broker.leases.current() is None
    assert rig.broker.leases.take("me", "ann", "watch", 60).term == 2


def test_a_holder_that_comes_back_after_the_end_has_a_new_term(rig):
    rig.broker.leases.take("me", "ann", "watch", 60)
    rig.expire_lease()
    assert rig.broker.leases.take("me", "ann", "watch", 60).term == 2


def test_the_picture_names_the_leader(rig):
    assert rig.broker.observe()[0].leader is None
    rig.broker.leases.take("me", "ann", "watch", 60)
    leader = rig.broker.observe()[0].leader
    assert (leader.holder, leader.term, leader.who) == ("me", 1, "ann")


def test_a_term_that_is_over_changes_nothing(rig):
    rig.submit("a", "b")
    rig.submit("c", lane="cpu_standard.w")
    rig.broker.leases.take("me", "ann", "watch", 60)
    rig.expire_lease()
    for renewed in (False, True):  # with nobody in its place, and with somebody
        if renewed:
            rig.broker.leases.take("you", "bob", "watch", 60)
        with pytest.raises(LeaseLost, match="nothing more was changed"):
            rig.broker.moves.tasks([move("a", CPU, 4, GPU)], term="1")
        with pytest.raises(LeaseLost):
            rig.broker.moves.lane("cpu_standard.w", CPU, 4, 1, term="1")
        with pytest.raises(LeaseLost):
            rig.broker.state_store.save(BalancerState(at=1.0), term="1")
    assert rig.places() == {(CPU, 4): ["a", "b"], ("cpu_standard.w", 4): ["c"]}
    assert rig.broker.state_store.load() == BalancerState()


def test_the_present_term_changes_things(rig):
    rig.submit("a")
    rig.submit("c", lane="cpu_standard.w")
    rig.broker.leases.take("me", "ann", "watch", 60)
    assert rig.broker.moves.tasks([move("a", CPU, 4, GPU)], term="1") == [MoveOutcome.MOVED]
    assert rig.broker.moves.lane("cpu_standard.w", CPU, 4, 1, term="1") == MoveCounts(1, 0)
    rig.broker.state_store.save(BalancerState(at=1.0), term="1")
    assert rig.broker.state_store.load().at == 1.0


# -- the journal and the memory of the loop


def test_the_journal_keeps_the_order_and_gives_each_entry_by_its_id(rig):
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


def test_the_memory_of_the_loop_comes_back_as_it_was(rig):
    memory = BalancerState(
        at=5.0, tick_at=5.0, tick_moves=2, tokens={"gpu": 1.5}, moved={"a": MoveRecord(count=1, at=4.0)}
    )
    rig.broker.state_store.save(memory)
    assert rig.broker.state_store.load() == memory
