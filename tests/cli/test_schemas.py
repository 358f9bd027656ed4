"""Every JSON answer matches its schema: fields, types, and no unknown field."""

import json
import time

import jsonschema
import pytest
import typer

from morag_queue.cli import VERBS
from morag_queue.cli.run import build_group
from morag_queue.core.model import Capability
from morag_queue.errors import SourceError
from morag_queue.local.account import account
from morag_queue.local.demo import DemoResult
from morag_queue.operations.submit_rows import RowFailure
from morag_queue.view.answers import ANSWERS, WITHOUT, answer_of
from morag_queue.view.output import plain
from morag_queue.view.schema import json_schema
from tests.support.records import register

WORKERS = (("worker-1", Capability.CPU), ("worker-2", Capability.CPU), ("worker-3", Capability.GPU))


def every_verb():
    """Yield the name of each command, for example `task show`."""
    for name, verb in build_group(VERBS).commands.items():
        loaded = verb.load()
        if isinstance(loaded, typer.core.TyperGroup):
            yield from (f"{name} {subcommand}" for subcommand in loaded.commands)
        else:
            yield name


def assert_matches_schema(document, words):
    schema = json_schema(answer_of(words), strict=True)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not errors, f"{words}: {errors}"


@pytest.fixture
def fleet(mq, valkey, client, tmp_path, monkeypatch):
    """Run a command on three workers and some tasks: waiting, pinned, held, and dead."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.txt").write_text("MoRAG " * 300)
    for worker, capability in WORKERS:
        queues = ("gpu_priority", "gpu_fallback") if capability.has_gpu else ("cpu_standard", "cpu_batch")
        register(client, worker, capability=capability, queues=queues, node=f"{worker}@host")

    def command(*args, **options):
        return mq(*args, env={"REDIS_URL": valkey}, **options)

    for n in range(4):
        command("submit", "report.txt", "--id", f"task-{n}", "-q")
    command("submit", "report.txt", "--id", "pinned", "--worker", "worker-2", "-q")
    (lane,) = (key for key in client.scan_iter("cpu_standard*", _type="list") if b"worker-2" not in key)
    level = int(lane[-1:])
    held = ["worker-1", "worker-1.run", "task-0", "cpu_standard", level, int(time.time() * 1000)]
    text = client.rpop(lane).decode()
    client.hset("mq:held", "tag-0", json.dumps(held))
    client.hset("unacked", "tag-0", json.dumps([json.loads(text), "", "cpu_standard"]))
    dead_letter = {
        "message": text.replace("task-0", "dead-1"), "lane": "cpu_standard", "level": level, "state": "quarantined",
        "at": time.time(), "reason": "it cost 4 workers", "story": [[time.time(), "worker-9", "killed"]],
    }  # fmt: skip
    client.hset("mq:dead", "dead-1", json.dumps(dead_letter))
    return command


def test_every_verb_has_a_schema():
    assert set(every_verb()) == ANSWERS.keys() | WITHOUT, "add a row for a new verb to view/answers.py"


@pytest.mark.parametrize("words", ANSWERS)
def test_json_schema_needs_no_broker_arguments_or_settings(mq, words):
    schema = mq(*words.split(), "--json-schema", env={"REDIS_URL": "redis://127.0.0.1:1/0"}).json
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema.get("additionalProperties", True) is True, "later versions may add fields"


def test_json_schema_of_a_verb_without_json_is_wrong_usage(mq):
    assert mq("worker", "--json-schema", status=2).err == "error: worker prints no JSON document, so it has no schema\n"


COMMANDS = [
    (0, "submit", "report.txt"),
    (0, "submit", "report.txt", "--quiet"),
    (3, "submit", "report.txt", "gone.txt"),
    (0, "submit", "report.txt", "--dry-run"),
    (0, "classify", "report.txt", "https://youtu.be/dQw4w9WgXcQ"),
    (1, "classify", "gone.txt"),
    (0, "stats"),
    (0, "stats", "--live", "--count", "1"),
    (0, "tasks"),
    (0, "tasks", "--queue", "cpu_standard", "--limit", "1"),
    (0, "task show", "task-0"),
    (0, "task show", "task-1"),
    (0, "task why", "task-0"),
    (0, "task why", "task-1"),
    (0, "task why", "pinned"),
    (0, "task prio", "task-1", "URGENT"),
    (0, "task move", "task-1", "--to-worker", "worker-1"),
    (0, "task cancel", "task-2", "task-3"),
    (0, "task cancel", "task-2", "--dry-run"),
    (8, "task cancel", "nothing"),
    (0, "task retry", "task-2"),
    (0, "pause", "cpu_batch"),
    (0, "pause", "cpu_batch", "--dry-run"),
    (0, "resume", "cpu_batch"),
    (0, "cordon", "worker-1"),
    (0, "cordon", "worker-1", "--dry-run"),
    (0, "uncordon", "worker-1"),
    (0, "drain", "worker-2", "--detach", "--allow-pinned"),
    (0, "drain", "worker-2", "--dry-run", "--allow-pinned"),
    (0, "rebalance"),
    (0, "rebalance", "--dry-run", "--explain"),
    (0, "failover", "--dead"),
    (0, "failover", "--dead", "--dry-run"),
    (0, "dead ls"),
    (0, "dead show", "dead-1"),
    (0, "dead requeue", "dead-1"),
    (0, "dead drop", "dead-1", "--yes"),
    (0, "journal ls"),
    (0, "doctor"),
    (1, "doctor", "--leaving"),
    (0, "config init"),
    (0, "config check"),
    (0, "config show"),
    (0, "acl", "viewer", "--user", "eve"),
    (0, "simulate", "--tasks", "40"),
    (0, "exit-codes"),
    (0, "completion", "bash"),
]


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: " ".join(case[1:]))
def test_the_answer_of_a_command_matches_its_schema(fleet, case):
    status, words, *args = case
    assert_matches_schema(fleet(*words.split(), *args, "--json", status=status).json, words)


def test_journal_entries_and_undo_match_their_schemas(fleet):
    fleet("pause", "cpu_batch", "--reason", "new disks")
    entry = fleet("journal", "ls", "--json").json["entries"][0]
    assert_matches_schema(fleet("journal", "show", entry["entry_id"], "--json").json, "journal show")
    assert_matches_schema(fleet("journal", "undo", entry["entry_id"], "--yes", "--json").json, "journal undo")


def test_the_lines_of_live_stats_match_the_schema(fleet):
    for line in fleet("stats", "--live", "--count", "2", "--interval", "100ms", "--json").out.splitlines():
        assert_matches_schema(json.loads(line), "stats")


def test_the_lines_of_watch_match_the_schema(fleet):
    lines = fleet("watch", "--once", "--json").out.splitlines()
    assert lines
    for line in lines:
        assert_matches_schema(json.loads(line), "watch")


def test_the_outcome_of_the_demo_matches_its_schema():
    tasks = account(["a", "b", "c"], ["a", "b", "c"], ["a", "a", "b"], ["tag"])
    failed = (RowFailure.of(0, "gone.txt", SourceError("gone.txt does not exist")),)
    outcome = DemoResult(tasks, {"URGENT": 1.5}, "worker-1", ("a",), failed, 20.0)
    assert_matches_schema(plain(outcome.as_json()), "demo")


def test_every_schema_has_a_tested_command():
    tested = {case[1] for case in COMMANDS} | {"journal show", "journal undo", "demo", "watch"}
    assert tested == ANSWERS.keys()


def test_schemas_describe_times_and_priorities():
    entry = json_schema(answer_of("journal show"))
    assert entry["properties"]["at"] == {"type": ["string", "null"], "format": "date-time", "title": "At"}
    task = json_schema(answer_of("tasks"))["$defs"]["Task"]["properties"]
    assert task["enqueued_at"]["format"] == "date-time"
    assert json_schema(answer_of("tasks"))["$defs"]["QueuePriority"]["enum"][0] == "URGENT"
