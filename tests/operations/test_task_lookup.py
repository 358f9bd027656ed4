"""Find a task by id or prefix in any place, and explain its state."""

import json
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import pytest

from morag_queue.broker import lane_search
from morag_queue.core.model import TaskState
from morag_queue.errors import NotFound, UsageError
from morag_queue.operations.task import TaskExplainer, task_details
from morag_queue.settings import BrokerSettings
from tests.support.simulated_fleet import SOURCE, SimulatedFleet


@pytest.fixture
def explainer(sim_fleet):
    return lambda: TaskExplainer(sim_fleet.broker, sim_fleet.settings)


def test_a_waiting_task_is_found_with_its_lane_level_and_position(sim_fleet, explainer):
    sim_fleet.submit("a", "b", "c", "d")
    sim_fleet.submit("first", priority="URGENT")
    task = explainer().find("c").task
    assert (task.state, task.lane, task.level, task.depth, task.position) == ("queued", "cpu_standard", 4, 3, 4)
    assert (task.source, task.is_known, task.estimated_duration) == ("https://example.org/report.html", True, 1.0)


def test_a_task_is_found_after_a_lane_move_that_did_not_update_its_record(sim_fleet, explainer):
    sim_fleet.submit("a", "b", "c")
    sim_fleet.broker.moves.lane("cpu_standard", "cpu_batch", 4, 2)
    assert explainer().find("b").task.lane == "cpu_batch"


def test_a_task_of_plain_celery_is_found_without_a_ledger_record(sim_fleet, explainer):
    sim_fleet.send("foreign-1")
    found = explainer().find("foreign-1")
    assert (found.task.state, found.task.is_known, found.task.task) == ("queued", False, "tasks.foreign")
    assert found.task.source == "('a',)"


def test_an_id_in_the_arguments_of_another_task_is_no_match(sim_fleet, explainer):
    sim_fleet.submit("other", source="https://example.org/wanted")
    with pytest.raises(NotFound, match="no task 'wanted'"):
        explainer().find("wanted")


def test_a_prefix_finds_a_task_while_it_is_unique(sim_fleet, explainer):
    sim_fleet.submit("report-1", "report-2", "letter-1")
    sim_fleet.send("report-3x")
    assert explainer().find("let").task.task_id == "letter-1"
    assert explainer().find("report-3").task.task_id == "report-3x"
    with pytest.raises(UsageError, match=r"'report' is ambiguous: report-1, report-2, report-3x;"):
        explainer().find("report")


def test_eight_characters_of_a_random_id_find_it_unless_two_ids_share_them(sim_fleet, explainer):
    first, second = "3f2a91c0-0000-4000-8000-000000000001", "3f2a91c0-0000-4000-8000-000000000002"
    sim_fleet.submit(first)
    assert explainer().find("3f2a91c0").task.task_id == first
    sim_fleet.submit(second)
    with pytest.raises(UsageError, match=f"'3f2a91c0' is ambiguous: {first}, {second};"):
        explainer().find("3f2a91c0")


@pytest.mark.parametrize("name", ["re*", "report?1", "[r]eport-1", "\\report-1", ""])
def test_a_prefix_is_not_a_glob_pattern(sim_fleet, explainer, name):
    sim_fleet.submit("report-1")
    with pytest.raises(NotFound):
        explainer().find(name)


def test_a_whole_id_wins_over_a_longer_id_with_that_prefix(sim_fleet, explainer):
    sim_fleet.submit("a", "ab")
    assert explainer().find("a").task.task_id == "a"
    sim_fleet.send("x")
    sim_fleet.send("xy")
    assert explainer().find("x").task.task_id == "x"


def test_a_held_task_names_its_worker(sim_fleet, explainer):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    assert sim_fleet.claim("cpu-1") == "a"
    found = explainer().find("a")
    assert (found.task.state, found.task.worker, found.task.lane) == (TaskState.RUNNING, "cpu-1", "cpu_standard")
    assert found.raw is not None
    assert explainer().why("a").reason_code == "RUNNING"


def test_a_task_whose_message_is_gone_is_reported_as_not_on_the_broker(sim_fleet, explainer):
    sim_fleet.submit("a")
    sim_fleet.client.delete(sim_fleet.keys.list("cpu_standard", 4))
    assert explainer().why("a").reason_code == "NOT_ON_BROKER"


def test_a_completed_task_has_its_worker_and_run_time(sim_fleet, explainer):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", source="https://example.org/a")
    sim_fleet.claim("cpu-1")
    sim_fleet.end("a", run_seconds=2.5)
    task = explainer().find("a").task
    assert (task.state, task.worker, task.run_seconds) == ("completed", "cpu-1", 2.5)
    assert task.source == "https://example.org/a"
    assert explainer().why("a").reason_code == "COMPLETED"


def test_why_gives_position_reason_workers_and_start_time(sim_fleet, explainer):
    sim_fleet.join("cpu-1")
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.submit("a", "b", "c")
    sim_fleet.claim("cpu-1")
    why = explainer().why("c")
    assert (why.state, why.lane, why.position, why.reason_code) == ("queued", "cpu_standard", 2, "BEHIND_EARLIER")
    assert {row.worker: row.verdict for row in why.workers} == {"cpu-1": "full", "gpu-1": "not_served"}
    assert why.earliest_start_at <= why.expected_start <= why.latest_start_at
    assert why.expected_start - explainer().snapshot.taken_at == pytest.approx(120, abs=5)  # two tasks of a minute each
    assert [decision.verb for decision in why.decisions] == ["submit"]


def test_show_decodes_the_arguments_of_a_task_of_plain_celery(sim_fleet):
    sim_fleet.send("foreign-1")
    answer = task_details(sim_fleet.broker, sim_fleet.settings, "foreign-1")
    assert (answer.args, answer.kwargs, answer.message["headers"]["id"]) == (["a"], {}, "foreign-1")


def test_show_gives_the_result_of_celerys_backend(sim_fleet):
    sim_fleet.submit("a")
    sim_fleet.client.set("celery-task-meta-a", '{"status": "STARTED", "result": null, "traceback": "long"}')
    assert task_details(sim_fleet.broker, sim_fleet.settings, "a").result == {
        "status": "STARTED",
        "result": None,
        "date_done": None,
    }


def test_show_reads_the_result_under_the_global_keyprefix_where_failover_reads_it(valkey):
    sim_fleet = SimulatedFleet(valkey, broker=BrokerSettings(global_keyprefix="fleet:"))
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    done = datetime.fromtimestamp(sim_fleet.broker.now() + 60, UTC).isoformat()
    sim_fleet.client.set("fleet:celery-task-meta-a", json.dumps({"status": "SUCCESS", "result": 42, "date_done": done}))
    sim_fleet.client.set("celery-task-meta-a", '{"status": "FAILURE"}')
    assert sim_fleet.claim("cpu-1") == "a"
    assert task_details(sim_fleet.broker, sim_fleet.settings, "a").result == {
        "status": "SUCCESS", "result": 42, "date_done": done,
    }  # fmt: skip
    assert sim_fleet.broker.results.finish(sim_fleet.broker.observe()[0].held) == ["a"]


def test_a_task_with_an_eta_gives_the_remaining_time(sim_fleet, explainer):
    sim_fleet.send("later", countdown=600)
    why = explainer().why("later")
    assert (why.reason_code, "in 10 min" in why.reason) == ("ETA_NOT_REACHED", True)


def test_why_of_a_task_of_plain_celery_has_no_decisions(sim_fleet, explainer):
    sim_fleet.join("cpu-1")
    sim_fleet.send("foreign-1")
    sim_fleet.send("foreign-2")
    why = explainer().why("foreign-2")
    assert (why.reason_code, why.position, why.ahead, why.decisions) == ("BEHIND_EARLIER", 2, 1, ())
    assert why.expected_start is not None


@pytest.fixture
def long_list(sim_fleet, monkeypatch):
    """600 tasks, `t-001` is next; the middle of a list of more than 100 counts as deep."""
    monkeypatch.setattr(lane_search, "REACH", 50)
    sim_fleet.fill(f"t-{n:03}" for n in range(1, 601))


def test_the_position_of_a_task_deep_in_a_long_list_is_estimated_and_its_message_not_read(
    sim_fleet, explainer, long_list
):
    why = explainer().why("t-300")
    assert (why.is_estimated, why.state, why.lane, why.reason_code) == (
        True,
        "queued",
        "cpu_standard",
        "NO_CAPABLE_WORKER",
    )
    assert why.position == pytest.approx(300, abs=3)
    details = task_details(sim_fleet.broker, sim_fleet.settings, "t-300")
    assert (details.task.is_estimated, details.message, details.args) == (True, None, [SOURCE, {}])


@pytest.mark.parametrize("n", [1, 40, 560, 600])
def test_the_position_of_a_task_near_an_end_of_a_long_list_is_exact(explainer, long_list, n):
    why = explainer().why(f"t-{n:03}")
    assert (why.is_estimated, why.position) == (False, n)


def test_a_task_to_change_is_read_however_deep_it_waits(explainer, long_list):
    found = explainer().find("t-300")
    assert (found.task.is_estimated, found.task.depth, found.raw is not None) == (False, 300, True)


def test_a_task_that_was_moved_from_a_long_list_is_found_where_it_is(sim_fleet, explainer, long_list):
    sim_fleet.broker.moves.lane("cpu_standard", "cpu_batch", 4, 300)
    why = explainer().why("t-200")
    assert (why.is_estimated, why.lane, why.position) == (False, "cpu_batch", 200)


@pytest.fixture
def deep_without_ledger(sim_fleet, monkeypatch):
    """300 tasks of plain Celery in one list of which 100 are deep; their ids, the next to run first."""
    monkeypatch.setattr(lane_search, "REACH", 100)
    monkeypatch.setattr(lane_search, "_SEARCHED", 50)
    random = Random(1)
    ids = [str(UUID(int=random.getrandbits(128), version=4)) for _ in range(300)]
    sim_fleet.fill(ids)
    sim_fleet.client.delete(*sim_fleet.client.keys("mq:task:*"), *sim_fleet.client.keys("mq:ids:*"))
    return ids


@pytest.mark.parametrize("n", [0, 99, 150, 200, 299])
def test_a_whole_id_without_a_ledger_record_is_found_at_any_depth(explainer, deep_without_ledger, n):
    assert explainer().find(deep_without_ledger[n]).task.depth == n + 1


@pytest.mark.parametrize("n", [0, 99, 200, 299])
def test_a_beginning_of_an_id_without_a_ledger_record_is_found_near_the_ends(explainer, deep_without_ledger, n):
    assert explainer().find(deep_without_ledger[n][:8]).task.depth == n + 1


def test_what_is_not_searched_is_named_where_a_task_is_not_found(explainer, deep_without_ledger):
    not_searched = "; 100 tasks deep in long lists are not searched"
    with pytest.raises(NotFound, match=f"lists them{not_searched}, but for a whole UUID they are"):
        explainer().find(deep_without_ledger[150][:8])


def test_a_short_beginning_is_refused_while_another_task_might_have_it(explainer, deep_without_ledger):
    whole = deep_without_ledger[0]
    expected = f"task '{whole[:6]}' may be ambiguous: {whole}; 100 tasks deep in long lists are not searched; give the"
    with pytest.raises(UsageError, match=expected):
        explainer().find(whole[:6])
