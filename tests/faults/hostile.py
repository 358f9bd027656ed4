"""Messages that are malformed in one way each."""

from typing import Any

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
