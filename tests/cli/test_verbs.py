"""submit, classify and stats on a real server: flags, JSON of the contract, failures, and what a terminal sees."""

import json
import os
from base64 import b64decode
from datetime import datetime
from pathlib import Path

import pytest
import redis


@pytest.fixture
def fleet(mq, valkey):
    """A command on an empty fleet."""
    return lambda *args, env=None, **more: mq(*args, env={"REDIS_URL": valkey, **(env or {})}, **more)


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.txt").write_text("MoRAG " * 300)
    return tmp_path


def pending(fleet) -> int:
    return sum(queue["pending_tasks"] for queue in fleet("stats", "--json").json["queues"])


def test_submit_answers_with_the_tasks_of_the_contract(fleet, here):
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
    assert pending(fleet) == 1


def test_options_reach_the_message_as_json_or_as_text(fleet, here, client):
    fleet("submit", "report.txt", "--option", "pages=[1, 2]", "--option", "lang=de", "--id", "one")
    (raw,) = (one for key in client.scan_iter("cpu_standard*", _type="list") for one in client.lrange(key, 0, -1))
    args = json.loads(b64decode(json.loads(raw)["body"]))[0]
    assert args == [f"{here}/report.txt", "document", {"pages": [1, 2], "lang": "de"}]


def test_quiet_json_leaves_the_tasks_out(fleet, here):
    assert fleet("submit", "report.txt", "--json", "--quiet").json == {"submitted": 1, "failed": []}


def test_a_dry_run_queues_nothing(fleet, here):
    answer = fleet("submit", "report.txt", "--dry-run", "--json").json
    assert (answer["dry_run"], answer["submitted"], len(answer["tasks"])) == (True, 0, 1)
    assert "1 would be submitted" in fleet("submit", "report.txt", "--dry-run").out
    assert pending(fleet) == 0


def test_a_broken_line_stops_nothing_and_is_named_by_its_number(fleet, here):
    lines = [{"source": "report.txt"}, None, {"content_type": "audio"}, {"source": "report.txt", "priority": "HUGE"}]
    text = "".join("{no\n" if line is None else json.dumps(line) + "\n" for line in lines)
    result = fleet("submit", "--from", "-", "--json", stdin=text, status=3)
    assert result.json["submitted"] == 1
    assert [one["line"] for one in result.json["failed"]] == [2, 3, 4]
    assert "failed: line 3: source is missing\n" in result.err
    assert "failed: line 4: priority: unknown priority 'HUGE': use one of URGENT, HIGH" in result.err


def test_flags_hold_for_the_lines_that_do_not_say_otherwise(fleet, here):
    (here / "rows.jsonl").write_text('{"source": "report.txt"}\n{"source": "report.txt", "priority": "BATCH"}\n')
    tasks = fleet("submit", "--from", "rows.jsonl", "--priority", "URGENT", "--json").json["tasks"]
    assert [task["priority"] for task in tasks] == ["URGENT", "BATCH"]


def test_a_directory_needs_recursive(fleet, here):
    assert "--recursive" in fleet("submit", ".", status=1).err
    (here / "deep").mkdir()
    (here / "deep" / "two.txt").write_text("x")
    assert fleet("submit", ".", "-r", "--json").json["submitted"] == 2


def test_an_open_id_is_refused_and_a_pin_to_nobody_too_unless_forced(fleet, here):
    fleet("submit", "report.txt", "--id", "one")
    assert "task id one is still open" in fleet("submit", "report.txt", "--id", "one", status=5).err
    assert "--force" in fleet("submit", "report.txt", "--worker", "nobody", status=5).err
    forced = fleet("submit", "report.txt", "--worker", "nobody", "--force", "--json").json
    assert forced["tasks"][0]["lane"] == "cpu_standard.nobody"


def test_many_failures_are_cut_for_a_person_and_whole_in_json(fleet, here):
    result = fleet("submit", "--from", "-", "--json", stdin="{no\n" * 30, status=1)
    assert len(result.json["failed"]) == 30
    assert result.err.count("failed: line") == 20
    assert result.err.endswith("… and 10 more; --json lists them all\n")


def test_a_hostile_name_is_harmless_on_the_screen_and_whole_in_json(fleet, here):
    hostile = here / "\x1b[2J[bold red]x[bold] \u202etxt.md"
    hostile.write_text("x")
    for verb in ("submit", "classify"):
        shown = fleet(verb, hostile.name, terminal=verb == "classify", env={"COLUMNS": "200"}).out
        assert r"\x1b[2J[bold red]x[bold] \u202etxt.md" in shown
        assert "\x1b[2J" not in shown
        assert "\u202e" not in shown
    text = fleet("submit", hostile.name, "--json").out
    assert text.isascii()
    assert json.loads(text)["tasks"][0]["source"] == hostile.name


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "error: nothing to submit: give files or URLs, or --from FILE (- is stdin)"),
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
def test_wrong_usage_of_submit_ends_with_2_before_a_broker_is_asked(mq, here, args, says):
    result = mq("submit", *args, status=2, env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert says in result.err


def test_a_missing_path_and_a_missing_list_are_named(fleet, here):
    assert "nothing-here.pdf" in fleet("submit", "nothing-here.pdf", status=1).err
    missing = fleet("submit", "--from", "gone.jsonl", status=1).err
    assert missing == f"error: {here}/gone.jsonl: No such file or directory\n"


@pytest.mark.parametrize("verb", [("stats",), ("submit", "report.txt"), ("classify", "report.txt")])
def test_a_broker_that_is_down_ends_with_69_and_no_password(mq, here, verb):
    env = {"MORAG_QUEUE_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    result = mq(*verb, "--json", status=69, env=env)
    assert "127.0.0.1:1" in result.err
    assert result.json["exit"] == 69
    assert "hunter2" not in result.err + result.out


def test_classify_shows_needs_decision_and_scores_and_submits_nothing(fleet, here):
    answer = fleet("classify", "report.txt", "https://youtu.be/dQw4w9WgXcQ", "--json").json
    first, second = answer["classified"]
    assert first["classification"]["requires"] == "cpu"
    assert first["classification"]["priority"] in ("LOW", "NORMAL")
    assert {"queue", "lane", "level", "scores", "decision"} <= set(first)
    assert second["classification"]["content_type"] == "youtube"
    assert pending(fleet) == 0


def test_classify_tells_what_failed_beside_what_did_not(fleet, here):
    result = fleet("classify", "report.txt", "gone.txt", status=3)
    assert "gone.txt" in result.err
    assert result.out.startswith("report.txt\n")
    assert "error: nothing to classify: give files or URLs" in fleet("classify", status=2).err


def test_stats_counts_what_waits_and_reads_the_window(fleet, here):
    fleet("submit", "report.txt")
    answer = fleet("stats", "--json", "--window", "5m").json
    assert answer["window_seconds"] == 300
    assert answer["taken_at"].endswith("Z")
    assert {"queue_type", "pending_tasks", "backlog_time", "oldest_wait_time"} <= set(answer["queues"][0])
    assert (answer["workers"], answer["leader"]) == ([], None)
    assert "cpu_standard        1" in fleet("stats").out


def test_stats_says_who_leads_and_until_when_in_utc(stage, fleet):
    lease = stage.broker.leases.take("me", "ann@here", "watch", 15)
    leader = fleet("stats", "--json").json["leader"]
    assert (leader["who"], leader["verb"], leader["term"]) == ("ann@here", "watch", lease.term)
    since, until = (datetime.fromisoformat(leader[name]).timestamp() for name in ("since", "until"))
    assert until - since == pytest.approx(15, abs=0.01)
    assert "Leader: ann@here by watch" in fleet("stats").out
    assert "error: --window 'soon' is not a duration" in fleet("stats", "--window", "soon", status=2).err


def test_colour_is_for_terminals_that_want_it(fleet):
    assert "\x1b[" in fleet("stats", terminal=True, env={"TERM": "xterm"}).out
    for more in ({"env": {"TERM": "xterm", "NO_COLOR": "1"}}, {"env": {"TERM": "dumb"}}):
        assert "\x1b[3" not in fleet("stats", terminal=True, **more).out
    assert "\x1b[3" not in fleet("stats", "--no-color", terminal=True, env={"TERM": "xterm"}).out
    assert "\x1b" not in fleet("stats").out


def test_a_bar_of_progress_is_drawn_on_a_terminal_only(fleet, here):
    assert "submitting" in fleet("submit", "report.txt", terminal=True, env={"TERM": "xterm"}).err
    assert fleet("submit", "report.txt", "-q", terminal=True, env={"TERM": "xterm"}).err == ""
    assert fleet("submit", "report.txt").err == ""


def test_wait_ends_with_the_states_of_the_tasks(fleet, here, client, monkeypatch):
    """Between two looks the records change, as they do when a worker has ended a task."""

    def ended(_: float) -> None:
        for key in client.scan_iter("mq:task:*"):
            state = "failed" if key.endswith(b":bad") else "completed"
            client.set(key, json.dumps({**json.loads(client.get(key)), "state": state}))

    monkeypatch.setattr("morag_queue.cli.submit.sleep", ended)
    assert fleet("submit", "report.txt", "--wait", "--json").json["tasks"][0]["state"] == "completed"
    assert "1 submitted, 1 completed" in fleet("submit", "report.txt", "--wait").out
    assert "1 submitted, 1 failed" in fleet("submit", "report.txt", "--wait", "--id", "bad", status=1).out


def test_ctrl_c_while_waiting_detaches_and_says_how_to_look_again(fleet, here, monkeypatch):
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("morag_queue.cli.submit.sleep", interrupted)
    result = fleet("submit", "report.txt", "--wait", "--json", status=130)
    (task,) = result.json["tasks"]
    command = f"morag-queue task show {task['task_id']}"
    assert f"Detached: 1 submitted task will still run. Check progress with: {command}" in result.err
    assert pending(fleet) == 1


def test_a_name_that_is_no_utf_8_stops_none_of_the_others(fleet, here):
    bad = os.fsdecode(b"bad\xff.txt")
    (here / bad).write_text("MoRAG " * 300)
    result = fleet("submit", "--recursive", ".", "--json", status=3)
    assert result.json["submitted"] == 1
    (failed,) = result.json["failed"]
    assert "the name is not valid UTF-8: rename the file" in failed["error"]
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
def test_a_flag_that_cannot_be_is_wrong_usage(fleet, here, flag, value, message):
    assert message in fleet("submit", "report.txt", flag, value, status=2).err
    assert pending(fleet) == 0


def test_a_worker_is_pinned_to_by_the_beginning_of_its_name(stage, fleet, here):
    stage.join("worker-cpu-1")
    (task,) = fleet("submit", "report.txt", "--worker", "worker-c", "--json").json["tasks"]
    assert task["lane"] == "cpu_standard.worker-cpu-1"
    stage.join("worker-cpu-2")
    told = fleet("submit", "report.txt", "--worker", "worker-c", status=2).err
    assert "worker 'worker-c' is ambiguous: worker-cpu-1, worker-cpu-2" in told
    assert "is not registered" in fleet("submit", "report.txt", "--worker", "nobody", status=5).err


def test_sentinels_that_are_not_there_are_unreachable_in_few_words(fleet):
    told = fleet("stats", "--redis-url", "sentinel://127.0.0.1:1;sentinel://127.0.0.1:2/0", status=69).err
    assert "No master found for" in told
    assert "Redis<" not in told


def test_an_unusable_key_of_someone_else_is_said_in_words(fleet, client: redis.Redis):
    client.set("mq:workers", "not a hash")
    assert "refused" in fleet("stats", status=1).err


def test_submit_leaves_a_journal_entry_with_who_and_why(fleet, here, client):
    task_id = fleet("submit", "report.txt", "--reason", "the board asked", "--json").json["tasks"][0]["task_id"]
    ((_, fields),) = client.xrange("mq:journal")
    entry = json.loads(fields[b"entry"])
    assert (entry["verb"], entry["subject"], entry["reason"]) == ("submit", "report.txt", "the board asked")
    assert entry["changes"] == {"submitted": 1, "failed": 0, "task_ids": [task_id]}


def test_a_submit_that_queued_nothing_leaves_none(fleet, here, client):
    fleet("submit", "nothing-here.txt", status=1)
    assert client.xlen("mq:journal") == 0
