"""Failing over from real workers: killed ones, stopped ones that wake, and ones without the agent."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from morag_queue.local.waiting import until
from tests.e2e.conftest import AgentFleet
from tests.support.fleet import Fleet

COMMAND = (sys.executable, "-m", "morag_queue")


def mq(fleet: Fleet, *args: str, status: int = 0) -> Any:
    done = subprocess.run(
        [*COMMAND, *args, "--json"], env=fleet.env, cwd=fleet.dir, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, f"{args} ended with {done.returncode}: {done.stderr or done.stdout}"
    return json.loads(done.stdout)


def until_started(fleet: Fleet, *tasks: str) -> None:
    until(lambda: set(tasks) <= fleet.counts("start").keys(), 30, lambda: f"not started: {fleet.where()}")


def counts(answer: Any) -> tuple[int, ...]:
    names = ("requeued_tasks", "moved_tasks", "recovered_tasks", "quarantined_tasks")
    return tuple(answer[name] for name in names)


@pytest.mark.slow
def test_what_a_killed_worker_had_runs_elsewhere_once_and_on_time(make_fleet: Callable[..., Fleet]):
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

    answer = mq(fleet, "failover", "worker-1")

    assert counts(answer) == (4, 3, 0, 0)
    fleet.redis.set("note", running)
    fleet.start_worker("worker-2", concurrency=2)
    fleet.until_ran([eta, reserved, pinned, *waiting])
    until(lambda: fleet.counts("start")[running] == 2, 20, "the one that ran on the dead worker begins again")
    assert {task: n for task, n in fleet.counts("start").items() if n > 1} == {running: 2}
    (started,) = (one["at"] for one in fleet.events("start") if one["task"] == eta)
    assert started >= on_time


@pytest.mark.slow
def test_a_stopped_worker_is_not_dead_and_when_forced_it_wakes_and_runs_nothing_of_it(make_fleet: Callable[..., Fleet]):
    # Two beats long a worker counts as alive: the command, however slow, has to look before.
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3}, env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "5"})
    fleet.start_worker("worker-1")
    running = fleet.send("cpu_standard", gate=str(fleet.gate()))
    until_started(fleet, running)
    reserved = [fleet.send("cpu_standard") for _ in range(2)]
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 3, 20, lambda: f"not taken: {fleet.where()}")
    fleet.kill("worker-1", signal.SIGSTOP)
    assert "alive" in mq(fleet, "failover", "worker-1", status=5)["error"]
    fleet.start_worker("worker-2")

    assert counts(mq(fleet, "failover", "worker-1", "--force", "--yes")) == (3, 0, 0, 0)
    fleet.gate().touch()

    fleet.until_ran([running, *reserved])
    fleet.until_beat_is_overdue("worker-1", 5)
    fleet.kill("worker-1", signal.SIGCONT)
    until(lambda: fleet.log("worker-1").count("registered worker-1") == 2, 30, "it registers anew")
    sent = [fleet.send("cpu_standard", sleep=0.3) for _ in range(6)]
    fleet.until_ran(sent)
    by = {one["worker"].partition("@")[0] for one in fleet.events("start") if one["task"] in sent}
    assert by == {"worker-1", "worker-2"}, "it works again, as a new run"
    assert [fleet.counts("start")[one] for one in reserved] == [1, 1]
    assert fleet.counts()[running] <= 2
    assert fleet.account([running, *reserved, *sent]).stuck == ()


@pytest.mark.slow
def test_a_task_whose_process_dies_again_and_again_is_quarantined_with_its_story(make_fleet: Callable[..., Fleet]):
    fleet = make_fleet()
    fleet.start_worker("worker-1")
    poison = fleet.send("cpu_standard", tag="poison", sleep=60)
    for death in range(1, 5):
        until(lambda death=death: fleet.counts("start")[poison] == death, 30, lambda: f"not started: {fleet.where()}")
        pid = fleet.events("start")[-1]["pid"]
        subprocess.run(["kill", "-9", str(pid)], check=True)
    until(lambda: fleet.redis.hexists(fleet.keys.dead, poison), 30, lambda: f"not quarantined: {fleet.where()}")
    grave = json.loads(fleet.redis.hget(fleet.keys.dead, poison))
    assert len(grave["story"]) == 4
    assert "WorkerLostError" in grave["story"][0][2]
    assert fleet.redis.hlen(fleet.keys.unacked) == 0
    after = fleet.send("cpu_standard")
    fleet.until_ran([after])


def test_what_stock_workers_lost_between_two_commands_is_sent_again_and_what_they_ran_is_not():
    with AgentFleet(agent=False) as fleet:
        fleet.start_worker("stock-1", app="tests.support.app", wait=False, options=("-Q", "cpu_standard"))
        until(lambda: " ready." in fleet.log("stock-1"), 40, "not ready")
        ran = [fleet.submit("morag.worker.process_file_task", "/dev/null", "document", {}, level=3) for _ in range(3)]
        fleet.until_ran(ran)
        fleet.kill("stock-1", signal.SIGSTOP)
        lost = fleet.submit("morag.worker.process_file_task", "/dev/null", "document", {}, level=3)
        fleet.kill("stock-1")
        assert fleet.where()["unacked"] == 0
        assert "cpu_standard\x06\x163" not in fleet.where(), "kombu has popped it, and it is in no key"
        old = fleet.redis.get(fleet.keys.task(lost))
        assert old is not None
        for one in (*ran, lost):
            record = json.loads(fleet.redis.get(fleet.keys.task(one)) or "")
            fleet.redis.set(fleet.keys.task(one), json.dumps(record | {"enqueued_at": record["enqueued_at"] - 30}))

        assert counts(mq(fleet, "failover", "--dead")) == (0, 0, 1, 0)

        fleet.start_worker("stock-2", app="tests.support.app", wait=False, options=("-Q", "cpu_standard"))
        fleet.until_ran([lost])
        assert fleet.counts("start") == dict.fromkeys((*ran, lost), 1)
        assert [fleet.state(one) for one in ran] == ["completed"] * 3


@pytest.mark.parametrize("command", ["drain", "failover"])
def test_a_command_that_is_killed_leaves_each_message_in_one_place_and_the_next_one_finishes(stage, command):
    """By a real SIGKILL; tests/operations/test_killed_commands.py cuts the same commands at every step."""
    env = {"PATH": "/usr/bin:/bin", "REDIS_URL": stage.url, "HOME": "/nowhere"}
    sent = [f"t-{n:05d}" for n in range(12_000)]
    args = {"drain": ("drain", "cpu-1", "--force"), "failover": ("failover", "cpu-1")}[command]
    stage.join("cpu-1", client_name="mq.nobody", slots=5)
    stage.fill(sent)
    assert [stage.claim("cpu-1") for _ in range(5)] == sent[:5]
    stage.broker.moves.lane("cpu_standard", "cpu_standard.cpu-1", 4, len(sent))
    stage.client.sadd(stage.keys.lanes, "cpu_standard.cpu-1")
    for moved in (1, 4000, 8000):
        process = subprocess.Popen([*COMMAND, *args], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while stage.client.llen(stage.keys.list("cpu_standard", 4)) < moved and process.poll() is None:
            pass
        process.kill()
        process.wait()
        assert sorted(places(stage)) == sent

    done = subprocess.run([*COMMAND, *args, "--json"], env=env, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert stage.client.llen(stage.keys.list("cpu_standard.cpu-1", 4)) == 0
    assert sorted(places(stage)) == sent
    assert stage.client.hlen(stage.keys.unacked) == 0


def places(stage: Any) -> list[str]:
    """Every message on the broker, wherever it is, by its task's id."""
    found = [json.loads(record)[0]["headers"]["id"] for record in stage.client.hvals(stage.keys.unacked)]
    for key in stage.client.scan_iter(match="cpu_*", _type="list"):
        found += [json.loads(raw)["headers"]["id"] for raw in stage.client.lrange(key, 0, -1)]
    return found
