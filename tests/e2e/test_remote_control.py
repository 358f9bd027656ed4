"""Celery's own remote control, and what it tells of a worker with the agent."""

import json
from typing import Any

INSPECT = [
    "stats", "conf", "report", "active", "reserved", "scheduled", "revoked", "registered", "active_queues", "clock",
    "ping", "query_task",
]  # fmt: skip

CONTROL: list[tuple[str, dict[str, Any], str]] = [
    ("pool_grow", {"n": 1}, "pool will grow"),
    ("pool_shrink", {"n": 1}, "pool will shrink"),
    ("rate_limit", {"task_name": "t.nap", "rate_limit": "10/m"}, "new rate limit set successfully"),
    ("time_limit", {"task_name": "t.nap", "hard": 10}, "time limits set successfully"),
    ("add_consumer", {"queue": "other"}, "add consumer other"),
    ("cancel_consumer", {"queue": "other"}, "no longer consuming from other"),
    ("enable_events", {}, "task events enabled"),
]


def test_every_command_of_celerys_remote_control_is_answered(make_agent_fleet):
    fleet = make_agent_fleet(conf={"broker_transport_options": {"visibility_timeout": 77}})
    fleet.start_worker("w1", options=("--prefetch-multiplier", "3"))
    node = f"w1@{json.loads(fleet.redis.hget(fleet.keys.workers, 'w1'))['host']}"
    inspect = fleet.producer.control.inspect([node], timeout=20, limit=1)

    answers = {name: (getattr(inspect, name)() or {}).get(node) for name in INSPECT}

    assert not [name for name, answer in answers.items() if answer is None or "error" in answer], answers
    options = answers["stats"]["broker"]["transport_options"]
    assert options["visibility_timeout"] == 77
    assert answers["conf"]["broker_transport_options"] == options
    assert options["morag_queue"] == options["client_name"] == fleet.client_name("w1")
    for command, arguments, answer in CONTROL:
        replies = fleet.producer.control.broadcast(command, arguments=arguments, reply=True, limit=1, timeout=20)
        assert replies == [{node: {"ok": answer}}], command

    settings = json.loads(fleet.redis.hget(fleet.keys.workers, "w1"))["settings"]
    assert (settings["prefetch_multiplier"], settings["visibility_timeout"]) == (3, 77)
    found = {one["code"]: one["subject"] for one in fleet.run_json("doctor")["findings"]}
    assert found["TAKES_AHEAD"] == "w1"

    fleet.producer.control.shutdown([node])
    assert fleet.workers.pop("w1").wait(20) == 0
