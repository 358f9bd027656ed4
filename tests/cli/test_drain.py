"""`drain`, with registered workers that have no process."""

import json
from dataclasses import replace

import pytest

from morag_queue.core.model import WorkerStatus
from morag_queue.operations.drain_options import DEADLINE_SECONDS
from tests.cli.helpers import cordon_of, journaled_verbs


def test_a_declined_confirmation_of_a_forced_drain_changes_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    declined = fleet("drain", "cpu-1", "--force", typed="n\n", status=5)
    assert "cpu-1: its running tasks will be requeued and may run twice. Continue? [y/N]" in declined.err
    assert "nothing was changed; to skip the question, add --yes" in declined.err
    assert cordon_of(sim_fleet, "cpu-1") is None


def test_a_dry_run_of_a_forced_drain_lists_the_target_of_each_task(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.join("cpu-2")
    sim_fleet.submit("runs")
    sim_fleet.claim("cpu-1")
    sim_fleet.submit("pinned", worker="cpu-1")
    assert fleet("drain", "cpu-1", "--force", "--dry-run").out == (
        "cpu-1 would be drained\n"
        "  1 of cpu_standard.cpu-1 at level 4 → cpu_standard\n"
        "  runs held by cpu-1 → cpu_standard at level 4\n"
    )
    answer = fleet("drain", "cpu-1", "--force", "--dry-run", "--json").json
    assert (answer["moved_tasks"], answer["taken_back_tasks"]) == (1, 1)
    assert [step["kind"] for step in answer["steps"]] == ["move_lane", "take_back"]
    assert len(sim_fleet.broker.observe()[0].held) == 1


def test_draining_an_idle_worker_ends_at_once_and_repeating_it_changes_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    answer = fleet("drain", "cpu-1", "--json").json
    assert (answer["state"], answer["moved_tasks"], answer["running_tasks"]) == ("drained", 0, 0)
    entries = len(sim_fleet.broker.journal.latest(50))
    repeated = fleet("drain", "cpu-1", "--json").json
    assert (repeated["state"], repeated["moved_tasks"], repeated["changed"]) == ("drained", 0, False)
    assert fleet("drain", "cpu-1").out == "cpu-1 is already drained\n"
    assert len(sim_fleet.broker.journal.latest(50)) == entries


def test_drain_moves_waiting_tasks_to_the_shared_lane_in_order(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.join("cpu-2")
    sim_fleet.submit("shared")
    sim_fleet.submit("a", "b", "c", worker="cpu-1")
    sim_fleet.submit("urgent", worker="cpu-1", priority="URGENT")
    answer = fleet("drain", "cpu-1", "--allow-pinned", "--json").json
    assert (answer["state"], answer["moved_tasks"]) == ("drained", 4)
    assert sim_fleet.ids("cpu_standard", 4) == ["shared", "a", "b", "c"]
    assert sim_fleet.ids("cpu_standard", 0) == ["urgent"]
    assert sim_fleet.message("cpu_standard", 4, 1)["properties"]["delivery_info"]["routing_key"] == "cpu_standard"
    assert sim_fleet.claim("cpu-1") is None


def test_drain_lists_all_blockers_with_their_flags_and_changes_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("runs", estimated_duration=600)
    sim_fleet.claim("cpu-1")
    sim_fleet.submit("pinned", worker="cpu-1")
    refused = fleet("drain", "cpu-1", "--deadline", "1m", status=5)
    assert refused.err == (
        "error: cpu-1: it is the last worker in service for 1 task in cpu_standard; start one (celery worker -Q "
        "cpu_standard), or add --allow-last to let it wait\n"
        "cpu-1: 1 task in its lanes is pinned to it; let it run first (morag-queue cordon cpu-1, and drain "
        "later), or add --allow-pinned to give it to any worker\n"
        "cpu-1: 1 task (runs) is expected to run for another 600 min, and the deadline is 1 min; give it more time "
        "(--deadline 600m), or add --no-deadline to wait without limit\n"
        "nothing was changed; --force overrides all of this, and requeues running tasks\n"
    )
    assert cordon_of(sim_fleet, "cpu-1") is None
    assert sim_fleet.ids("cpu_standard.cpu-1", 4) == ["pinned"]
    assert journaled_verbs(sim_fleet) == []


def test_each_flag_overrides_only_its_own_blocker(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("pinned", worker="cpu-1")
    assert "--allow-last" not in fleet("drain", "cpu-1", "--allow-last", status=5).err
    assert "--allow-pinned" not in fleet("drain", "cpu-1", "--allow-pinned", status=5).err
    assert fleet("drain", "cpu-1", "--allow-pinned", "--allow-last", "--json").json["moved_tasks"] == 1


def test_drain_refuses_the_last_gpu_worker_while_gpu_work_waits(sim_fleet, fleet):
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.join("cpu-1", "cpu")
    sim_fleet.submit("film", content_type="video", requires="gpu")
    refused = fleet("drain", "gpu-1", status=5)
    assert "for 1 task in gpu_priority;" in refused.err
    assert fleet("drain", "gpu-1", "--force", "--json").json["state"] == "drained"


def test_draining_the_last_worker_of_an_idle_fleet_warns(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    assert "no other worker in service reads cpu_standard" in fleet("drain", "cpu-1", "--json").err


def test_drain_exits_with_6_at_the_deadline_and_says_how_to_continue(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t", estimated_duration=0)
    sim_fleet.claim("cpu-1")
    late = fleet("drain", "cpu-1", "--deadline", "200ms", "--json", status=6)
    assert (late.json["state"], late.json["running_tasks"]) == ("draining", 1)
    assert late.err.endswith(
        "The deadline passed with 1 task still running on cpu-1, which takes no new work. Keep waiting with: "
        "morag-queue drain cpu-1, or requeue running tasks with: morag-queue drain cpu-1 --force\n"
    )
    assert cordon_of(sim_fleet, "cpu-1").state is WorkerStatus.DRAINING
    sim_fleet.end("t")
    assert fleet("drain", "cpu-1", "--json").json["state"] == "drained", "a second drain resumes the first"


def test_a_forced_drain_requeues_running_tasks_and_warns_of_at_least_once(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t")
    sim_fleet.claim("cpu-1")
    forced = fleet("drain", "cpu-1", "--force", "--json")
    assert (forced.json["state"], forced.json["taken_back_tasks"], forced.json["running_tasks"]) == ("drained", 1, 0)
    assert "at least once" in forced.err
    assert sim_fleet.ids("cpu_standard", 4) == ["t"]
    sim_fleet.join("cpu-2")
    assert sim_fleet.claim("cpu-2") == "t"


def test_a_detached_drain_starts_and_does_not_wait(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t")
    sim_fleet.claim("cpu-1")
    detached = fleet("drain", "cpu-1", "--detach", "--json")
    assert detached.json["state"] == "draining"
    assert detached.err.endswith("The drain continues. Wait for it with: morag-queue drain cpu-1\n")


def test_ctrl_c_detaches_from_a_drain_and_says_how_to_wait_again(sim_fleet, fleet, monkeypatch):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t")
    sim_fleet.claim("cpu-1")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("morag_queue.cli.drain.sleep", interrupt)
    detached = fleet("drain", "cpu-1", status=130)
    assert "Detached: the drain of cpu-1 continues. Wait for it with: morag-queue drain cpu-1\n" in detached.err
    assert cordon_of(sim_fleet, "cpu-1").state is WorkerStatus.DRAINING


def test_a_drain_stops_if_the_worker_is_uncordoned_meanwhile(sim_fleet, fleet, monkeypatch):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t")
    sim_fleet.claim("cpu-1")
    lift = lambda _: sim_fleet.broker.cordons.put("cpu-1", None, tuple(WorkerStatus))  # noqa: E731
    monkeypatch.setattr("morag_queue.cli.drain.sleep", lift)
    assert "put back into service during the drain" in fleet("drain", "cpu-1", status=5).err
    assert cordon_of(sim_fleet, "cpu-1") is None


def test_two_concurrent_drains_of_a_worker_both_succeed(sim_fleet, fleet, monkeypatch):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t")
    sim_fleet.claim("cpu-1")

    def finish_in_another_drain(_):
        sim_fleet.end("t")
        monkeypatch.setattr("morag_queue.cli.drain.sleep", lambda _: None)
        assert fleet("drain", "cpu-1", "--json").json["state"] == "drained"

    monkeypatch.setattr("morag_queue.cli.drain.sleep", finish_in_another_drain)
    assert fleet("drain", "cpu-1", "--json").json["state"] == "drained"


def test_a_drained_worker_stays_drained_after_a_restart(sim_fleet, fleet):
    joined = sim_fleet.join("cpu-1")
    fleet("drain", "cpu-1")
    sim_fleet.broker.registry.register(replace(joined, incarnation="cpu-1.2"), "cpu-1.1")
    sim_fleet.submit("t", worker=None)
    assert sim_fleet.claim("cpu-1") is None
    (worker,) = fleet("stats", "--json").json["workers"]
    assert worker["status"] == "drained"


def test_drain_leaves_a_foreign_message_in_its_lane_and_warns(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t", worker="cpu-1")
    sim_fleet.client.lpush("cpu_standard.cpu-1", "not a message")
    done = fleet("drain", "cpu-1", "--allow-pinned", "--allow-last", "--json")
    assert (done.json["state"], done.json["moved_tasks"]) == ("drained", 1)
    assert "1 message could not be moved out of its lanes" in done.err
    assert sim_fleet.client.lrange("cpu_standard.cpu-1", 0, -1) == [b"not a message"]


def test_drain_reports_its_progress_unless_quiet(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.join("cpu-2")
    sim_fleet.submit("t", worker="cpu-1")
    err = fleet("drain", "cpu-1", "--allow-pinned").err
    assert "s] cpu-1 takes no new tasks" in err
    assert "s] moved 1 task from its lanes to the shared lanes" in err
    assert "s] cpu-1 is drained" in err
    fleet("uncordon", "cpu-1")
    assert fleet("drain", "cpu-1", "--quiet").err == ""


def test_a_dry_run_of_drain_counts_tasks_and_changes_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.join("cpu-2")
    sim_fleet.submit("t", worker="cpu-1")
    would = fleet("drain", "cpu-1", "--allow-pinned", "--dry-run", "--json").json
    assert (would["dry_run"], would["moved_tasks"]) == (True, 1)
    assert fleet("drain", "cpu-1", "--dry-run", status=5).err.count("--allow-pinned") == 1
    assert cordon_of(sim_fleet, "cpu-1") is None
    assert sim_fleet.ids("cpu_standard.cpu-1", 4) == ["t"]


@pytest.mark.parametrize("name", ["w.1", "w*", "w[1]", "w?", "gpu_priority.w", "ü-1"])
def test_dots_and_glob_characters_in_a_worker_id_are_literal(sim_fleet, fleet, name):
    sim_fleet.join(name)
    sim_fleet.join("w-1")
    sim_fleet.submit("theirs", worker=name)
    sim_fleet.submit("others", worker="w-1")
    assert fleet("drain", name, "--allow-pinned", "--json").json["moved_tasks"] == 1
    assert sim_fleet.ids("cpu_standard", 4) == ["theirs"]
    assert sim_fleet.ids("cpu_standard.w-1", 4) == ["others"]


def test_an_invalid_or_contradictory_deadline_is_wrong_usage(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    assert "--deadline" in fleet("drain", "cpu-1", "--deadline", "soon", status=2).err
    assert "not both" in fleet("drain", "cpu-1", "--deadline", "1m", "--no-deadline", status=2).err


def test_the_default_deadline_is_an_hour_and_a_later_drain_can_change_it(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("t", estimated_duration=0)
    sim_fleet.claim("cpu-1")
    fleet("drain", "cpu-1", "--detach")
    placed = cordon_of(sim_fleet, "cpu-1")
    assert placed.deadline - placed.at == DEADLINE_SECONDS == 3600
    fleet("drain", "cpu-1", "--detach", "--no-deadline")
    assert cordon_of(sim_fleet, "cpu-1").deadline is None
    assert json.loads(sim_fleet.client.hget(sim_fleet.keys.cordons, "cpu-1"))["who"].startswith("ann@")


@pytest.fixture
def agentless(monkeypatch):
    """Replace the drain of an agentless worker, agentless-1, by a function."""

    def replace(run):
        monkeypatch.setattr("morag_queue.operations.agentless.agentless_node", lambda *_: "agentless-1@host")
        monkeypatch.setattr("morag_queue.operations.agentless.AgentlessDrain.run", run)

    return replace


def test_ctrl_c_detaches_from_the_drain_of_an_agentless_worker(fleet, agentless):
    def interrupt(_):
        raise KeyboardInterrupt

    agentless(interrupt)
    detached = fleet("drain", "agentless-1", status=130)
    assert (
        "Detached: the drain of agentless-1 continues. Wait for it with: morag-queue drain agentless-1\n"
        in detached.err
    )


def test_overriding_flags_are_wrong_usage_for_an_agentless_worker(fleet, agentless):
    agentless(None)
    assert fleet("drain", "agentless-1", "--force", "--allow-last", status=2).err == (
        "error: agentless-1@host is agentless, so its tasks cannot be requeued: "
        "run the command again without --force, --allow-last\n"
    )
