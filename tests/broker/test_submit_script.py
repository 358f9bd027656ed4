"""submit.lua: message and ledger entry together or neither; an open id is queued once."""

import json

import pytest
import redis

from morag_queue.broker.contract import JournalNote, OutgoingMessage
from morag_queue.broker.journal import Journal
from morag_queue.broker.ledger import Ledger
from tests.broker.conftest import MakeFull, ScriptRunner


def outgoing(task_id: str = "a", *, lane: str = "cpu_standard", level: int = 4, attempt: int = 1) -> OutgoingMessage:
    return OutgoingMessage(
        task_id,
        f"message {task_id}",
        json.dumps({"attempt": attempt}),
        lane.partition(".")[0],
        lane,
        level,
        "." in lane,
    )


@pytest.fixture
def ledger(runner: ScriptRunner) -> Ledger:
    return Ledger(runner.client, runner.keys, retention_seconds=60)


def test_messages_are_queued_in_order_with_records_that_do_not_expire(ledger: Ledger, runner: ScriptRunner) -> None:
    assert ledger.submit([outgoing("a"), outgoing("b"), outgoing("c", lane="cpu_batch.w1", level=0)]) == [True] * 3

    assert runner.waiting() == [b"message a", b"message b"]
    assert runner.waiting("cpu_batch.w1", 0) == [b"message c"]
    for task_id in ("a", "b", "c"):
        assert runner.client.ttl(runner.keys.task(task_id)) == -1
    assert runner.client.smembers(runner.keys.lanes) == {b"cpu_batch.w1"}


def test_arrivals_are_counted_by_queue(ledger: Ledger, runner: ScriptRunner) -> None:
    ledger.submit([outgoing("a"), outgoing("b"), outgoing("c", lane="cpu_batch.w1")])

    counts = runner.client.hgetall(runner.keys.current)
    assert counts.pop(b"minute")
    assert counts == {b"cpu_standard|arrived": b"2", b"cpu_batch|arrived": b"1"}


def test_an_open_id_is_refused_and_the_rest_of_the_batch_is_queued(ledger: Ledger, runner: ScriptRunner) -> None:
    ledger.submit([outgoing("a", attempt=1)])

    assert ledger.submit([outgoing("a", attempt=2), outgoing("b")]) == [False, True]
    assert runner.waiting() == [b"message a", b"message b"]
    assert ledger.records(["a"])["a"].fields == {"attempt": 1}


def test_the_same_id_twice_in_a_batch_is_queued_once(ledger: Ledger, runner: ScriptRunner) -> None:
    assert ledger.submit([outgoing("a", attempt=1), outgoing("a", attempt=2)]) == [True, False]
    assert runner.waiting() == [b"message a"]


def test_a_repeated_call_succeeds_and_queues_nothing(ledger: Ledger, runner: ScriptRunner) -> None:
    call = [outgoing("a"), outgoing("b")]
    ledger.submit(call)
    before = runner.everything()

    assert ledger.submit(call) == [True, True]
    assert runner.everything() == before


def test_a_repeated_call_queues_nothing_when_the_task_has_ended(ledger: Ledger, runner: ScriptRunner) -> None:
    call = [outgoing("a")]
    ledger.submit(call)
    entry = runner.client.get(runner.keys.task("a")) or b""
    runner.client.delete(runner.keys.list("cpu_standard", 4))
    runner.client.set(runner.keys.task("a"), b'{"state": "completed", "entry": ' + entry + b"}", ex=60)

    assert ledger.submit(call) == [True]
    assert runner.waiting() == []


def test_the_id_of_an_ended_task_may_be_used_again(ledger: Ledger, runner: ScriptRunner) -> None:
    ledger.submit([outgoing("a", attempt=1)])
    runner.client.set(runner.keys.task("a"), '{"state": "completed"}', ex=60)

    assert ledger.submit([outgoing("a", attempt=2)]) == [True]
    assert runner.waiting() == [b"message a", b"message a"]
    assert runner.client.ttl(runner.keys.task("a")) == -1


# -- the note in the journal

NOTE = JournalNote("ann", "submit", "a.txt", "night run", changes={"submitted": 2})


def notes(runner: ScriptRunner) -> list[str]:
    return [entry.subject for entry in Journal(runner.client, runner.keys).latest(10)]


def test_a_note_is_written_with_the_messages(ledger: Ledger, runner: ScriptRunner) -> None:
    call = [outgoing("a"), outgoing("b")]

    assert ledger.submit(call, NOTE) == [True, True]
    (entry,) = Journal(runner.client, runner.keys).latest(10)
    assert (entry.who, entry.verb, entry.subject, entry.reason) == ("ann", "submit", "a.txt", "night run")
    assert entry.changes == {"submitted": 2}

    assert ledger.submit(call, NOTE) == [True, True]
    assert notes(runner) == ["a.txt"], "a repeated call writes it once"


def test_no_note_is_written_where_a_message_is_refused(ledger: Ledger, runner: ScriptRunner) -> None:
    ledger.submit([outgoing("a", attempt=1)])

    assert ledger.submit([outgoing("a", attempt=2), outgoing("b")], NOTE) == [False, True]
    assert notes(runner) == []


def test_a_journal_of_another_type_refuses_the_messages_of_its_note(ledger: Ledger, runner: ScriptRunner) -> None:
    runner.client.set(runner.keys.journal, "another type")
    before = runner.everything()

    with pytest.raises(redis.ResponseError, match="wrong kind of value"):
        ledger.submit([outgoing("a")], NOTE)

    assert runner.everything() == before
    assert ledger.submit([outgoing("a")]) == [True]


# -- all or nothing


@pytest.mark.parametrize("cause", ["out_of_memory", "read_only"])
def test_a_failing_server_refuses_the_whole_batch(
    cause: str, ledger: Ledger, runner: ScriptRunner, request: pytest.FixtureRequest
) -> None:
    make: MakeFull = request.getfixturevalue(cause)
    ledger.submit([outgoing("a")])
    before = runner.everything()
    make()

    with pytest.raises(redis.ResponseError, match=r"maxmemory|read only replica"):
        ledger.submit([outgoing("b"), outgoing("c", lane="cpu_batch.w1")])

    assert runner.everything() == before


@pytest.mark.parametrize("which", ["a lane", "lanes", "current", "minute", "hour", "figures"])
def test_a_key_of_another_type_refuses_the_whole_batch(which: str, ledger: Ledger, runner: ScriptRunner) -> None:
    key = runner.keys.list("cpu_batch", 4) if which == "a lane" else getattr(runner.keys, which)
    broken = key(61 * 60) if callable(key) else key
    if which != "current":
        runner.client.hset(runner.keys.current, "minute", 61)  # its counts are to be folded
    runner.client.set(broken, "another type")
    before = runner.everything()
    batch = [outgoing("a"), outgoing("b", lane="cpu_batch"), outgoing("c", lane="cpu_standard.w1")]

    with pytest.raises(redis.ResponseError, match="wrong kind of value"):
        ledger.submit(batch)

    assert runner.everything() == before
    runner.client.delete(broken)
    assert ledger.submit(batch) == [True] * 3


def test_a_record_of_another_type_counts_as_open(ledger: Ledger, runner: ScriptRunner) -> None:
    runner.client.sadd(runner.keys.task("a"), "another type")

    assert ledger.submit([outgoing("a"), outgoing("b")]) == [False, True]
