"""A network that is cut, silent, slow or resets: nothing is lost or doubled, and nobody waits for ever."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from morag_queue.local.waiting import until
from tests.faults.assertions import assert_nothing_lost
from tests.support.agent_fleet import AgentFleet
from tests.support.commands import Command
from tests.support.proxy import Proxy, Way
from tests.support.watch_process import start_watch

WORKER, OTHER = "worker-cpu-1", "worker-cpu-2"
SUBMIT = ("submit", "https://example.com/", "--type", "web", "--id", "row-1")
COMMANDS = [
    SUBMIT, ("classify", "https://example.com/"), ("stats",), ("tasks",), ("task", "show", "row-1"),
    ("task", "cancel", "row-1"), ("task", "move", "row-1", "--to-worker", WORKER), ("cordon", WORKER),
    ("uncordon", WORKER), ("rebalance",), ("drain", WORKER, "--deadline", "5s"), ("failover", "--dead"),
    ("pause", "cpu_batch"), ("resume", "cpu_batch"), ("dead", "ls"), ("journal", "ls"), ("doctor",),
    ("watch", "--once"),
]  # fmt: skip
BOUND_SECONDS = 30.0
"""Far more than the timeouts of a command, and far less than for ever."""

FAULTS: dict[str, Callable[[Proxy], None]] = {
    "half-open": lambda proxy: proxy.cut(),
    "replies cut": lambda proxy: proxy.cut(Way.REPLIES),
    "requests cut": lambda proxy: proxy.cut(Way.REQUESTS),
    "reset in a reply": lambda proxy: proxy.lose_reply(b"\r\n", after=2, times=1_000_000),
}

Make = Callable[..., AgentFleet]


@pytest.fixture
def fleet(make_agent_fleet: Make) -> AgentFleet:
    return make_agent_fleet(conf={"task_ignore_result": True})


@pytest.fixture
def proxy(fleet: AgentFleet) -> Iterator[Proxy]:
    with Proxy(fleet.server.port) as between:
        yield between


def start(fleet: AgentFleet, proxy: Proxy, *words: str) -> Command:
    return fleet.start_command(*words, "--redis-url", proxy.url)


def queued(fleet: AgentFleet) -> list[str]:
    lanes = fleet.redis.scan_iter("cpu_standard*", _type="list")
    return [json.loads(raw)["headers"]["id"] for lane in lanes for raw in fleet.redis.lrange(lane, 0, -1)]


# -- commands


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_each_command_ends_in_bounded_time_and_says_that_the_broker_cannot_be_reached(
    fault: str, fleet: AgentFleet, proxy: Proxy
) -> None:
    FAULTS[fault](proxy)

    def run(words: tuple[str, ...]) -> tuple[tuple[str, ...], int, str]:
        command = start(fleet, proxy, *words)
        return words, command.process.wait(BOUND_SECONDS), command.stderr

    with ThreadPoolExecutor(4) as pool:
        for words, status, stderr in pool.map(run, COMMANDS):
            assert status == 69, f"{words} exited with {status}: {stderr}"
            assert "error: cannot reach the broker redis://127.0.0.1:" in stderr
            assert "is it running, and is --redis-url right?" in stderr
            assert "Traceback" not in stderr
    assert queued(fleet) == []


@pytest.mark.parametrize("after", [None, 2], ids=["silent", "reset"])
def test_a_submit_whose_reply_is_lost_is_not_doubled(after: int | None, fleet: AgentFleet, proxy: Proxy) -> None:
    start(fleet, proxy, *SUBMIT[:-1], "row-0").expect(0)  # loads the script
    proxy.lose_reply(b"correlation_id", after=after)  # only in a message
    first = start(fleet, proxy, *SUBMIT)
    first.process.wait(BOUND_SECONDS)
    assert proxy.is_sprung
    assert sorted(queued(fleet)) == ["row-0", "row-1"], "the server had received it"

    assert first.process.returncode == (69 if after is None else 0), "a reset connection is opened again"
    again = start(fleet, proxy, *SUBMIT).expect(5)
    assert "task id row-1 is still open, so it was not queued again" in again.stderr
    assert sorted(queued(fleet)) == ["row-0", "row-1"]


@pytest.mark.parametrize("request_", [b"celery.pidbox", b"PUBLISH"])
def test_a_question_to_a_worker_whose_connection_falls_silent_ends(
    request_: bytes, fleet: AgentFleet, proxy: Proxy
) -> None:
    fleet.start_worker(WORKER)
    proxy.lose_reply(request_, times=1_000_000)
    command = start(fleet, proxy, "failover", WORKER)
    assert command.process.wait(BOUND_SECONDS) == 69, command.stderr
    assert "error: cannot reach" in command.stderr
    assert "Timeout reading from socket" in command.stderr


def test_commands_work_at_200_ms_and_no_worker_is_declared_dead(fleet: AgentFleet, proxy: Proxy) -> None:
    proxy.delay = 0.1  # each way
    watch = start_watch(fleet, "--interval", "1s", "--json", env={"REDIS_URL": proxy.url})
    watch.wait_for("leading")
    fleet.start_worker(WORKER, env={"REDIS_URL": proxy.url})
    watch.wait_for("fleet_looked_at")

    start(fleet, proxy, *SUBMIT).expect(0, BOUND_SECONDS)
    fleet.until_ran(["row-1"])
    for words in (("stats",), ("rebalance", "--dry-run"), ("drain", WORKER, "--deadline", "20s", "--allow-last")):
        start(fleet, proxy, *words).expect(0, BOUND_SECONDS)
    assert start(fleet, proxy, "failover", "--dead").expect(0, BOUND_SECONDS).stderr == ""
    assert not watch.events("worker_failed_over")
    assert not watch.events("worker_silent")
    assert fleet.counts("start") == {"row-1": 1}


# -- workers and watch


@pytest.mark.parametrize("after", [None, 2], ids=["silent", "reset"])
def test_a_claim_whose_reply_is_lost_comes_back_by_itself(after: int | None, fleet: AgentFleet, proxy: Proxy) -> None:
    fleet.start_worker(WORKER, env={"REDIS_URL": proxy.url})
    until(lambda: fleet.claims(WORKER), 20, lambda: fleet.log(WORKER))
    proxy.lose_reply(b"\r\ncpu_standard\r\n", after=after)  # only a claim names the lane alone
    began = time.monotonic()
    task = fleet.submit("t.nap", 0)
    until(lambda: proxy.is_sprung, 10, "nothing was claimed")

    fleet.until_started(task, seconds=60)
    print(f"a claim whose reply is lost ({'silent' if after is None else 'reset'}): {time.monotonic() - began:.1f} s")
    assert_nothing_lost(fleet, [task])


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_behind_a_half_open_connection_notices_and_connects_again(
    pool: str, fleet: AgentFleet, proxy: Proxy
) -> None:
    fleet.start_worker(WORKER, env={"REDIS_URL": proxy.url}, options=("-P", pool))
    running = fleet.submit("t.hold", str(fleet.release_file()))
    fleet.until_started(running)
    proxy.cut()
    fleet.release_file().touch()
    later = fleet.submit("t.nap", 0)
    until(lambda: "heartbeat: cannot reach the broker" in fleet.log(WORKER), 30, lambda: fleet.log(WORKER))
    proxy.heal()

    assert_nothing_lost(fleet, [running, later], may_run_twice={running})


@pytest.mark.slow
def test_watch_behind_a_half_open_connection_notices_and_connects_again(fleet: AgentFleet, proxy: Proxy) -> None:
    watch = start_watch(fleet, "--interval", "1s", "--json", env={"REDIS_URL": proxy.url})
    watch.wait_for("leading")
    fleet.start_worker(WORKER)
    watch.wait_for("worker_joined")
    proxy.cut()
    watch.wait_for("broker_lost")
    proxy.heal()
    task = fleet.submit("t.hold", str(fleet.release_file()))
    fleet.until_started(task)
    fleet.kill(WORKER)
    fleet.start_worker(OTHER)
    fleet.release_file().touch()

    assert_nothing_lost(fleet, [task], may_run_twice={task})
    assert watch.process.poll() is None
