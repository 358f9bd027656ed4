"""`submit` and `classify`."""

import json
import os
from base64 import b64decode

import pytest

from tests.cli.helpers import pending_tasks


def test_submit_prints_the_submitted_tasks(fleet, here):
    answer = fleet(
        "submit", "report.txt", "--priority", "high", "--option", "n=1", "--option", "lang=de", "--json"
    ).json
    assert answer["submitted"] == 1
    assert answer["failed"] == []
    (task,) = answer["tasks"]
    assert {
        "task_id", "source", "content_type", "queue", "lane", "worker", "priority", "estimated_duration", "decision",
    } <= set(task)  # fmt: skip
    assert (task["source"], task["content_type"], task["priority"]) == ("report.txt", "document", "HIGH")
    assert task["decision"]["action"] == "hold"
    assert pending_tasks(fleet) == 1


def test_options_are_sent_as_json_or_as_text(fleet, here, client):
    fleet("submit", "report.txt", "--option", "pages=[1, 2]", "--option", "lang=de", "--id", "task-1")
    (key,) = client.scan_iter("cpu_standard*", _type="list")
    (raw,) = client.lrange(key, 0, -1)
    args = json.loads(b64decode(json.loads(raw)["body"]))[0]
    assert args == [f"{here}/report.txt", "document", {"pages": [1, 2], "lang": "de"}]


def test_quiet_json_omits_the_tasks(fleet, here):
    answer = fleet("submit", "report.txt", "--json", "--quiet").json
    assert answer == {"submission_id": answer["submission_id"], "submitted": 1, "failed": []}


def test_a_dry_run_of_submit_queues_nothing(fleet, here):
    answer = fleet("submit", "report.txt", "--dry-run", "--json").json
    assert (answer["dry_run"], answer["submitted"], len(answer["tasks"])) == (True, 0, 1)
    assert answer["submission_id"] is None
    assert fleet("submit", "report.txt", "--dry-run").out.endswith("\n1 would be submitted\n")
    assert pending_tasks(fleet) == 0


def test_invalid_lines_are_reported_by_number_and_the_others_are_submitted(fleet, here):
    lines = [{"source": "report.txt"}, None, {"content_type": "audio"}, {"source": "report.txt", "priority": "HUGE"}]
    text = "".join("{no\n" if line is None else json.dumps(line) + "\n" for line in lines)
    result = fleet("submit", "--from", "-", "--json", stdin=text, status=3)
    assert result.json["submitted"] == 1
    assert [failure["line"] for failure in result.json["failed"]] == [2, 3, 4]
    assert "failed: line 3: source is missing\n" in result.err
    assert "failed: line 4: priority: unknown priority 'HUGE': use one of URGENT, HIGH" in result.err


def test_flags_are_defaults_for_the_lines_of_a_file(fleet, here):
    (here / "rows.jsonl").write_text('{"source": "report.txt"}\n{"source": "report.txt", "priority": "BATCH"}\n')
    tasks = fleet("submit", "--from", "rows.jsonl", "--priority", "URGENT", "--json").json["tasks"]
    assert [task["priority"] for task in tasks] == ["URGENT", "BATCH"]


def test_a_directory_needs_recursive(fleet, here):
    assert "--recursive" in fleet("submit", ".", status=1).err
    (here / "deep").mkdir()
    (here / "deep" / "two.txt").write_text("x")
    assert fleet("submit", ".", "-r", "--json").json["submitted"] == 2


def test_submit_refuses_an_open_id_and_an_unforced_pin_to_an_unknown_worker(fleet, here):
    fleet("submit", "report.txt", "--id", "task-1")
    assert "task id task-1 is still open" in fleet("submit", "report.txt", "--id", "task-1", status=5).err
    assert "--force" in fleet("submit", "report.txt", "--worker", "nobody", status=5).err
    forced = fleet("submit", "report.txt", "--worker", "nobody", "--force", "--json").json
    assert forced["tasks"][0]["lane"] == "cpu_standard.nobody"


def test_many_failures_are_shortened_on_stderr_and_complete_in_json(fleet, here):
    result = fleet("submit", "--from", "-", "--json", stdin="{no\n" * 30, status=1)
    assert len(result.json["failed"]) == 30
    assert result.err.count("failed: line") == 20
    assert result.err.endswith("… and 10 more; --json lists them all\n")


def test_a_hostile_file_name_is_escaped_on_screen_and_in_json(fleet, here):
    hostile = here / "\x1b[2J[bold red]x[bold] \u202etxt.md"
    hostile.write_text("x")
    for verb in ("submit", "classify"):
        out = fleet(verb, hostile.name, terminal=verb == "classify", env={"COLUMNS": "200"}).out
        assert r"\x1b[2J[bold red]x[bold] \u202etxt.md" in out
        assert "\x1b[2J" not in out
        assert "\u202e" not in out
    text = fleet("submit", hostile.name, "--json").out
    assert text.isascii()
    assert json.loads(text)["tasks"][0]["source"] == hostile.name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "error: nothing to submit: pass files or URLs, or --from FILE (- is stdin)"),
        (("report.txt", "--priority", "HUGE"), "--priority: unknown priority 'HUGE': use one of URGENT, HIGH, NORMAL"),
        (("report.txt", "--type", "vidio"), "'vidio' is not one of 'audio', 'video'"),
        (
            ("report.txt", "--option", "x"),
            "--option 'x': use the form NAME=VALUE, for example --option diarization=true",
        ),
        (("report.txt", "--from", "-"), "submit takes sources or --from, not both"),
        (("--from", "-", "--id", "x"), '--id is for a single source; with --from, set "task_id" in each line'),
        (("a", "b", "--id", "x"), "--id names one task, but 2 sources were given"),
    ],
)
def test_wrong_usage_of_submit_exits_with_2_without_a_broker(mq, here, args, message):
    result = mq("submit", *args, status=2, env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert message in result.err


def test_a_missing_source_or_list_is_reported_by_name(fleet, here):
    assert "nothing-here.pdf" in fleet("submit", "nothing-here.pdf", status=1).err
    missing = fleet("submit", "--from", "gone.jsonl", status=1).err
    assert missing == f"error: {here}/gone.jsonl: No such file or directory\n"


def test_classify_prints_requirements_decision_and_scores_and_submits_nothing(fleet, here):
    answer = fleet("classify", "report.txt", "https://youtu.be/dQw4w9WgXcQ", "--json").json
    first, second = answer["classified"]
    assert first["classification"]["requires"] == "cpu"
    assert first["classification"]["priority"] in ("LOW", "NORMAL")
    assert {"queue", "lane", "level", "scores", "decision"} <= set(first)
    assert second["classification"]["content_type"] == "youtube"
    assert pending_tasks(fleet) == 0


def test_classify_reports_failed_sources_beside_the_others(fleet, here):
    result = fleet("classify", "report.txt", "gone.txt", status=3)
    assert "gone.txt" in result.err
    assert result.out.startswith("report.txt\n")
    assert "error: nothing to classify: pass files or URLs" in fleet("classify", status=2).err


def test_the_progress_bar_is_shown_only_on_a_terminal(fleet, here):
    assert "submitting" in fleet("submit", "report.txt", terminal=True, env={"TERM": "xterm"}).err
    assert fleet("submit", "report.txt", "-q", terminal=True, env={"TERM": "xterm"}).err == ""
    assert fleet("submit", "report.txt").err == ""


def test_submit_wait_prints_the_final_states(fleet, here, client, monkeypatch):
    """Change the records of the tasks while the command sleeps between two polls."""

    def end_tasks(_: float) -> None:
        for key in client.scan_iter("mq:task:*"):
            state = "failed" if key.endswith(b":bad") else "completed"
            client.set(key, json.dumps({**json.loads(client.get(key)), "state": state}))

    monkeypatch.setattr("morag_queue.cli.submit.sleep", end_tasks)
    assert fleet("submit", "report.txt", "--wait", "--json").json["tasks"][0]["state"] == "completed"
    assert "1 submitted, 1 completed" in fleet("submit", "report.txt", "--wait").out
    assert "1 submitted, 1 failed" in fleet("submit", "report.txt", "--wait", "--id", "bad", status=1).out


def test_submit_wait_tells_the_errors_of_tasks_that_did_not_complete(sim_fleet, fleet, here, monkeypatch):
    """A worker takes and ends the tasks while the command sleeps between two polls."""
    sim_fleet.join("cpu-1")

    def end_tasks(_: float) -> None:
        while (task_id := sim_fleet.claim("cpu-1")) is not None:
            sim_fleet.end(task_id, "completed" if task_id == "good" else "failed", errors.get(task_id, ""))

    monkeypatch.setattr("morag_queue.cli.submit.sleep", end_tasks)
    errors = {"bad": "ValueError: no such page\x1b[2J"}
    rows = "".join(json.dumps({"source": "report.txt", "task_id": name}) + "\n" for name in ("good", "bad", "mute"))
    result = fleet("submit", "--from", "-", "--wait", stdin=rows, status=3)
    assert "3 submitted, 1 completed, 2 failed; submission" in result.out
    assert result.err == (
        "failed: report.txt (bad): ValueError: no such page\\x1b[2J\nfailed: report.txt (mute): no error was recorded\n"
    )
    answer = fleet("submit", "report.txt", "--id", "bad", "--wait", "--json", status=1).json
    assert (answer["tasks"][0]["state"], answer["tasks"][0]["error"]) == ("failed", errors["bad"])
    quiet = fleet("submit", "report.txt", "--id", "bad", "--wait", "--quiet", status=1)
    assert (quiet.out, quiet.err) == ("", "failed: report.txt (bad): ValueError: no such page\\x1b[2J\n")
    many = "".join(json.dumps({"source": "report.txt", "task_id": f"n-{n}"}) + "\n" for n in range(22))
    result = fleet("submit", "--from", "-", "--wait", stdin=many, status=1)
    assert result.err.endswith("… and 2 more; --json lists them all\n")


def test_ctrl_c_detaches_from_submit_wait_and_says_how_to_check_progress(fleet, here, monkeypatch):
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("morag_queue.cli.submit.sleep", interrupt)
    result = fleet("submit", "report.txt", "--wait", "--json", status=130)
    (task,) = result.json["tasks"]
    command = f"morag-queue task show {task['task_id']}"
    assert f"Detached: 1 task submitted, nothing cancelled. Check progress with: {command}\n" in result.err
    (here / "two.txt").write_text("MoRAG " * 300)
    several = fleet("submit", "report.txt", "two.txt", "--wait", "--json", status=130)
    command = f"morag-queue tasks --submission {several.json['submission_id']}"
    assert f"Detached: 2 tasks submitted, nothing cancelled. Check progress with: {command}\n" in several.err
    assert pending_tasks(fleet) == 3


def test_a_file_name_that_is_not_utf8_fails_alone(fleet, here):
    bad = os.fsdecode(b"bad\xff.txt")
    (here / bad).write_text("MoRAG " * 300)
    result = fleet("submit", "--recursive", ".", "--json", status=3)
    assert result.json["submitted"] == 1
    (failed,) = result.json["failed"]
    assert "the name is not valid UTF-8; rename the file" in failed["error"]
    assert "bad\\udcff.txt: the name is not valid UTF-8" in fleet("classify", bad, status=1).err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--id", "", "task_id: String should have at least 1 character"),
        ("--id", "x" * 300, "task_id: String should have at most 255 characters"),
        ("--worker", "", "worker: String should have at least 1 character"),
        ("--task", "", "task: String should have at least 1 character"),
    ],
)
def test_an_invalid_flag_value_is_wrong_usage(fleet, here, flag, value, message):
    assert message in fleet("submit", "report.txt", flag, value, status=2).err
    assert pending_tasks(fleet) == 0


def test_submit_pins_to_a_worker_by_unique_prefix(sim_fleet, fleet, here):
    sim_fleet.join("worker-cpu-1")
    (task,) = fleet("submit", "report.txt", "--worker", "worker-c", "--json").json["tasks"]
    assert task["lane"] == "cpu_standard.worker-cpu-1"
    sim_fleet.join("worker-cpu-2")
    err = fleet("submit", "report.txt", "--worker", "worker-c", status=2).err
    assert "worker 'worker-c' is ambiguous: worker-cpu-1, worker-cpu-2" in err
    assert "is not registered" in fleet("submit", "report.txt", "--worker", "nobody", status=5).err


def test_submit_is_journaled_with_its_reason(fleet, here, client):
    answer = fleet("submit", "report.txt", "--reason", "the board asked", "--json").json
    task_id, submission = answer["tasks"][0]["task_id"], answer["submission_id"]
    ((_, fields),) = client.xrange("mq:journal")
    entry = json.loads(fields[b"entry"])
    assert (entry["verb"], entry["subject"], entry["reason"]) == ("submit", "report.txt", "the board asked")
    assert entry["changes"] == {"submission": submission, "submitted": 1, "failed": 0, "task_ids": [task_id]}


def test_a_failed_submit_is_not_journaled(fleet, here, client):
    fleet("submit", "nothing-here.txt", status=1)
    assert client.xlen("mq:journal") == 0


def test_an_empty_source_is_reported(fleet, here):
    assert fleet("submit", "", status=1).err == "failed: empty source: pass a path or a URL\n"


def test_submit_of_a_gpu_task_to_a_cpu_worker_needs_a_flag_of_its_own_that_the_journal_shows(sim_fleet, fleet, here):
    sim_fleet.join("cpu-1")
    line = json.dumps({"source": "https://example.org/film", "requires": "gpu", "content_type": "web"})
    (here / "rows").write_text(line + "\n")
    where = ("submit", "--from", "rows", "--worker", "cpu-1")
    assert "the task needs one: choose a worker with a GPU, or add --allow-cpu\n" in fleet(*where, status=5).err
    assert "or add --allow-cpu\n" in fleet(*where, "--force", status=5).err
    (task,) = fleet(*where, "--allow-cpu", "--json").json["tasks"]
    assert (task["lane"], task["decision"]["reason"]) == (
        "cpu_standard.cpu-1", "pinned to cpu-1; it requires a GPU, but --allow-cpu allows a worker without one",
    )  # fmt: skip
    assert sim_fleet.broker.journal.latest(1)[0].changes["allow_cpu"] is True
