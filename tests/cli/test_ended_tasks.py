"""`tasks --state completed|failed|cancelled`: the ended tasks of the ledger."""

import pytest

from morag_queue.broker.codec import read_record
from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions


def listed(fleet, *args):
    return [task["task_id"] for task in fleet("tasks", "--json", *args).json["tasks"]]


@pytest.fixture
def end(sim_fleet):
    """Submit a task, run it on a worker and end it."""

    def run(task_id, outcome="completed", worker="cpu-1", run_seconds=2.0, **fields):
        sim_fleet.submit(task_id, source=f"https://example.org/{task_id}", **fields)
        assert sim_fleet.claim(worker) == task_id
        sim_fleet.end(task_id, outcome, "ValueError: no" if outcome == "failed" else "", run_seconds)

    sim_fleet.join("cpu-1")
    sim_fleet.join("cpu-2")
    return run


def test_completed_tasks_are_listed_with_their_times_and_worker(fleet, end):
    end("first", run_seconds=2.0)
    end("second", run_seconds=90.0, worker="cpu-2")
    end("third", run_seconds=30.0)
    end("bad", "failed")
    assert listed(fleet, "--state", "completed") == ["third", "second", "first"]
    assert listed(fleet, "--state", "completed", "--sort", "newest", "--limit", "1") == ["third"]
    assert listed(fleet, "--state", "completed", "--sort", "slowest") == ["second", "third", "first"]
    page = fleet("tasks", "--state", "completed", "--sort", "slowest", "--limit", "1", "--json").json
    (task,) = page["tasks"]
    assert (task["worker"], task["wait_seconds"], task["run_seconds"]) == ("cpu-2", 1.0, 90.0)
    assert (task["state"], task["source"]) == ("completed", "https://example.org/second")
    assert task["ended_at"].endswith("Z")
    assert page["has_more"] is True


def test_ended_tasks_are_shown_in_a_table(fleet, end):
    end("first", run_seconds=90.0)
    heading, row = fleet("tasks", "--state", "completed").out.splitlines()
    assert heading.split() == ["TASK", "STATE", "ENDED", "WAIT", "RUN", "WORKER", "LANE", "SOURCE"]
    fields = row.split()
    assert fields[:2] == ["first", "completed"]
    assert fields[3:] == ["1s", "1m", "30s", "cpu-1", "cpu_standard", "https://example.org/first"]
    assert fleet("tasks", "--state", "cancelled").out == "No task matches.\n"


def test_at_80_columns_a_failed_task_keeps_its_worker_and_the_beginning_of_its_error(fleet, end):
    end("027b6dfe-1fa4-4c11-9a93-7f3a0b3c55d1", "failed", run_seconds=90.0)
    heading, row = fleet("tasks", "--state", "failed", env={"COLUMNS": "80"}).out.splitlines()
    assert heading.split() == ["TASK", "STATE", "ENDED", "WAIT", "RUN", "WORKER", "REASON"]
    assert row.startswith("027b6dfe-1fa")
    assert row.split()[-3:] == ["cpu-1", "ValueError:", "no"]


def test_a_long_list_of_ended_tasks_says_how_to_see_more(fleet, end):
    end("first")
    end("second")
    assert fleet("tasks", "--state", "completed", "--limit", "1").out.endswith("--limit N shows more, --limit 0 all\n")


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (("--worker", "cpu-2"), ["by-2"]),
        (("--queue", "cpu_batch"), ["batch"]),
        (("--lane", "cpu_batch"), ["batch"]),
        (("--priority", "BATCH"), ["batch"]),
        (("--name", "org/by-2"), ["by-2"]),
        (("--name", "process_web"), ["by-2", "batch"]),
        (("--age", "1h"), []),
        (("--age", "0s"), ["by-2", "batch"]),
    ],
)
@pytest.mark.parametrize("sort", ["newest", "slowest"])
def test_ended_tasks_can_be_filtered(fleet, end, args, ids, sort):
    end("batch", priority="BATCH", queue="cpu_batch")
    end("by-2", worker="cpu-2", run_seconds=9.0)
    assert listed(fleet, "--state", "completed", "--sort", sort, *args) == ids


def test_failed_tasks_are_dead_letters_and_those_that_were_dropped_since(sim_fleet, fleet, end):
    end("dropped", "failed", run_seconds=4.0)
    end("dead", "failed", run_seconds=3.0)
    end("old", "failed", run_seconds=5.0)
    fleet("dead", "drop", "dropped")
    sim_fleet.client.delete(sim_fleet.keys.task("old"))  # as when the retention time ends
    tasks = {task["task_id"]: task for task in fleet("tasks", "--state", "failed", "--json").json["tasks"]}
    assert set(tasks) == {"dropped", "dead", "old"}
    assert {name: task["run_seconds"] for name, task in tasks.items()} == {"dropped": 4.0, "dead": 3.0, "old": None}
    assert {task["worker"] for task in tasks.values()} == {"cpu-1"}
    assert {task["error"] for task in tasks.values()} == {"ValueError: no"}
    assert listed(fleet, "--state", "failed", "--sort", "slowest") == ["dropped", "dead", "old"]


def test_a_cancelled_task_is_listed_with_its_reason(sim_fleet, fleet):
    sim_fleet.submit("a")
    fleet("task", "cancel", "a", "--reason", "wrong file")
    (task,) = fleet("tasks", "--state", "cancelled", "--json").json["tasks"]
    assert (task["task_id"], task["error"], task["worker"]) == ("a", "wrong file", None)
    assert "wrong file" in fleet("tasks", "--state", "cancelled").out


def test_a_task_that_ran_again_is_listed_once_with_its_last_run(sim_fleet, fleet, end):
    end("again", run_seconds=500.0)
    end("other", run_seconds=50.0)
    fleet("task", "retry", "again")
    assert listed(fleet, "--state", "completed") == ["other"]
    assert sim_fleet.claim("cpu-1") == "again"
    sim_fleet.end("again", run_seconds=1.0)
    assert listed(fleet, "--state", "completed") == ["again", "other"]
    assert listed(fleet, "--state", "completed", "--sort", "slowest") == ["other", "again"]


def test_the_worker_without_the_agent_is_named(sim_fleet, fleet):
    sim_fleet.submit("a")
    record = read_record(sim_fleet.client.get(sim_fleet.keys.task("a")))
    sim_fleet.client.delete(sim_fleet.keys.list("cpu_standard", 4))
    completions = ExternalCompletions(sim_fleet.client, sim_fleet.keys, 60)
    assert completions.end(ExternalCompletion("a", "completed", "celery@plain", 1.5, 2.5), record)
    (task,) = fleet("tasks", "--state", "completed", "--json").json["tasks"]
    assert (task["worker"], task["wait_seconds"], task["run_seconds"]) == ("celery@plain", 1.5, 2.5)


def test_ended_tasks_are_streamed_as_lines(fleet, end):
    end("first")
    end("second")
    assert fleet("tasks", "--state", "completed", "--lines", "--limit", "1").out.count("\n") == 1


def test_the_index_of_ended_tasks_expires_with_the_ledger(sim_fleet, end):
    end("first")
    (key,) = sim_fleet.client.keys("mq:ended:*")
    retention = int(sim_fleet.settings.ledger.retention_seconds)
    assert retention < sim_fleet.client.ttl(key) <= retention + 60
    assert sim_fleet.client.lrange(key, 0, -1) == [b"2000 first"]


def test_a_broken_index_does_not_keep_a_task_from_ending(sim_fleet, fleet, end):
    minute = int(sim_fleet.broker.now()) // 60
    for n in range(3):
        sim_fleet.client.hset(f"mq:ended:completed:{minute + n}", "a", "b")
    end("first")
    assert sim_fleet.broker.records(["first"])["first"].state == "completed"
