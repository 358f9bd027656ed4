"""`stats`, and output options that all commands share."""

from datetime import datetime

import pytest
import redis


@pytest.mark.parametrize("verb", [("stats",), ("submit", "report.txt"), ("classify", "report.txt")])
def test_an_unreachable_broker_exits_with_69_without_its_password(mq, here, verb):
    env = {"MORAG_QUEUE_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    result = mq(*verb, "--json", status=69, env=env)
    assert "127.0.0.1:1" in result.err
    assert result.json["exit"] == 69
    assert "hunter2" not in result.err + result.out


def test_stats_counts_waiting_tasks_over_the_given_window(fleet, here):
    fleet("submit", "report.txt")
    answer = fleet("stats", "--json", "--window", "5m").json
    assert answer["window_seconds"] == 300
    assert answer["taken_at"].endswith("Z")
    assert {"queue_type", "pending_tasks", "backlog_time", "oldest_wait_time"} <= set(answer["queues"][0])
    assert (answer["workers"], answer["leader"]) == ([], None)
    assert "cpu_standard        1" in fleet("stats").out


def test_stats_shows_the_leader_and_its_lease_in_utc(sim_fleet, fleet):
    lease = sim_fleet.broker.leases.take("me", "ann@here", "watch", 15)
    leader = fleet("stats", "--json").json["leader"]
    assert (leader["who"], leader["verb"], leader["term"]) == ("ann@here", "watch", lease.term)
    since, until = (datetime.fromisoformat(leader[name]).timestamp() for name in ("since", "until"))
    assert until - since == pytest.approx(15, abs=0.01)
    assert "Leader: ann@here (watch)" in fleet("stats").out
    assert "error: --window 'soon' is not a duration" in fleet("stats", "--window", "soon", status=2).err


def test_colour_is_used_only_on_terminals_that_allow_it(fleet):
    assert "\x1b[" in fleet("stats", terminal=True, env={"TERM": "xterm"}).out
    for more in ({"env": {"TERM": "xterm", "NO_COLOR": "1"}}, {"env": {"TERM": "dumb"}}):
        assert "\x1b[3" not in fleet("stats", terminal=True, **more).out
    assert "\x1b[3" not in fleet("stats", "--no-color", terminal=True, env={"TERM": "xterm"}).out
    assert "\x1b" not in fleet("stats").out


def test_unreachable_sentinels_are_reported_briefly(fleet):
    err = fleet("stats", "--redis-url", "sentinel://127.0.0.1:1;sentinel://127.0.0.1:2/0", status=69).err
    assert "No master found for" in err
    assert "Redis<" not in err


def test_stats_answers_without_a_key_of_the_wrong_type_and_names_it(fleet, client: redis.Redis):
    client.set("mq:workers", "not a hash")
    answer = fleet("stats", "--json")
    assert (len(answer.json["queues"]), answer.json["workers"]) == (4, [])
    assert answer.err == (
        "warning: mq:workers: the key has another type than ours; another program uses this key: "
        "choose another database or `namespace`, or rename the key\n"
    )
