"""Changes of tasks that are killed at any step: the journal has an entry, and its undo takes back what was done."""

from collections.abc import Callable, Mapping

import pytest

from morag_queue.broker.journal import BEGUN
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.edits.rules import MoveTarget
from morag_queue.core.model import QueuePriority, QueueType
from morag_queue.operations.dead_letters import drop
from morag_queue.operations.journal import in_full
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import cancel, move, prioritise, retry
from tests.faults.test_killed_commands import KilledError, Scissors
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
