"""cordon, uncordon and drain on the command line, with workers that are registered and do nothing by themselves."""

import json

import pytest

from morag_queue.cli import VERBS
from morag_queue.cli.context import World
from morag_queue.cli.run import run
from morag_queue.core.model import Cordon, WorkerStatus
from morag_queue.operations import drain as drain_verb
from tests.cli.conftest import Terminal


@pytest.fixture
def fleet(stage, mq):
    return lambda *args, **more: mq(*args, env={"REDIS_URL": stage.url, "USER": "ann"}, **more)


def cordon_of(stage, worker):
    return stage.broker.cordons.get(worker)


def verbs_in_journal(stage):
    return [(one.verb, one.subject) for one in reversed(stage.broker.journal.latest(50))]


# -- cordon and uncordon


def test_a_cordoned_worker_is_left_out_and_an_uncordoned_one_comes_back(stage, fleet):
    stage.join("cpu-1")
    answer = fleet("cordon", "cpu-1", "--reason", "noisy fan", "--json").json
    assert (answer["worker"], answer["state"], answer["changed"]) == ("cpu-1", "cordoned", True)
    (shown,) = fleet("stats", "--json").json["workers"]
    assert shown["status"] == "cordoned"
    assert "noisy fan" in shown["reason"]
    assert "ann@" in shown["reason"]
    stage.submit("t")
    assert stage.claim("cpu-1") is None
    assert fleet("uncordon", "cpu-1", "--json").json["state"] == "online"
    assert stage.claim("cpu-1") == "t"
    assert verbs_in_journal(stage) == [("cordon", "cpu-1"), ("uncordon", "cpu-1")]


def test_force_asks_on_a_terminal_and_a_no_changes_nothing(stage, tmp_path):
    stage.join("cpu-1")
    out, err = Terminal(), Terminal()
    world = World(Terminal("n\n"), out, err, {"HOME": str(tmp_path), "REDIS_URL": stage.url}, tmp_path)
    assert run(VERBS, ["drain", "cpu-1", "--force"], world) == 5
    assert "cpu-1: what runs there is taken back and runs again elsewhere. Go on? [y/N]" in err.getvalue()
    assert cordon_of(stage, "cpu-1") is None


def test_a_second_cordon_and_a_second_uncordon_are_quiet(stage, fleet):
    stage.join("cpu-1")
    for command, word in (("cordon", "cordoned"), ("uncordon", "in service")):
        fleet(command, "cpu-1")
        entries = len(stage.broker.journal.latest(50))
        assert fleet(command, "cpu-1").out == f"cpu-1 is already {word}\n"
        assert len(stage.broker.journal.latest(50)) == entries


def test_the_journal_tells_what_was_before_with_its_times_in_utc(stage, fleet):
    stage.join("cpu-1")
    fleet("cordon", "cpu-1")
    fleet("uncordon", "cpu-1")
    entry = fleet("journal", "ls", "--json").json["entries"][0]
    assert entry["changes"]["before"]["at"].startswith("20")
    assert entry["changes"]["before"]["at"].endswith("+00:00")
    assert "in service" in fleet("journal", "ls").out


def test_a_dry_run_of_a_cordon_changes_nothing(stage, fleet):
    stage.join("cpu-1")
    assert fleet("cordon", "cpu-1", "--dry-run").out == "cpu-1 would be cordoned\n"
    assert cordon_of(stage, "cpu-1") is None


def test_a_name_with_a_line_break_forges_no_line(stage, fleet):
    name = "e\x1b[2Jv\nerror: forged"
    stage.join(name)
    for verb in ("cordon", "uncordon", "drain"):
        assert fleet(verb, name).out.count("\n") == 1
    told = fleet("cordon", name, status=5).err
    assert told.count("\n") == 1
    assert "\x1b" not in told
    assert "e\\x1b[2Jv\\nerror: forged is drained" in told


def test_a_dry_run_of_a_drain_shows_where_each_task_would_go(stage, fleet):
    stage.join("cpu-1")
    stage.join("cpu-2")
    stage.submit("runs")
    stage.claim("cpu-1")
    stage.submit("pinned", worker="cpu-1")
    assert fleet("drain", "cpu-1", "--force", "--dry-run").out == (
        "cpu-1 would be drained\n"
        "  1 of cpu_standard.cpu-1 at level 4 → cpu_standard\n"
        "  runs held by cpu-1 → cpu_standard at level 4\n"
    )
    answer = fleet("drain", "cpu-1", "--force", "--dry-run", "--json").json
    assert (answer["moved_tasks"], answer["taken_back_tasks"]) == (1, 1)
    assert [step["kind"] for step in answer["steps"]] == ["move_lane", "take_back"]
    assert len(stage.broker.observe()[0].held) == 1


def test_cordon_does_not_turn_a_drain_back(stage, fleet):
    stage.join("cpu-1")
    fleet("drain", "cpu-1")
    assert "uncordon cpu-1" in fleet("cordon", "cpu-1", status=5).err
    assert cordon_of(stage, "cpu-1").state is WorkerStatus.DRAINED


def test_a_persons_cordon_replaces_the_breakers_which_would_end_by_itself(stage, fleet):
    stage.join("cpu-1")
    now = stage.broker.now()
    stage.broker.cordons.put(
        "cpu-1", Cordon(state=WorkerStatus.CORDONED, who="circuit breaker", until=now + 99), (None,)
    )
    fleet("cordon", "cpu-1")
    assert (cordon_of(stage, "cpu-1").until, cordon_of(stage, "cpu-1").who[:4]) == (None, "ann@")


# -- drain


def test_an_idle_worker_is_drained_at_once_and_the_second_time_nothing_is_done(stage, fleet):
    stage.join("cpu-1")
    answer = fleet("drain", "cpu-1", "--json").json
    assert (answer["state"], answer["moved_tasks"], answer["running_tasks"]) == ("drained", 0, 0)
    entries = len(stage.broker.journal.latest(50))
    again = fleet("drain", "cpu-1", "--json").json
    assert (again["state"], again["moved_tasks"], again["changed"]) == ("drained", 0, False)
    assert fleet("drain", "cpu-1").out == "cpu-1 is already drained\n"
    assert len(stage.broker.journal.latest(50)) == entries


def test_what_waits_for_it_goes_to_the_shared_lane_in_its_order_with_its_new_address(stage, fleet):
    stage.join("cpu-1")
    stage.join("cpu-2")
    stage.submit("shared")
    stage.submit("a", "b", "c", worker="cpu-1")
    stage.submit("urgent", worker="cpu-1", priority="URGENT")
    answer = fleet("drain", "cpu-1", "--allow-pinned", "--json").json
    assert (answer["state"], answer["moved_tasks"]) == ("drained", 4)
    assert stage.ids("cpu_standard", 4) == ["shared", "a", "b", "c"]
    assert stage.ids("cpu_standard", 0) == ["urgent"]
    assert stage.message("cpu_standard", 4, 1)["properties"]["delivery_info"]["routing_key"] == "cpu_standard"
    assert stage.claim("cpu-1") is None


def test_all_obstacles_are_told_at_once_each_with_its_flag_and_nothing_is_touched(stage, fleet):
    stage.join("cpu-1")
    stage.submit("runs", estimated_duration=600)
    stage.claim("cpu-1")
    stage.submit("pinned", worker="cpu-1")
    refused = fleet("drain", "cpu-1", "--deadline", "1m", status=5)
    for word in ("last worker", "--allow-last", "pinned", "--allow-pinned", "runs", "--no-deadline", "--force"):
        assert word in refused.err
    assert cordon_of(stage, "cpu-1") is None
    assert stage.ids("cpu_standard.cpu-1", 4) == ["pinned"]
    assert verbs_in_journal(stage) == []


def test_each_flag_overrides_its_obstacle_and_no_other(stage, fleet):
    stage.join("cpu-1")
    stage.submit("pinned", worker="cpu-1")
    assert "--allow-last" not in fleet("drain", "cpu-1", "--allow-last", status=5).err
    assert "--allow-pinned" not in fleet("drain", "cpu-1", "--allow-pinned", status=5).err
    assert fleet("drain", "cpu-1", "--allow-pinned", "--allow-last", "--json").json["moved_tasks"] == 1


def test_the_last_gpu_worker_is_kept_while_gpu_work_waits(stage, fleet):
    stage.join("gpu-1", "gpu")
    stage.join("cpu-1", "cpu")
    stage.submit("film", content_type="video", requires="gpu")
    refused = fleet("drain", "gpu-1", status=5)
    assert "1 in gpu_priority" in refused.err
    assert fleet("drain", "gpu-1", "--force", "--json").json["state"] == "drained"


def test_the_last_one_of_an_idle_fleet_may_go_with_a_warning(stage, fleet):
    stage.join("cpu-1")
    assert "last worker in service for cpu_standard" in fleet("drain", "cpu-1", "--json").err


def test_a_deadline_that_passes_ends_with_6_and_says_what_is_left_and_what_to_do(stage, fleet):
    stage.join("cpu-1")
    stage.submit("t", estimated_duration=0)
    stage.claim("cpu-1")
    late = fleet("drain", "cpu-1", "--deadline", "200ms", "--json", status=6)
    assert (late.json["state"], late.json["running_tasks"]) == ("draining", 1)
    assert "morag-queue drain cpu-1 --force" in late.err
    assert cordon_of(stage, "cpu-1").state is WorkerStatus.DRAINING
    stage.end("t")
    assert fleet("drain", "cpu-1", "--json").json["state"] == "drained", "the next one goes on with it"


def test_force_takes_back_what_runs_and_says_at_least_once(stage, fleet):
    stage.join("cpu-1")
    stage.submit("t")
    stage.claim("cpu-1")
    forced = fleet("drain", "cpu-1", "--force", "--json")
    assert (forced.json["state"], forced.json["taken_back_tasks"], forced.json["running_tasks"]) == ("drained", 1, 0)
    assert "at least once" in forced.err
    assert stage.ids("cpu_standard", 4) == ["t"]
    stage.join("cpu-2")
    assert stage.claim("cpu-2") == "t"


def test_detach_begins_and_does_not_wait(stage, fleet):
    stage.join("cpu-1")
    stage.submit("t")
    stage.claim("cpu-1")
    detached = fleet("drain", "cpu-1", "--detach", "--json")
    assert detached.json["state"] == "draining"
    assert "morag-queue drain cpu-1" in detached.err


def test_ctrl_c_detaches_and_says_how_to_look_again(stage, fleet, monkeypatch):
    stage.join("cpu-1")
    stage.submit("t")
    stage.claim("cpu-1")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("morag_queue.cli.drain.sleep", interrupt)
    left = fleet("drain", "cpu-1", status=130)
    assert "Look again with: morag-queue drain cpu-1" in left.err
    assert cordon_of(stage, "cpu-1").state is WorkerStatus.DRAINING


def test_a_drain_that_is_lifted_meanwhile_stops_and_says_so(stage, fleet, monkeypatch):
    stage.join("cpu-1")
    stage.submit("t")
    stage.claim("cpu-1")
    lift = lambda _: stage.broker.cordons.put("cpu-1", None, tuple(WorkerStatus))  # noqa: E731
    monkeypatch.setattr("morag_queue.cli.drain.sleep", lift)
    assert "put back into service" in fleet("drain", "cpu-1", status=5).err
    assert cordon_of(stage, "cpu-1") is None


def test_two_drains_at_once_end_the_same(stage, fleet, monkeypatch):
    stage.join("cpu-1")
    stage.submit("t")
    stage.claim("cpu-1")

    def other(_):
        stage.end("t")
        monkeypatch.setattr("morag_queue.cli.drain.sleep", lambda _: None)
        assert fleet("drain", "cpu-1", "--json").json["state"] == "drained"

    monkeypatch.setattr("morag_queue.cli.drain.sleep", other)
    assert fleet("drain", "cpu-1", "--json").json["state"] == "drained"


def test_a_drained_worker_that_registers_again_stays_drained(stage, fleet):
    joined = stage.join("cpu-1")
    fleet("drain", "cpu-1")
    stage.broker.registry.register(joined.model_copy(update={"incarnation": "cpu-1.2"}), "cpu-1.1")
    stage.submit("t", worker=None)
    assert stage.claim("cpu-1") is None
    (shown,) = fleet("stats", "--json").json["workers"]
    assert shown["status"] == "drained"


def test_a_foreign_text_in_its_lane_stays_and_is_told(stage, fleet):
    stage.join("cpu-1")
    stage.submit("t", worker="cpu-1")
    stage.client.lpush("cpu_standard.cpu-1", "not a message")
    done = fleet("drain", "cpu-1", "--allow-pinned", "--allow-last", "--json")
    assert (done.json["state"], done.json["moved_tasks"]) == ("drained", 1)
    assert "1 messages stay in its lanes" in done.err
    assert stage.client.lrange("cpu_standard.cpu-1", 0, -1) == [b"not a message"]


def test_the_monitor_is_a_stream_of_timed_lines(stage, fleet):
    stage.join("cpu-1")
    stage.join("cpu-2")
    stage.submit("t", worker="cpu-1")
    told = fleet("drain", "cpu-1", "--allow-pinned").err
    assert "s] cpu-1 takes nothing any more" in told
    assert "s] moved 1 task from its lanes to the shared lanes" in told
    assert "s] cpu-1 is drained" in told
    fleet("uncordon", "cpu-1")
    assert fleet("drain", "cpu-1", "--quiet").err == ""


def test_a_dry_run_of_a_drain_counts_and_touches_nothing(stage, fleet):
    stage.join("cpu-1")
    stage.join("cpu-2")
    stage.submit("t", worker="cpu-1")
    would = fleet("drain", "cpu-1", "--allow-pinned", "--dry-run", "--json").json
    assert (would["dry_run"], would["moved_tasks"]) == (True, 1)
    assert fleet("drain", "cpu-1", "--dry-run", status=5).err.count("--allow-pinned") == 1
    assert cordon_of(stage, "cpu-1") is None
    assert stage.ids("cpu_standard.cpu-1", 4) == ["t"]


# -- names


@pytest.mark.parametrize("command", ["cordon", "uncordon", "drain"])
def test_a_worker_may_be_given_by_an_unambiguous_beginning(stage, fleet, command):
    stage.join("worker-cpu-1")
    stage.join("worker-gpu-1", "gpu")
    assert fleet(command, "worker-c", "--json").json["worker"] == "worker-cpu-1"
    refused = fleet(command, "worker-", status=2).err
    assert "worker-cpu-1, worker-gpu-1" in refused


def test_an_unknown_worker_ends_with_8_and_names_those_that_there_are(stage, fleet):
    stage.join("cpu-1")
    for command in ("cordon", "uncordon", "drain"):
        refused = fleet(command, "nobody", status=8).err
        assert "nobody" in refused
        assert "cpu-1" in refused


@pytest.mark.parametrize("name", ["w.1", "w*", "w[1]", "w?", "gpu_priority.w", "ü-1"])
def test_dots_and_glob_signs_in_an_id_stand_for_themselves(stage, fleet, name):
    stage.join(name)
    stage.join("w-1")
    stage.submit("theirs", worker=name)
    stage.submit("others", worker="w-1")
    assert fleet("drain", name, "--allow-pinned", "--json").json["moved_tasks"] == 1
    assert stage.ids("cpu_standard", 4) == ["theirs"]
    assert stage.ids("cpu_standard.w-1", 4) == ["others"]


def test_a_deadline_that_is_none_and_two_deadlines_are_wrong_usage(stage, fleet):
    stage.join("cpu-1")
    assert "--deadline" in fleet("drain", "cpu-1", "--deadline", "soon", status=2).err
    assert "not both" in fleet("drain", "cpu-1", "--deadline", "1m", "--no-deadline", status=2).err


def test_the_default_deadline_is_an_hour_and_the_next_drain_may_say_another(stage, fleet):
    stage.join("cpu-1")
    stage.submit("t", estimated_duration=0)
    stage.claim("cpu-1")
    fleet("drain", "cpu-1", "--detach")
    placed = cordon_of(stage, "cpu-1")
    assert placed.deadline - placed.at == drain_verb.DEADLINE_SECONDS == 3600
    fleet("drain", "cpu-1", "--detach", "--no-deadline")
    assert cordon_of(stage, "cpu-1").deadline is None
    assert json.loads(stage.client.hget(stage.keys.cordons, "cpu-1"))["who"].startswith("ann@")
