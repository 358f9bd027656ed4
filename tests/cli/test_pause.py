"""`pause` and `resume`."""

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
    fleet("pause", "cpu_standard")
    sim_fleet.submit("a")
    stats = {queue["queue_type"]: queue["paused"] for queue in fleet("stats", "--json").json["queues"]}
    assert stats == {"gpu_priority": False, "gpu_fallback": False, "cpu_standard": True, "cpu_batch": False}
    assert "cpu_standard (paused)" in fleet("stats").out
    why = fleet("task", "why", "a", "--json").json
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
