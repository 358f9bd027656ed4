"""Agents and plain Celery workers in one fleet, and what stock tools see of it."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from subprocess import run
from typing import Any

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet

Make = Callable[..., AgentFleet]
PRIORITIES = ("BATCH", "LOW", "NORMAL", "HIGH", "URGENT")  # the last to start is sent first
TIERS = {"URGENT": 0, "HIGH": 1, "NORMAL": 2, "LOW": 3, "BATCH": 3}
SHARED = "gpu_priority,gpu_fallback,cpu_standard,cpu_batch"


def start_plain(fleet: AgentFleet, *names: str, queues: str = SHARED) -> None:
    """Start workers as any Celery app has them: no agent, kombu's default steps."""
    env = {"TEST_APP_AGENT": "0"}
    starts = {name: _starts(fleet, name) for name in names}
    for name in names:
        fleet.start_worker(name, env=env, wait=False, options=("-Q", queues, "--prefetch-multiplier", "1"))
    for name in names:
        until(lambda name=name: _starts(fleet, name) > starts[name], 60, f"{name} is not ready")


def _starts(fleet: AgentFleet, worker: str) -> int:
    """Return how often a worker of that name has become ready: its log goes on when it starts again."""
    return fleet.log(worker).count(" ready.") if fleet.sandbox.log(worker).exists() else 0


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


def findings(fleet: AgentFleet, *options: str) -> list[dict[str, Any]]:
    """Return the findings of `doctor` with these options."""
    command = fleet.start_command("doctor", "--json", *options)
    assert command.process.wait(60) in (0, 1), command.stderr
    found: list[dict[str, Any]] = command.json["findings"]
    return found


def carry_out(fleet: AgentFleet, finding: dict[str, Any]) -> None:
    """Do what a finding of `doctor --leaving` says, as an operator would."""
    remedy, subject = finding["remedy"], finding["subject"]
    command = re.search(r"(MORAG_QUEUE_\S+ )?morag-queue [^,;]*|python -c .*", remedy)
    if command:
        text = command[0].replace("morag-queue", f"{sys.executable} -m morag_queue", 1)
        text = re.sub(r"^python", sys.executable, text).removesuffix(" runs them again")
        env = {**fleet.env, **fleet.sandbox.environment}
        done = run(text, shell=True, env=env, cwd=fleet.dir, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (finding, done.stderr)
    if finding["code"] == "AGENT_RUNS":
        fleet.workers.pop(subject).wait(30)
    if found := re.search(r"celery -A APP worker (?:-n \S+ )?-Q (\S+)", remedy):
        start_plain(fleet, subject if finding["code"] == "AGENT_RUNS" else "new", queues=found[1])


@pytest.mark.slow
def test_after_its_remedies_nothing_is_left_to_do_and_plain_workers_run_all_that_remained(
    make_agent_fleet: Make,
) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker("worker-1")
    fleet.start_worker("worker-2", options=("-Q", "cpu_standard"))
    failed = fleet.submit("t.fail")
    fleet.until_states({failed: "failed"})
    held = [fleet.submit("t.hold", str(fleet.release_file()), lane=f"cpu_standard.worker-{n}") for n in (1, 2)]
    fleet.until_started(*held)
    fleet.kill("worker-2")
    fleet.run("pause", "cpu_batch")
    fleet.run("cordon", "worker-1")
    shared = fleet.run_json("submit", "--from", rows(fleet))["tasks"]
    lanes = ["cpu_batch", "cpu_standard.worker-1", "cpu_standard.worker-2", "cpu_batch.never-started"]
    sent = [task["task_id"] for task in shared] + [fleet.submit("t.later", lane=lane) for lane in lanes]
    fleet.release_file().touch()

    codes: list[str] = []
    while left := findings(fleet, "--leaving"):
        codes += [left[0]["code"]] if left[0]["code"] != "NOT_CHECKED" else []
        assert len(codes) < 12, codes
        carry_out(fleet, left[0])

    assert codes == [
        "AGENT_RUNS", "WORKER_LANE_IN_USE", "WORKER_LANE_IN_USE", "LEVELS_IN_USE", "DEAD_LETTERS_KEPT",
        "PAUSE_IGNORED", "CORDON_IGNORED", "KEYS_REMAIN",
    ]  # fmt: skip
    fleet.until_ran([*sent, *held, failed])
    assert [key for key in fleet.redis.scan_iter() if key.startswith("mq:")] == []
    until(lambda: fleet.redis.hlen("unacked") == 0, 20, "a plain worker still holds a message")
    ran = fleet.counts()
    assert {task: ran[task] for task in (*sent, held[0])} == dict.fromkeys((*sent, held[0]), 1)
