"""`rebalance` and `journal` on a real broker: made for cron, quiet, refused where it must be."""

import json
from datetime import UTC, datetime

import pytest

from tests.support.simulated_fleet import SimulatedFleet

CPU = "cpu_standard"


@pytest.fixture
def stage(valkey):
    return SimulatedFleet(valkey)


@pytest.fixture
def mq_on(mq, valkey):
    return lambda *args, **how: mq(*args, env={"REDIS_URL": valkey, "USER": "ann"}, **how)


def strand(stage: SimulatedFleet, *task_ids: str, worker: str = "gone") -> None:
    """Tasks in the lane of a worker that has shut down."""
    stage.join(worker)
    stage.submit(*task_ids, worker=worker)
    stage.client.hset(stage.keys.beats, worker, json.dumps({"at": stage.broker.now(), "stopped": True}))


def starve(stage: SimulatedFleet, *task_ids: str, hours: float = 3.0) -> None:
    """Tasks that wait longer than NORMAL should, with a fleet that serves them."""
    stage.join("cpu-1", slots=4)
    offset = -hours * 3600
    entry_now = stage.broker.now
    stage.broker.now = lambda: entry_now() + offset  # type: ignore[method-assign]
    stage.fill(task_ids)
    stage.broker.now = entry_now  # type: ignore[method-assign]


def test_a_dead_workers_lane_is_emptied_in_order_and_the_journal_says_so(stage, mq_on):
    strand(stage, "a", "b", "c")
    answer = mq_on("rebalance", "--json", "--reason", "cron").json
    assert stage.ids(CPU, 4) == ["a", "b", "c"]
    assert (answer["moved_tasks"], answer["rejected"], answer["dry_run"]) == (3, [], False)
    (decision,) = answer["decisions"]
    assert decision | {"reason": ""} == {
        "action": "redistribute", "source_queue": CPU, "target_queue": CPU, "worker_id": None, "reason": "",
        "confidence": 1.0, "estimated_improvement": 0.0, "task_id": None, "tasks": 3, "rule": "evacuation",
        "source_lane": "cpu_standard.gone", "target_lane": CPU, "source_level": 4, "target_level": 4,
    }  # fmt: skip
    (entry,) = mq_on("journal", "ls", "--json").json["entries"]
    assert (entry["verb"], entry["reason"], entry["plan_id"]) == ("rebalance", "cron", answer["plan_id"])
    assert entry["who"].startswith("ann@")
    assert datetime.fromisoformat(entry["at"]).tzinfo is UTC


def test_the_second_run_is_quiet_and_changes_nothing(stage, mq_on):
    starve(stage, "a", "b", "c")
    assert "3 tasks moved" in mq_on("rebalance").out
    before = stage.ids(CPU, 1)
    again = mq_on("rebalance")
    assert (again.out, again.err) == ("", "")
    assert stage.ids(CPU, 1) == before == ["a", "b", "c"]
    assert len(mq_on("journal", "ls", "--json").json["entries"]) == 1


def test_with_nothing_to_do_nothing_is_said_and_the_journal_stays_empty(stage, mq_on):
    stage.join("cpu-1")
    done = mq_on("rebalance")
    assert (done.out, done.err) == ("", "")
    assert mq_on("journal", "ls").out == "No such change is in the journal.\n"


def test_a_moved_task_carries_its_new_level_and_keeps_its_word_of_priority(stage, mq_on):
    starve(stage, "a")
    mq_on("rebalance")
    message = stage.message(CPU, 1)
    assert message["properties"]["priority"] == 1
    assert message["headers"]["morag_queue"]["priority"] == "NORMAL"
    record = stage.broker.records(["a"])["a"]
    assert (record["lane"], record["level"], record["priority"]) == (CPU, 1, "NORMAL")


def test_a_dry_run_shows_where_each_task_would_go_and_moves_none(stage, mq_on):
    starve(stage, "a", "b")
    shown = mq_on("rebalance", "--dry-run").out
    assert "cpu_standard 4" in shown
    assert "starvation guard: it has waited 180 min, NORMAL should wait at most 60" in shown
    assert shown.endswith("2 tasks would be moved\n")
    assert stage.ids(CPU, 4) == ["a", "b"]
    assert stage.broker.state_store.load().at is None


def test_exit_code_tells_of_changes_and_only_then(stage, mq_on):
    stage.join("cpu-1")
    mq_on("rebalance", "--dry-run", "--exit-code", status=0)
    starve(stage, "a")
    mq_on("rebalance", "--dry-run", "--exit-code", status=4)
    mq_on("rebalance", "--dry-run", status=0)


def test_max_moves_and_queue_limit_what_is_moved(stage, mq_on):
    starve(stage, "a", "b", "c")
    assert mq_on("rebalance", "--queue", "gpu_p", "--json").json["moved_tasks"] == 0
    assert mq_on("rebalance", "--max-moves", "2", "--json").json["moved_tasks"] == 2
    assert stage.ids(CPU, 4) == ["c"]


def test_explain_tells_the_roads_not_taken(stage, mq_on):
    starve(stage, "a", "b")
    shown = mq_on("rebalance", "--max-moves", "1", "--explain").out
    assert "Not done:\n" in shown
    assert "this turn: the budget of 1 moves is used up" in shown


def test_who_leads_is_not_disturbed_and_is_named(stage, mq_on):
    starve(stage, "a")
    stage.broker.leases.take("other", "bob@host", "watch", 60)
    refused = mq_on("rebalance", status=7)
    assert "bob@host leads the fleet by `watch` for 0 s (term 1): nothing was changed" in refused.err
    assert stage.ids(CPU, 4) == ["a"]
    assert mq_on("rebalance", "--dry-run", "--json").json["decisions"][0]["task_id"] == "a"


def test_the_lease_is_given_back(stage, mq_on):
    mq_on("rebalance")
    assert stage.broker.leases.current() is None


def test_a_plan_is_written_by_one_run_and_applied_by_another_once(stage, mq_on, tmp_path):
    starve(stage, "a", "b")
    planned = mq_on("rebalance", "--plan", "p.json", "--json").json
    assert stage.ids(CPU, 4) == ["a", "b"]
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]
    applied = mq_on("rebalance", "--apply", "p.json", "--json").json
    assert (applied["plan_id"], applied["moved_tasks"]) == (planned["plan_id"], 2)
    again = mq_on("rebalance", "--apply", "p.json", "--json").json
    assert (again["moved_tasks"], again["already"], again["rejected"]) == (0, 2, [])
    assert stage.ids(CPU, 1) == ["a", "b"]
    assert len(mq_on("journal", "ls", "--json").json["entries"]) == 1


def test_what_no_longer_fits_is_refused_message_by_message(stage, mq_on):
    starve(stage, "a", "b")
    mq_on("rebalance", "--plan", "p.json")
    assert stage.claim("cpu-1") == "a"
    applied = mq_on("rebalance", "--apply", "p.json", "--json", status=3).json
    assert applied["moved_tasks"] == 1
    assert applied["rejected"] == [
        {"task_id": "a", "reason": "it is no longer in cpu_standard at level 4: taken, ended or moved meanwhile"}
    ]


def test_a_plan_of_which_nothing_fits_is_refused(stage, mq_on):
    starve(stage, "a")
    mq_on("rebalance", "--plan", "p.json")
    stage.claim("cpu-1")
    refused = mq_on("rebalance", "--apply", "p.json", status=5)
    assert "p.json no longer fits the fleet: none of its 1 moves could be made" in refused.err
    assert "make a new plan with --plan" in refused.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fleet": "mq@elsewhere:1/0"}, "is a plan for the fleet mq@elsewhere:1/0, and this is"),
        ({"version": 99}, "is a plan of version 99, and this is version 1: nothing was changed"),
        ({"verb": "drain"}, "is a plan of `drain`: apply it with `morag-queue drain --apply"),
        (
            {"steps": [{"kind": "resend", "task_id": "a", "reason": ""}]},
            "has a step resend, which rebalance never plans",
        ),
        ({"steps": 7}, "is no plan: steps:"),
    ],
    ids=["fleet", "version", "verb", "kind of step", "form"],
)
def test_a_plan_of_another_fleet_version_or_form_is_refused(stage, mq_on, tmp_path, change, message):
    starve(stage, "a")
    mq_on("rebalance", "--plan", "p.json")
    file = tmp_path / "p.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert message in mq_on("rebalance", "--apply", "p.json", status=5).err
    assert stage.ids(CPU, 4) == ["a"]


def test_a_plan_file_holds_no_password(stage, mq, tmp_path):
    stage.join("cpu-1")
    url = f"{stage.url}?password=hunter2"
    stage.client.acl_setuser("default", enabled=True, nopass=True)
    mq("rebalance", "--plan", "p.json", env={"REDIS_URL": url})
    text = (tmp_path / "p.json").read_text()
    assert "hunter2" not in text
    assert "password=***" in json.loads(text)["fleet"]


def test_a_plan_that_names_a_foreign_lane_is_refused(stage, mq_on, tmp_path):
    starve(stage, "a")
    mq_on("rebalance", "--plan", "p.json")
    file = tmp_path / "p.json"
    file.write_text(file.read_text().replace('"target": "cpu_standard"', '"target": "mq:workers"'))
    assert "names mq:workers, which is no lane of this fleet" in mq_on("rebalance", "--apply", "p.json", status=5).err


def test_no_plan_brings_what_needs_a_gpu_to_a_worker_without_one(stage, mq_on, tmp_path):
    starve(stage, "a")
    stage.join("gpu-1", "gpu")
    stage.submit("film", content_type="video", requires="gpu", priority="NORMAL")
    mq_on("rebalance", "--plan", "p.json")
    plan = json.loads((tmp_path / "p.json").read_text())
    forged = plan["steps"][0] | {"task_id": "film", "source": "gpu_priority", "target": CPU, "level": 4, "to_level": 4}
    (tmp_path / "p.json").write_text(json.dumps(plan | {"steps": [*plan["steps"], forged]}))
    rejected = mq_on("rebalance", "--apply", "p.json", "--json", status=3).json["rejected"]
    assert rejected == [
        {
            "task_id": "film",
            "reason": "it needs a GPU, and workers without one read cpu_standard: it stays in gpu_priority",
        }
    ]
    assert stage.ids("gpu_priority", 4) == ["film"]


def test_no_lane_is_moved_by_a_plan_to_where_its_gpu_work_may_not_be_nor_to_a_worker_that_is_not_there(
    stage, mq_on, tmp_path
):
    starve(stage, "a")
    stage.submit("film", content_type="video", requires="gpu", priority="NORMAL")
    mq_on("rebalance", "--plan", "p.json")
    plan = json.loads((tmp_path / "p.json").read_text())
    lane = {"kind": "move_lane", "source": "gpu_priority", "target": CPU, "level": 4, "count": 1, "reason": "forged"}
    (tmp_path / "p.json").write_text(json.dumps(plan | {"steps": [lane]}))
    assert "1 in gpu_priority need a GPU" in mq_on("rebalance", "--apply", "p.json", "--json", status=5).out
    assert stage.ids("gpu_priority", 4) == ["film"]
    (tmp_path / "p.json").write_text(json.dumps(plan | {"steps": [lane | {"target": "cpu_batch.ghost"}]}))
    told = mq_on("rebalance", "--apply", "p.json", status=5).err
    assert "moves to cpu_batch.ghost, and there is no worker ghost: nothing was changed" in told


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--plan", "a", "--apply", "b"), "rebalance takes --plan or --apply, not both"),
        (("--apply", "b", "--max-moves", "3"), "--max-moves and --queue are for making a plan"),
        (("--apply", "b", "--queue", CPU), "--max-moves and --queue are for making a plan"),
    ],
)
def test_options_that_contradict_are_wrong_usage(mq_on, args, message):
    assert message in mq_on("rebalance", *args, status=2).err


def test_a_plan_file_that_is_not_there_or_no_json(mq_on, tmp_path):
    assert "cannot read the plan" in mq_on("rebalance", "--apply", "none.json", status=1).err
    (tmp_path / "p.json").write_text("{")
    assert "p.json is no plan" in mq_on("rebalance", "--apply", "p.json", status=5).err
    assert "cannot write the plan" in mq_on("rebalance", "--plan", "no/such/dir/p.json", status=1).err


def test_an_unknown_queue_is_named_with_those_there_are(mq_on):
    refused = mq_on("rebalance", "--queue", "nope", status=8)
    assert "no queue 'nope'; there are cpu_batch, cpu_standard, gpu_fallback, gpu_priority" in refused.err


def test_the_journal_shows_an_entry_by_its_beginning_or_its_plan(stage, mq_on):
    starve(stage, "a")
    plan_id = mq_on("rebalance", "--json").json["plan_id"]
    shown = mq_on("journal", "show", plan_id[:8]).out
    assert "  a: cpu_standard 4 cpu_standard 1 starvation guard" in shown
    entry_id = mq_on("journal", "ls", "--json").json["entries"][0]["entry_id"]
    assert mq_on("journal", "show", entry_id, "--json").json["changes"]["moved"] == 1
    assert "no journal entry '77'" in mq_on("journal", "show", "77", status=8).err


def test_the_journal_lists_the_changes_of_one_verb(stage, mq_on):
    stage.broker.journal.write("ann", "cordon", "cpu-1", reason="\x1b[2J disk", changes={"state": "cordoned"})
    stage.broker.journal.write("ann", "rebalance", "fleet", changes={"moved": 3})
    assert [one["verb"] for one in mq_on("journal", "ls", "--verb", "cordon", "--json").json["entries"]] == ["cordon"]
    shown = mq_on("journal", "ls").out
    assert "3 moved" in shown
    assert "\\x1b[2J disk" in shown
