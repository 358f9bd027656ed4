"""`task cancel|move|prio|retry`."""

import pytest


def outcomes(result):
    return {task["task_id"]: task["outcome"] for task in result.json["tasks"]}


def test_cancel_removes_a_waiting_task_and_repeating_it_changes_nothing(sim_fleet, fleet):
    sim_fleet.submit("a", "b", "c")
    answer = fleet("task", "cancel", "b", "--reason", "wrong file", "--json")
    assert outcomes(answer) == {"b": "cancelled"}
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "c"]
    answer = fleet("task", "show", "b", "--json").json
    assert (answer["task"]["state"], answer["task"]["error"], answer["reason_code"]) == (
        "cancelled",
        "wrong file",
        "CANCELLED",
    )
    assert answer["args"] == ["https://example.org/report.html", {}]
    repeated = fleet("task", "cancel", "b", "--json")
    assert (outcomes(repeated), repeated.json["changed"], repeated.json["journal"]) == ({"b": "unchanged"}, 0, None)


@pytest.mark.parametrize(
    ("args", "outcome"),
    [
        (("task", "cancel", "waits"), "would cancel"),
        (("task", "move", "waits", "--to-queue", "cpu_batch"), "would move"),
        (("task", "prio", "waits", "HIGH"), "would change"),
        (("task", "cancel", "reserved"), "would revoke"),
        (("task", "retry", "failed"), "would queue"),
        (("dead", "requeue", "failed"), "would queue"),
    ],
)
def test_a_dry_run_says_what_would_be_done(sim_fleet, fleet, fail, args, outcome):
    fail("failed")
    sim_fleet.submit("runs", "reserved")
    sim_fleet.claim("cpu-1")
    sim_fleet.claim("cpu-1")
    sim_fleet.submit("waits")
    journal = len(sim_fleet.broker.journal.latest(10))
    out = fleet(*args, "--dry-run").out
    heading, row, total = out.splitlines()
    assert heading.split() == ["TASK", "OUTCOME"]
    assert row.startswith(f"{args[2]:<13}"[: len(args[2])])
    assert f"  {outcome}  " in row
    assert total == "1 would be changed"
    assert "was asked" not in out
    assert len(sim_fleet.broker.journal.latest(10)) == journal


def test_cancel_is_journaled_with_user_and_reason(sim_fleet, fleet):
    sim_fleet.submit("a", "b")
    entry_id = fleet("task", "cancel", "a", "b", "--reason", "typo", "--json").json["journal"]
    entry = sim_fleet.broker.journal.get(entry_id)
    assert (entry.verb, entry.subject, entry.reason, entry.changes["count"]) == ("task cancel", "2 tasks", "typo", 2)
    assert entry.who.startswith("ann@")
    assert fleet("task", "why", "a", "--json").json["decisions"][-1]["reason"] == "typo"


def test_a_task_sent_by_plain_celery_can_be_cancelled(sim_fleet, fleet):
    sim_fleet.send("foreign")
    fleet("task", "cancel", "foreign")
    assert sim_fleet.ids("cpu_standard", 4) == []
    assert outcomes(fleet("task", "cancel", "foreign", "--json")) == {"foreign": "unchanged"}


def test_a_dry_run_of_a_task_change_changes_nothing(sim_fleet, fleet):
    sim_fleet.submit("a")
    assert "1 would be changed" in fleet("task", "cancel", "a", "--dry-run").out
    fleet("task", "prio", "a", "URGENT", "--dry-run")
    fleet("task", "move", "a", "--to-queue", "cpu_batch", "--dry-run")
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]
    assert sim_fleet.broker.journal.latest(5) == []


def test_a_running_task_is_cancelled_only_with_terminate(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    assert "kill its process with --terminate" in fleet("task", "cancel", "a", status=5).err
    answer = fleet("task", "cancel", "a", "--terminate", "--json").json
    assert answer["tasks"][0]["outcome"] == "revoked"
    assert "what the task did so far is not undone" in answer["tasks"][0]["detail"]


def test_a_reserved_task_is_revoked_and_stays_cancelled_after_a_drain(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b")
    sim_fleet.claim("cpu-1")
    sim_fleet.claim("cpu-1")
    detail = fleet("task", "cancel", "b", "--json").json["tasks"][0]["detail"]
    assert detail == "cpu-1 is asked to drop it: it will not run there or elsewhere"
    repeated = fleet("task", "cancel", "b", "--json").json
    assert (repeated["changed"], repeated["unchanged"]) == (0, 1)
    assert "it was cancelled: its worker was asked to drop it" in fleet("task", "why", "b").out
    fleet("drain", "cpu-1", "--force")
    assert sim_fleet.ids("cpu_standard", 4) == ["a"], "the revoked task is not requeued"
    assert sim_fleet.broker.records(["b"])["b"].state == "cancelled"
    assert fleet("task", "why", "b", "--json").json["state"] == "cancelled"
    assert not sim_fleet.client.exists(sim_fleet.keys.unacked, sim_fleet.keys.held)


def test_an_unknown_task_does_not_stop_the_others(sim_fleet, fleet):
    sim_fleet.submit("a", "ba", "bb")
    result = fleet("task", "cancel", "nobody", "a", "b", status=3)
    assert sim_fleet.ids("cpu_standard", 4) == ["ba", "bb"]
    assert "refused: no task 'nobody'" in result.err
    assert "refused: task 'b' is ambiguous: ba, bb" in result.err
    assert "no task 'nobody'" in fleet("task", "cancel", "nobody", status=8).err


def test_a_filter_previews_its_tasks_and_needs_yes_without_a_terminal(sim_fleet, fleet):
    sim_fleet.submit(*(f"b-{n:02}" for n in range(12)), priority="BATCH", queue="cpu_batch")
    sim_fleet.submit("other")
    refused = fleet("task", "cancel", "--queue", "cpu_batch", status=5).err
    assert "b-00" in refused
    assert "… and 2 more" in refused
    assert "cancel: 12 tasks not confirmed, so nothing was changed; add --yes, or preview with --dry-run" in refused
    assert len(fleet("tasks", "--json").json["tasks"]) == 13
    answer = fleet("task", "cancel", "--queue", "cpu_batch", "--yes", "--json").json
    assert answer["changed"] == 12
    assert [task["task_id"] for task in fleet("tasks", "--json").json["tasks"]] == ["other"]
    assert (
        "No task matches the filter; nothing was changed."
        in fleet("task", "cancel", "--queue", "cpu_batch", "--yes").err
    )


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("n\n", 5), ("", 5)])
def test_a_filter_asks_for_confirmation_on_a_terminal(sim_fleet, fleet, typed, status):
    sim_fleet.submit("a")
    result = fleet("task", "cancel", "--priority", "NORMAL", status=status, typed=typed)
    assert "cancel: 1 task. Continue? [y/N]" in result.err
    assert sim_fleet.ids("cpu_standard", 4) == ([] if status == 0 else ["a"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("cancel",), "no tasks given: pass ids, or a filter such as --queue, --worker or --submission"),
        (("cancel", "a", "--queue", "cpu_batch"), "task ids and filters cannot be combined: use one or the other"),
        (("prio", "a", "HUGE"), "use one of URGENT"),
        (("move", "a"), "task move needs exactly one of --to-queue, --to-worker and --to-lane"),
        (("move", "a", "--to-queue", "cpu_batch", "--to-lane", "cpu_batch"), "task move needs exactly one of"),
        (("move", "a", "--to-queue", "gpu"), "ambiguous"),
        (("retry",), "Missing argument"),
    ],
)
def test_incomplete_or_contradictory_arguments_are_wrong_usage(sim_fleet, fleet, args, message):
    sim_fleet.submit("a")
    assert message in fleet("task", *args, status=2).err


def test_many_tasks_are_cancelled_in_the_middle_of_a_long_lane(sim_fleet, fleet):
    sim_fleet.fill([f"{'odd' if n % 2 else 'even'}-{n:04}" for n in range(2000)])
    cancelled_ids = [f"even-{n:04}" for n in range(0, 2000, 2)]
    answer = fleet("task", "cancel", *cancelled_ids[::5], "--json").json
    assert answer["changed"] == 200
    assert len(sim_fleet.ids("cpu_standard", 4)) == 1800


def test_prio_changes_message_level_and_ledger(sim_fleet, fleet):
    sim_fleet.submit("a", "b")
    fleet("task", "prio", "a", "urgent")
    assert (sim_fleet.ids("cpu_standard", 0), sim_fleet.ids("cpu_standard", 4)) == (["a"], ["b"])
    message = sim_fleet.message("cpu_standard", 0)
    assert (message["properties"]["priority"], message["headers"]["morag_queue"]["priority"]) == (0, "URGENT")
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "cpu_standard"}
    record = sim_fleet.broker.records(["a"])["a"]
    assert (record.priority.name, record.level, record.lane) == ("URGENT", 0, "cpu_standard")
    assert outcomes(fleet("task", "prio", "a", "URGENT", "--json")) == {"a": "unchanged"}


def test_prio_keeps_the_rest_of_the_message(sim_fleet, fleet):
    sim_fleet.submit("a")
    sim_fleet.submit("b")
    before = sim_fleet.message("cpu_standard", 4)
    fleet("task", "prio", "a", "HIGH")
    after = sim_fleet.message("cpu_standard", 1)
    assert after["body"] == before["body"]
    assert {**after["headers"], "morag_queue": 0} == {**before["headers"], "morag_queue": 0}


def test_prio_changes_the_level_of_a_task_sent_by_plain_celery(sim_fleet, fleet):
    sim_fleet.send("foreign", level=5)
    fleet("task", "prio", "foreign", "URGENT")
    assert sim_fleet.ids("cpu_standard", 0) == ["foreign"]


def test_prio_by_filter_counts_its_changes(sim_fleet, fleet):
    sim_fleet.submit("a", "b", priority="LOW")
    sim_fleet.submit("c")
    assert fleet("task", "prio", "HIGH", "--priority", "LOW", "--yes", "--json").json["changed"] == 2
    assert sorted(sim_fleet.ids("cpu_standard", 1)) == ["a", "b"]


def test_prio_of_many_tasks_keeps_their_order(sim_fleet, fleet):
    ids = [f"t-{n:03}" for n in range(120)]
    sim_fleet.fill(ids)
    fleet("task", "prio", "HIGH", "--priority", "NORMAL", "--yes")
    assert sim_fleet.ids("cpu_standard", 1) == ids


def test_prio_refuses_held_and_ended_tasks(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b")
    sim_fleet.claim("cpu-1")
    assert "cpu-1 has it already" in fleet("task", "prio", "a", "HIGH", status=5).err
    fleet("task", "cancel", "b")
    assert "has ended (cancelled)" in fleet("task", "prio", "b", "HIGH", status=5).err


def test_move_to_a_queue_updates_message_and_ledger(sim_fleet, fleet):
    sim_fleet.submit("a", "b")
    assert outcomes(fleet("task", "move", "a", "--to-queue", "cpu_b", "--json")) == {"a": "moved"}
    message = sim_fleet.message("cpu_batch", 4)
    assert message["properties"]["delivery_info"]["routing_key"] == "cpu_batch"
    assert message["headers"]["morag_queue"]["queue"] == "cpu_batch"
    assert sim_fleet.broker.records(["a"])["a"].lane == "cpu_batch"
    assert outcomes(fleet("task", "move", "a", "--to-lane", "cpu_batch", "--json")) == {"a": "unchanged"}


def test_move_to_a_worker_pins_a_task_and_move_to_a_queue_unpins_it(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    fleet("task", "move", "a", "--to-worker", "cpu")
    lane = "cpu_standard.cpu-1"
    assert sim_fleet.message(lane, 4)["headers"]["morag_queue"]["worker"] == "cpu-1"
    assert sim_fleet.broker.observe()[0].lane_by_name[lane].length == 1
    fleet("task", "move", "a", "--to-queue", "cpu_standard")
    assert "worker" not in sim_fleet.message("cpu_standard", 4)["headers"]["morag_queue"]


def test_move_refuses_a_gpu_task_in_a_lane_that_cpu_workers_read(sim_fleet, fleet):
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", requires="gpu", priority="NORMAL")
    for where in (("--to-queue", "cpu_standard"), ("--to-lane", "cpu_batch"), ("--to-worker", "cpu-1")):
        for force in ((), ("--force",)):
            refused = fleet("task", "move", "a", *where, *force, status=5).err
            assert "GPU" in refused
            assert "or add --allow-cpu\n" in refused
    assert sim_fleet.ids("gpu_priority", 4) == ["a"]


def test_move_of_a_gpu_task_to_a_cpu_worker_is_allowed_by_a_flag_of_its_own_that_the_journal_shows(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", requires="gpu", priority="NORMAL")
    fleet("task", "move", "a", "--to-worker", "cpu-1", "--allow-cpu")
    assert sim_fleet.claim("cpu-1") == "a"
    entry = sim_fleet.broker.journal.latest(1)[0]
    assert entry.changes["allow_cpu"] is True
    assert "allow_cpu" in fleet("journal", "show", entry.entry_id).out


def test_retry_of_a_gpu_task_leaves_the_lane_of_a_cpu_worker(sim_fleet, fleet):
    """It failed where --allow-cpu had put it: that holds for one run."""
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.join("cpu-1")
    for retry in ("task", "retry"), ("dead", "requeue"):
        sim_fleet.submit("a", requires="gpu", priority="NORMAL")
        fleet("task", "move", "a", "--to-worker", "cpu-1", "--allow-cpu")
        assert sim_fleet.claim("cpu-1") == "a"
        sim_fleet.end("a", "failed", "no GPU")
        fleet(*retry, "a")
        assert sim_fleet.claim("gpu-1") == "a"
        sim_fleet.end("a")


def test_move_to_a_drained_worker_needs_force(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.client.hset(
        sim_fleet.keys.cordons, "cpu-1", '{"state": "drained", "reason": "disk", "who": "ann", "at": 1}'
    )
    sim_fleet.submit("a")
    assert "is drained (" in fleet("task", "move", "a", "--to-worker", "cpu-1", status=5).err
    fleet("task", "move", "a", "--to-worker", "cpu-1", "--force")
    assert sim_fleet.ids("cpu_standard.cpu-1", 4) == ["a"]


def test_retry_runs_a_failed_task_again_unchanged(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", source="https://example.org/a", priority="HIGH")
    before = sim_fleet.message("cpu_standard", 1)
    sim_fleet.claim("cpu-1")
    sim_fleet.end("a", "failed", "ValueError: no")
    assert fleet("task", "why", "a", "--json").json["reason_code"] == "FAILED"
    assert outcomes(fleet("task", "retry", "a", "--json")) == {"a": "queued"}
    message = sim_fleet.message("cpu_standard", 1)
    assert message["body"] == before["body"]
    assert message["properties"]["delivery_tag"] != before["properties"]["delivery_tag"]
    assert sim_fleet.broker.records(["a"])["a"].state == "queued"
    assert list(sim_fleet.broker.dead.all()) == []
    assert outcomes(fleet("task", "retry", "a", "--json")) == {"a": "unchanged"}
    sim_fleet.claim("cpu-1")
    sim_fleet.end("a")
    assert fleet("task", "why", "a", "--json").json["reason_code"] == "COMPLETED"


@pytest.mark.parametrize("how", ["cancelled", "completed"])
def test_retry_resends_a_cancelled_or_completed_task(sim_fleet, fleet, how):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", args=[1, {"x": []}], kwargs={"k": {}}, source="https://example.org/a")
    body = sim_fleet.message("cpu_standard", 4)["body"]
    if how == "cancelled":
        fleet("task", "cancel", "a")
    else:
        sim_fleet.claim("cpu-1")
        sim_fleet.end("a")
    assert outcomes(fleet("task", "retry", "a", "--json")) == {"a": "queued"}
    assert sim_fleet.message("cpu_standard", 4)["body"] == body
    assert sim_fleet.broker.records(["a"])["a"].source == "https://example.org/a"


def test_a_cancelled_task_sent_by_plain_celery_can_be_retried(sim_fleet, fleet):
    sim_fleet.send("foreign")
    body = sim_fleet.message("cpu_standard", 4)["body"]
    fleet("task", "cancel", "foreign")
    assert outcomes(fleet("task", "retry", "foreign", "--json")) == {"foreign": "queued"}
    assert sim_fleet.ids("cpu_standard", 4) == ["foreign"]
    assert sim_fleet.message("cpu_standard", 4)["body"] == body
