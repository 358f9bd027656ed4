"""`failover` on real workers: killed, stopped and woken, and agentless ones."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet
from tests.support.commands import Command
from tests.support.fleet import Fleet
from tests.support.records import backdated

Make = Callable[..., Fleet]


def until_started(fleet: Fleet, *tasks: str) -> None:
    until(lambda: set(tasks) <= fleet.counts("start").keys(), 30, lambda: f"not started: {fleet.where()}")


def counts(answer: Any) -> tuple[int, ...]:
    names = ("requeued_tasks", "moved_tasks", "recovered_tasks", "quarantined_tasks")
    return tuple(answer[name] for name in names)


@pytest.mark.slow
def test_failover_runs_the_tasks_of_a_killed_worker_elsewhere_once_and_eta_tasks_on_time(
    make_fleet: Make,
):
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3})
    fleet.start_worker("worker-1")
    running = fleet.send("cpu_standard", sleep=60)
    until_started(fleet, running)
    eta = fleet.producer.send_task(
        "morag.worker.process_file_task", ("/dev/null", "document", {"sleep": 0}), queue="cpu_standard", priority=4,
        countdown=8, ignore_result=True,
    ).id  # fmt: skip
    on_time = fleet.redis.time()[0] + 8
    reserved, pinned = fleet.send("cpu_standard"), fleet.send("cpu_batch.worker-1")
    fleet.redis.sadd(fleet.keys.lanes, "cpu_batch.worker-1")
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 4, 20, lambda: f"not taken: {fleet.where()}")
    waiting = [fleet.send("cpu_batch.worker-1") for _ in range(3)]
    fleet.kill("worker-1")

    answer = fleet.run_json("failover", "worker-1")

    assert counts(answer) == (4, 3, 0, 0)
    fleet.start_worker("worker-2", concurrency=2)
    fleet.until_ran([eta, reserved, pinned, *waiting])
    until(lambda: fleet.counts("start")[running] == 2, 20, "the interrupted task did not start again")
    assert {task: n for task, n in fleet.counts("start").items() if n > 1} == {running: 2}
    (started,) = (one["at"] for one in fleet.events("start") if one["task"] == eta)
    assert started >= on_time


@pytest.mark.slow
def test_failover_refuses_a_stopped_worker_and_a_forced_one_runs_nothing_when_it_wakes(
    make_fleet: Make,
):
    # A worker counts as alive for two heartbeats: long enough for a slow command to read them.
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3}, env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "5"})
    fleet.start_worker("worker-1")
    running = fleet.send("cpu_standard", wait_for_file=str(fleet.release_file()))
    until_started(fleet, running)
    reserved = [fleet.send("cpu_standard") for _ in range(2)]
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 3, 20, lambda: f"not taken: {fleet.where()}")
    fleet.kill("worker-1", signal.SIGSTOP)
    assert "alive" in fleet.run_json("failover", "worker-1", status=5)["error"]
    fleet.start_worker("worker-2")

    assert counts(fleet.run_json("failover", "worker-1", "--force", "--yes")) == (3, 0, 0, 0)
    fleet.release_file().touch()

    fleet.until_ran([running, *reserved])
    fleet.kill("worker-1", signal.SIGCONT)
    until(lambda: fleet.log("worker-1").count("registered worker-1") == 2, 30, "it did not register again")
    sent = [fleet.send("cpu_standard", sleep=0.3) for _ in range(6)]
    fleet.until_ran(sent)
    by = {one["worker"].partition("@")[0] for one in fleet.events("start") if one["task"] in sent}
    assert by == {"worker-1", "worker-2"}, "the fenced worker did not return as a new incarnation"
    assert [fleet.counts("start")[one] for one in reserved] == [1, 1]
    assert fleet.counts()[running] <= 2
    assert fleet.account([running, *reserved, *sent]).stuck == ()


def test_failover_resends_only_the_tasks_that_an_agentless_worker_lost():
    with AgentFleet(agent=False) as fleet:
        fleet.start_worker("agentless-1", app="tests.support.app", wait=False, options=("-Q", "cpu_standard"))
        until(lambda: " ready." in fleet.log("agentless-1"), 40, "not ready")
        ran = [fleet.submit("morag.worker.process_file_task", "/dev/null", "document", {}, level=3) for _ in range(3)]
        results = [f"celery-task-meta-{task}" for task in ran]
        until(lambda: fleet.redis.exists(*results) == 3, 20, lambda: f"no results: {fleet.where()}")
        fleet.kill("agentless-1", signal.SIGSTOP)
        lost = fleet.submit("morag.worker.process_file_task", "/dev/null", "document", {}, level=3)
        fleet.kill("agentless-1")
        assert fleet.where()["unacked"] == 0
        assert "cpu_standard\x06\x163" not in fleet.where(), "kombu must have popped it, so that no key contains it"
        old = fleet.redis.get(fleet.keys.task(lost))
        assert old is not None
        for one in (*ran, lost):
            key = fleet.keys.task(one)
            fleet.redis.set(key, backdated(fleet.redis.get(key), 30))

        assert counts(fleet.run_json("failover", "--dead")) == (0, 0, 1, 0)

        fleet.start_worker("agentless-2", app="tests.support.app", wait=False, options=("-Q", "cpu_standard"))
        fleet.until_ran([lost])
        assert fleet.counts("start") == dict.fromkeys((*ran, lost), 1)
        assert [fleet.state(one) for one in ran] == ["completed"] * 3


@pytest.mark.parametrize("command", ["drain", "failover"])
def test_a_killed_command_leaves_each_message_in_one_place_and_a_second_run_finishes(sim_fleet, command, tmp_path):
    """Kill the process; test_killed_commands.py interrupts the same commands at every step."""
    env = {"PATH": "/usr/bin:/bin", "REDIS_URL": sim_fleet.url, "HOME": "/nowhere"}
    sent = [f"t-{n:05d}" for n in range(12_000)]
    args = {"drain": ("drain", "cpu-1", "--force"), "failover": ("failover", "cpu-1")}[command]
    sim_fleet.join("cpu-1", client_name="mq.gone", slots=5)
    sim_fleet.fill(sent)
    assert [sim_fleet.claim("cpu-1") for _ in range(5)] == sent[:5]
    sim_fleet.broker.moves.lane("cpu_standard", "cpu_standard.cpu-1", 4, len(sent))
    sim_fleet.client.sadd(sim_fleet.keys.lanes, "cpu_standard.cpu-1")
    for moved in (1, 4000, 8000):
        process = Command(args, env, tmp_path).process
        while sim_fleet.client.llen(sim_fleet.keys.list("cpu_standard", 4)) < moved and process.poll() is None:
            pass
        process.kill()
        process.wait()
        assert sorted(places(sim_fleet)) == sent

    Command(args, env, tmp_path).expect(0)

    assert sim_fleet.client.llen(sim_fleet.keys.list("cpu_standard.cpu-1", 4)) == 0
    assert sorted(places(sim_fleet)) == sent
    assert sim_fleet.client.hlen(sim_fleet.keys.unacked) == 0


def places(sim_fleet: Any) -> list[str]:
    """Return the task id of every message on the broker."""
    found = [json.loads(record)[0]["headers"]["id"] for record in sim_fleet.client.hvals(sim_fleet.keys.unacked)]
    for key in sim_fleet.client.scan_iter(match="cpu_*", _type="list"):
        found += [json.loads(raw)["headers"]["id"] for raw in sim_fleet.client.lrange(key, 0, -1)]
    return found
