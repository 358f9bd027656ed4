"""`watch` with agentless workers: a long task runs once, and its end is recorded."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet
from tests.support.fleet import FILE_TASK
from tests.support.watch_process import start_watch

FAST = {"visibility_timeout": 4, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
"""Make kombu redeliver unacked messages every second instead of every hundred seconds."""


def agentless_fleet(make_agent_fleet: Callable[..., AgentFleet], **conf: Any) -> AgentFleet:
    options = {**FAST, "priority_steps": list(range(10))}
    fleet = make_agent_fleet(agent=False, conf={"broker_transport_options": options, **conf})
    for name in ("agentless-1", "agentless-2"):
        fleet.start_worker(name, wait=False, options=("-Q", "cpu_standard"))
    for name in ("agentless-1", "agentless-2"):
        until(lambda name=name: " ready." in fleet.log(name), 60, f"{name} is not ready")
    return fleet


@pytest.mark.slow
def test_an_agentless_task_longer_than_the_visibility_timeout_runs_once_and_is_counted(make_agent_fleet):
    fleet = agentless_fleet(make_agent_fleet, task_acks_late=True, worker_prefetch_multiplier=1)
    loop = start_watch(fleet, "--debug")
    event = loop.wait_for("workers_without_agent")
    assert [node.partition("@")[0] for node in event["nodes"]] == ["agentless-1", "agentless-2"]
    loop.wait_for("task_events_enabled")
    long = fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": 9})
    prefetched = [fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": 0.1}) for _ in range(4)]
    fleet.until_states(dict.fromkeys([long, *prefetched], "completed"), 60)
    assert fleet.counts("start")[long] == 1
    assert loop.events("messages_kept_alive")
    record = json.loads(fleet.redis.get(fleet.keys.task(long)))
    assert record["worker"] in ("agentless-1", "agentless-2")
    assert record["run_seconds"] >= 9
    assert record["wait_seconds"] >= 0
    assert int(fleet.redis.hget(fleet.keys.totals, "completed||cpu_standard")) == 5
    loop.signal(signal.SIGTERM)
    assert loop.process.returncode == 0


@pytest.mark.slow
def test_an_agentless_task_acknowledged_early_is_not_resent_while_it_runs(make_agent_fleet):
    fleet = agentless_fleet(make_agent_fleet)
    loop = start_watch(fleet, env={"MORAG_QUEUE_POLICY__RECOVERY__LOST_AFTER_SECONDS": "1"})
    loop.wait_for("workers_without_agent")
    fleet.until_ran(
        [fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": 0})]
    )  # so that the watch sees that results are stored
    long = fleet.submit(FILE_TASK, "/dev/null", "document", {"sleep": 12})
    fleet.until_states({long: "completed"}, 40)
    assert fleet.counts("start")[long] == 1
    assert not [turn for turn in loop.events("turn") if turn["resent"]]
