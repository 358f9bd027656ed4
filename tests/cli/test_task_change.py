"""`task cancel|move|prio|retry` on the command line, against what then is on the broker."""

import pytest

from tests.cli.conftest import Terminal


@pytest.fixture
def fleet(stage, mq):
    return lambda *args, **more: mq(*args, env={"REDIS_URL": stage.url, "USER": "ann"}, **more)


def outcomes(result):
    return {task["task_id"]: task["outcome"] for task in result.json["tasks"]}


# -- cancel


def test_cancel_takes_a_waiting_task_out_of_its_lane_and_the_second_time_says_so(stage, fleet):
    stage.submit("a", "b", "c")
    answer = fleet("task", "cancel", "b", "--reason", "wrong file", "--json")
    assert outcomes(answer) == {"b": "cancelled"}
    assert stage.ids("cpu_standard", 4) == ["a", "c"]
    shown = fleet("task", "show", "b", "--json").json
    assert (shown["task"]["state"], shown["task"]["error"], shown["reason_code"]) == (
        "cancelled",
        "wrong file",
        "CANCELLED",
    )
    assert shown["args"] == ["https://example.org/report.html", {}]
    again = fleet("task", "cancel", "b", "--json")
    assert (outcomes(again), again.json["changed"], again.json["journal"]) == ({"b": "unchanged"}, 0, None)


def test_cancel_is_written_down_with_who_and_why(stage, fleet):
    stage.submit("a", "b")
    entry_id = fleet("task", "cancel", "a", "b", "--reason", "typo", "--json").json["journal"]
    entry = stage.broker.journal.get(entry_id)
    assert (entry.verb, entry.subject, entry.reason, entry.changes["count"]) == ("task cancel", "2 tasks", "typo", 2)
    assert entry.who.startswith("ann@")
    assert fleet("task", "why", "a", "--json").json["decisions"][-1]["reason"] == "typo"


def test_cancel_of_a_task_of_plain_celery_works_too(stage, fleet):
    stage.send("foreign")
    fleet("task", "cancel", "foreign")
    assert stage.ids("cpu_standard", 4) == []
    assert outcomes(fleet("task", "cancel", "foreign", "--json")) == {"foreign": "unchanged"}


def test_a_dry_run_changes_nothing(stage, fleet):
    stage.submit("a")
    assert "1 would be changed" in fleet("task", "cancel", "a", "--dry-run").out
    fleet("task", "prio", "a", "URGENT", "--dry-run")
    fleet("task", "move", "a", "--to-queue", "cpu_batch", "--dry-run")
    assert stage.ids("cpu_standard", 4) == ["a"]
    assert stage.broker.journal.latest(5) == []


def test_a_running_task_is_stopped_only_where_its_process_may_be_killed(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a")
    stage.claim("cpu-1")
    assert "kill its process with --terminate" in fleet("task", "cancel", "a", status=5).err
    answer = fleet("task", "cancel", "a", "--terminate", "--json").json
    assert answer["tasks"][0]["outcome"] == "revoked"
    assert "what the task did so far is not undone" in answer["tasks"][0]["detail"]


def test_a_reserved_task_is_revoked_with_what_that_can_do(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a", "b")
    stage.claim("cpu-1")
    stage.claim("cpu-1")
    detail = fleet("task", "cancel", "b", "--json").json["tasks"][0]["detail"]
    assert detail == "cpu-1 was told to drop it: it will not run, there or elsewhere"
    again = fleet("task", "cancel", "b", "--json").json
    assert (again["changed"], again["unchanged"]) == (0, 1)
    assert "it was cancelled: its worker was told to drop it" in fleet("task", "why", "b").out
    fleet("drain", "cpu-1", "--force")
    assert stage.ids("cpu_standard", 4) == ["a"], "it is given to nobody else"
    assert stage.broker.records(["b"])["b"]["state"] == "cancelled"
    assert fleet("task", "why", "b", "--json").json["state"] == "cancelled"
    assert not stage.client.exists(stage.keys.unacked, stage.keys.held)


def test_one_that_is_not_there_stops_no_other(stage, fleet):
    stage.submit("a", "ba", "bb")
    result = fleet("task", "cancel", "nobody", "a", "b", status=3)
    assert stage.ids("cpu_standard", 4) == ["ba", "bb"]
    assert "refused: nobody: no task 'nobody'" in result.err
    assert "refused: b: task 'b' is ambiguous: ba, bb" in result.err
    assert "no task 'nobody'" in fleet("task", "cancel", "nobody", status=8).err


def test_a_filter_shows_what_it_means_and_needs_a_yes(stage, fleet):
    stage.submit(*(f"b-{n:02}" for n in range(12)), priority="BATCH", queue="cpu_batch")
    stage.submit("other")
    refused = fleet("task", "cancel", "--queue", "cpu_batch", status=5).err
    assert "b-00" in refused
    assert "… and 2 more" in refused
    assert "cancel: 12 tasks; nothing was changed: add --yes, or preview with --dry-run" in refused
    assert len(fleet("tasks", "--json").json["tasks"]) == 13
    answer = fleet("task", "cancel", "--queue", "cpu_batch", "--yes", "--json").json
    assert answer["changed"] == 12
    assert [task["task_id"] for task in fleet("tasks", "--json").json["tasks"]] == ["other"]
    assert (
        "No task matches the filter; nothing was changed."
        in fleet("task", "cancel", "--queue", "cpu_batch", "--yes").err
    )


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 5), ("", 5)])
def test_at_a_terminal_somebody_is_asked(stage, fleet, monkeypatch, answer, status):
    monkeypatch.setattr("tests.cli.conftest.io.StringIO", Terminal)
    stage.submit("a")
    asked = fleet("task", "cancel", "--priority", "NORMAL", status=status, stdin=answer).err
    assert "cancel: 1 task. Continue? [y/N]" in asked
    assert stage.ids("cpu_standard", 4) == ([] if status == 0 else ["a"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("cancel",), "no tasks given: give ids, or a filter such as --queue, --worker or --priority"),
        (("cancel", "a", "--queue", "cpu_batch"), "give task ids or a filter, not both"),
        (("prio", "a", "HUGE"), "use one of URGENT"),
        (("move", "a"), "task move needs a target: give one of --to-queue, --to-worker and --to-lane"),
        (("move", "a", "--to-queue", "cpu_batch", "--to-lane", "cpu_batch"), "give one of"),
        (("move", "a", "--to-queue", "gpu"), "ambiguous"),
        (("retry",), "Missing argument"),
    ],
)
def test_what_cannot_be_meant_is_refused(stage, fleet, args, says):
    stage.submit("a")
    assert says in fleet("task", *args, status=2).err


def test_very_many_are_cancelled_from_the_middle_of_a_lane(stage, fleet):
    stage.fill([f"{'odd' if n % 2 else 'even'}-{n:04}" for n in range(2000)])
    wanted = [f"even-{n:04}" for n in range(0, 2000, 2)]
    answer = fleet("task", "cancel", *wanted[::5], "--json").json
    assert answer["changed"] == 200
    assert len(stage.ids("cpu_standard", 4)) == 1800


# -- prio


def test_prio_changes_word_level_message_and_ledger_in_one_step(stage, fleet):
    stage.submit("a", "b")
    fleet("task", "prio", "a", "urgent")
    assert (stage.ids("cpu_standard", 0), stage.ids("cpu_standard", 4)) == (["a"], ["b"])
    message = stage.message("cpu_standard", 0)
    assert (message["properties"]["priority"], message["headers"]["morag_queue"]["priority"]) == (0, "URGENT")
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "cpu_standard"}
    record = stage.broker.records(["a"])["a"]
    assert (record["priority"], record["level"], record["lane"]) == ("URGENT", 0, "cpu_standard")
    assert outcomes(fleet("task", "prio", "a", "URGENT", "--json")) == {"a": "unchanged"}


def test_prio_keeps_empty_lists_and_objects_in_the_message_apart(stage, fleet):
    stage.submit("a")
    stage.submit("b")
    before = stage.message("cpu_standard", 4)
    fleet("task", "prio", "a", "HIGH")
    after = stage.message("cpu_standard", 1)
    assert after["body"] == before["body"]
    assert {**after["headers"], "morag_queue": 0} == {**before["headers"], "morag_queue": 0}


def test_prio_of_a_foreign_task_changes_its_level(stage, fleet):
    stage.send("foreign", level=5)
    fleet("task", "prio", "foreign", "URGENT")
    assert stage.ids("cpu_standard", 0) == ["foreign"]


def test_prio_by_filter_counts(stage, fleet):
    stage.submit("a", "b", priority="LOW")
    stage.submit("c")
    assert fleet("task", "prio", "HIGH", "--priority", "LOW", "--yes", "--json").json["changed"] == 2
    assert sorted(stage.ids("cpu_standard", 1)) == ["a", "b"]


def test_prio_of_many_keeps_their_order(stage, fleet):
    ids = [f"t-{n:03}" for n in range(120)]
    stage.fill(ids)
    fleet("task", "prio", "HIGH", "--priority", "NORMAL", "--yes")
    assert stage.ids("cpu_standard", 1) == ids


def test_what_is_taken_or_has_ended_keeps_its_priority(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a", "b")
    stage.claim("cpu-1")
    assert "cpu-1 has it already" in fleet("task", "prio", "a", "HIGH", status=5).err
    fleet("task", "cancel", "b")
    assert "has ended (cancelled)" in fleet("task", "prio", "b", "HIGH", status=5).err


# -- move


def test_move_to_a_queue_takes_message_and_ledger_there(stage, fleet):
    stage.submit("a", "b")
    assert outcomes(fleet("task", "move", "a", "--to-queue", "cpu_b", "--json")) == {"a": "moved"}
    message = stage.message("cpu_batch", 4)
    assert message["properties"]["delivery_info"]["routing_key"] == "cpu_batch"
    assert message["headers"]["morag_queue"]["queue"] == "cpu_batch"
    assert stage.broker.records(["a"])["a"]["lane"] == "cpu_batch"
    assert outcomes(fleet("task", "move", "a", "--to-lane", "cpu_batch", "--json")) == {"a": "unchanged"}


def test_move_to_a_worker_is_a_pin_and_to_a_queue_lifts_it(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a")
    fleet("task", "move", "a", "--to-worker", "cpu")
    lane = "cpu_standard.cpu-1"
    assert stage.message(lane, 4)["headers"]["morag_queue"]["worker"] == "cpu-1"
    assert stage.broker.observe()[0].lane_by_name[lane].length == 1
    fleet("task", "move", "a", "--to-queue", "cpu_standard")
    assert "worker" not in stage.message("cpu_standard", 4)["headers"]["morag_queue"]


def test_work_that_needs_a_gpu_never_goes_where_a_cpu_worker_reads(stage, fleet):
    stage.join("gpu-1", "gpu")
    stage.join("cpu-1")
    stage.submit("a", requires="gpu", priority="NORMAL")
    for where in (("--to-queue", "cpu_standard"), ("--to-lane", "cpu_batch"), ("--to-worker", "cpu-1")):
        assert "GPU" in fleet("task", "move", "a", *where, status=5).err
    assert stage.ids("gpu_priority", 4) == ["a"]


def test_move_to_a_worker_out_of_service_needs_force(stage, fleet):
    stage.join("cpu-1")
    stage.client.hset(stage.keys.cordons, "cpu-1", '{"state": "drained", "reason": "disk", "who": "ann", "at": 1}')
    stage.submit("a")
    assert "is drained (" in fleet("task", "move", "a", "--to-worker", "cpu-1", status=5).err
    fleet("task", "move", "a", "--to-worker", "cpu-1", "--force")
    assert stage.ids("cpu_standard.cpu-1", 4) == ["a"]


# -- retry


def test_retry_runs_a_failed_task_again_with_all_that_it_had(stage, fleet):
    stage.join("cpu-1")
    stage.submit("a", source="https://example.org/a", priority="HIGH")
    before = stage.message("cpu_standard", 1)
    stage.claim("cpu-1")
    stage.end("a", "failed", "ValueError: no")
    assert fleet("task", "why", "a", "--json").json["reason_code"] == "FAILED"
    assert outcomes(fleet("task", "retry", "a", "--json")) == {"a": "queued"}
    message = stage.message("cpu_standard", 1)
    assert message["body"] == before["body"]
    assert message["properties"]["delivery_tag"] != before["properties"]["delivery_tag"]
    assert stage.broker.records(["a"])["a"]["state"] == "queued"
    assert list(stage.broker.dead.all()) == []
    assert outcomes(fleet("task", "retry", "a", "--json")) == {"a": "unchanged"}
    stage.claim("cpu-1")
    stage.end("a")
    assert fleet("task", "why", "a", "--json").json["reason_code"] == "COMPLETED"


@pytest.mark.parametrize("how", ["cancelled", "completed"])
def test_retry_of_what_has_ended_otherwise_sends_it_again(stage, fleet, how):
    stage.join("cpu-1")
    stage.submit("a", args=[1, {"x": []}], kwargs={"k": {}}, source="https://example.org/a")
    body = stage.message("cpu_standard", 4)["body"]
    if how == "cancelled":
        fleet("task", "cancel", "a")
    else:
        stage.claim("cpu-1")
        stage.end("a")
    assert outcomes(fleet("task", "retry", "a", "--json")) == {"a": "queued"}
    assert stage.message("cpu_standard", 4)["body"] == body
    assert stage.broker.records(["a"])["a"]["source"] == "https://example.org/a"


def test_a_cancelled_task_of_plain_celery_can_come_back(stage, fleet):
    stage.send("foreign")
    body = stage.message("cpu_standard", 4)["body"]
    fleet("task", "cancel", "foreign")
    assert outcomes(fleet("task", "retry", "foreign", "--json")) == {"foreign": "queued"}
    assert stage.ids("cpu_standard", 4) == ["foreign"]
    assert stage.message("cpu_standard", 4)["body"] == body
