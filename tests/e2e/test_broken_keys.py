"""A real worker while keys of ours have another type, or hold garbage."""

from collections.abc import Callable

import pytest

from morag_queue.local.waiting import until
from tests.garbage.values import TEXTS
from tests.support.agent_fleet import AgentFleet

KEYS = ("totals", "current", "cordons", "paused", "held", "beats", "workers", "attempts", "dead", "surprises")


@pytest.mark.slow
@pytest.mark.parametrize("is_whole", [True, False], ids=["of another type", "with garbage"])
def test_a_worker_outlives_broken_keys_and_runs_every_task_once(
    make_agent_fleet: Callable[..., AgentFleet], is_whole: bool
) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker("worker-1")
    client, keys = fleet.redis, fleet.keys
    sent = [fleet.send("cpu_standard", sleep=0.2) for _ in range(3)]
    until(lambda: fleet.events("start"), 20, "nothing started")
    for name in KEYS:
        key = getattr(keys, name)
        saved = f"saved:{name}"
        if is_whole:
            if client.exists(key):
                client.rename(key, saved)
            client.set(key, "x")
        elif client.type(key) == "hash":
            client.hset(key, mapping=dict.fromkeys(client.hkeys(key), TEXTS["list of lists"]) | {"x": "y"})
    sent += [fleet.send("cpu_standard") for _ in range(3)]
    assert len(fleet.run_json("stats")["queues"]) == 4
    if is_whole:
        for name in KEYS:
            client.delete(getattr(keys, name))
            if client.exists(f"saved:{name}"):
                client.rename(f"saved:{name}", getattr(keys, name))
    else:
        client.delete(keys.cordons)
    fleet.until_ran(sent, 60)
    until(lambda: not client.exists(keys.unacked), 40, lambda: f"still held: {fleet.where()}")
    done = fleet.account(sent)
    assert (done.lost, done.duplicated) == (frozenset(), frozenset())
    assert set(done.stuck) <= {"x"}, "beside the garbage itself"
    assert "Traceback" not in fleet.log("worker-1")
