"""Findings about workers that are away, and about a missing watch: from pictures of a fleet and from real workers."""

import signal
from dataclasses import replace

import pytest

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Code, FleetFacts, Severity, diagnose
from morag_queue.core.policy import Policy
from morag_queue.local.waiting import until
from morag_queue.operations.doctor import doctor
from morag_queue.settings import Settings
from tests.core.fleets import fleet, held, worker


def findings(*views, **more):
    found = diagnose(FleetFacts(fleet(*views, **more), version=""))
    return {finding.code: finding for finding in found}


def test_a_fleet_that_no_watch_has_led_has_a_hint():
    hint = findings(worker("w"))[Code.LEADER_MISSING]
    assert (hint.severity, hint.subject, hint.message, hint.remedy) == (
        Severity.INFO,
        "watch",
        "no watch has led this fleet within the last day: the fleet is neither balanced nor failed over automatically",
        "start one: morag-queue watch",
    )


def test_a_dead_worker_that_holds_tasks_is_an_error_with_the_proof():
    dead = replace(worker("w", beat_age=3), connections=0)
    found = findings(dead, held=held("w", count=2))[Code.WORKER_GONE_WITH_TASKS]
    assert (found.severity, found.message, found.remedy) == (
        Severity.ERROR,
        "w is dead (killed? no connection, and no heartbeat for 3 s): its 2 tasks wait for recovery",
        "morag-queue failover w",
    )
    assert Code.WORKER_VANISHED not in findings(dead, held=held("w", count=2))


@pytest.mark.parametrize(
    ("age", "connections", "count", "severity", "message"),
    [
        (12, 4, 0, Severity.WARNING, "(no heartbeat for 12 s, but 4 open connections)"),
        (12, None, 1, Severity.WARNING, "(no heartbeat for 12 s); it holds 1 task"),
        (90, 4, 2, Severity.ERROR, "(no heartbeat for 90 s, but 4 open connections); it holds 2 tasks"),
        (7200, 4, 0, Severity.WARNING, "(no heartbeat for 2 h, but 4 open connections)"),
    ],
)
def test_a_suspect_worker_is_named_at_once_with_the_evidence(age, connections, count, severity, message):
    silent = replace(worker("w", beat_age=age, pid=7), connections=connections)
    found = findings(silent, held=held("w", count=count))
    finding = found[Code.WORKER_SUSPECT]
    assert (finding.severity, finding.message) == (severity, f"w may be stopped, blocked or cut off {message}")
    assert finding.remedy == (
        "look at process 7 on host (kill -CONT 7 lets a stopped one continue); "
        "morag-queue failover w --force gives its tasks to other workers"
    )
    assert not {Code.WORKER_GONE_WITH_TASKS, Code.WORKER_VANISHED} & found.keys()


def test_workers_that_left_within_a_day_are_listed_with_how_they_left():
    found = findings(
        worker("cleanly", beat_age=300, stopped=True),
        worker("drained", beat_age=7200, stopped=True, cordon="drained"),
        worker("silent", beat_age=600),
        replace(worker("killed", beat_age=3), connections=0),
        worker("long-ago", beat_age=90_000, stopped=True),
        worker("here"),
    )
    stopped, vanished = found[Code.WORKER_STOPPED], found[Code.WORKER_VANISHED]
    assert (stopped.severity, stopped.subject, stopped.message, stopped.remedy) == (
        Severity.INFO,
        "cleanly, drained",
        "stopped cleanly: cleanly (5 min ago), drained (2 h ago)",
        "start a worker again if the fleet needs it",
    )
    assert (vanished.severity, vanished.subject, vanished.message, vanished.remedy) == (
        Severity.INFO,
        "killed, silent",
        "vanished without a clean stop (killed, or its machine failed): killed (3 s ago), silent (10 min ago)",
        "see the log on host, and start the worker again if the fleet needs it",
    )


def test_many_gone_workers_are_one_finding():
    found = findings(*(worker(f"w{n}", beat_age=100 + n, stopped=True) for n in range(5)))[Code.WORKER_STOPPED]
    assert found.subject == "w0, w1, w2 and 2 more"
    assert found.message == "stopped cleanly: w0 (100 s ago), w1 (101 s ago), w2 (102 s ago) and 2 more"


def test_real_workers_that_are_killed_stopped_or_suspended_are_told_apart(make_fleet):
    fleet = make_fleet(env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "0.2"})
    for name in ("killed", "stopped", "suspended"):
        fleet.start_worker(name, wait=False)
    settings = Settings(redis_url=fleet.url, policy=Policy(suspect_after_seconds=1.0))
    broker = RedisBroker(settings)

    def found(code):
        return next((finding for finding in doctor(broker).findings if finding.code is code), None)

    until(lambda: fleet.redis.hlen(fleet.keys.beats) == 3, 30, "not all workers have registered")
    running = fleet.send("cpu_standard.killed", wait_for_file=str(fleet.release_file()))
    fleet.redis.sadd(fleet.keys.lanes, "cpu_standard.killed")
    until(lambda: running in fleet.counts("start"), 20, lambda: f"not started: {fleet.where()}")
    fleet.kill("killed")
    fleet.kill("suspended", signal.SIGSTOP)
    fleet.kill("stopped", signal.SIGTERM)

    until(lambda: found(Code.WORKER_GONE_WITH_TASKS), 20, "the killed worker is not found")
    dead = found(Code.WORKER_GONE_WITH_TASKS)
    assert dead.message.startswith("killed is dead (killed? no connection, and no heartbeat for ")
    assert dead.message.endswith("): its 1 task waits for recovery")
    status = {row["worker"]: row["status"] for row in fleet.run_json("stats")["workers"]}
    assert status["killed"] == "offline"
    until(lambda: found(Code.WORKER_SUSPECT), 20, "the suspended worker is not found")
    assert "suspended may be stopped, blocked or cut off (no heartbeat for " in found(Code.WORKER_SUSPECT).message
    assert " open connections)" in found(Code.WORKER_SUSPECT).message
    until(lambda: found(Code.WORKER_STOPPED), 20, "the stopped worker is not found")
    assert found(Code.WORKER_STOPPED).subject == "stopped"
    fleet.kill("suspended", signal.SIGCONT)
