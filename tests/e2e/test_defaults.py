"""Workers started with Celery's default flags and by `morag-queue worker`."""

import sys
from collections.abc import Callable

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet
from tests.support.fleet import Fleet

WORKER = "worker-cpu-1"


def blocking_pops(fleet: Fleet) -> list[str]:
    """Return the worker connections in a BRPOP, which takes a message out of all keys before it is recorded."""
    return [one["cmd"] for one in fleet.redis.client_list() if one["name"].startswith("mq.") and one["cmd"] == "brpop"]


def start_by_celery(fleet: AgentFleet) -> None:
    fleet.start_worker("worker-cpu-2", gossips=True, forks=False)  # a peer for gossip and mingle
    fleet.start_worker(WORKER, gossips=True, forks=False)
    fleet.stop("worker-cpu-2")


def start_by_command(fleet: AgentFleet) -> None:
    argv = [sys.executable, "-m", "morag_queue", "worker", "--type", "cpu", "--name", WORKER]
    fleet.workers[WORKER] = fleet.sandbox.spawn(WORKER, argv, dict(fleet.env))
    fleet.wait_for(WORKER)


@pytest.mark.parametrize("start", [start_by_celery, start_by_command])
def test_a_worker_with_default_flags_claims_and_takes_nothing_from_a_paused_queue(
    start: Callable[[AgentFleet], None], make_agent_fleet: Callable[..., AgentFleet]
) -> None:
    fleet = make_agent_fleet()
    start(fleet)
    ran = fleet.send("cpu_standard", level=0)
    until(lambda: not fleet.redis.llen(fleet.keys.list("cpu_standard", 0)), 20, lambda: f"{ran}: {fleet.where()}")

    fleet.redis.sadd(fleet.keys.paused, "cpu_standard")
    fleet.send("cpu_standard", level=0)
    other = fleet.send("cpu_batch", level=0)
    until(lambda: not fleet.redis.llen(fleet.keys.list("cpu_batch", 0)), 20, lambda: f"{other}: {fleet.where()}")

    assert fleet.redis.llen(fleet.keys.list("cpu_standard", 0)) == 1
    assert blocking_pops(fleet) == []
