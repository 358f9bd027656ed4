"""Messages built from templates equal, field by field, those that Celery itself puts into the list."""

import base64
import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.compression import decompress
from kombu.exceptions import EncodeError
from kombu.serialization import loads as deserialize

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec import HEADER, read_record
from morag_queue.core.model import QueueType, TaskQueueEntry
from tests.broker.conftest import ScriptRunner

ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "none": ((), {}),
    "a file": (("/data/a.pdf", "document", {"use_docling": True}), {}),
    "empty containers": (({}, []), {"a": {}, "b": []}),
    "not ASCII": (("/data/é 日本 \U0001f600/\x7f.pdf",), {"ключ": "ß"}),
    "quotes, slashes, controls": (('a"b\\c/d\n\t\x00\x01id\x01',), {'k"': "</script>"}),
    "a marker of the template": (("\x01body\x01", "\x01id\x01"), {}),
    "long": (("x" * 5000, list(range(500))), {}),
    "numbers": ((1, -1, 1.5, 1e300, True, None, 2**70), {}),
}
RICH = ((dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), Decimal("1.5"), UUID(int=7)), {"day": dt.date(2026, 1, 2)})


def entry(args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **more: Any) -> TaskQueueEntry:
    fields: dict[str, Any] = {
        "task_id": "id-1", "task": "t", "args": args, "kwargs": kwargs or {}, "queue": QueueType.CPU_STANDARD,
        "lane": "cpu_standard", "level": 4, "enqueued_at": 5.0,
    }  # fmt: skip
    return TaskQueueEntry(**{**fields, **more})


def same(message: dict[str, Any]) -> dict[str, Any]:
    """Remove the fields that differ from message to message."""
    message = json.loads(json.dumps(message))
    headers, properties = message["headers"], message["properties"]
    for name in ("id", "root_id", HEADER, "origin", "argsrepr", "kwargsrepr"):
        headers.pop(name, None)
    for name in ("correlation_id", "reply_to", "delivery_tag"):
        properties.pop(name)
    message["body"] = body_of(message)
    return message


def body_of(message: dict[str, Any]) -> Any:
    raw = base64.b64decode(message["body"])
    if compression := message["headers"].get("compression"):
        raw = decompress(raw, compression)
    accept = {"application/json", "application/x-python-serialize"}
    args, kwargs, embed = deserialize(raw, message["content-type"], message["content-encoding"], accept=accept)
    return repr((list(args), kwargs, embed))


def a_task(*args: Any, **kwargs: Any) -> None:
    """A task that is declared and never run."""


Both = Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def both(runner: ScriptRunner, app: Celery) -> Both:
    """Build a task by template, and by `send_task` (or the task's own `apply_async`); return both messages."""

    def build(made: TaskQueueEntry, **declared: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        options: dict[str, Any] = {"queue": made.lane, "priority": made.level, "task_id": made.task_id}
        if declared:
            task = app.task(name=made.task, shared=False, **declared)(a_task)
            task.apply_async(made.args, made.kwargs, **options)
        else:
            app.send_task(made.task, made.args, made.kwargs, **options)
        ours, _ = MessageBuilder(app).message(made)
        [theirs] = runner.waiting(made.lane, made.level)
        return json.loads(ours), json.loads(theirs)

    return build


@pytest.mark.parametrize(("args", "kwargs"), [*ARGUMENTS.values(), RICH], ids=[*ARGUMENTS, "rich types"])
def test_arguments_are_encoded_as_celery_encodes_them(args: Any, kwargs: Any, both: Both) -> None:
    ours, theirs = both(entry(args, kwargs))

    assert same(ours) == same(theirs)
    assert ours["headers"]["argsrepr"] == repr(args)[:1024]
    assert ours["headers"]["kwargsrepr"] == repr(kwargs)[:1024]


@pytest.mark.parametrize("usual", ["none", "a file", "empty containers", "numbers"])
def test_argsrepr_of_usual_arguments_equals_celerys(usual: str, both: Both) -> None:
    ours, theirs = both(entry(*ARGUMENTS[usual]))

    assert ours["headers"]["argsrepr"] == theirs["headers"]["argsrepr"]
    assert ours["headers"]["kwargsrepr"] == theirs["headers"]["kwargsrepr"]


@pytest.mark.parametrize(
    "conf",
    [
        {"task_serializer": "pickle"},
        {"task_compression": "gzip"},
        {"task_serializer": "pickle", "task_compression": "bzip2"},
        {"task_time_limit": 60},
        {"task_ignore_result": True},
    ],
    ids=str,
)
def test_a_message_follows_the_settings_of_the_app(conf: dict[str, Any], both: Both, app: Celery) -> None:
    app.conf.update(conf)
    ours, theirs = both(entry(*ARGUMENTS["a file"]))

    assert same(ours) == same(theirs)


@pytest.mark.parametrize(
    "declared",
    [
        {"ignore_result": True},
        {"ignore_result": False},
        {"time_limit": 30, "soft_time_limit": 20},
        {"serializer": "pickle"},
        {"compression": "gzip"},
    ],
    ids=str,
)
def test_a_message_follows_the_declaration_of_the_task(declared: dict[str, Any], both: Both) -> None:
    ours, theirs = both(entry(*ARGUMENTS["a file"]), **declared)

    assert same(ours) == same(theirs)


@pytest.mark.parametrize(("args", "kwargs"), [*ARGUMENTS.values(), RICH], ids=[*ARGUMENTS, "rich types"])
def test_a_message_built_without_celery_is_the_one_that_celery_builds_by_default(args: Any, kwargs: Any) -> None:
    made = entry(args, kwargs)
    ours, celerys = (
        json.loads(builder.message(made)[0])
        for builder in (MessageBuilder(), MessageBuilder(Celery(set_as_current=False)))
    )

    assert ours["headers"]["origin"] == celerys["headers"]["origin"]
    for message in (ours, celerys):
        del message["properties"]["delivery_tag"]
    assert ours == celerys


def test_id_lane_level_and_our_header_are_in_their_fields(both: Both) -> None:
    ours, theirs = both(entry(lane="cpu_standard.w-é", level=0, task_id='id "quoted" é'))

    for message in (ours, theirs):
        headers, properties = message["headers"], message["properties"]
        assert headers["id"] == headers["root_id"] == properties["correlation_id"] == 'id "quoted" é'
        assert properties["delivery_info"] == {"exchange": "", "routing_key": "cpu_standard.w-é"}
        assert properties["priority"] == 0
    assert ours["headers"][HEADER]["priority"] == "NORMAL"
    assert ours["headers"][HEADER]["enqueued_at"] == 5.0


def test_delivery_tags_are_unique() -> None:
    one, other = MessageBuilder(), MessageBuilder()
    messages = [json.loads(builder.message(entry())[0]) for builder in (one, one, other, other)]
    tags = {message["properties"]["delivery_tag"] for message in messages}

    assert len(tags) == 4


def test_arguments_that_cannot_be_serialized_raise_an_error_that_names_them() -> None:
    with pytest.raises(EncodeError, match="not JSON serializable"):
        MessageBuilder().message(entry((object(),)))


@pytest.mark.slow
@given(
    args=st.lists(
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5), max_size=3
    ),
    kwargs=st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False), max_size=3),
    task_id=st.text(min_size=1),
)
@settings(max_examples=200, deadline=None)
def test_any_json_arguments_are_decoded_unchanged(args: list[Any], kwargs: dict[str, Any], task_id: str) -> None:
    text, record = MessageBuilder().message(entry(tuple(args), kwargs, task_id=task_id))

    message = json.loads(text)
    assert message["headers"]["id"] == task_id
    assert body_of(message) == repr((args, kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}))
    known = read_record(record)
    assert known is not None
    assert known.arguments == (args, kwargs)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_claim_takes_a_built_message(serializer: str, runner: ScriptRunner, app: Celery, client: redis.Redis) -> None:
    app.conf.task_serializer = serializer
    text, _ = MessageBuilder(app).message(entry(*ARGUMENTS["quotes, slashes, controls"]))
    runner.put(text)

    taken = runner.claim()

    assert taken is not None
    assert same(taken.message) == same(json.loads(text))
