"""`pause` and `resume`."""

import re

import pytest


def test_a_paused_queue_delivers_nothing_until_resume(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    assert fleet("pause", "cpu_s", "--reason", "disk full").out == "cpu_standard is paused (1 waiting, 0 in flight)\n"
    assert sim_fleet.claim("cpu-1") is None
    sim_fleet.submit("other", queue="cpu_batch", priority="BATCH")
    assert sim_fleet.claim("cpu-1") == "other"
    assert fleet("pause", "cpu_standard", "--json").json["changed"] is False
    fleet("resume", "cpu_standard")
    assert sim_fleet.claim("cpu-1") == "a"
    verbs = [(entry.verb, entry.subject, entry.reason) for entry in sim_fleet.broker.journal.latest(9)]
    assert verbs == [("resume", "cpu_standard", ""), ("pause", "cpu_standard", "disk full")]


def test_a_pause_is_shown_by_stats_and_task_why(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    fleet("pause", "cpu_standard", "--reason", "disk full")
    sim_fleet.submit("a")
    stats = {queue["queue_type"]: queue["paused"] for queue in fleet("stats", "--json").json["queues"]}
    assert stats == {"gpu_priority": False, "gpu_fallback": False, "cpu_standard": True, "cpu_batch": False}
    assert "cpu_standard (paused)" in fleet("stats").out
    line = r"cpu_standard was paused [01] s ago by ann@\S+ \(disk full\); to end it: morag-queue resume cpu_standard"
    assert re.search(line, fleet("stats").out)
    assert re.search(line, fleet("stats", "--live", "--count", "1", terminal=False).out)
    pauses = [queue["pause"] for queue in fleet("stats", "--json").json["queues"]]
    assert [pause and (pause["who"].split("@")[0], pause["reason"]) for pause in pauses] == [
        None, None, ("ann", "disk full"), None,
    ]  # fmt: skip
    why = fleet("task", "why", "a", "--json").json
    assert re.fullmatch(
        r"cpu_standard was paused [01] s ago by ann@\S+ \(disk full\): "
        "morag-queue resume cpu_standard ends the pause",
        why["reason"],
    )
    assert (why["reason_code"], why["expected_start"]) == ("QUEUE_PAUSED", None)


def test_a_dry_run_of_pause_changes_nothing(sim_fleet, fleet):
    assert "cpu_batch would be paused" in fleet("pause", "cpu_batch", "--dry-run").out
    assert fleet("stats", "--json").json["queues"][3]["paused"] is False


@pytest.mark.parametrize(("name", "status"), [("nope", 8), ("gpu", 2), ("", 8)])
def test_pause_rejects_an_unknown_or_ambiguous_queue(fleet, name, status):
    assert f"queue {name!r}" in fleet("pause", name, status=status).err


def test_pause_warns_of_workers_that_ignore_it(sim_fleet, fleet):
    sim_fleet.join("cpu-1", claims=False)
    assert "workers that do not use the claim script ignore the pause (cpu-1)" in fleet("pause", "cpu_batch").err


def test_a_repeated_pause_keeps_the_record_of_the_first(sim_fleet, fleet):
    fleet("pause", "cpu_batch", "--reason", "first")
    fleet("pause", "cpu_batch", "--reason", "second", env={"USER": "bob"})
    pause = sim_fleet.broker.observe()[0].pauses["cpu_batch"]
    assert (pause.who.split("@")[0], pause.reason) == ("ann", "first")
    fleet("resume", "cpu_batch")
    assert sim_fleet.client.hlen(sim_fleet.keys.pauses) == 0


def test_a_submit_into_a_paused_queue_warns_with_the_record(sim_fleet, fleet, here):
    sim_fleet.join("cpu-1")
    assert fleet("submit", "report.txt").err == ""
    fleet("pause", "cpu_standard", "--reason", "disk full")
    for options in ((), ("--quiet",), ("--dry-run",)):
        assert re.fullmatch(
            r"warning: cpu_standard was paused \d+ s ago by ann@\S+ \(disk full\): "
            "its tasks wait until morag-queue resume cpu_standard\n",
            fleet("submit", "report.txt", *options).err,
        )


@pytest.mark.parametrize("record", [None, b"no json", b"[]"])
def test_a_pause_without_a_readable_record_is_shown_without_details(sim_fleet, fleet, record):
    sim_fleet.client.sadd(sim_fleet.keys.paused, "cpu_standard")
    if record is not None:
        sim_fleet.client.hset(sim_fleet.keys.pauses, "cpu_standard", record)
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    assert sim_fleet.claim("cpu-1") is None
    reason = fleet("task", "why", "a", "--json").json["reason"]
    assert reason == "cpu_standard is paused: morag-queue resume cpu_standard ends the pause"
    (finding,) = (one for one in fleet("doctor", "--json").json["findings"] if one["code"] == "QUEUE_PAUSED")
    assert (finding["severity"], finding["message"]) == ("warning", "cpu_standard is paused; 1 task waits in it")


def test_a_record_of_a_queue_that_is_not_paused_is_ignored(sim_fleet, fleet):
    sim_fleet.client.hset(sim_fleet.keys.pauses, "cpu_standard", '{"who": "ann", "at": 1}')
    assert {queue["pause"] for queue in fleet("stats", "--json").json["queues"]} == {None}
    assert fleet("pause", "cpu_standard", "--json").json["changed"] is True
    assert sim_fleet.broker.observe()[0].pauses["cpu_standard"].at > 1
