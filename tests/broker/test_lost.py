"""Lost work: untouched messages, open tasks without a message, and resending."""

import json

import pytest

from morag_queue.broker.codec import read_record
from morag_queue.broker.lost_work import LostWork, ResendRequest
from tests.broker.conftest import ScriptRunner

RECORD = (
    '{{"priority": "NORMAL", "enqueued_at": {at}, "queue": "cpu_standard", "state": "{state}", "source": "\\"x\\"", '
    '"lane": "cpu_standard", "level": 4, "args": ["\\"enqueued_at\\": 9999999999, \\"state\\": \\"queued\\""]}}'
)


@pytest.fixture
def lost(runner: ScriptRunner) -> LostWork:
    return LostWork(runner.client, runner.keys, 60)


def record(runner: ScriptRunner, task_id: str, at: float = 100.0, state: str = "queued") -> str:
    text = RECORD.format(at=at, state=state)
    runner.client.set(runner.keys.task(task_id), text)
    return text


def ledger(lost: LostWork, before: float) -> list:
    cursor, found = lost.open_tasks(0, before)
    while cursor:
        cursor, more = lost.open_tasks(cursor, before)
        found += more
    return found


def test_untouched_messages_are_found_longest_untouched_first(runner: ScriptRunner, lost: LostWork):
    sent = [runner.send(lane="cpu_standard.w1") for _ in range(3)]
    taken = [runner.claim() for _ in sent]
    for n, one in enumerate(taken):
        runner.client.zadd(runner.keys.unacked_index, {one.tag: 1000 - n})
    found = lost.untouched(1000.0, 0, 10)
    assert [one.task_id for one in found] == [sent[2], sent[1]]
    assert (found[0].worker, found[0].incarnation, found[0].lane, found[0].level) == (
        "w1", "run-1", "cpu_standard.w1", 4,
    )  # fmt: skip
    assert [one.task_id for one in lost.untouched(1000.0, 1, 10)] == [sent[1]]


def test_a_message_without_a_holder_is_found_and_a_foreign_one_skipped(runner: ScriptRunner, lost: LostWork):
    sent = runner.send()
    taken = runner.claim()
    runner.client.hdel(runner.keys.held, taken.tag)
    runner.client.hset(runner.keys.unacked, "x", "not a message")
    runner.client.zadd(runner.keys.unacked_index, {"x": 1, taken.tag: 2})
    assert [(one.task_id, one.worker, one.incarnation) for one in lost.untouched(1000.0, 0, 10)] == [(sent, "", "")]


def test_only_open_tasks_of_the_ledger_are_found(runner: ScriptRunner, lost: LostWork):
    record(runner, "open")
    record(runner, "new", at=500.5)
    record(runner, "ended", state="completed")
    found = {one.task_id: one for one in ledger(lost, 500.0)}
    assert found.keys() == {"open"}
    assert (found["open"].enqueued_at, found["open"].queue, found["open"].level) == (100.0, "cpu_standard", 4)


def test_a_whole_ledger_is_scanned_in_steps(runner: ScriptRunner, lost: LostWork):
    for n in range(3000):
        record(runner, f"t{n}")
    assert len({one.task_id for one in ledger(lost, 500.0)}) == 3000


def test_tasks_anywhere_in_the_lists_are_present(runner: ScriptRunner, lost: LostWork):
    deep = runner.send(task_id='an "id" \\ of ü')
    for _ in range(2500):
        runner.put('{"headers": {"id": "another"}}')
    shallow = runner.send(lane="cpu_batch", level=8)
    lists = [("cpu_standard", 4, 2501), ("cpu_batch", 8, 1), ("cpu_standard", 0, 0)]
    assert lost.present({shallow, "another", "nowhere"}, lists) == {shallow, "another"}
    assert lost.present({deep}, lists) == set(), "an id with a quote is never searched for"


def test_unacked_tasks_are_found_with_and_without_a_holder(runner: ScriptRunner, lost: LostWork):
    sent = [runner.send() for _ in range(2)]
    _, second = runner.claim(), runner.claim()
    runner.client.hdel(runner.keys.held, second.tag)
    runner.client.hset(runner.keys.unacked, "x", "not a message")
    assert lost.unacked_ids() == set(sent)


def again(seen: str) -> ResendRequest:
    return ResendRequest(
        "t", seen, '{"state": "queued", "new": true}', '{"headers": {}}', "cpu_standard", 4, "it was lost"
    )


def test_a_lost_task_is_sent_again_once_and_first_in_its_lane(runner: ScriptRunner, lost: LostWork):
    seen = record(runner, "t")
    runner.put("waits")
    assert [lost.resend(again(seen), 3) for _ in range(2)] == ["resent", "changed"]
    assert runner.waiting() == [b'{"headers": {}}', b"waits"]
    assert runner.client.hget(runner.keys.attempts, "t") == b"1"


def test_a_task_that_has_ended_is_not_sent_again(runner: ScriptRunner, lost: LostWork):
    seen = record(runner, "t")
    record(runner, "t", state="completed")
    before = runner.everything()
    assert lost.resend(again(seen), 3) == "changed"
    assert runner.everything() == before


def test_a_task_that_is_lost_too_often_is_quarantined(runner: ScriptRunner, lost: LostWork):
    for _ in range(3):
        assert lost.resend(again(record(runner, "t")), 3) == "resent"
    runner.client.delete(runner.keys.list("cpu_standard", 4))
    assert lost.resend(again(record(runner, "t")), 3) == "quarantined"
    assert runner.waiting() == []
    letter = json.loads(runner.client.hget(runner.keys.dead, "t"))
    assert (len(letter["story"]), letter["message"]) == (4, '{"headers": {}}')
    assert json.loads(runner.client.get(runner.keys.task("t")))["state"] == "quarantined"


def test_a_result_ends_the_entry_of_a_task_that_an_agentless_worker_ran(runner: ScriptRunner, lost: LostWork):
    seen = read_record(record(runner, "t"))
    assert seen is not None
    assert not lost.keeps_results()
    runner.client.set(runner.keys.result("t"), '{"status": "SUCCESS", "result": 1}')
    runner.client.set(runner.keys.result("u"), '{"status": "STARTED"}')
    assert lost.keeps_results()
    assert lost.results(["t", "u", "v"]) == {"t": "completed"}
    assert lost.close("t", seen, "completed")
    assert not lost.close("t", seen, "completed")
    assert json.loads(runner.client.get(runner.keys.task("t")))["state"] == "completed"
    assert runner.client.hget(runner.keys.totals, "completed||cpu_standard") == b"1"
