"""`tasks`, `task show` and `task why`."""

import json
import re
import unicodedata

import pytest

from morag_queue.broker import lane_search
from morag_queue.core.explain.explain import ReasonCode
from morag_queue.core.plan import MoveTask

HOSTILE = "\x1b[2J[bold red]x[/] \u202etxt\r\n\x07\u200b" + "y" * 10_000


def is_harmless(text: str) -> bool:
    """Return whether a text has no control or format characters except line breaks."""
    return not [char for char in text.replace("\n", "") if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def listed_ids(fleet, *args):
    return [task["task_id"] for task in fleet("tasks", "--json", *args).json["tasks"]]


def test_tasks_lists_running_tasks_first_and_then_waiting_ones_in_order(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("normal")
    sim_fleet.submit("batch", priority="BATCH", queue="cpu_batch")
    sim_fleet.submit("urgent", priority="URGENT")
    sim_fleet.claim("cpu-1")
    page = fleet("tasks", "--json").json
    assert [(task["task_id"], task["state"]) for task in page["tasks"]] == [
        ("urgent", "running"),
        ("normal", "queued"),
        ("batch", "queued"),
    ]
    assert (page["waiting"], page["has_more"]) == (2, False)
    assert page["tasks"][0]["worker"] == "cpu-1"
    assert page["tasks"][1]["source"] == "https://example.org/report.html"
    assert page["tasks"][2]["priority"] == "BATCH"
    assert listed_ids(fleet, "--newest") == ["urgent", "batch", "normal"]


def test_a_limited_page_says_how_many_tasks_wait(sim_fleet, fleet):
    sim_fleet.submit(*(f"t-{n}" for n in range(7)))
    page = fleet("tasks", "--limit", "3", "--json").json
    assert ([task["position"] for task in page["tasks"]], page["has_more"]) == ([1, 2, 3], True)
    assert "7 tasks are waiting; --limit N shows more" in fleet("tasks", "--limit", "3").out
    assert len(listed_ids(fleet, "--limit", "0")) == 7
    assert listed_ids(fleet, "--newest", "--limit", "2") == ["t-6", "t-5"]


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (("--queue", "cpu_b"), ["batch"]),
        (("--lane", "cpu_standard.cpu-1"), ["pinned"]),
        (("--worker", "cpu"), ["taken", "pinned"]),
        (("--state", "running"), ["taken"]),
        (("--state", "queued"), ["pinned", "waits", "batch"]),
        (("--priority", "batch"), ["batch"]),
        (("--name", "web_page"), ["taken", "pinned", "waits", "batch"]),
        (("--name", "example.org/b"), ["batch"]),
        (("--age", "1h"), []),
        (("--age", "0s", "--queue", "cpu_batch"), ["batch"]),
    ],
)
def test_tasks_can_be_filtered(sim_fleet, fleet, args, ids):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("taken")
    sim_fleet.claim("cpu-1")
    sim_fleet.submit("pinned", worker="cpu-1", priority="HIGH")
    sim_fleet.submit("waits")
    sim_fleet.submit("batch", priority="BATCH", queue="cpu_batch", source="https://example.org/b")
    assert listed_ids(fleet, *args) == ids


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (("--queue", "gpu"), 2, "queue 'gpu' is ambiguous: gpu_fallback, gpu_priority"),
        (("--queue", "nope"), 8, "no queue 'nope'; there are cpu_batch, cpu_standard"),
        (("--worker", "nobody"), 8, "no worker 'nobody'"),
        (("--priority", "HUGE"), 2, "use one of URGENT"),
        (
            ("--sort", "slowest"),
            2,
            "--sort orders ended tasks: add --state completed, failed, cancelled or quarantined",
        ),
        (
            ("--state", "completed", "--next"),
            2,
            "--state completed lists ended tasks: order them with --sort newest or --sort slowest alone",
        ),
        (("--age", "old"), 2, "--age 'old' is not a duration"),
        (("--newest", "--next"), 2, "tasks takes --newest or --next, not both"),
        (("--lines", "--json"), 2, "tasks takes --lines or --json, not both"),
    ],
)
def test_tasks_rejects_invalid_filters_and_contradictory_options(fleet, args, status, message):
    assert message in fleet("tasks", *args, status=status).err


def test_a_moved_task_no_longer_counts_as_a_task_of_the_worker_it_was_pinned_to(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("moved", "stays", worker="cpu-1")
    step = MoveTask(
        task_id="moved", source="cpu_standard.cpu-1", target="cpu_standard", level=4, to_level=4, reason="drain"
    )
    assert sim_fleet.broker.moves.tasks([step]) == ["moved"]
    assert listed_ids(fleet, "--worker", "cpu-1") == ["stays"]
    rows = {line.split()[0]: line for line in fleet("tasks").out.splitlines()}
    assert "  –  " in rows["moved"]
    assert "  cpu-1  " in rows["stays"]
    assert "pinned to  cpu-1, but it was moved to cpu_standard\n" in fleet("task", "show", "moved").out
    assert "pinned to  cpu-1\n" in fleet("task", "show", "stays").out


def test_one_waiting_task_is_counted_in_the_singular(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b")
    sim_fleet.claim("cpu-1")
    assert "1 task is waiting; --limit N shows more" in fleet("tasks", "--limit", "1").out


def test_lines_prints_one_json_document_per_task(sim_fleet, fleet):
    sim_fleet.submit("a", "b", "c")
    lines = fleet("tasks", "--lines", "--limit", "2").out.splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == ["a", "b"]


def test_tasks_says_that_an_empty_fleet_has_no_tasks(fleet):
    assert "No task is running or waiting." in fleet("tasks").out
    assert fleet("tasks", "--json").json == {"tasks": [], "waiting": 0, "has_more": False}


def test_tasks_skips_foreign_messages(sim_fleet, fleet):
    sim_fleet.submit("a")
    sim_fleet.client.lpush("cpu_standard", "not a message", '{"body": 1}', "[]", "\xff")
    assert listed_ids(fleet) == ["a"]
    fleet("task", "why", "not a message", status=8)


def test_hostile_text_is_escaped_on_screen_and_complete_in_json(sim_fleet, fleet, tmp_path):
    file = tmp_path / "\x1b[2J[bold red]x[bold] \u202etxt\n.md"
    file.write_text("x")
    sim_fleet.join("cpu-1")
    sim_fleet.submit("\x1b[2Jid", source=str(file), content_type="document", args=[HOSTILE])
    sim_fleet.send("foreign\u202e\n", argsrepr=HOSTILE)
    for args in (("tasks",), ("task", "show", "\x1b[2J"), ("task", "why", "\x1b[2J"), ("task", "show", "foreign")):
        for terminal in (False, True):
            out = fleet(*args, terminal=terminal, env={"NO_COLOR": "1", "COLUMNS": "200"}).out
            assert is_harmless(out.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[2m", "")), args
    assert "[bold red]" in fleet("tasks").out
    assert fleet("task", "show", "\x1b[2J", "--json").json["args"] == [HOSTILE]
    whole = {task["task_id"]: task["source"] for task in fleet("tasks", "--json").json["tasks"]}
    assert whole == {"\x1b[2Jid": str(file), "foreign\u202e\n": HOSTILE}


def test_task_why_names_reason_position_workers_and_expected_start(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b")
    answer = fleet("task", "why", "b", "--json").json
    assert {"task_id": "b", "state": "queued", "lane": "cpu_standard", "position": 2}.items() <= answer.items()
    assert answer["reason_code"] == "BEHIND_EARLIER"
    (worker,) = answer["workers"]
    assert worker.pop("start_at") == answer["expected_start"]
    assert worker == {"worker": "cpu-1", "verdict": "fit", "score": 1.0, "expected_minutes": 1.0}
    assert answer["expected_start"].endswith("Z")
    assert answer["decisions"][0]["verb"] == "submit"
    out = fleet("task", "why", "b").out
    assert "BEHIND_EARLIER: 1 task of its own level is ahead of it" in out
    assert "starts     in about" in out


def test_help_and_schema_list_every_reason_of_task_why(mq):
    out = " ".join(mq("task", "why", "--help").out.split())
    assert all(code in out for code in ReasonCode)
    assert set(ReasonCode) == set(mq("task", "why", "--json-schema").json["$defs"]["ReasonCode"]["enum"])


def test_task_show_prints_reason_priority_source_and_position(sim_fleet, fleet):
    sim_fleet.submit("a", priority="HIGH")
    out = fleet("task", "show", "a").out
    assert all(word in out for word in ("NO_CAPABLE_WORKER", "HIGH", "https://example.org/report.html", "position"))
    assert fleet("task", "show", "a", "--json").json["task"]["priority"] == "HIGH"


@pytest.mark.parametrize("verb", ["why", "show"])
def test_task_rejects_an_unknown_or_ambiguous_id(sim_fleet, fleet, verb):
    assert "no task 'no-such-task'" in fleet("task", verb, "no-such-task", status=8).err
    sim_fleet.submit("aa", "ab")
    assert "task 'a' is ambiguous: aa, ab" in fleet("task", verb, "a", status=2).err


def test_task_why_names_the_first_tasks_ahead_in_order_and_the_start_on_each_worker(sim_fleet, fleet):
    for name in ("cpu-1", "cpu-2"):
        sim_fleet.join(name)
    sim_fleet.submit("n1", "n2", "n3", "n4", "subject", "behind")
    sim_fleet.submit("u1", priority="URGENT")
    sim_fleet.send("plain", level=2)
    sim_fleet.submit("batch", priority="BATCH", queue="cpu_batch")
    answer = fleet("task", "why", "subject", "--json").json
    assert answer["waiting_ahead"] == 6
    assert [(one["task_id"], one["priority"]) for one in answer["tasks_ahead"]] == [
        ("u1", "URGENT"), ("plain", "HIGH"), ("n1", "NORMAL"), ("n2", "NORMAL"), ("n3", "NORMAL"),
    ]  # fmt: skip
    out = fleet("task", "why", "subject").out
    assert "\n  ahead      u1 (URGENT), plain (HIGH), n1 (NORMAL), n2 (NORMAL), n3 (NORMAL) and 1 more\n" in out
    assert re.search(r"WORKER +VERDICT +SCORE +STARTS IN +RUNS FOR\n +cpu-1 +fit +1.00 +3m\S* +1m", out), out


def test_task_why_of_a_task_that_is_next_names_no_task_ahead(sim_fleet, fleet):
    sim_fleet.submit("a")
    answer = fleet("task", "why", "a", "--json").json
    assert (answer["waiting_ahead"], answer["tasks_ahead"]) == (0, [])
    out = fleet("task", "why", "a").out
    assert "  ahead " not in out
    assert "STARTS IN" not in out


def test_an_estimated_position_is_shown_as_one(sim_fleet, fleet, monkeypatch):
    monkeypatch.setattr(lane_search, "REACH", 50)
    sim_fleet.fill(f"t-{n:03}" for n in range(1, 301))
    assert fleet("task", "why", "t-150", "--json").json["is_estimated"] is True
    why, shown = fleet("task", "why", "t-150").out, fleet("task", "show", "t-150").out
    assert re.search(r"cpu_standard, position about 1[45]\d, by the time it was queued\n", why)
    assert re.search(r"position +about 1[45]\d, by the time it was queued\n", shown)
