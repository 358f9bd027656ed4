"""settle.lua: a message is removed, its ledger entry closed and its end counted; all or nothing."""

import json

import pytest
import redis

from morag_queue.broker.codec import LedgerRecord, level_of
from morag_queue.broker.ledger import Ledger, TaskEnd
from morag_queue.core.histogram import bucket
from tests.broker.conftest import MakeFull, ScriptRunner, Taken


@pytest.fixture
def ledger(runner: ScriptRunner) -> Ledger:
    return Ledger(runner.client, runner.keys, retention_seconds=60)


@pytest.fixture
def taken(runner: ScriptRunner) -> Taken:
    """A message held by w1, with an open ledger entry."""
    task_id = runner.send()
    runner.client.set(runner.keys.task(task_id), '{"state": "queued"}')
    one = runner.claim()
    assert one is not None
    return one


def ending(taken: Taken, outcome: str, *, wait: float | None = 1.5, run: float | None = 2.5) -> TaskEnd:
    return TaskEnd(
        taken.tag,
        taken.task_id,
        "w1",
        "cpu_standard",
        outcome,
        wait,
        run,
        LedgerRecord({"state": outcome, "error": "E: x"}),
    )


def figures(runner: ScriptRunner) -> dict[str, int]:
    counts = runner.client.hgetall(runner.keys.current)
    return {field.decode(): int(count) for field, count in counts.items() if field != b"minute"}


def totals(runner: ScriptRunner) -> dict[str, int]:
    return {field.decode(): int(count) for field, count in runner.client.hgetall(runner.keys.totals).items()}


def is_held(runner: ScriptRunner, tag: str) -> tuple[bool, bool, bool]:
    """Whether it is in unacked, in its index, in held."""
    k = runner.keys
    return (
        runner.client.hexists(k.unacked, tag), runner.client.zscore(k.unacked_index, tag) is not None,
        runner.client.hexists(k.held, tag),
    )  # fmt: skip


def test_a_completed_task_is_removed_counted_once_and_its_record_expires(
    ledger: Ledger, runner: ScriptRunner, taken: Taken
) -> None:
    assert ledger.settle(ending(taken, "completed")) is True
    assert ledger.settle(ending(taken, "completed")) is False

    assert is_held(runner, taken.tag) == (False, False, False)
    assert figures(runner) == {
        "cpu_standard|completed": 1,
        "cpu_standard|wait_ms": 1500,
        f"cpu_standard|wait|{bucket(1.5)}": 1,
        "cpu_standard|run_ms": 2500,
        f"cpu_standard|run|{bucket(2.5)}": 1,
    }
    assert totals(runner) == {"completed|w1": 1, "run_ms|w1": 2500, "completed||cpu_standard": 1}
    assert ledger.records([taken.task_id])[taken.task_id].state == "completed"
    assert 0 < runner.client.ttl(runner.keys.task(taken.task_id)) <= 60


def test_a_failed_task_counts_its_wait_but_not_its_run(ledger: Ledger, runner: ScriptRunner, taken: Taken) -> None:
    assert ledger.settle(ending(taken, "failed")) is True

    assert figures(runner) == {
        "cpu_standard|failed": 1,
        "cpu_standard|wait_ms": 1500,
        f"cpu_standard|wait|{bucket(1.5)}": 1,
    }
    assert totals(runner)["failed|w1"] == totals(runner)["failed||cpu_standard"] == 1


def test_a_cancelled_task_that_never_ran_counts_no_times(ledger: Ledger, runner: ScriptRunner, taken: Taken) -> None:
    assert ledger.settle(ending(taken, "cancelled", wait=None, run=None)) is True

    assert figures(runner) == {"cpu_standard|cancelled": 1}
    assert ledger.records([taken.task_id])[taken.task_id].state == "cancelled"


def test_a_retry_is_removed_and_stays_open_in_the_ledger(ledger: Ledger, runner: ScriptRunner, taken: Taken) -> None:
    assert ledger.settle(ending(taken, "retry", wait=None, run=None)) is True

    assert is_held(runner, taken.tag) == (False, False, False)
    assert runner.client.ttl(runner.keys.task(taken.task_id)) == -1
    assert totals(runner) == {}


def test_an_early_acknowledged_task_keeps_its_holder_until_it_ends(
    ledger: Ledger, runner: ScriptRunner, taken: Taken
) -> None:
    assert ledger.settle(ending(taken, "accepted")) is True

    assert is_held(runner, taken.tag) == (False, False, True)
    assert totals(runner) == {}

    assert ledger.settle(ending(taken, "completed")) is True
    assert is_held(runner, taken.tag) == (False, False, False)
    assert totals(runner)["completed|w1"] == 1


@pytest.mark.parametrize("outcome", ["accepted", "retry", "completed", "failed", "cancelled"])
def test_a_message_that_was_taken_over_is_not_changed_or_counted(
    outcome: str, ledger: Ledger, runner: ScriptRunner, taken: Taken, client: redis.Redis
) -> None:
    k = runner.keys
    client.rename(k.unacked, "elsewhere")
    client.delete(k.unacked_index, k.held)
    before = runner.everything()

    assert ledger.settle(ending(taken, outcome)) is False

    assert runner.everything() == before


def test_a_task_without_a_ledger_entry_is_counted(ledger: Ledger, runner: ScriptRunner, taken: Taken) -> None:
    runner.client.delete(runner.keys.task(taken.task_id))

    assert ledger.settle(ending(taken, "completed")) is True

    assert ledger.records([taken.task_id]) == {}
    assert totals(runner)["completed||cpu_standard"] == 1


def test_a_task_of_a_foreign_lane_counts_for_the_worker_only(
    ledger: Ledger, runner: ScriptRunner, taken: Taken
) -> None:
    record = LedgerRecord({"state": "completed"})
    ledger.settle(TaskEnd(taken.tag, taken.task_id, "w1", "", "completed", None, 1.0, record))

    assert totals(runner) == {"completed|w1": 1, "run_ms|w1": 1000}
    assert not runner.client.exists(runner.keys.current)


def test_an_end_is_written_whole_on_a_server_out_of_memory(
    ledger: Ledger, runner: ScriptRunner, taken: Taken, out_of_memory: MakeFull
) -> None:
    out_of_memory()

    assert ledger.settle(ending(taken, "completed")) is True

    assert is_held(runner, taken.tag) == (False, False, False)
    assert totals(runner)["completed|w1"] == 1
    assert ledger.records([taken.task_id])[taken.task_id].state == "completed"


def test_a_replica_refuses_an_end_whole(
    ledger: Ledger, runner: ScriptRunner, taken: Taken, read_only: MakeFull
) -> None:
    before = runner.everything()
    read_only()

    with pytest.raises(redis.exceptions.ReadOnlyError):
        ledger.settle(ending(taken, "completed"))

    assert runner.everything() == before


def test_the_holder_of_a_message_from_kombu_is_recorded_as_by_a_claim(
    ledger: Ledger, runner: ScriptRunner, taken: Taken
) -> None:
    from morag_queue.agent.unacked import claim_of

    written = runner.held(taken.tag)
    assert written is not None
    runner.client.delete(runner.keys.held)

    claim = claim_of(taken.message, taken.lane, level_of(taken.message), written[5] / 1000)
    ledger.hold(claim.held("w1", "run-1"))

    assert runner.held(taken.tag) == written
    assert json.loads(runner.unacked(taken.tag) or b"")[0] == taken.message


@pytest.mark.parametrize(
    "which", ["unacked", "unacked_index", "held", "totals", "current", "attempts", "cordons", "dead", "graves"]
)
def test_a_key_of_another_type_refuses_an_end_whole(
    which: str, ledger: Ledger, runner: ScriptRunner, taken: Taken
) -> None:
    runner.client.set(getattr(runner.keys, which), "another type")
    before = runner.everything()

    with pytest.raises(redis.ResponseError, match="wrong kind of value"):
        ledger.settle(ending(taken, "failed"))

    assert runner.everything() == before
