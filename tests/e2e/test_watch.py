"""`watch` with real workers: deaths, silence, two leaders, a server restart, and random deaths under load."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet
from tests.support.fleet import FILE_TASK, Fleet
from tests.support.watch_process import start_watch, start_watch_with_lease
from tests.support.worker_churn import WorkerChurn

Make = Callable[..., Fleet]


def until_started(fleet: Fleet, task: str) -> None:
    until(lambda: task in fleet.counts("start"), 30, lambda: f"not started: {fleet.where()}")


def assert_nothing_lost(fleet: Fleet, sent: list[str], may_run_twice: set[str] = frozenset()) -> None:
    fleet.until_ran(sent, 60)
    until(lambda: not fleet.account(sent).stuck, 30, lambda: f"stuck: {fleet.account(sent).stuck}")
    account = fleet.account(sent)
    assert not account.lost
    assert not account.unexpected
    assert account.duplicated <= set(may_run_twice), account.duplicated


def test_watch_fails_over_a_killed_worker_and_only_its_running_task_runs_twice(make_fleet: Make):
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3})
    loop = start_watch(fleet)
    loop.wait_for("fleet_looked_at")
    fleet.start_worker("worker-1")
    loop.wait_for("worker_joined")
    first = fleet.send("cpu_standard", wait_for_file=str(fleet.release_file()))
    until_started(fleet, first)
    others = [fleet.send("cpu_standard", sleep=0.1) for _ in range(6)]
    fleet.start_worker("worker-2")
    fleet.kill("worker-1")
    killed = time.time()
    until(lambda: fleet.counts("start")[first] == 2, 30, lambda: f"not taken over: {fleet.where()}")
    fleet.release_file().touch()
    restarted = [one for one in fleet.events("start") if one["task"] == first][-1]
    print(f"running elsewhere after {restarted['at'] - killed:.2f} s")
    assert restarted["worker"].startswith("worker-2")
    event = loop.wait_for("worker_failed_over")
    assert event["workers"] == ["worker-1"]
    assert any("CLIENT LIST" in sign for sign in event["evidence"])
    assert loop.events("worker_gone")
    assert loop.events("turn")
    fleet.start_worker("worker-3")
    assert_nothing_lost(fleet, [first, *others])


@pytest.mark.slow
def test_watch_fences_a_stopped_worker_which_runs_nothing_when_it_wakes(make_fleet: Make):
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3}, env={"MORAG_QUEUE_POLICY__OFFLINE_AFTER_SECONDS": "6"})
    fleet.start_worker("worker-1")
    loop = start_watch(fleet)
    first = fleet.send("cpu_standard", wait_for_file=str(fleet.release_file()))
    until_started(fleet, first)
    others = [fleet.send("cpu_standard") for _ in range(2)]
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 3, 20, lambda: f"not taken: {fleet.where()}")
    fleet.kill("worker-1", signal.SIGSTOP)
    fleet.start_worker("worker-2")
    assert loop.wait_for("worker_silent")["worker"] == "worker-1"
    assert loop.wait_for("worker_failed_over")["taken_back"] == 3
    fleet.release_file().touch()
    fleet.until_ran([first, *others])
    fleet.kill("worker-1", signal.SIGCONT)
    loop.wait_for("worker_returned")
    assert_nothing_lost(fleet, [first, *others], {first})
    assert all(fleet.counts("start")[task] == 1 for task in others)


@pytest.mark.slow
def test_a_server_restart_loses_no_task_and_fails_over_no_worker(make_fleet: Make):
    fleet = make_fleet(persist=True)
    fleet.start_worker("worker-1")
    fleet.start_worker("worker-2")
    loop = start_watch(fleet)
    loop.wait_for("fleet_looked_at")
    sent = [fleet.send("cpu_standard", sleep=0.3) for _ in range(20)]
    until_started(fleet, sent[0])
    fleet.server.kill()
    loop.wait_for("broker_lost")
    time.sleep(5)  # longer than two heartbeats: the silence of the outage must not count against the workers
    fleet.server.start()
    loop.wait_for("broker_back")
    cut_off = {one["task"] for one in fleet.events("start")}
    assert_nothing_lost(fleet, sent, cut_off)
    assert not loop.events("worker_failed_over")


# -- two leaders


@pytest.fixture
def stranded(make_fleet: Make) -> Fleet:
    """A fleet whose only worker is drained: a turn moves the tasks in its lane."""
    fleet = make_fleet()
    fleet.redis.hset(fleet.keys.cordons, "worker-1", '{"state": "draining"}')
    return fleet


def fill(fleet: Fleet, count: int) -> list[str]:
    lane = "cpu_standard.worker-1"
    sent = [fleet.send(lane, level=n % 10) for n in range(count)]
    fleet.redis.sadd(fleet.keys.lanes, lane)
    return sent


def places(fleet: Fleet) -> list[str]:
    """Return the sorted task ids of all messages in all lanes."""
    texts = [text for key in fleet.redis.scan_iter(_type="list") for text in fleet.redis.lrange(key, 0, -1)]
    return sorted(json.loads(text)["headers"]["id"] for text in texts)


@pytest.mark.slow
def test_a_watch_killed_at_any_point_of_a_turn_leaves_each_message_in_one_place(stranded: Fleet):
    fleet = stranded
    fleet.start_worker("worker-1", env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "0.5"})
    sent = fill(fleet, 1500)
    for n in range(8):
        fleet.redis.delete(fleet.keys.lease)
        process = fleet.start_command("watch", "--once").process
        until(lambda: fleet.redis.exists(fleet.keys.lease) or process.poll() is not None, 20, "it did not start")  # noqa: B023
        time.sleep(0.5 + n * 0.015)  # it observes for half a second and moves for some hundredths
        process.kill()
        process.wait()
        assert places(fleet) == sorted(sent), f"after kill {n}"
    fleet.redis.delete(fleet.keys.lease)
    fleet.run("watch", "--once")
    assert places(fleet) == sorted(sent)
    assert not any(fleet.redis.exists(fleet.keys.list("cpu_standard.worker-1", level)) for level in range(10))


def test_a_leader_paused_past_its_lease_stands_by_when_it_wakes(make_fleet: Make):
    fleet = make_fleet()
    first = start_watch_with_lease(fleet, "watch-1", lease_seconds=3.0)
    first.wait_for("leading")
    second = start_watch_with_lease(fleet, "watch-2", lease_seconds=3.0)
    second.wait_for("standing_by")
    first.signal(signal.SIGSTOP)
    term = second.wait_for("leading")["term"]
    first.signal(signal.SIGCONT)
    first.wait_for("lease_lost")
    first.wait_for("standing_by")
    assert len(first.events("leading")) == 1
    assert json.loads(fleet.redis.get(fleet.keys.lease))["term"] == term
    second.signal(signal.SIGTERM)
    first.wait_for("leading", count=2)
    first.signal(signal.SIGTERM)


def test_leader_election_tolerates_clocks_ten_minutes_off(make_fleet: Make):
    fleet = make_fleet()
    fleet.start_worker("worker-1")
    fast, slow = (
        start_watch_with_lease(fleet, name, lease_seconds=3.0, clock_offset=offset)
        for name, offset in (("watch-fast", 600.0), ("watch-slow", -600.0))
    )
    until(lambda: fast.events("leading") or slow.events("leading"), 20, "no leader")
    leader, other = (fast, slow) if fast.events("leading") else (slow, fast)
    other.wait_for("standing_by")
    sent = [fleet.send("cpu_standard", sleep=0.2) for _ in range(10)]
    leader.signal(signal.SIGKILL)
    other.wait_for("leading")
    assert_nothing_lost(fleet, sent)
    other.signal(signal.SIGTERM)
    assert not [
        one for each in (fast, slow) for one in each.events("worker_failed_over") + each.events("worker_silent")
    ]


# -- random deaths


@pytest.mark.slow
def test_workers_that_join_and_die_at_random_lose_no_task(make_agent_fleet: Callable[..., AgentFleet]):
    """`tests.faults.nemesis` runs longer, with more kinds of faults."""
    fleet = make_agent_fleet(env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "1"})
    loop = start_watch(fleet)
    loop.wait_for("leading")
    churn = WorkerChurn(fleet, lambda seconds: sleeper(fleet, seconds), workers=5, seed=7)

    account = churn.run(10)

    print(churn.deaths, loop.events("worker_failed_over"))
    assert not account.lost
    assert not account.stuck
    assert account.duplicated <= churn.may_run_twice
    assert not loop.events("turn_failed")


def sleeper(fleet: AgentFleet, seconds: float) -> str:
    return fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": seconds})
