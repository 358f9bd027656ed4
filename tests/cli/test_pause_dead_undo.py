"""`pause`, `resume`, `dead` and `journal undo` on the command line."""

import json

import pytest

from morag_queue.broker.recovery import RequeueRequest
from morag_queue.core.plan import MoveTask

LIMIT = 3


@pytest.fixture
def fleet(stage, mq):
    return lambda *args, **more: mq(*args, env={"REDIS_URL": stage.url, "USER": "ann"}, **more)


@pytest.fixture
def fail(stage):
    """Runs a task until it fails."""

    def failed(task_id, error="ValueError: no"):
        stage.submit(task_id, source=f"https://example.org/{task_id}")
        while stage.claim("cpu-1") != task_id:
            pass
        stage.end(task_id, "failed", error)

    stage.join("cpu-1")
    return failed


def quarantine(stage, task_id):
    """Its workers die over it until it is set aside."""
    stage.submit(task_id)
    while stage.broker.dead.get(task_id) is None:
        assert stage.claim("cpu-1") == task_id
        assert die(stage)


def die(stage):
    taken = stage.broker.observe()[0].held
    returns = [
        RequeueRequest(one.tag, one.incarnation, one.task_id, one.lane, one.level, "worker died", LIMIT)
        for one in taken
    ]
    return stage.broker.requeues.apply(returns)


# -- pause


def test_a_paused_queue_hands_out_nothing_until_resume(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a")
    assert (
        fleet("pause", "cpu_s", "--reason", "disk full").out == "cpu_standard is paused (1 wait, 0 in workers' hands)\n"
    )
    assert stage.claim("cpu-1") is None
    stage.submit("other", queue="cpu_batch", priority="BATCH")
    assert stage.claim("cpu-1") == "other"
    assert fleet("pause", "cpu_standard", "--json").json["changed"] is False
    fleet("resume", "cpu_standard")
    assert stage.claim("cpu-1") == "a"
    verbs = [(entry.verb, entry.subject, entry.reason) for entry in stage.broker.journal.latest(9)]
    assert verbs == [("resume", "cpu_standard", ""), ("pause", "cpu_standard", "disk full")]


def test_a_pause_is_shown_everywhere(stage, fleet):
    stage.join("cpu-1")
    fleet("pause", "cpu_standard")
    stage.submit("a")
    stats = {queue["queue_type"]: queue["paused"] for queue in fleet("stats", "--json").json["queues"]}
    assert stats == {"gpu_priority": False, "gpu_fallback": False, "cpu_standard": True, "cpu_batch": False}
    assert "cpu_standard (paused)" in fleet("stats").out
    why = fleet("task", "why", "a", "--json").json
    assert (why["reason_code"], why["expected_start"]) == ("QUEUE_PAUSED", None)


def test_a_dry_run_pauses_nothing(stage, fleet):
    assert "cpu_batch would be paused" in fleet("pause", "cpu_batch", "--dry-run").out
    assert fleet("stats", "--json").json["queues"][3]["paused"] is False


@pytest.mark.parametrize(("name", "status"), [("nope", 8), ("gpu", 2), ("", 8)])
def test_a_queue_that_is_not_there_or_ambiguous_is_named(fleet, name, status):
    assert f"queue {name!r}" in fleet("pause", name, status=status).err


def test_who_does_not_look_at_a_pause_is_named(stage, fleet):
    stage.join("cpu-1", claims=False)
    assert "cpu-1 take messages in Celery's own way" in fleet("pause", "cpu_batch").err


# -- dead


def test_dead_lists_failed_and_quarantined_tasks_with_their_reasons(stage, fleet, fail):
    fail("f-1", "ValueError: no such page")
    quarantine(stage, "q-1")
    page = fleet("dead", "ls", "--json").json
    told = {task["task_id"]: (task["state"], task["error"]) for task in page["dead"]}
    assert told["f-1"] == ("failed", "ValueError: no such page")
    assert told["q-1"][0] == "quarantined"
    assert page["total"] == 2
    assert [task["task_id"] for task in fleet("tasks", "--state", "failed", "--json").json["tasks"]] == ["f-1"]
    assert "no such page" in fleet("dead", "ls", "--state", "failed").out
    assert fleet("task", "why", "q-1", "--json").json["reason_code"] == "QUARANTINED"


def test_dead_show_tells_the_story(stage, fleet, fail):
    quarantine(stage, "q-1")
    shown = fleet("dead", "show", "q", "--json").json
    assert [(worker, why) for _, worker, why in shown["story"]] == [("cpu-1", "worker died")] * (LIMIT + 1)
    assert shown["args"] == ["https://example.org/report.html", {}]
    assert "cpu-1: worker died" in fleet("dead", "show", "q-1").out
    assert "no task in dead 'x'" in fleet("dead", "show", "x", status=8).err


def test_a_failed_task_of_plain_celery_can_be_run_again_too(stage, fleet):
    stage.join("cpu-1")
    stage.send("foreign")
    body = stage.message("cpu_standard", 4)["body"]
    stage.claim("cpu-1")
    stage.end("foreign", "failed", "KeyError: x")
    fleet("dead", "requeue", "foreign")
    assert stage.message("cpu_standard", 4)["body"] == body
    assert stage.claim("cpu-1") == "foreign"


def test_requeue_without_reset_sets_it_aside_again_when_one_more_worker_dies(stage, fleet, fail):
    quarantine(stage, "q-1")
    fleet("dead", "requeue", "q-1", "--reason", "new driver")
    assert fleet("dead", "ls", "--json").json["total"] == 0
    assert stage.claim("cpu-1") == "q-1"
    assert die(stage) == ["quarantined"]
    assert len(fleet("dead", "show", "q-1", "--json").json["story"]) == LIMIT + 2


def test_requeue_with_reset_starts_as_if_it_were_new(stage, fleet, fail):
    quarantine(stage, "q-1")
    fleet("dead", "requeue", "q-1", "--reset")
    assert stage.claim("cpu-1") == "q-1"
    die(stage)
    assert stage.broker.dead.get("q-1") is None
    assert fleet("task", "show", "q-1", "--json").json["task"]["attempts"] == 1
    assert stage.broker.records(["q-1"])["q-1"]["state"] == "queued"


def test_the_second_requeue_is_quiet(stage, fleet, fail):
    fail("f-1")
    assert fleet("dead", "requeue", "f-1", "--json").json["changed"] == 1
    again = fleet("dead", "requeue", "f-1", "--json").json
    assert (again["changed"], again["unchanged"]) == (0, 1)


def test_all_need_a_yes(stage, fleet, fail):
    fail("f-1")
    fail("f-2")
    assert "2 tasks; nothing was changed: add --yes" in fleet("dead", "requeue", "--all", status=5).err
    assert fleet("dead", "requeue", "--all", "--yes", "--json").json["changed"] == 2
    assert "give ids, or a filter" in fleet("dead", "drop", status=2).err
    assert "give ids, or a filter" in fleet("dead", "drop", "x", "--all", status=2).err


def test_drop_forgets_for_good_and_the_second_time_is_quiet(stage, fleet, fail):
    fail("f-1")
    quarantine(stage, "q-1")
    assert fleet("dead", "drop", "--all", "--dry-run").out == "2 would be dropped\n"
    assert fleet("dead", "drop", "f-1", "q-1").out == "2 dropped\n"
    assert fleet("dead", "ls", "--json").json["total"] == 0
    assert stage.client.ttl(stage.keys.task("q-1")) > 0
    assert fleet("dead", "drop", "f-1", "q-1").out == "0 dropped, 2 already\n"
    assert "no task in dead 'nobody'" in fleet("dead", "drop", "nobody", status=8).err
    entry = stage.broker.journal.latest(1)[0]
    assert (entry.verb, entry.changes["dropped"]) == ("dead drop", ["f-1", "q-1"])


def test_a_task_that_waits_is_not_in_dead_and_is_not_called_dropped(stage, fleet):
    stage.submit("waits")
    assert "no task in dead 'waits'" in fleet("dead", "drop", "waits", status=8).err


def test_a_task_that_runs_well_after_all_leaves_its_grave(stage, fleet, fail):
    fail("f-1")
    stage.submit("f-1")
    assert fleet("task", "why", "f-1", "--json").json["state"] == "queued"
    stage.claim("cpu-1")
    stage.end("f-1")
    assert fleet("dead", "ls", "--json").json["total"] == 0


def test_only_so_many_dead_tasks_are_kept_the_oldest_goes(stage, fail):
    fail("first")
    stage.client.zadd(stage.keys.graves, {"first": 1} | {f"x-{n}": 2 for n in range(9_999)})
    fail("last")
    assert [grave.task_id for grave in stage.broker.dead.all()] == ["last"]


def test_hostile_errors_are_harmless_in_the_table_and_whole_in_json(stage, fleet, fail):
    error = "ValueError: \x1b[2J[bold]x[/]\u202e\n" + "y" * 10_000
    fail("f-1", error)
    for args in (("dead", "ls"), ("dead", "show", "f-1"), ("task", "why", "f-1")):
        shown = fleet(*args).out
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "[bold]x[/]" in fleet("dead", "ls").out
    assert fleet("dead", "ls", "--json").json["dead"][0]["error"] == error


# -- undo


def last(stage):
    return stage.broker.journal.latest(1)[0].entry_id


def test_undo_of_a_cancel_sends_the_task_again(stage, fleet):
    stage.submit("a", "b")
    fleet("task", "cancel", "a", "b")
    entry = last(stage)
    assert fleet("journal", "undo", entry).out == "task cancel: 2 taken back\n"
    assert sorted(stage.ids("cpu_standard", 4)) == ["a", "b"]
    assert fleet("journal", "undo", entry, "--json").json["unchanged"] == 2
    assert stage.broker.journal.latest(1)[0].reason == f"undo of {entry}"


def test_undo_of_a_cancel_does_not_run_again_what_has_run_since(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a")
    fleet("task", "cancel", "a")
    entry = last(stage)
    fleet("task", "retry", "a")
    stage.claim("cpu-1")
    stage.end("a")
    assert "was sent again since, and has ended (completed)" in fleet("journal", "undo", entry, status=5).err


def test_undo_of_prio_and_move_puts_back_what_still_waits_there(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a", "b", "c")
    before = {one: json.loads(json.dumps(stage.broker.records([one])[one])) for one in ("a", "b", "c")}
    fleet("task", "prio", "a", "b", "c", "URGENT")
    entry = last(stage)
    assert stage.claim("cpu-1") == "a"
    fleet("task", "prio", "b", "HIGH")
    result = fleet("journal", "undo", entry, "--json", status=3)
    assert {one["subject"]: one["reason"] for one in result.json["not_undone"]} == {
        "a": "it no longer waits",
        "b": "it was changed again since",
    }
    assert stage.ids("cpu_standard", 4) == ["c"]
    assert stage.broker.records(["c"])["c"] == before["c"]
    fleet("task", "move", "c", "--to-worker", "cpu-1")
    fleet("journal", "undo", last(stage))
    assert stage.ids("cpu_standard", 4) == ["c"]
    assert "worker" not in stage.message("cpu_standard", 4)["headers"]["morag_queue"]


def test_undo_of_a_pause_resumes_and_of_a_cordon_uncordons(stage, fleet):
    stage.join("cpu-1")
    fleet("pause", "cpu_batch")
    fleet("journal", "undo", last(stage))
    assert stage.broker.observe()[0].paused == frozenset()
    fleet("cordon", "cpu-1")
    fleet("journal", "undo", last(stage))
    assert stage.broker.observe()[0].workers[0].cordon is None


def test_what_cannot_be_taken_back_is_said(stage, fleet, fail):
    fail("f-1")
    fleet("dead", "drop", "f-1")
    assert "cannot be undone" in fleet("journal", "undo", last(stage), status=5).err
    swept = stage.broker.journal.write("watch", "watch", "the fleet", changes={"moved": 1, "tasks": ["a"]})
    assert "the journal does not keep the state before it" in fleet("journal", "undo", swept, status=5).err
    assert "no journal entry '17'" in fleet("journal", "undo", "17-99", status=8).err.replace("17-99", "17")


def test_undo_of_a_requeue_cancels_what_still_waits(stage, fleet, fail):
    fail("f-1")
    fleet("dead", "requeue", "f-1")
    fleet("journal", "undo", last(stage))
    assert fleet("task", "why", "f-1", "--json").json["reason_code"] == "CANCELLED"


def test_a_dry_run_of_undo_changes_nothing(stage, fleet):
    stage.submit("a")
    fleet("task", "cancel", "a")
    assert fleet("journal", "undo", last(stage), "--dry-run").out == "task cancel: 1 would be taken back\n"
    assert stage.ids("cpu_standard", 4) == []


def test_undo_of_a_balancing_turn_moves_its_tasks_back_and_tells_what_went_as_a_whole(stage, fleet):
    stage.submit("a", "b")
    move = MoveTask(
        task_id="a", source="cpu_standard", target="cpu_batch", level=4, to_level=1, reason="starving"
    )  # fmt: skip
    assert stage.broker.moves.tasks([move]) == ["moved"]
    changes = {
        "moved": 1,
        "tasks": {"a": ["cpu_standard", 4, "cpu_batch", 1, "starving"]},
        "lanes": [["cpu_batch.cpu-9", 3, "cpu_batch", 7, "its worker is dead"]],
    }
    entry = stage.broker.journal.write("watch", "rebalance", "fleet", changes=changes)
    assert fleet("task", "why", "a", "--json").json["decisions"][-1]["reason"] == "starving"
    result = fleet("journal", "undo", entry, status=3)
    assert "not taken back: cpu_batch.cpu-9, level 3: 7 went to cpu_batch as a whole" in result.err
    assert stage.ids("cpu_standard", 4) == ["b", "a"]
