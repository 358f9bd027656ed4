"""Changes of tasks that are killed at any step: the journal has an entry, and its undo takes back what was done."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest

from morag_queue.broker.journal import BEGUN
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.edits.rules import MoveTarget
from morag_queue.core.model import QueuePriority, QueueType
from morag_queue.core.plan import MoveTask, Plan
from morag_queue.operations.cordon import cordon
from morag_queue.operations.dead_letters import drop
from morag_queue.operations.journal import in_full
from morag_queue.operations.pause import pause
from morag_queue.operations.rebalance import run_plan
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import cancel, move, prioritise, retry
from tests.faults import test_killed_commands
from tests.faults.test_killed_commands import (
    HELD,
    TASKS,
    KilledError,
    NoControl,
    Scissors,
    drain,
    failover,
    failover_dead,
)
from tests.operations.test_undo import contents, undo
from tests.support.simulated_fleet import SimulatedFleet

WAITING = [f"t-{n:03d}" for n in range(70)]
DEAD = [f"d-{n}" for n in range(45)]

Command = Callable[[RedisBroker], object]


def edited(broker: RedisBroker) -> TaskEditor:
    return TaskEditor(broker, broker.settings, "test", who="ann")


COMMANDS: Mapping[str, tuple[list[str], Command]] = {
    "cancel": (WAITING, lambda broker: cancel(edited(broker), WAITING, terminate=False)),
    "prio": (WAITING, lambda broker: prioritise(edited(broker), WAITING, QueuePriority.HIGH)),
    "move": (WAITING, lambda broker: move(edited(broker), WAITING, MoveTarget(QueueType.CPU_BATCH), force=False)),
    "requeue": (DEAD, lambda broker: retry(edited(broker), DEAD, reset=False)),
    "drop": (DEAD, lambda broker: drop(broker, broker.settings, DEAD, who="ann")),
}


def scene(fleet: SimulatedFleet) -> None:
    """Set up: failed tasks, then waiting ones."""
    fleet.client.flushall()
    fleet.join("cpu-1")
    fleet.fill(DEAD)
    for task_id in DEAD:
        assert fleet.claim("cpu-1") == task_id
        fleet.end(task_id, "failed", "ValueError: no")
    fleet.fill(WAITING)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_change_killed_at_any_step_is_in_the_journal_and_its_undo_takes_back_what_was_done(
    sim_fleet: SimulatedFleet, command: str, share: float
) -> None:
    tasks, run = COMMANDS[command]
    scene(sim_fleet)
    run(sim_fleet.broker)  # the server has the scripts from now on
    steps, unfinished, partly = 0, 0, 0
    while True:
        steps += 1
        scene(sim_fleet)
        before = contents(sim_fleet)
        with Scissors(steps, share).client(sim_fleet.url) as client:
            try:
                run(RedisBroker(sim_fleet.settings, client))
            except KilledError:
                client.connection_pool.disconnect()
            else:
                break
        assert sim_fleet.client.ping()
        assert sim_fleet.client.ping(), "the server has read what arrived before"
        entries = sim_fleet.broker.journal.latest(10)
        assert entries or contents(sim_fleet) == before, f"killed at step {steps}: changed without an entry"
        if not entries:
            continue
        [entry] = entries
        if entry.changes.get("state") == BEGUN:
            unfinished += 1
            shown = in_full(sim_fleet.broker, entry).changes
            partly += 0 < shown["count"] < len(tasks)
            assert set(shown["tasks"]) <= set(tasks)
        result = undo(sim_fleet, entry.entry_id)
        assert (result.not_undone, result.exit_status) == ((), 0)
        assert contents(sim_fleet) == before, f"after the undo of a command killed at step {steps}"
    assert unfinished > 3
    assert partly, "it was never killed between two of its steps"


def rebalance(broker: RedisBroker) -> None:
    place = {"source": "cpu_standard", "target": "cpu_batch", "level": 4, "to_level": 4, "reason": "by hand"}
    steps = tuple(MoveTask(task_id=task_id, **place) for task_id in TASKS[HELD : HELD + 20])
    plan = Plan(plan_id="a plan", verb="rebalance", fleet=broker.fleet, taken_at=0.0, steps=steps)
    run_plan(broker, broker.settings, plan, who="ann")


OTHERS: Mapping[str, Command] = {
    "pause": lambda broker: pause(broker, "cpu_batch", who="ann"),
    "cordon": lambda broker: cordon(broker, "cpu-2", who="ann"),
    "drain": drain,
    "failover": failover,
    "failover --dead": failover_dead,
    "rebalance": rebalance,
}


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("command", OTHERS)
def test_no_command_changes_the_fleet_before_its_entry_is_in_the_journal(
    sim_fleet: SimulatedFleet, command: str, share: float
) -> None:
    sim_fleet.broker.__dict__["control"] = NoControl()
    dead_worker_scene(sim_fleet, command)
    OTHERS[command](sim_fleet.broker)  # the server has the scripts from now on
    changed = 0
    for steps in count(1):
        dead_worker_scene(sim_fleet, command)
        before = contents(sim_fleet)
        with Scissors(steps, share).client(sim_fleet.url) as client:
            broker = RedisBroker(sim_fleet.settings, client)
            broker.__dict__["control"] = NoControl()
            try:
                OTHERS[command](broker)
            except KilledError:
                client.connection_pool.disconnect()
            else:
                break
        assert sim_fleet.client.ping()
        assert sim_fleet.client.ping(), "the server has read what arrived before"
        if without_lease(contents(sim_fleet)) != without_lease(before):
            changed += 1
            assert sim_fleet.broker.journal.latest(1), f"killed at step {steps}: changed without an entry"
    assert changed or (share == 0.0 and command in ("pause", "cordon")), "these change all in one step"


def dead_worker_scene(fleet: SimulatedFleet, command: str) -> None:
    test_killed_commands.scene(fleet)
    if command == "rebalance":
        fleet.broker.moves.lane("cpu_standard.cpu-1", "cpu_standard", 4, len(TASKS))


def without_lease(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in found.items() if key not in ("mq:lease", "mq:terms")}
