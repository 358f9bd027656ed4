"""A server that is full, or has become a replica: it refuses writes, and nothing is lost, ended or left by that."""

from collections.abc import Callable
from typing import Any

import pytest

from morag_queue.local.waiting import until
from tests.faults.assertions import assert_nothing_lost
from tests.support.agent_fleet import AgentFleet

WORKER = "worker-cpu-1"
POOLS = ["prefork", "threads", "solo"]
Make = Callable[..., AgentFleet]


def out_of_memory(fleet: AgentFleet) -> Callable[[], Any]:
    fleet.redis.config_set("maxmemory-policy", "noeviction")
    fleet.redis.config_set("maxmemory", "1mb")
    return lambda: fleet.redis.config_set("maxmemory", "0")


def read_only(fleet: AgentFleet) -> Callable[[], Any]:
    fleet.redis.replicaof("127.0.0.1", "1")
    return lambda: fleet.redis.replicaof("no", "one")


@pytest.mark.parametrize("waiting", [0, 20])
@pytest.mark.parametrize("fault", [out_of_memory, read_only])
def test_a_server_that_refuses_writes_costs_no_task_and_no_worker(
    fault: Any, waiting: int, make_agent_fleet: Make
) -> None:
    fleet = make_agent_fleet(persist=True)
    process = fleet.start_worker(WORKER)
    sent = [
        fleet.submit("t.hold", str(fleet.release_file()), level=0),
        *(fleet.submit("t.add", 1, 1) for _ in range(waiting)),
    ]
    fleet.until_started(sent[0])

    repair = fault(fleet)
    fleet.release_file().touch()
    if fault is out_of_memory:
        fleet.until_ran(sent)
    else:
        until(lambda: "You can't write against a read only replica" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
    repair()

    assert_nothing_lost(fleet, sent, may_run_twice={sent[0]})
    assert process.poll() is None, fleet.log(WORKER)
    assert not fleet.redis.hlen(fleet.keys.cordons), "a refused write must not cordon the worker"


@pytest.mark.parametrize("pool", POOLS)
def test_a_retry_that_cannot_be_published_leaves_the_message_and_is_published_later(
    pool: str, make_agent_fleet: Make
) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER, options=("-P", pool))
    retrying = fleet.submit("t.retry_after", str(fleet.release_file()))
    fleet.until_started(retrying)

    repair = out_of_memory(fleet)
    fleet.release_file().touch()
    until(lambda: "reject requeue=True" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
    assert fleet.unacked_counts() == (1, 1, 1), fleet.where()
    repair()

    assert_nothing_lost(fleet, [retrying])
    assert fleet.counts("start")[retrying] == 3, "once refused, once retried, once more"
    fleet.until_states({retrying: "completed"})


@pytest.mark.parametrize("pool", ["threads", "solo"])  # of a pool of processes, Celery stops the task instead
def test_a_retry_while_the_server_is_down_leaves_the_message_and_is_published_later(
    pool: str, make_agent_fleet: Make
) -> None:
    fleet = make_agent_fleet(persist=True)
    fleet.start_worker(WORKER, options=("-P", pool))
    retrying = fleet.submit("t.retry_after", str(fleet.release_file()))
    fleet.until_started(retrying)

    fleet.server.kill()
    fleet.release_file().touch()
    until(lambda: "reject requeue=True" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
    fleet.server.start()

    assert_nothing_lost(fleet, [retrying])
    assert fleet.counts("start")[retrying] == 3, "once refused, once retried, once more"


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_whose_result_cannot_be_stored_is_held_no_longer(pool: str, make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER, options=("-P", pool))
    ended = fleet.submit("t.hold", str(fleet.release_file()))
    fleet.until_started(ended)

    repair = out_of_memory(fleet)
    fleet.release_file().touch()
    fleet.until_ran([ended])
    fleet.until_nothing_is_unacked()
    repair()

    sent = fleet.submit("t.add", 1, 1)
    assert_nothing_lost(fleet, [ended, sent])
    assert fleet.state(ended) == "failed"
    assert "Celery cannot report the end of" in fleet.log(WORKER)


@pytest.mark.parametrize("pool", POOLS)
def test_connections_lost_while_the_server_is_full_lose_no_task(pool: str, make_agent_fleet: Make) -> None:
    """Celery stops the tasks of a pool of processes; that it cannot write so must not make it a revocation."""
    fleet = make_agent_fleet(conf={"worker_prefetch_multiplier": 2})
    fleet.start_worker(WORKER, options=("-P", pool))
    running = fleet.submit("t.hold", str(fleet.release_file()), level=0)
    fleet.until_started(running)
    waiting = [fleet.submit("t.add", 1, 1) for _ in range(4)]
    if pool != "solo":
        until(lambda: fleet.unacked_counts()[0] == 2, 10, lambda: f"nothing was prefetched: {fleet.where()}")

    repair = out_of_memory(fleet)
    fleet.close_connections(WORKER)
    if pool == "prefork":  # its process is stopped, and must not end the task before
        until(lambda: "cannot cancel a task" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
        until(lambda: fleet.log(WORKER).count("Connected to") > 2, 20, lambda: fleet.log(WORKER))
        repair()
        until(lambda: fleet.counts("start")[running] == 2, 20, lambda: f"not started again: {fleet.where()}")
        fleet.release_file().touch()
    else:
        fleet.release_file().touch()
        until(lambda: "Connection to broker lost" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
        repair()

    assert_nothing_lost(fleet, [running, *waiting])
