"""`dead ls|show|requeue|drop`."""

from morag_queue.broker.requeue import RequeueRequest

LIMIT = 3
"""Worker deaths that a task may cause before it is quarantined."""


def quarantine(sim_fleet, task_id):
    """Submit a task and kill its workers until it is quarantined."""
    sim_fleet.submit(task_id)
    while sim_fleet.broker.dead.get(task_id) is None:
        assert sim_fleet.claim("cpu-1") == task_id
        assert kill_holders(sim_fleet)


def kill_holders(sim_fleet):
    """Requeue all held messages as if their workers had died; return the outcomes."""
    held = sim_fleet.broker.observe()[0].held
    requests = [
        RequeueRequest(each.tag, each.incarnation, each.task_id, each.lane, each.level, "worker died", LIMIT)
        for each in held
    ]
    return sim_fleet.broker.requeues.apply(requests)


def test_dead_ls_lists_failed_and_quarantined_tasks_with_reasons(sim_fleet, fleet, fail):
    fail("f-1", "ValueError: no such page")
    quarantine(sim_fleet, "q-1")
    page = fleet("dead", "ls", "--json").json
    listed = {task["task_id"]: (task["state"], task["error"]) for task in page["dead"]}
    assert listed["f-1"] == ("failed", "ValueError: no such page")
    assert listed["q-1"][0] == "quarantined"
    assert page["total"] == 2
    assert [task["task_id"] for task in fleet("tasks", "--state", "failed", "--json").json["tasks"]] == ["f-1"]
    assert "no such page" in fleet("dead", "ls", "--state", "failed").out
    assert fleet("task", "why", "q-1", "--json").json["reason_code"] == "QUARANTINED"


def test_dead_show_lists_every_failure_of_a_task(sim_fleet, fleet, fail):
    quarantine(sim_fleet, "q-1")
    answer = fleet("dead", "show", "q", "--json").json
    assert [(worker, why) for _, worker, why in answer["story"]] == [("cpu-1", "worker died")] * (LIMIT + 1)
    assert answer["task"]["error"] == "its workers died over it 4 times"
    assert answer["args"] == ["https://example.org/report.html", {}]
    assert "cpu-1: worker died" in fleet("dead", "show", "q-1").out
    assert "no task in dead 'x'" in fleet("dead", "show", "x", status=8).err


def test_a_failed_task_sent_by_plain_celery_can_be_requeued(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.send("foreign")
    body = sim_fleet.message("cpu_standard", 4)["body"]
    sim_fleet.claim("cpu-1")
    sim_fleet.end("foreign", "failed", "KeyError: x")
    fleet("dead", "requeue", "foreign")
    assert sim_fleet.message("cpu_standard", 4)["body"] == body
    assert sim_fleet.claim("cpu-1") == "foreign"


def test_a_task_requeued_without_reset_is_quarantined_at_the_next_death(sim_fleet, fleet, fail):
    quarantine(sim_fleet, "q-1")
    fleet("dead", "requeue", "q-1", "--reason", "new driver")
    assert fleet("dead", "ls", "--json").json["total"] == 0
    assert sim_fleet.claim("cpu-1") == "q-1"
    assert kill_holders(sim_fleet) == ["quarantined"]
    assert len(fleet("dead", "show", "q-1", "--json").json["story"]) == LIMIT + 2


def test_a_task_requeued_with_reset_starts_with_fresh_counts(sim_fleet, fleet, fail):
    quarantine(sim_fleet, "q-1")
    fleet("dead", "requeue", "q-1", "--reset")
    assert sim_fleet.claim("cpu-1") == "q-1"
    kill_holders(sim_fleet)
    assert sim_fleet.broker.dead.get("q-1") is None
    assert fleet("task", "show", "q-1", "--json").json["task"]["attempts"] == 1
    assert sim_fleet.broker.records(["q-1"])["q-1"].state == "queued"


def test_a_requeued_task_keeps_its_source_after_the_ledger_has_dropped_its_record(sim_fleet, fleet, fail):
    source = "https://example.org/f-1"
    fail("f-1")
    sim_fleet.client.delete(sim_fleet.keys.task("f-1"))  # as when the retention time ends
    assert fleet("dead", "ls", "--json").json["dead"][0]["source"] == source
    assert source in fleet("dead", "ls").out
    fleet("dead", "requeue", "f-1")
    (task,) = fleet("tasks", "--json").json["tasks"]
    assert (task["source"], task["state"], task["is_known"]) == (source, "queued", True)
    assert fleet("task", "show", "f-1", "--json").json["args"] == [source, {}]
    assert sim_fleet.claim("cpu-1") == "f-1"
    sim_fleet.end("f-1")
    assert fleet("task", "show", "f-1", "--json").json["task"]["source"] == source


def test_the_history_names_each_worker_once(sim_fleet, fleet, fail):
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    (held,) = sim_fleet.broker.observe()[0].held
    why = "cpu-1: it is dead (no connection)"
    sim_fleet.broker.requeues.apply(
        [RequeueRequest(held.tag, held.incarnation, "a", held.lane, held.level, why, LIMIT)]
    )
    out = fleet("task", "show", "a").out
    assert "ago) cpu-1: it is dead (no connection)\n" in out
    assert "requeued from dead workers 1 time\n" in out


def test_a_failed_task_is_shown_with_its_source_and_its_times(sim_fleet, fleet, fail):
    fail("f-1")
    task = fleet("dead", "show", "f-1", "--json").json["task"]
    assert (task["source"], task["wait_seconds"], task["run_seconds"]) == ("https://example.org/f-1", 1.0, 2.0)


def test_a_repeated_requeue_changes_nothing(sim_fleet, fleet, fail):
    fail("f-1")
    assert fleet("dead", "requeue", "f-1", "--json").json["changed"] == 1
    repeated = fleet("dead", "requeue", "f-1", "--json").json
    assert (repeated["changed"], repeated["unchanged"]) == (0, 1)


def test_dead_all_needs_confirmation(sim_fleet, fleet, fail):
    fail("f-1")
    fail("f-2")
    assert (
        "requeue: 2 tasks not confirmed, so nothing was changed; add --yes, or preview with --dry-run"
        in fleet("dead", "requeue", "--all", status=5).err
    )
    assert fleet("dead", "requeue", "--all", "--yes", "--json").json["changed"] == 2
    assert (
        "dead drop needs either task ids or a filter, such as --state, --age or --all"
        in fleet("dead", "drop", status=2).err
    )
    assert "needs either task ids or a filter" in fleet("dead", "drop", "x", "--all", status=2).err


def test_dead_drop_deletes_tasks_and_repeating_it_changes_nothing(sim_fleet, fleet, fail):
    fail("f-1")
    quarantine(sim_fleet, "q-1")
    assert fleet("dead", "drop", "--all", "--dry-run").out == "2 would be dropped\n"
    out = fleet("dead", "drop", "f-1", "q-1").out
    assert out == f"2 dropped; undo: morag-queue journal undo {sim_fleet.broker.journal.latest(1)[0].entry_id}\n"
    assert fleet("dead", "ls", "--json").json["total"] == 0
    assert sim_fleet.client.ttl(sim_fleet.keys.task("q-1")) > 0
    assert fleet("dead", "drop", "f-1", "q-1").out == "0 dropped, 2 already dropped\n"
    assert "no task in dead 'nobody'" in fleet("dead", "drop", "nobody", status=8).err
    entry = sim_fleet.broker.journal.latest(1)[0]
    assert (entry.verb, entry.changes["dropped"]) == ("dead drop", ["f-1", "q-1"])


def test_dead_drop_refuses_a_waiting_task(sim_fleet, fleet):
    sim_fleet.submit("waits")
    assert "no task in dead 'waits'" in fleet("dead", "drop", "waits", status=8).err


def test_a_failed_task_that_completes_later_is_no_longer_dead(sim_fleet, fleet, fail):
    fail("f-1")
    sim_fleet.submit("f-1")
    assert fleet("task", "why", "f-1", "--json").json["state"] == "queued"
    sim_fleet.claim("cpu-1")
    sim_fleet.end("f-1")
    assert fleet("dead", "ls", "--json").json["total"] == 0


def test_the_oldest_dead_task_is_dropped_beyond_the_limit(sim_fleet, fail):
    fail("first")
    sim_fleet.client.zadd(sim_fleet.keys.graves, {"first": 1} | {f"x-{n}": 2 for n in range(9_999)})
    fail("last")
    assert [letter.task_id for letter in sim_fleet.broker.dead.all()] == ["last"]


def test_hostile_errors_are_escaped_in_tables_and_complete_in_json(sim_fleet, fleet, fail):
    error = "ValueError: \x1b[2J[bold]x[/]\u202e\n" + "y" * 10_000
    fail("f-1", error)
    for args in (("dead", "ls"), ("dead", "show", "f-1"), ("task", "why", "f-1")):
        out = fleet(*args).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    assert "[bold]x[/]" in fleet("dead", "ls").out
    assert fleet("dead", "ls", "--json").json["dead"][0]["error"] == error


def test_dead_rejects_a_state_that_is_neither_failed_nor_quarantined(fleet):
    refused = fleet("dead", "ls", "--state", "running", status=2)
    assert refused.err == "error: --state running: not a state of dead letters; use failed or quarantined\n"
