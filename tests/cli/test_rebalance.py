"""`rebalance`, and plan files."""

import json
from datetime import UTC, datetime

import pytest

from tests.support.simulated_fleet import SimulatedFleet

CPU = "cpu_standard"


def strand(sim_fleet: SimulatedFleet, *task_ids: str, worker: str = "gone") -> None:
    """Pin tasks to a worker that then shuts down."""
    sim_fleet.join(worker)
    sim_fleet.submit(*task_ids, worker=worker)
    sim_fleet.client.hset(sim_fleet.keys.beats, worker, json.dumps({"at": sim_fleet.broker.now(), "stopped": True}))


def starve(sim_fleet: SimulatedFleet, *task_ids: str, hours: float = 3.0) -> None:
    """Queue tasks that have waited longer than the maximum of NORMAL, and a worker that serves them."""
    sim_fleet.join("cpu-1", slots=4)
    now = sim_fleet.broker.now
    sim_fleet.broker.now = lambda: now() - hours * 3600  # type: ignore[method-assign]
    sim_fleet.fill(task_ids)
    sim_fleet.broker.now = now  # type: ignore[method-assign]


def test_rebalance_empties_the_lane_of_a_dead_worker_in_order_and_journals_it(sim_fleet, fleet):
    strand(sim_fleet, "a", "b", "c")
    answer = fleet("rebalance", "--json", "--reason", "cron").json
    assert sim_fleet.ids(CPU, 4) == ["a", "b", "c"]
    assert (answer["moved_tasks"], answer["rejected"], answer["dry_run"]) == (3, [], False)
    (decision,) = answer["decisions"]
    assert decision | {"reason": ""} == {
        "action": "redistribute", "source_queue": CPU, "target_queue": CPU, "worker_id": None, "reason": "",
        "confidence": 1.0, "estimated_improvement": 0.0, "task_id": None, "tasks": 3, "rule": "evacuation",
        "source_lane": "cpu_standard.gone", "target_lane": CPU, "source_level": 4, "target_level": 4,
    }  # fmt: skip
    (entry,) = fleet("journal", "ls", "--json").json["entries"]
    assert (entry["verb"], entry["reason"], entry["plan_id"]) == ("rebalance", "cron", answer["plan_id"])
    assert entry["who"].startswith("ann@")
    assert datetime.fromisoformat(entry["at"]).tzinfo is UTC


def test_a_repeated_rebalance_prints_and_changes_nothing(sim_fleet, fleet):
    starve(sim_fleet, "a", "b", "c")
    assert "3 tasks moved" in fleet("rebalance").out
    before = sim_fleet.ids(CPU, 1)
    repeated = fleet("rebalance")
    assert (repeated.out, repeated.err) == ("", "")
    assert sim_fleet.ids(CPU, 1) == before == ["a", "b", "c"]
    assert len(fleet("journal", "ls", "--json").json["entries"]) == 1


def test_rebalance_of_a_balanced_fleet_prints_and_journals_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    done = fleet("rebalance")
    assert (done.out, done.err) == ("", "")
    assert fleet("journal", "ls").out == "The journal is empty: nothing has changed the fleet yet.\n"


def test_a_promoted_task_has_its_new_level_and_its_old_priority(sim_fleet, fleet):
    starve(sim_fleet, "a")
    fleet("rebalance")
    message = sim_fleet.message(CPU, 1)
    assert message["properties"]["priority"] == 1
    assert message["headers"]["morag_queue"]["priority"] == "NORMAL"
    record = sim_fleet.broker.records(["a"])["a"]
    assert (record.lane, record.level, record.priority.name) == (CPU, 1, "NORMAL")


def test_a_dry_run_of_rebalance_lists_the_moves_and_makes_none(sim_fleet, fleet):
    starve(sim_fleet, "a", "b")
    out = fleet("rebalance", "--dry-run").out
    assert "cpu_standard 4" in out
    assert "starvation guard: it has waited 180 min, the limit of NORMAL is 60 min" in out
    assert out.endswith("2 tasks would be moved\n")
    assert sim_fleet.ids(CPU, 4) == ["a", "b"]
    assert sim_fleet.broker.state_store.load().at is None


def test_exit_code_exits_with_4_only_if_the_plan_has_changes(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    fleet("rebalance", "--dry-run", "--exit-code", status=0)
    starve(sim_fleet, "a")
    fleet("rebalance", "--dry-run", "--exit-code", status=4)
    fleet("rebalance", "--dry-run", status=0)


def test_max_moves_and_queue_limit_the_plan(sim_fleet, fleet):
    starve(sim_fleet, "a", "b", "c")
    assert fleet("rebalance", "--queue", "gpu_p", "--json").json["moved_tasks"] == 0
    assert fleet("rebalance", "--max-moves", "2", "--json").json["moved_tasks"] == 2
    assert sim_fleet.ids(CPU, 4) == ["c"]


def test_explain_lists_declined_moves(sim_fleet, fleet):
    starve(sim_fleet, "a", "b")
    out = fleet("rebalance", "--max-moves", "1", "--explain").out
    assert "Declined:\n" in out
    assert "this turn: the budget of 1 move is used up" in out


def test_rebalance_exits_with_7_and_names_the_leader(sim_fleet, fleet):
    starve(sim_fleet, "a")
    sim_fleet.broker.leases.take("other", "bob@host", "watch", 60)
    refused = fleet("rebalance", status=7)
    assert "bob@host leads the fleet with `watch` (term 1, for 0 s): nothing was changed" in refused.err
    assert sim_fleet.ids(CPU, 4) == ["a"]
    assert fleet("rebalance", "--dry-run", "--json").json["decisions"][0]["task_id"] == "a"


def test_a_quiet_rebalance_beside_a_leader_exits_with_7_in_silence(sim_fleet, fleet):
    starve(sim_fleet, "a")
    sim_fleet.broker.leases.take("other", "bob@host", "watch", 60)
    refused = fleet("rebalance", "--quiet", status=7)
    assert (refused.out, refused.err) == ("", "")
    assert "bob@host leads" in fleet("rebalance", "--quiet", "--json", status=7).json["error"]
    assert sim_fleet.ids(CPU, 4) == ["a"]


def test_rebalance_releases_its_lease(sim_fleet, fleet):
    fleet("rebalance")
    assert sim_fleet.broker.leases.current() is None


def test_a_plan_file_can_be_applied_once(sim_fleet, fleet, tmp_path):
    starve(sim_fleet, "a", "b")
    planned = fleet("rebalance", "--plan", "p.json", "--json").json
    assert sim_fleet.ids(CPU, 4) == ["a", "b"]
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]
    applied = fleet("rebalance", "--apply", "p.json", "--json").json
    assert (applied["plan_id"], applied["moved_tasks"]) == (planned["plan_id"], 2)
    repeated = fleet("rebalance", "--apply", "p.json", "--json").json
    assert (repeated["moved_tasks"], repeated["already"], repeated["rejected"]) == (0, 2, [])
    assert sim_fleet.ids(CPU, 1) == ["a", "b"]
    assert len(fleet("journal", "ls", "--json").json["entries"]) == 1


def test_apply_rejects_single_moves_that_no_longer_fit(sim_fleet, fleet):
    starve(sim_fleet, "a", "b")
    fleet("rebalance", "--plan", "p.json")
    assert sim_fleet.claim("cpu-1") == "a"
    applied = fleet("rebalance", "--apply", "p.json", "--json", status=3).json
    assert applied["moved_tasks"] == 1
    assert applied["rejected"] == [
        {
            "task_id": "a",
            "reason": "it is no longer in cpu_standard at level 4: it was taken, moved or cancelled meanwhile",
        }
    ]


def test_apply_refuses_a_plan_of_which_no_move_fits(sim_fleet, fleet):
    starve(sim_fleet, "a")
    fleet("rebalance", "--plan", "p.json")
    sim_fleet.claim("cpu-1")
    refused = fleet("rebalance", "--apply", "p.json", status=5)
    assert "p.json no longer fits the fleet: none of its moves was made" in refused.err
    assert "write a new plan with --plan" in refused.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fleet": "mq@elsewhere:1/0"}, "is a plan for the fleet mq@elsewhere:1/0, this is"),
        ({"version": 99}, "is a plan of version 99, this is version 1: nothing was changed"),
        ({"verb": "drain"}, "is a plan of `drain`: apply it with `morag-queue drain --apply"),
        (
            {"steps": [{"kind": "resend", "task_id": "a", "reason": ""}]},
            "has a step resend, which rebalance never plans",
        ),
        ({"steps": 7}, "is not a plan: steps:"),
    ],
    ids=["fleet", "version", "verb", "kind of step", "form"],
)
def test_apply_refuses_a_plan_of_another_fleet_version_or_form(sim_fleet, fleet, tmp_path, change, message):
    starve(sim_fleet, "a")
    fleet("rebalance", "--plan", "p.json")
    file = tmp_path / "p.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert message in fleet("rebalance", "--apply", "p.json", status=5).err
    assert sim_fleet.ids(CPU, 4) == ["a"]


def test_a_plan_file_contains_no_password(sim_fleet, mq, tmp_path):
    sim_fleet.join("cpu-1")
    url = f"{sim_fleet.url}?password=hunter2"
    sim_fleet.client.acl_setuser("default", enabled=True, nopass=True)
    mq("rebalance", "--plan", "p.json", env={"REDIS_URL": url})
    text = (tmp_path / "p.json").read_text()
    assert "hunter2" not in text
    assert "password=***" in json.loads(text)["fleet"]


def test_apply_refuses_a_plan_with_a_foreign_lane(sim_fleet, fleet, tmp_path):
    starve(sim_fleet, "a")
    fleet("rebalance", "--plan", "p.json")
    file = tmp_path / "p.json"
    file.write_text(file.read_text().replace('"target": "cpu_standard"', '"target": "mq:workers"'))
    assert "names mq:workers, which is not a lane" in fleet("rebalance", "--apply", "p.json", status=5).err


def test_apply_rejects_moving_a_gpu_task_to_a_cpu_lane(sim_fleet, fleet, tmp_path):
    starve(sim_fleet, "a")
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.submit("film", content_type="video", requires="gpu", priority="NORMAL")
    fleet("rebalance", "--plan", "p.json")
    plan = json.loads((tmp_path / "p.json").read_text())
    forged = plan["steps"][0] | {"task_id": "film", "source": "gpu_priority", "target": CPU, "level": 4, "to_level": 4}
    (tmp_path / "p.json").write_text(json.dumps(plan | {"steps": [*plan["steps"], forged]}))
    rejected = fleet("rebalance", "--apply", "p.json", "--json", status=3).json["rejected"]
    assert rejected == [
        {
            "task_id": "film",
            "reason": "it needs a GPU, and workers without a GPU read cpu_standard: it stays in gpu_priority",
        }
    ]
    assert sim_fleet.ids("gpu_priority", 4) == ["film"]


def test_apply_refuses_moving_a_gpu_lane_to_a_cpu_lane_or_to_an_unknown_worker(sim_fleet, fleet, tmp_path):
    starve(sim_fleet, "a")
    sim_fleet.submit("film", content_type="video", requires="gpu", priority="NORMAL")
    fleet("rebalance", "--plan", "p.json")
    plan = json.loads((tmp_path / "p.json").read_text())
    lane = {"kind": "move_lane", "source": "gpu_priority", "target": CPU, "level": 4, "count": 1, "reason": "forged"}
    (tmp_path / "p.json").write_text(json.dumps(plan | {"steps": [lane]}))
    assert "1 in gpu_priority need a GPU" in fleet("rebalance", "--apply", "p.json", "--json", status=5).out
    assert sim_fleet.ids("gpu_priority", 4) == ["film"]
    (tmp_path / "p.json").write_text(json.dumps(plan | {"steps": [lane | {"target": "cpu_batch.ghost"}]}))
    err = fleet("rebalance", "--apply", "p.json", status=5).err
    assert "moves work to cpu_batch.ghost, but ghost is not registered: nothing was changed" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--plan", "a", "--apply", "b"), "rebalance takes --plan or --apply, not both"),
        (
            ("--apply", "b", "--max-moves", "3"),
            "--max-moves and --queue limit a new plan; --apply runs a plan unchanged, so leave them out",
        ),
        (
            ("--apply", "b", "--queue", CPU),
            "--max-moves and --queue limit a new plan; --apply runs a plan unchanged, so leave them out",
        ),
    ],
)
def test_contradictory_plan_options_are_wrong_usage(fleet, args, message):
    assert message in fleet("rebalance", *args, status=2).err


def test_a_missing_invalid_or_unwritable_plan_file_is_reported(fleet, tmp_path):
    assert "cannot read the plan" in fleet("rebalance", "--apply", "none.json", status=1).err
    (tmp_path / "p.json").write_text("{")
    assert "p.json is not a plan" in fleet("rebalance", "--apply", "p.json", status=5).err
    assert "cannot write the plan" in fleet("rebalance", "--plan", "no/such/dir/p.json", status=1).err


def test_rebalance_rejects_an_unknown_queue_and_lists_the_known_ones(fleet):
    refused = fleet("rebalance", "--queue", "nope", status=8)
    assert "no queue 'nope'; there are cpu_batch, cpu_standard, gpu_fallback, gpu_priority" in refused.err


def test_journal_show_finds_an_entry_by_its_id_or_plan_id(sim_fleet, fleet):
    starve(sim_fleet, "a")
    plan_id = fleet("rebalance", "--json").json["plan_id"]
    out = fleet("journal", "show", plan_id[:8]).out
    assert "  a: cpu_standard 4 cpu_standard 1 starvation guard" in out
    entry_id = fleet("journal", "ls", "--json").json["entries"][0]["entry_id"]
    assert fleet("journal", "show", entry_id, "--json").json["changes"]["moved"] == 1
    assert "no journal entry '77'" in fleet("journal", "show", "77", status=8).err


def test_apply_rejects_dry_run(sim_fleet, fleet):
    starve(sim_fleet, "a")
    fleet("rebalance", "--plan", "p.json")
    refused = fleet("rebalance", "--apply", "p.json", "--dry-run", status=2)
    assert refused.err == "error: --apply cannot be combined with --dry-run: read p.json to see its changes\n"


def test_rebalance_of_a_balanced_fleet_says_so_on_a_terminal(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    assert fleet("rebalance", terminal=True).err == "Nothing to do: the fleet is balanced.\n"
