"""`watch` over real workers: deaths, silence, two leaders, a server that starts again, and chaos with the account."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from morag_queue.local.waiting import until
from tests.e2e.conftest import AgentFleet
from tests.support.chaos import Chaos
from tests.support.fleet import FILE_TASK, Fleet
from tests.support.watching import short_watch, watch

Make = Callable[..., Fleet]


def running(fleet: Fleet, task: str) -> None:
    until(lambda: task in fleet.counts("start"), 30, lambda: f"not started: {fleet.where()}")


def nothing_is_lost(fleet: Fleet, sent: list[str], may_run_twice: set[str] = frozenset()) -> None:
    fleet.until_ran(sent, 60)
    until(lambda: not fleet.account(sent).stuck, 30, lambda: f"stuck: {fleet.account(sent).stuck}")
    account = fleet.account(sent)
    assert not account.lost
    assert not account.unexpected
    assert account.duplicated <= set(may_run_twice), account.duplicated


def test_what_a_killed_worker_had_runs_elsewhere_soon_and_nothing_else_runs_twice(make_fleet: Make):
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3})
    looking = watch(fleet)
    looking.until("fleet_looked_at")
    fleet.start_worker("worker-1")
    looking.until("worker_joined")
    first = fleet.send("cpu_standard", gate=str(fleet.gate()))
    running(fleet, first)
    others = [fleet.send("cpu_standard", sleep=0.1) for _ in range(6)]
    fleet.start_worker("worker-2")
    fleet.kill("worker-1")
    killed = time.time()
    until(lambda: fleet.counts("start")[first] == 2, 30, lambda: f"not taken over: {fleet.where()}")
    fleet.gate().touch()
    again = [one for one in fleet.events("start") if one["task"] == first][-1]
    print(f"running elsewhere after {again['at'] - killed:.2f} s")
    assert again["worker"].startswith("worker-2")
    told = looking.until("worker_failed_over")
    assert told["workers"] == ["worker-1"]
    assert any("CLIENT LIST" in sign for sign in told["evidence"])
    assert looking.of("worker_gone")
    assert looking.of("turn")
    fleet.start_worker("worker-3")
    nothing_is_lost(fleet, [first, *others])


@pytest.mark.slow
def test_a_stopped_worker_is_fenced_after_its_heartbeat_timeout_and_its_zombie_runs_nothing(make_fleet: Make):
    fleet = make_fleet(conf={"worker_prefetch_multiplier": 3}, env={"MORAG_QUEUE_POLICY__OFFLINE_AFTER_SECONDS": "6"})
    fleet.start_worker("worker-1")
    looking = watch(fleet)
    first = fleet.send("cpu_standard", gate=str(fleet.gate()))
    running(fleet, first)
    others = [fleet.send("cpu_standard") for _ in range(2)]
    until(lambda: fleet.redis.hlen(fleet.keys.held) == 3, 20, lambda: f"not taken: {fleet.where()}")
    fleet.kill("worker-1", signal.SIGSTOP)
    fleet.start_worker("worker-2")
    assert looking.until("worker_silent")["worker"] == "worker-1"
    assert looking.until("worker_failed_over")["taken_back"] == 3
    fleet.gate().touch()
    fleet.until_ran([first, *others])
    fleet.kill("worker-1", signal.SIGCONT)
    looking.until("worker_returned")
    nothing_is_lost(fleet, [first, *others], {first})
    assert all(fleet.counts("start")[task] == 1 for task in others)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_loses_nothing_and_nobody_is_called_dead(make_fleet: Make):
    fleet = make_fleet(persist=True)
    fleet.start_worker("worker-1")
    fleet.start_worker("worker-2")
    looking = watch(fleet)
    looking.until("fleet_looked_at")
    sent = [fleet.send("cpu_standard", sleep=0.3) for _ in range(20)]
    running(fleet, sent[0])
    fleet.server.kill()
    looking.until("broker_lost")
    time.sleep(5)  # longer than two beats: what was seen before must not count against anybody
    fleet.server.start()
    looking.until("broker_back")
    cut_off = {one["task"] for one in fleet.events("start")}
    nothing_is_lost(fleet, sent, cut_off)
    assert not looking.of("worker_failed_over")


# -- two leaders


@pytest.fixture
def stranded(make_fleet: Make) -> Fleet:
    """A fleet whose only worker is drained: a turn moves what waits in its lane."""
    fleet = make_fleet()
    fleet.redis.hset(fleet.keys.cordons, "worker-1", '{"state": "draining"}')
    return fleet


def fill(fleet: Fleet, count: int) -> list[str]:
    lane = "cpu_standard.worker-1"
    sent = [fleet.send(lane, level=n % 10) for n in range(count)]
    fleet.redis.sadd(fleet.keys.lanes, lane)
    return sent


def places(fleet: Fleet) -> list[str]:
    """The ids of all messages, wherever they are."""
    texts = [text for key in fleet.redis.scan_iter(_type="list") for text in fleet.redis.lrange(key, 0, -1)]
    return sorted(json.loads(text)["headers"]["id"] for text in texts)


@pytest.mark.slow
def test_a_leader_that_is_killed_at_any_point_of_a_turn_leaves_each_message_in_one_place(stranded: Fleet):
    fleet = stranded
    fleet.start_worker("worker-1", env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "0.5"})
    sent = fill(fleet, 1500)
    for n in range(8):
        fleet.redis.delete(fleet.keys.lease)
        process = fleet.start_command("watch", "--once").process
        until(lambda: fleet.redis.exists(fleet.keys.lease) or process.poll() is not None, 20, "it never began")  # noqa: B023
        time.sleep(0.5 + n * 0.015)  # its looks take half a second, the moves some hundredths
        process.kill()
        process.wait()
        assert places(fleet) == sorted(sent), f"the kill number {n}"
    fleet.redis.delete(fleet.keys.lease)
    fleet.run("watch", "--once")
    assert places(fleet) == sorted(sent)
    assert not any(fleet.redis.exists(fleet.keys.list("cpu_standard.worker-1", level)) for level in range(10))


def test_a_leader_that_sleeps_past_its_lease_and_wakes_has_lost_it_and_changes_nothing(make_fleet: Make):
    fleet = make_fleet()
    first = short_watch(fleet, "watch-1", lease_seconds=3.0)
    first.until("leading")
    second = short_watch(fleet, "watch-2", lease_seconds=3.0)
    second.until("standing_by")
    first.signal(signal.SIGSTOP)
    term = second.until("leading")["term"]
    first.signal(signal.SIGCONT)
    first.until("lease_lost")
    first.until("standing_by")
    assert len(first.of("leading")) == 1
    assert json.loads(fleet.redis.get(fleet.keys.lease))["term"] == term
    second.signal(signal.SIGTERM)
    first.until("leading", count=2)
    first.signal(signal.SIGTERM)


def test_leaders_whose_clocks_are_ten_minutes_apart_agree(make_fleet: Make):
    fleet = make_fleet()
    fleet.start_worker("worker-1")
    fast, slow = (
        short_watch(fleet, name, lease_seconds=3.0, clock_offset=offset)
        for name, offset in (("watch-fast", 600.0), ("watch-slow", -600.0))
    )
    until(lambda: fast.of("leading") or slow.of("leading"), 20, "nobody leads")
    leader, other = (fast, slow) if fast.of("leading") else (slow, fast)
    other.until("standing_by")
    sent = [fleet.send("cpu_standard", sleep=0.2) for _ in range(10)]
    leader.signal(signal.SIGKILL)
    other.until("leading")
    nothing_is_lost(fleet, sent)
    other.signal(signal.SIGTERM)
    assert not [one for each in (fast, slow) for one in each.of("worker_failed_over") + each.of("worker_silent")]


# -- all at once


@pytest.mark.slow
def test_workers_that_join_and_die_at_random_lose_nothing(make_agents: Callable[..., AgentFleet]):
    """`tests.bench.bench_chaos` does it longer, with more of them."""
    fleet = make_agents(env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "1"})
    looking = watch(fleet)
    looking.until("leading")
    chaos = Chaos(fleet, lambda seconds: sleeper(fleet, seconds), workers=5, seed=7)

    account = chaos.run(10)

    print(chaos.deaths, looking.of("worker_failed_over"))
    assert not account.lost
    assert not account.stuck
    assert account.duplicated <= chaos.may_run_twice
    assert not looking.of("turn_failed")


def sleeper(fleet: AgentFleet, seconds: float) -> str:
    return fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": seconds})
