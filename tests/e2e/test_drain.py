"""Draining real workers: what is given back, what runs to its end, what stays so over a restart."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

COMMAND = (sys.executable, "-m", "morag_queue")


def mq(fleet: Fleet, *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *args], env=fleet.env, cwd=fleet.dir, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"{args} ended with {done.returncode}: {done.stderr or done.stdout}"
    return done


def answer(fleet: Fleet, *args: str, status: int = 0) -> Any:
    return json.loads(mq(fleet, *args, "--json", status=status).stdout)


def until_started(fleet: Fleet, *tasks: str) -> None:
    until(lambda: set(tasks) <= fleet.counts("start").keys(), 30, lambda: f"not started: {fleet.where()}")


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """One worker that takes four at a time and runs one."""
    made = make_fleet(conf={"worker_prefetch_multiplier": 4})
    made.start_worker("worker-1")
    return made


def test_what_is_reserved_and_what_waits_for_its_time_is_given_back_and_nothing_starts_any_more(fleet: Fleet):
    running = fleet.send("cpu_standard", gate=str(fleet.gate()))
    until_started(fleet, running)
    eta = fleet.producer.send_task(
        "morag.worker.process_file_task", ("/dev/null", "document", {}), queue="cpu_standard", priority=4,
        countdown=3, ignore_result=True,
    ).id  # fmt: skip
    reserved = [fleet.send("cpu_standard") for _ in range(3)]
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 5, 20, lambda: f"not taken: {fleet.where()}")

    done = answer(fleet, "drain", "worker-1", "--force", "--allow-last", "--deadline", "20s")

    assert done["state"] == "drained"
    assert fleet.counts("start").keys() == {running}
    fleet.gate().touch()
    fleet.start_worker("worker-2")
    fleet.until_ran([running, eta, *reserved])
    assert {one["worker"].partition("@")[0] for one in fleet.events("start") if one["task"] != running} == {"worker-2"}
    assert [fleet.counts("start")[one] for one in (eta, *reserved)] == [1, 1, 1, 1]


def test_it_waits_for_what_runs_and_nothing_is_lost_or_run_twice(fleet: Fleet):
    fleet.start_worker("worker-2")
    sent = [fleet.send("cpu_standard", sleep=0.2) for _ in range(20)]
    until_started(fleet, *sent[:2])
    done = answer(fleet, "drain", "worker-1", "--deadline", "30s")
    drained_at = fleet.redis.time()[0]
    assert (done["state"], done["running_tasks"]) == ("drained", 0)
    fleet.until_ran(sent)
    account = fleet.account(sent)
    assert (account.lost, account.duplicated, account.stuck) == (frozenset(), frozenset(), ())
    late = [one for one in fleet.events("start") if one["worker"].startswith("worker-1") and one["at"] > drained_at + 1]
    assert late == []


def test_rate_limited_tasks_are_given_back(make_fleet: Callable[..., Fleet]):
    limits = {"morag.worker.process_file_task": {"rate_limit": "1/h"}}
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 4, "task_annotations": limits})
    fleet.start_worker("worker-1")
    first, *others = [fleet.send("cpu_standard") for _ in range(3)]
    fleet.until_ran([first])
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 2, 20, lambda: f"not taken: {fleet.where()}")
    assert answer(fleet, "drain", "worker-1", "--force")["state"] == "drained"
    assert fleet.redis.hlen(fleet.keys.unacked) == 0
    waiting = [
        json.loads(raw)["headers"]["id"] for raw in fleet.redis.lrange(fleet.keys.list("cpu_standard", 4), 0, -1)
    ]
    assert waiting[::-1] == others, "in their order"


def test_a_drained_worker_that_restarts_takes_nothing_until_it_is_uncordoned(fleet: Fleet):
    mq(fleet, "drain", "worker-1", "--reason", "new disk")
    fleet.stop("worker-1")
    fleet.start_worker("worker-1")
    sent = fleet.send("cpu_standard")
    (shown,) = answer(fleet, "stats")["workers"]
    assert shown["status"] == "drained"
    assert "new disk" in shown["reason"]
    assert fleet.counts("start") == {}
    mq(fleet, "uncordon", "worker-1")
    fleet.until_ran([sent])


def test_with_shutdown_its_process_ends_after_the_drain(fleet: Fleet):
    running = fleet.send("cpu_standard", sleep=1)
    until_started(fleet, running)
    done = answer(fleet, "drain", "worker-1", "--shutdown", "--deadline", "30s")
    assert (done["state"], done["shut_down"]) == ("drained", True)
    assert fleet.workers["worker-1"].wait(20) == 0
    assert fleet.counts() == {running: 1}
    assert answer(fleet, "drain", "worker-1", "--shutdown")["changed"] is False


def test_ctrl_c_leaves_a_drain_that_goes_on(fleet: Fleet):
    running = fleet.send("cpu_standard", gate=str(fleet.gate()))
    until_started(fleet, running)
    command = subprocess.Popen(
        [*COMMAND, "drain", "worker-1"], env=fleet.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: fleet.redis.hexists(fleet.keys.cordons, "worker-1"), 20, "the drain did not begin")
    assert command.stderr is not None
    assert "takes no new tasks" in command.stderr.readline()
    command.send_signal(signal.SIGINT)
    _, told = command.communicate(timeout=20)
    assert command.returncode == 130
    assert "Detached: worker-1 keeps draining. Wait for it with: morag-queue drain worker-1" in told
    fleet.gate().touch()
    assert answer(fleet, "drain", "worker-1", "--deadline", "20s")["state"] == "drained"
    assert fleet.counts() == {running: 1}


@pytest.mark.slow
def test_a_worker_that_does_not_claim_stops_consuming_and_begins_again(make_fleet: Callable[..., Fleet]):
    fleet = make_fleet(env={"MORAG_QUEUE_AGENT__CLAIM": "false"})
    fleet.start_worker("worker-1")
    first = fleet.send("cpu_standard")
    fleet.until_ran([first])
    assert answer(fleet, "drain", "worker-1", "--deadline", "30s")["state"] == "drained"
    second = fleet.send("cpu_standard")
    fleet.stop("worker-1")
    fleet.start_worker("worker-1")
    third = fleet.send("cpu_batch")
    assert mq(fleet, "uncordon", "worker-1").returncode == 0
    fleet.until_ran([second, third])
    assert fleet.account([first, second, third]).duplicated == frozenset()


@pytest.mark.slow
def test_a_worker_without_the_agent_is_drained_through_remote_control(make_fleet: Callable[..., Fleet]):
    fleet = make_fleet(agent=False)
    fleet.start_worker("stock-1", options=("-Q", "cpu_standard,cpu_standard.stock-1"), wait=False)
    until(lambda: " ready." in fleet.log("stock-1"), 40, "not ready")
    running = fleet.send("cpu_standard", level=3, sleep=1)
    until_started(fleet, running)
    done = mq(fleet, "drain", "stock-1", "--deadline", "30s", "--json")
    state = json.loads(done.stdout)
    assert (state["worker"], state["state"], state["running_tasks"]) == ("stock-1", "drained", 0)
    assert "without the agent" in done.stderr
    assert fleet.counts() == {running: 1}
    sent = fleet.send("cpu_standard", level=3)
    assert json.loads(mq(fleet, "drain", "stock", "--json").stdout)["moved_tasks"] == 0
    assert sent not in fleet.counts("start")
    blind = "the running tasks of workers without the agent ("
    mq(fleet, "uncordon", "stock-1")
    until(lambda: blind in mq(fleet, "tasks").stderr, 10, "it does not consume again")
    assert blind in mq(fleet, "task", "why", "nobody", status=8).stderr
    mq(fleet, "drain", "stock-1")
    sent = fleet.send("cpu_standard", level=3)
    assert "run the drain again without --force" in mq(fleet, "drain", "stock-1", "--force", status=2).stderr
    again = mq(fleet, "uncordon", "stock-1")
    assert again.stdout == "stock-1 is in service\n"
    assert "after a restart it consumes again" in again.stderr
    fleet.until_ran([sent])
    assert mq(fleet, "uncordon", "stock-1").stdout == "stock-1 is already in service\n"
    assert answer(fleet, "drain", "stock-1", "--dry-run")["changed"] is True


def test_a_worker_without_the_agent_is_cordoned_but_for_its_own_lane_and_undo_takes_it_back(
    make_fleet: Callable[..., Fleet],
):
    fleet = make_fleet(agent=False)
    fleet.start_worker("stock-1", options=("-Q", "cpu_standard,cpu_standard.stock-1"), wait=False)
    until(lambda: " ready." in fleet.log("stock-1"), 40, "not ready")
    assert answer(fleet, "cordon", "stock-1", "--reason", "noise")["state"] == "cordoned"
    shared, own = fleet.send("cpu_standard", level=3), fleet.send("cpu_standard.stock-1", level=3)
    fleet.until_ran([own])
    assert shared not in fleet.counts("start")
    entry = answer(fleet, "journal", "ls")["entries"][0]
    assert (entry["verb"], entry["reason"], entry["changes"]["queues"]) == ("cordon", "noise", ["cpu_standard"])
    mq(fleet, "journal", "undo", entry["entry_id"])
    fleet.until_ran([shared])
