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
from tests.broker.conftest import Bench, MakeFull

QUEUE = "cpu_standard"
RETENTION = 60


def entry(bench: Bench, task_id: str) -> str:
    """Writes an open ledger entry."""
    text = json.dumps(
        {"state": "queued", "enqueued_at": 1.5, "queue": QUEUE, "lane": QUEUE, "level": 4, "source": "a/b",
         "args": [{}, []]}
    )  # fmt: skip
    bench.client.set(bench.keys.task(task_id), text)
    return text


Prepared = tuple[str, Callable[[], Any]]
"""The id of a task, and what ends it."""


def settle(bench: Bench, outcome: str) -> Prepared:
    task_id = bench.send()
    entry(bench, task_id)
    taken = bench.claim()
    assert taken is not None
    record = LedgerRecord({"state": outcome, "worker": "w1", "error": "E: x"})
    end = TaskEnd(taken.tag, task_id, "w1", QUEUE, outcome, 1.5, 2.5, record)
    return task_id, partial(Ledger(bench.client, bench.keys, RETENTION).settle, end)


def complete(bench: Bench, outcome: str) -> Prepared:
    """A Celery event of a worker without the agent."""
    completion = ExternalCompletion("x", outcome, "w1", wait_seconds=1.5, run_seconds=2.5)
    record = read_record(entry(bench, "x"))
    return "x", partial(ExternalCompletions(bench.client, bench.keys, RETENTION).end, completion, record)


def close(bench: Bench, outcome: str) -> Prepared:
    """A result of Celery."""
    record = read_record(entry(bench, "x"))
    return "x", partial(LostWork(bench.client, bench.keys, RETENTION).close, "x", record, outcome)


def cancel(bench: Bench) -> Prepared:
    task_id = bench.send()
    text = entry(bench, task_id)
    record = json.dumps({"state": "cancelled", "error": "", "entry": json.loads(text)})
    edit = LaneEdit(task_id, QUEUE, 4, 1, bench.waiting()[0], None, record, queue=QUEUE)
    return task_id, partial(LaneEdits(bench.client, bench.keys, RETENTION).apply, [edit])


def requeue(bench: Bench, outcome: str) -> Prepared:
    """The worker is dead; its message was acknowledged early, or revoked, or too many workers died over it."""
    task_id = bench.send()
    entry(bench, task_id)
    taken = bench.claim()
    assert taken is not None
    requeues = Requeues(bench.client, bench.keys, RETENTION)
    if outcome == "failed":
        bench.client.hdel(bench.keys.unacked, taken.tag)
    elif outcome == "cancelled":
        requeues.revoke(taken.tag)
    request = RequeueRequest(taken.tag, "run-1", task_id, QUEUE, 4, "w1 died", max_deaths=0)
    return task_id, partial(requeues.apply, [request])


def resend(bench: Bench, outcome: str = "quarantined") -> Prepared:
    text = entry(bench, "x")
    request = ResendRequest("x", text, text, '{"headers": {}}', QUEUE, 4, "lost")
    return "x", partial(LostWork(bench.client, bench.keys, RETENTION).resend, request, 0)


WAYS: dict[str, tuple[str, Callable[[Bench], Prepared]]] = {
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


def end(way: str, bench: Bench) -> str:
    """Ends a task that way; its id."""
    task_id, act = WAYS[way][1](bench)
    assert act()
    return task_id


def counters(bench: Bench, family: str) -> dict[str, int]:
    """The counters of a minute, an hour or of all time, without waits and run times."""
    [key] = [key for key in bench.client.scan_iter() if f":{family}".encode() in key]
    counts = {field.decode(): int(count) for field, count in bench.client.hgetall(key).items()}
    return {field: count for field, count in counts.items() if "wait" not in field and "run" not in field}


@ways
def test_an_end_counts_in_totals_minute_hour_and_all_time(way: str, bench: Bench) -> None:
    outcome, _ = WAYS[way]

    end(way, bench)

    for family in ("minute:", "hour:", "figures"):
        assert counters(bench, family) == {f"{QUEUE}|{outcome}": 1}, family
    assert int(bench.client.hget(bench.keys.totals, f"{outcome}||{QUEUE}") or 0) == 1


@ways
def test_an_end_counts_in_the_minute_and_hour_of_the_servers_clock(
    way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = bench.client.time()[0]
    _, act = WAYS[way][1](bench)
    monkeypatch.setattr("time.time", lambda: 1e9)

    act()

    keys = {bench.keys.minute(now), bench.keys.hour(now), bench.keys.minute(now + 5), bench.keys.hour(now + 5)}
    counted = {key.decode() for key in bench.client.scan_iter() if b":minute:" in key or b":hour:" in key}
    assert len(counted) == 2
    assert counted <= keys


@ways
def test_an_end_closes_the_ledger_entry(way: str, bench: Bench) -> None:
    outcome, _ = WAYS[way]

    key = bench.keys.task(end(way, bench))

    record = json.loads(bench.client.get(key) or "{}")
    assert record["state"] == outcome
    if outcome == "quarantined":  # it is kept as long as its dead letter
        assert bench.client.ttl(key) == -1
        return
    assert 0 < bench.client.ttl(key) <= RETENTION
    assert record["ended_at"] == pytest.approx(bench.client.time()[0], abs=5)
    assert record["entry"] == json.loads(entry(bench, "x"))


@ways
def test_an_end_drops_the_record_of_earlier_deaths(way: str, bench: Bench) -> None:
    task_id, act = WAYS[way][1](bench)
    bench.client.hset(bench.keys.attempts, task_id, 1)

    act()

    assert not bench.client.exists(bench.keys.attempts)


@ways
def test_only_a_failed_or_quarantined_task_has_a_dead_letter(way: str, bench: Bench) -> None:
    outcome, _ = WAYS[way]

    task_id = end(way, bench)

    text = bench.client.hget(bench.keys.dead, task_id)
    assert (text is not None) is (outcome in ("failed", "quarantined"))
    assert bench.client.zcard(bench.keys.graves) == bench.client.hlen(bench.keys.dead)
    if text is not None:
        letter = json.loads(text)
        assert (letter["state"], letter["lane"], letter["level"]) == (outcome, QUEUE, 4)
        assert "message" in letter or json.loads(letter["entry"])["args"] == [{}, []]


@pytest.mark.parametrize("way", [way for way, (outcome, _) in WAYS.items() if outcome in ("completed", "cancelled")])
def test_a_task_that_ends_well_leaves_no_older_dead_letter(way: str, bench: Bench) -> None:
    task_id, act = WAYS[way][1](bench)
    bench.client.hset(bench.keys.dead, task_id, "{}")
    bench.client.zadd(bench.keys.graves, {task_id: 1})

    act()

    assert not bench.client.exists(bench.keys.dead)
    assert not bench.client.exists(bench.keys.graves)


@ways
@pytest.mark.parametrize("which", ["totals", "minute", "hour", "figures", "attempts", "dead", "graves"])
def test_a_key_of_another_type_refuses_an_end_whole(way: str, which: str, bench: Bench) -> None:
    _, act = WAYS[way][1](bench)
    key, seconds = getattr(bench.keys, which), bench.client.time()[0]
    for name in {key(seconds), key(seconds + 5)} if callable(key) else {key}:
        bench.client.set(name, "another type")
    before = bench.everything()

    with pytest.raises(redis.ResponseError, match=r"(?i)wrong"):
        act()

    assert bench.everything() == before


@ways
def test_out_of_memory_an_end_is_written_whole_or_refused_whole(
    way: str, bench: Bench, out_of_memory: MakeFull
) -> None:
    outcome, prepare = WAYS[way]
    task_id, act = prepare(bench)
    before = bench.everything()
    out_of_memory()

    try:
        act()
    except redis.ResponseError:
        assert bench.everything() == before
        assert not way.startswith("settle"), "a worker cannot repeat the end of a task"
        return
    assert json.loads(bench.client.get(bench.keys.task(task_id)) or "{}")["state"] == outcome
    assert int(bench.client.hget(bench.keys.totals, f"{outcome}||{QUEUE}") or 0) == 1
