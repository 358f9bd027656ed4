"""The account: what became of each task, from what was sent, what the tasks recorded, and what is on the server."""

import json

import pytest
from redis import Redis

from morag_queue.broker.keys import Keys
from morag_queue.local.account import account
from tests.faults.account import FaultAccount, account_of, ids_on_server

KEYS = Keys()


@pytest.fixture
def server(valkey: str) -> Redis:
    return Redis.from_url(valkey, decode_responses=True)


def test_each_task_is_counted_under_its_words(server: Redis) -> None:
    server.lpush("cpu_standard", json.dumps({"headers": {"id": "in-lane"}}))
    server.hset(KEYS.unacked, "tag-1", json.dumps([{"headers": {"id": "held"}}, "", "cpu_standard"]))
    server.hset(KEYS.dead, "quarantined", json.dumps({"task_id": "quarantined"}))
    confirmed = {"in-lane", "held", "quarantined", "gone", "once", "twice"}

    found = account_of(
        server, KEYS, attempted=confirmed | {"uncertain"}, acknowledged=confirmed,
        ended=["once", "twice", "twice", "uncertain", "never-sent"],
    )  # fmt: skip

    assert (set(found.lost), set(found.left)) == ({"gone"}, {"in-lane", "held", "quarantined"})
    assert [set(found.duplicated), set(found.recovered), set(found.unexpected)] == [
        {"twice"},
        {"uncertain"},
        {"never-sent"},
    ]
    assert found.stuck == ("tag-1",), "no worker is registered"
    assert str(found) == (
        "attempted 7  acknowledged 6  executed 4  lost 1  duplicated 1  recovered 1  unexpected 1  stuck 1  left 3"
    )


def test_a_promise_is_broken_by_every_word_but_a_duplicate_with_a_cause() -> None:
    def made(acknowledged: list[str], ended: list[str], **more: object) -> FaultAccount:
        base = account(acknowledged, acknowledged, ended)
        return FaultAccount(base.attempted, base.acknowledged, base.executed, **more)  # type: ignore[arg-type]

    assert made(["a", "b"], ["a", "b", "b"]).broken_promises(may_run_twice={"b"}) == []
    assert made(["a", "b"], ["a", "b", "b"]).broken_promises() == ["duplicated without cause 1: b"]
    assert made(["a"], []).broken_promises() == ["lost 1: a"]
    assert made(["a"], [], left=frozenset("a")).broken_promises() == ["left 1: a"]
    assert made(["a"], ["a", "x"], stuck=("tag",)).broken_promises() == ["stuck 1: tag", "unexpected 1: x"]


def test_a_task_is_found_in_a_message_that_is_no_json(server: Redis) -> None:
    server.lpush("cpu_standard", "broken {task-1")

    assert ids_on_server(server, KEYS, ["task-1", "task-2"]) == {"task-1"}
