"""Each outcome of a task is recorded once, releases its message, and is counted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet

WORKER = "worker-cpu-1"
OWN_LANE = f"cpu_standard.{WORKER}"

VARIANTS: dict[str, dict[str, Any]] = {
    "prefork": {"pool": "prefork"},
    "threads": {"pool": "threads"},
    "solo": {"pool": "solo"},
    "without claim": {"pool": "prefork", "env": {"MORAG_QUEUE_AGENT__CLAIM": "false"}},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_each_outcome_is_recorded_once_and_nothing_stays_unacked(
    variant: dict[str, Any], make_agent_fleet: Callable[..., AgentFleet]
) -> None:
    fleet = make_agent_fleet(env=variant.get("env"))
    pool = variant["pool"]
    fleet.release_file().touch()
    sent = {
        "end well": fleet.submit("t.hold", str(fleet.release_file())),
        "fail": fleet.submit("t.fail"),
        "ignore": fleet.submit("t.ignore"),
        "reject": fleet.submit("t.reject"),
        "retry": fleet.submit("t.retry", 2, lane=OWN_LANE, level=7),
        "early": fleet.submit("t.early", str(fleet.release_file())),
        "early fail": fleet.submit("t.early_fail"),
        "early reject": fleet.submit("t.early_reject"),
        "requeue": fleet.submit("t.requeue_once", str(fleet.release_file("requeued"))),
        "not known": fleet.submit("t.no_such_task"),
    }
    completed = {"end well", "ignore", "retry", "early", "requeue"}
    if pool == "prefork":  # a process can be killed, a thread cannot
        sent |= {
            "die": fleet.submit("t.die_once", str(fleet.release_file("died"))),
            "too long": fleet.submit("t.too_long"),
        }
        completed |= {"die"}
    fleet.start_worker(WORKER, options=("-P", pool), concurrency=2)

    fleet.until_states({task: "completed" if why in completed else "failed" for why, task in sent.items()})

    fleet.until_nothing_is_unacked()
    totals = fleet.redis.hgetall(fleet.keys.totals)
    assert int(totals[f"completed|{WORKER}"]) == int(totals["completed||cpu_standard"]) == len(completed)
    assert int(totals[f"failed|{WORKER}"]) == len(sent) - len(completed)
    starts = fleet.counts("start")
    assert starts[sent["retry"]] == 3, "retry"
    assert starts[sent["requeue"]] == 2, "requeue"
    tries = [one for one in fleet.events("start") if one["task"] == sent["retry"]]
    assert {(one["lane"], one["priority"]) for one in tries} == {(OWN_LANE, 7)}, "a retry keeps its lane and level"
    assert not fleet.account(sent.values()).duplicated

    remote_control_works(fleet)
    canvas_works(fleet)
    fleet.stop()
    beat = json.loads(fleet.redis.hget(fleet.keys.beats, WORKER))
    assert beat["stopped"] is True, "it did not record its shutdown"


def remote_control_works(fleet: AgentFleet) -> None:
    with Celery(broker=fleet.url, set_as_current=False) as app:
        inspect = app.control.inspect(limit=1, timeout=10)
        [(node, answer)] = inspect.ping().items()
        assert (node.partition("@")[0], answer) == (WORKER, {"ok": "pong"})
        assert inspect.active() == {node: []}
        assert {queue["name"] for queue in inspect.active_queues()[node]} >= {"cpu_standard", OWN_LANE, "cpu_batch"}


def canvas_works(fleet: AgentFleet) -> None:
    with Celery(broker=fleet.url, backend=fleet.url, set_as_current=False) as app:
        app.conf.broker_transport_options = {"priority_steps": list(range(10))}
        app.conf.task_default_queue = "cpu_standard"
        add, total = (app.signature(name, app=app) for name in ("t.add", "t.total"))
        assert chain(add.clone((1, 2)), add.clone((10,)), app=app).apply_async().get(timeout=20) == 13
        header = [add.clone((number, number)) for number in range(3)]
        assert chord(header, app=app)(total).get(timeout=20) == 6
        consumer = app.backend.result_consumer
        consumer.stop()
        consumer.subscribed_to.clear()
        consumer._pubsub = None  # else results would reconnect to unsubscribe when they are collected
        app.backend.client.connection_pool.disconnect()


@pytest.mark.parametrize("way", ["revoked", "terminated"])
def test_a_revoked_task_is_cancelled_in_the_ledger(way: str, make_agent_fleet: Callable[..., AgentFleet]) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER)
    first = fleet.submit("t.hold", str(fleet.release_file()))
    fleet.until_started(first)
    with Celery(broker=fleet.url, set_as_current=False) as app:
        if way == "terminated":
            cancelled, other = first, fleet.submit("t.add", 1, 1)
            app.control.revoke(first, terminate=True, reply=True, timeout=10, limit=1)
        else:
            cancelled, other = fleet.submit("t.add", 1, 1), first
            app.control.revoke(cancelled, reply=True, timeout=10, limit=1)
            fleet.release_file().touch()

    fleet.until_states({cancelled: "cancelled", other: "completed"})
    fleet.until_nothing_is_unacked()
    until(lambda: int(fleet.redis.hget(fleet.keys.totals, f"cancelled|{WORKER}") or 0) == 1, 5, "not counted")
