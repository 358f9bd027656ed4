"""`drain` on real workers: reserved tasks are returned, running tasks end, and a restart changes nothing."""

import json
import signal
from collections.abc import Callable

import pytest

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

Make = Callable[..., Fleet]


def until_started(fleet: Fleet, *tasks: str) -> None:
    until(lambda: set(tasks) <= fleet.counts("start").keys(), 30, lambda: f"not started: {fleet.where()}")


@pytest.fixture
def fleet(make_fleet: Make) -> Fleet:
    """A fleet of one worker that reserves four tasks and runs one at a time."""
    made = make_fleet(conf={"worker_prefetch_multiplier": 4})
    made.start_worker("worker-1")
    return made


def test_drain_returns_reserved_and_eta_tasks_and_the_worker_starts_none(fleet: Fleet):
    running = fleet.send("cpu_standard", wait_for_file=str(fleet.release_file()))
    until_started(fleet, running)
    eta = fleet.producer.send_task(
        "morag.worker.process_file_task", ("/dev/null", "document", {}), queue="cpu_standard", priority=4,
        countdown=3, ignore_result=True,
    ).id  # fmt: skip
    reserved = [fleet.send("cpu_standard") for _ in range(3)]
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 5, 20, lambda: f"not reserved: {fleet.where()}")

    done = fleet.run_json("drain", "worker-1", "--force", "--allow-last", "--deadline", "20s")

    assert done["state"] == "drained"
    assert fleet.counts("start").keys() == {running}
    fleet.release_file().touch()
    fleet.start_worker("worker-2")
    fleet.until_ran([running, eta, *reserved])
    assert {one["worker"].partition("@")[0] for one in fleet.events("start") if one["task"] != running} == {"worker-2"}
    assert [fleet.counts("start")[one] for one in (eta, *reserved)] == [1, 1, 1, 1]


def test_drain_waits_for_running_tasks_and_loses_or_repeats_none(fleet: Fleet):
    fleet.start_worker("worker-2")
    sent = [fleet.send("cpu_standard", sleep=0.2) for _ in range(20)]
    until_started(fleet, *sent[:2])
    done = fleet.run_json("drain", "worker-1", "--deadline", "30s")
    drained_at = fleet.redis.time()[0]
    assert (done["state"], done["running_tasks"]) == ("drained", 0)
    fleet.until_ran(sent)
    account = fleet.account(sent)
    assert (account.lost, account.duplicated, account.stuck) == (frozenset(), frozenset(), ())
    late = [one for one in fleet.events("start") if one["worker"].startswith("worker-1") and one["at"] > drained_at + 1]
    assert late == []


def test_drain_returns_rate_limited_tasks(make_fleet: Make):
    limits = {"morag.worker.process_file_task": {"rate_limit": "1/h"}}
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 4, "task_annotations": limits})
    fleet.start_worker("worker-1")
    first, *others = [fleet.send("cpu_standard") for _ in range(3)]
    fleet.until_ran([first])
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 2, 20, lambda: f"not reserved: {fleet.where()}")
    assert fleet.run_json("drain", "worker-1", "--force")["state"] == "drained"
    assert fleet.redis.hlen(fleet.keys.unacked) == 0
    waiting = [
        json.loads(raw)["headers"]["id"] for raw in fleet.redis.lrange(fleet.keys.list("cpu_standard", 4), 0, -1)
    ]
    assert waiting[::-1] == others, "not in their order"


def test_a_drained_worker_takes_nothing_after_a_restart_until_it_is_uncordoned(fleet: Fleet):
    fleet.run("drain", "worker-1", "--reason", "new disk")
    fleet.stop("worker-1")
    fleet.start_worker("worker-1")
    sent = fleet.send("cpu_standard")
    (shown,) = fleet.run_json("stats")["workers"]
    assert shown["status"] == "drained"
    assert "new disk" in shown["reason"]
    assert fleet.counts("start") == {}
    fleet.run("uncordon", "worker-1")
    fleet.until_ran([sent])


def test_drain_with_shutdown_ends_the_process_after_the_drain(fleet: Fleet):
    running = fleet.send("cpu_standard", sleep=1)
    until_started(fleet, running)
    done = fleet.run_json("drain", "worker-1", "--shutdown", "--deadline", "30s")
    assert (done["state"], done["shut_down"]) == ("drained", True)
    assert fleet.workers["worker-1"].wait(20) == 0
    assert fleet.counts() == {running: 1}
    assert fleet.run_json("drain", "worker-1", "--shutdown")["changed"] is False


def test_ctrl_c_detaches_from_a_drain_that_continues(fleet: Fleet):
    running = fleet.send("cpu_standard", wait_for_file=str(fleet.release_file()))
    until_started(fleet, running)
    command = fleet.start_command("drain", "worker-1")
    until(lambda: "takes no new tasks" in command.stderr, 20, "the drain did not begin")
    assert fleet.redis.hexists(fleet.keys.cordons, "worker-1")
    command.process.send_signal(signal.SIGINT)
    command.expect(130, 20)
    assert "Detached: the drain of worker-1 continues. Wait for it with: morag-queue drain worker-1" in command.stderr
    fleet.release_file().touch()
    assert fleet.run_json("drain", "worker-1", "--deadline", "20s")["state"] == "drained"
    assert fleet.counts() == {running: 1}


@pytest.mark.slow
def test_drain_and_uncordon_stop_and_restart_a_worker_that_does_not_claim(make_fleet: Make):
    fleet = make_fleet(env={"MORAG_QUEUE_AGENT__CLAIM": "false"})
    fleet.start_worker("worker-1")
    first = fleet.send("cpu_standard")
    fleet.until_ran([first])
    assert fleet.run_json("drain", "worker-1", "--deadline", "30s")["state"] == "drained"
    second = fleet.send("cpu_standard")
    fleet.stop("worker-1")
    fleet.start_worker("worker-1")
    third = fleet.send("cpu_batch")
    fleet.run("uncordon", "worker-1")
    fleet.until_ran([second, third])
    assert fleet.account([first, second, third]).duplicated == frozenset()


@pytest.mark.slow
def test_an_agentless_worker_is_drained_through_remote_control(make_fleet: Make):
    fleet = make_fleet(agent=False)
    fleet.start_worker("agentless-1", options=("-Q", "cpu_standard,cpu_standard.agentless-1"), wait=False)
    until(lambda: " ready." in fleet.log("agentless-1"), 40, "not ready")
    running = fleet.send("cpu_standard", level=3, wait_for_file=str(fleet.release_file()))
    until_started(fleet, running)
    scheduled = fleet.send("cpu_standard", level=3, countdown=8)
    listed = {}

    def are_listed() -> bool:
        listed.update({task["task_id"]: task for task in fleet.run_json("tasks")["tasks"] if task["worker"]})
        return listed.keys() == {running, scheduled}

    until(are_listed, 20, lambda: f"listed: {listed}")
    assert {task["worker"] for task in listed.values()} == {"agentless-1"}
    assert listed[running]["started_at"] is not None
    assert (listed[scheduled]["lane"], listed[scheduled]["started_at"]) == ("cpu_standard", None)
    assert (
        "warning: the tasks of 1 worker without the agent are listed as reported: "
        "those that wait for a rate limit are missing" in fleet.run("tasks").stderr
    )
    held = fleet.start_command("drain", "agentless-1", "--deadline", "2s", "--json").expect(6)
    assert f"agentless-1 holds {', '.join(sorted([running, scheduled]))}" in held.stderr
    fleet.release_file().touch()
    done = fleet.run("drain", "agentless-1", "--deadline", "30s", "--json")
    state = json.loads(done.stdout)
    assert (state["worker"], state["state"], state["running_tasks"]) == ("agentless-1", "drained", 0)
    assert state["agentless"] is True
    assert "without the agent" in done.stderr
    assert fleet.counts() == {running: 1, scheduled: 1}
    sent = fleet.send("cpu_standard", level=3)
    assert json.loads(fleet.run("drain", "agentless", "--json").stdout)["moved_tasks"] == 0
    assert sent not in fleet.counts("start")
    unseen = "the running tasks of 1 worker without the agent are not visible"
    fleet.run("uncordon", "agentless-1")
    until(lambda: sent in fleet.counts(), 10, "it did not consume again")
    assert unseen in fleet.run("task", "why", "no-such-task", status=8).stderr
    fleet.run("drain", "agentless-1")
    sent = fleet.send("cpu_standard", level=3)
    assert "run the command again without --force" in fleet.run("drain", "agentless-1", "--force", status=2).stderr
    again = fleet.run("uncordon", "agentless-1")
    assert again.stdout == "agentless-1 is in service\n"
    assert "after a restart it consumes again" in again.stderr
    fleet.until_ran([sent])
    assert fleet.run("uncordon", "agentless-1").stdout == "agentless-1 is already in service\n"
    assert fleet.run_json("drain", "agentless-1", "--dry-run")["changed"] is True


def test_cordon_leaves_an_agentless_worker_its_own_lane_and_undo_reverts_it(make_fleet: Make):
    fleet = make_fleet(agent=False)
    fleet.start_worker("agentless-1", options=("-Q", "cpu_standard,cpu_standard.agentless-1"), wait=False)
    until(lambda: " ready." in fleet.log("agentless-1"), 40, "not ready")
    assert fleet.run_json("cordon", "agentless-1", "--reason", "noise")["state"] == "cordoned"
    shared, own = fleet.send("cpu_standard", level=3), fleet.send("cpu_standard.agentless-1", level=3)
    fleet.until_ran([own])
    assert shared not in fleet.counts("start")
    entry = fleet.run_json("journal", "ls")["entries"][0]
    assert (entry["verb"], entry["reason"], entry["changes"]["queues"]) == ("cordon", "noise", ["cpu_standard"])
    fleet.run("journal", "undo", entry["entry_id"])
    fleet.until_ran([shared])
