"""Malformed messages in the lanes of the fleet."""

from collections.abc import Callable
from typing import Any

from tests.support.agent_fleet import AgentFleet

WORKER = "worker-cpu-1"
Make = Callable[..., AgentFleet]

HOSTILE_MESSAGES: dict[str, Any] = {
    "text": "hello",
    "a control character": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "\x01", "task": "t.add"}, '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "an invalid number": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h1", "task": "t.add", "retries": +1}, '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "invalid base64": '{"body": "a", "headers": {"id": "h2", "task": "t.add"}, '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "a list for headers": '{"body": "W1tdLCB7fSwge31d", "headers": [1], '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "no content type": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h3", "task": "t.add"}, '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "an invalid priority": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h4", "task": "t.add"}, '
    '"properties": {"delivery_tag": "x", "priority": "high", "delivery_info": 7}}',
    "a list for the task name": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h6", "task": []}, '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "arguments of another shape": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h7", "task": "t.add"}, '
    '"properties": {"delivery_tag": "x"}}',
    "invalid time limits": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h8", "task": "t.add", "timelimit": 7}, '
    '"content-type": "application/json", "content-encoding": "utf-8", '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "invalid stamps": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h9", "task": "t.add", "stamped_headers": [[]], '
    '"stamps": 7}, "content-type": "application/json", "content-encoding": "utf-8", '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "an id that is a list": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": [], "task": "t.add"}, '
    '"content-type": "application/json", "content-encoding": "utf-8", '
    '"properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
    "unknown compression": '{"body": "W1tdLCB7fSwge31d", "headers": {"id": "h5", "task": "t.add", '
    '"compression": "none"}, "properties": {"delivery_tag": "x", "body_encoding": "base64"}}',
}


def test_malformed_messages_do_not_stop_a_worker(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    lane = fleet.keys.list("cpu_standard", 4)
    sent = []
    for raw in HOSTILE_MESSAGES.values():
        fleet.redis.lpush(lane, raw)
        sent.append(fleet.submit("t.add", 1, 1))
    fleet.redis.lpush(lane, b"\xff\xfe")

    process = fleet.start_worker(WORKER)

    fleet.until_ran(sent)
    assert process.poll() is None, fleet.log(WORKER)
    assert not fleet.account(sent).duplicated
