"""Agents and plain Celery workers in one fleet, and what stock tools see of it."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from subprocess import run
from typing import Any

from morag_queue.local.waiting import until
from tests.e2e.conftest import AgentFleet

Make = Callable[..., AgentFleet]
PRIORITIES = ("BATCH", "LOW", "NORMAL", "HIGH", "URGENT")  # the last to start is sent first
TIERS = {"URGENT": 0, "HIGH": 1, "NORMAL": 2, "LOW": 3, "BATCH": 3}
SHARED = "gpu_priority,gpu_fallback,cpu_standard,cpu_batch"


def start_plain(fleet: AgentFleet, *names: str, queues: str = SHARED) -> None:
    """Start workers as any Celery app has them: no agent, kombu's default steps."""
    env = {"TEST_APP_AGENT": "0"}
    for name in names:
        fleet.start_worker(name, env=env, wait=False, options=("-Q", queues, "--prefetch-multiplier", "1"))
    for name in names:
        until(lambda name=name: " ready." in fleet.log(name), 60, f"{name} is not ready")


def rows(fleet: AgentFleet, options: dict[str, Any] | None = None, each: int = 2) -> str:
    """Write a file for `submit --from`: tasks of each priority, short and long."""
    path = fleet.dir / "rows.jsonl"
    fields = {"source": __file__, "content_type": "document", "queue": "cpu_standard", "options": options or {}}
    lines = [
        {**fields, "priority": priority, "estimated_duration": minutes}
        for priority in PRIORITIES
        for minutes in (10.0, 0.1)
        for _ in range(each)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def levels(fleet: AgentFleet, lane: str = "cpu_standard") -> dict[int, int]:
    """Return the number of messages at each level of a lane."""
    lengths = {level: fleet.redis.llen(fleet.keys.list(lane, level)) for level in range(10)}
    return {level: length for level, length in lengths.items() if length}


def assert_nothing_went_wrong(fleet: AgentFleet, attempted: Iterable[str]) -> None:
    """Compare the account of a run with a perfect one."""
    done = fleet.account(attempted)
    assert (done.lost, done.duplicated, done.unexpected, done.stuck) == (frozenset(), frozenset(), frozenset(), ())


def celery(fleet: AgentFleet, *args: str) -> str:
    """Run a command of Celery on the app of the workers; return its output."""
    env = {**fleet.env, **fleet.sandbox.environment, "TEST_APP_AGENT": "0"}
    command: Sequence[str] = (sys.executable, "-m", "celery", "-A", "tests.support.app", *args)
    return run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_mixed_fleet_runs_all_work_in_the_order_of_its_priorities(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker("agent-1")
    blocker = fleet.submit("t.hold", str(fleet.release_file()))
    fleet.until_started(blocker)
    before = fleet.run_json("submit", "--from", rows(fleet))["tasks"]
    assert levels(fleet) == {0: 4, 1: 2, 2: 2, 3: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2}, "agents poll all levels"

    start_plain(fleet, "plain-1", queues="celery")  # a reader of the fleet as soon as it likes
    after = fleet.run_json("submit", "--from", rows(fleet))["tasks"]
    assert levels(fleet) == {0: 8, 1: 2, 2: 2, 3: 6, 5: 2, 6: 6, 7: 2, 8: 2, 9: 10}
    assert fleet.run_json("rebalance")["moved_tasks"] == 10
    assert levels(fleet) == {0: 8, 3: 10, 6: 8, 9: 14}

    start_plain(fleet, "plain-2", queues="cpu_standard")
    fleet.until_ran(task["task_id"] for task in before + after)
    started = [one["task"] for one in fleet.events("start")]
    assert {task["task_id"] for task in before + after if task["priority"] == "URGENT"} == {*started[1:9]}
    tier = {task["task_id"]: TIERS[task["priority"]] for task in after}
    order = [tier[task] for task in started if task in tier]
    assert order == sorted(order)
    fleet.release_file().touch()
    fleet.until_ran([blocker])
    assert_nothing_went_wrong(fleet, [blocker, *(task["task_id"] for task in before + after)])


def test_celery_purge_and_the_lengths_of_other_tools_include_all_work_at_the_default_steps(
    make_agent_fleet: Make,
) -> None:
    fleet = make_agent_fleet(env={"MORAG_QUEUE_BROKER__PRIORITY_STEPS": "0,3,6,9"})
    fleet.run("submit", "--from", rows(fleet))
    assert levels(fleet) == {0: 4, 3: 4, 6: 4, 9: 8}
    printed = celery(fleet, "purge", "-f", "-Q", "cpu_standard")
    assert re.search(r"Purged 20 messages", printed), printed
    assert levels(fleet) == {}
