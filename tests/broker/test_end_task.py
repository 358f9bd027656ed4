"""Every way to end a task closes its ledger entry and counts it alike."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis

from morag_queue.broker.codec import LedgerRecord, read_record
from morag_queue.broker.lanes import LaneEdit, LaneEdits
from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions, Ledger, TaskEnd
from morag_queue.broker.lost_work import LostWork, ResendRequest
from morag_queue.broker.requeue import RequeueRequest, Requeues
from tests.broker.conftest import MakeFull, ScriptRunner

QUEUE = "cpu_standard"
RETENTION = 60


def entry(runner: ScriptRunner, task_id: str) -> str:
    """Writes an open ledger entry."""
    text = json.dumps(
        {"state": "queued", "enqueued_at": 1.5, "queue": QUEUE, "lane": QUEUE, "level": 4, "source": "a/b",
         "args": [{}, []]}
    )  # fmt: skip
    runner.client.set(runner.keys.task(task_id), text)
    return text


Prepared = tuple[str, Callable[[], Any]]
"""The id of a task, and what ends it."""


def settle(runner: ScriptRunner, outcome: str) -> Prepared:
    task_id = runner.send()
    entry(runner, task_id)
    taken = runner.claim()
    assert taken is not None
    record = LedgerRecord({"state": outcome, "worker": "w1", "error": "E: x"})
    end = TaskEnd(taken.tag, task_id, "w1", QUEUE, outcome, 1.5, 2.5, record)
    return task_id, partial(Ledger(runner.client, runner.keys, RETENTION).settle, end)


def complete(runner: ScriptRunner, outcome: str) -> Prepared:
    """A Celery event of a worker without the agent."""
    completion = ExternalCompletion("x", outcome, "w1", wait_seconds=1.5, run_seconds=2.5)
    record = read_record(entry(runner, "x"))
    return "x", partial(ExternalCompletions(runner.client, runner.keys, RETENTION).end, completion, record)


def close(runner: ScriptRunner, outcome: str) -> Prepared:
    """A result of Celery."""
    record = read_record(entry(runner, "x"))
    return "x", partial(LostWork(runner.client, runner.keys, RETENTION).close, "x", record, outcome)


def cancel(runner: ScriptRunner) -> Prepared:
    task_id = runner.send()
    text = entry(runner, task_id)
    record = json.dumps({"state": "cancelled", "error": "", "entry": json.loads(text)})
    edit = LaneEdit(task_id, QUEUE, 4, 1, runner.waiting()[0], None, record, queue=QUEUE)
    return task_id, partial(LaneEdits(runner.client, runner.keys, RETENTION).apply, [edit])


def requeue(runner: ScriptRunner, outcome: str) -> Prepared:
    """The worker is dead; its message was acknowledged early, or revoked, or too many workers died over it."""
    task_id = runner.send()
    entry(runner, task_id)
    taken = runner.claim()
    assert taken is not None
    requeues = Requeues(runner.client, runner.keys, RETENTION)
    if outcome == "failed":
        runner.client.hdel(runner.keys.unacked, taken.tag)
    elif outcome == "cancelled":
        requeues.revoke(taken.tag)
    request = RequeueRequest(taken.tag, "run-1", task_id, QUEUE, 4, "w1 died", max_deaths=0)
    return task_id, partial(requeues.apply, [request])


def resend(runner: ScriptRunner, outcome: str = "quarantined") -> Prepared:
    text = entry(runner, "x")
    request = ResendRequest("x", text, text, '{"headers": {}}', QUEUE, 4, "lost")
    return "x", partial(LostWork(runner.client, runner.keys, RETENTION).resend, request, 0)


WAYS: dict[str, tuple[str, Callable[[ScriptRunner], Prepared]]] = {
    f"{prepare.__name__} {outcome}": (outcome, partial(prepare, outcome=outcome))
    for prepare, outcomes in (
        (settle, ("completed", "failed", "cancelled")),
        (complete, ("completed", "failed", "cancelled")),
        (close, ("completed", "failed", "cancelled")),
        (requeue, ("failed", "cancelled", "quarantined")),
        (resend, ("quarantined",)),
    )
    for outcome in outcomes
} | {"cancel": ("cancelled", cancel)}
ways = pytest.mark.parametrize("way", WAYS)


def end(way: str, runner: ScriptRunner) -> str:
    """Ends a task that way; its id."""
    task_id, act = WAYS[way][1](runner)
    assert act()
    return task_id


@ways
def test_an_end_counts_in_the_current_minute_and_in_the_totals(way: str, runner: ScriptRunner) -> None:
    outcome, _ = WAYS[way]

    end(way, runner)

    counts = {field.decode(): int(count) for field, count in runner.client.hgetall(runner.keys.current).items()}
    assert {field: count for field, count in counts.items() if "wait" not in field and "run" not in field} == {
        f"{QUEUE}|{outcome}": 1,
        "minute": runner.client.time()[0] // 60,
    }
    assert int(runner.client.hget(runner.keys.totals, f"{outcome}||{QUEUE}") or 0) == 1


@ways
def test_an_end_counts_in_the_minute_of_the_servers_clock(
    way: str, runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = runner.client.time()[0]
    _, act = WAYS[way][1](runner)
    monkeypatch.setattr("time.time", lambda: 1e9)

    act()

    assert int(runner.client.hget(runner.keys.current, "minute") or 0) in {now // 60, (now + 5) // 60}


@ways
def test_an_end_closes_the_ledger_entry(way: str, runner: ScriptRunner) -> None:
    outcome, _ = WAYS[way]

    key = runner.keys.task(end(way, runner))

    record = json.loads(runner.client.get(key) or "{}")
    assert record["state"] == outcome
    if outcome == "quarantined":  # it is kept as long as its dead letter
        assert runner.client.ttl(key) == -1
        return
    assert 0 < runner.client.ttl(key) <= RETENTION
    assert record["ended_at"] == pytest.approx(runner.client.time()[0], abs=5)
    assert record["entry"] == json.loads(entry(runner, "x"))


@ways
def test_an_end_drops_the_record_of_earlier_deaths(way: str, runner: ScriptRunner) -> None:
    task_id, act = WAYS[way][1](runner)
    runner.client.hset(runner.keys.attempts, task_id, 1)

    act()

    assert not runner.client.exists(runner.keys.attempts)


@ways
def test_only_a_failed_or_quarantined_task_has_a_dead_letter(way: str, runner: ScriptRunner) -> None:
    outcome, _ = WAYS[way]

    task_id = end(way, runner)

    text = runner.client.hget(runner.keys.dead, task_id)
    assert (text is not None) is (outcome in ("failed", "quarantined"))
    assert runner.client.zcard(runner.keys.graves) == runner.client.hlen(runner.keys.dead)
    if text is not None:
        letter = json.loads(text)
        assert (letter["state"], letter["lane"], letter["level"]) == (outcome, QUEUE, 4)
        assert "message" in letter or json.loads(letter["entry"])["args"] == [{}, []]


@pytest.mark.parametrize("way", [way for way, (outcome, _) in WAYS.items() if outcome in ("completed", "cancelled")])
def test_a_task_that_ends_well_leaves_no_older_dead_letter(way: str, runner: ScriptRunner) -> None:
    task_id, act = WAYS[way][1](runner)
    runner.client.hset(runner.keys.dead, task_id, "{}")
    runner.client.zadd(runner.keys.graves, {task_id: 1})

    act()

    assert not runner.client.exists(runner.keys.dead)
    assert not runner.client.exists(runner.keys.graves)


def make_fold_due(runner: ScriptRunner) -> None:
    """Counts of the minute 61 wait to be folded."""
    runner.client.hset(runner.keys.current, mapping={"minute": 61, f"{QUEUE}|completed": 5})


@ways
@pytest.mark.parametrize("which", ["totals", "current", "minute", "hour", "figures", "attempts", "dead", "graves"])
def test_a_key_of_another_type_refuses_an_end_whole(way: str, which: str, runner: ScriptRunner) -> None:
    task_id, act = WAYS[way][1](runner)
    key = getattr(runner.keys, which)
    if which == "graves":
        runner.client.hset(runner.keys.dead, task_id, "{}")  # else an end may not write it
    if which != "current":
        make_fold_due(runner)
    runner.client.set(key(61 * 60) if callable(key) else key, "another type")
    before = runner.everything()

    with pytest.raises(redis.ResponseError, match=r"(?i)wrong"):
        act()

    assert runner.everything() == before


@ways
@pytest.mark.parametrize("is_fold_due", [False, True])
def test_out_of_memory_an_end_is_written_whole_or_refused_whole(
    way: str, is_fold_due: bool, runner: ScriptRunner, out_of_memory: MakeFull
) -> None:
    outcome, prepare = WAYS[way]
    task_id, act = prepare(runner)
    if is_fold_due:
        make_fold_due(runner)
    before = runner.everything()
    out_of_memory()

    try:
        act()
    except redis.ResponseError:
        assert runner.everything() == before
        assert not way.startswith("settle"), "a worker cannot repeat the end of a task"
        return
    assert json.loads(runner.client.get(runner.keys.task(task_id)) or "{}")["state"] == outcome
    assert int(runner.client.hget(runner.keys.current, f"{QUEUE}|{outcome}") or 0) == 1
    assert runner.client.hgetall(runner.keys.figures) == ({f"{QUEUE}|completed".encode(): b"5"} if is_fold_due else {})
    assert int(runner.client.hget(runner.keys.totals, f"{outcome}||{QUEUE}") or 0) == 1
