"""Findings about workers: registry records of real shape, and real workers without the agent."""

import pytest
import redis

from morag_queue.broker.keys import Keys
from morag_queue.broker.leader import Leases
from morag_queue.core.doctor import Code, Severity
from morag_queue.core.model import Capability, QueueType
from morag_queue.local.waiting import until


def test_a_good_worker_is_nothing_to_talk_about(examine, register):
    register(capability=Capability.HYBRID, queues=tuple(QueueType))
    assert set(examine()) == {Code.NO_APPEND_ONLY_FILE}


def test_real_workers_with_the_agent_are_nothing_to_talk_about_either(make_fleet, examine):
    fleet = make_fleet(persist=True)
    fleet.start_worker("worker-hybrid-1", "hybrid")
    assert examine(fleet.url) == {}


def test_queues_that_nobody_reads_are_a_hint_before_anything_waits_there(examine, register):
    register()
    found = examine()[Code.QUEUE_WITHOUT_WORKER]
    assert (found.severity, found.subject) == (Severity.INFO, "gpu_fallback, gpu_priority")


def test_agents_that_are_registered_elsewhere_are_told_with_their_database(examine, register, valkey):
    register()
    name = "mq.worker-9.host.7.run"
    with redis.Redis.from_url(valkey.replace("/0", "/3"), client_name=name) as other:
        other.ping()
        found = examine()[Code.WORKERS_ELSEWHERE]
    assert (found.subject, found.message) == (
        "worker-9",
        "connected to this server (database 3), but not of this fleet",
    )


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"acks_late": False}, Code.ACKS_EARLY),
        ({"reject_on_worker_lost": False}, Code.DROPS_LOST_TASKS),
        ({"cancel_on_connection_loss": False}, Code.RUNS_ON_WITHOUT_CONNECTION),
        ({"prefetch_multiplier": 4}, Code.TAKES_AHEAD),
        ({"prefetch_multiplier": 0}, Code.TAKES_AHEAD),
        ({"visibility_timeout": 20}, Code.VISIBILITY_TIMEOUT),
    ],
)
def test_a_setting_on_which_reliability_hangs_is_a_warning_that_says_how_to_set_it(examine, register, settings, code):
    register(settings=settings)
    found = examine()[code]
    assert (found.severity, found.subject) == (Severity.WARNING, "worker-1")
    assert found.remedy.startswith("app.conf.")


def test_prefetch_is_harmless_where_celery_keeps_it_off(examine, register):
    register(settings={"prefetch_multiplier": 4, "disable_prefetch": True})
    assert Code.TAKES_AHEAD not in examine()


def test_many_workers_of_one_kind_are_one_finding(examine, register):
    for n in range(5):
        register(f"worker-{n}", settings={"acks_late": False})
    assert examine()[Code.ACKS_EARLY].subject == "worker-0, worker-1, worker-2 and 2 more"


def test_a_worker_of_another_version_and_one_without_the_claim_are_named(examine, register):
    register("old", version="0.0.1")
    register("stock", claims=False)
    found = examine()
    assert "runs the agent 0.0.1, this command is" in found[Code.VERSION_DIFFERS].message
    assert found[Code.NO_CLAIM].subject == "stock"


def test_a_worker_that_is_gone_with_tasks_in_hand_is_an_error(examine, register, queue, claim):
    task = queue()
    register("worker-2", beat={"stopped": True})
    claim(task, "worker-2")
    found = examine()[Code.WORKER_GONE_WITH_TASKS]
    assert (found.message, found.remedy) == (
        "worker-2 is gone and still holds 1 task",
        "morag-queue failover worker-2",
    )


def test_a_worker_that_beats_but_takes_nothing_is_stalled(examine, register, queue):
    register()
    queue(age_s=5)
    assert Code.WORKER_STALLED not in examine()
    queue(level=5, age_s=30)
    found = examine()[Code.WORKER_STALLED]
    assert found.message.startswith("worker-1 beats but takes nothing, while work for it has waited 30 s")


def test_a_second_connection_in_a_workers_name_is_a_duplicate(examine, register, valkey):
    register("worker.one", client_name="mq.worker.one.host.1.run")
    mine = redis.Redis.from_url(valkey, client_name="mq.worker.one.host.1.run")
    other = redis.Redis.from_url(valkey, client_name="mq.worker.one.elsewhere.7.run")
    with mine, other:
        mine.ping()
        assert Code.DUPLICATE_WORKER not in examine()
        other.ping()
        assert examine()[Code.DUPLICATE_WORKER].subject == "worker.one"


def test_clocks_that_are_apart_are_named_with_the_difference(examine, register, client, monkeypatch):
    seconds, _ = client.time()
    register("slow", beat={"clock": seconds - 180})
    assert examine()[Code.CLOCK_SKEW].message.startswith("the clock of slow is 3 min behind the server's")
    client.delete("mq:beats")
    monkeypatch.setattr("morag_queue.broker.inspection.time.time", lambda: seconds + 5.0)
    found = examine()[Code.CLOCK_SKEW]
    assert (found.subject, found.severity) == ("this machine", Severity.WARNING)
    assert "ahead of the server's" in found.message


def test_a_leader_that_was_there_and_is_gone_is_missed(examine, client):
    assert Code.LEADER_MISSING not in examine()
    client.set("mq:watched", "root@host")
    assert "nobody leads" in examine()[Code.LEADER_MISSING].message
    Leases(client, Keys()).take("me", "root@host", "watch", 15)
    assert Code.LEADER_MISSING not in examine()


def test_workers_without_the_agent_are_asked_for_their_queues_and_settings(make_fleet, examine, register, valkey):
    fleet = make_fleet(agent=False)
    options = {"queue": "cpu_standard", "priority": 4, "ignore_result": True}
    for name, queues in (("plain", "cpu_standard"), ("stranger", "celery")):
        fleet.start_worker(name, options=("-Q", queues), wait=False)
    until(
        lambda: all(f"{one}@" in fleet.log(one) and "ready." in fleet.log(one) for one in ("plain", "stranger")), 30, ""
    )
    fleet.producer.send_task("nobody.knows", countdown=7200, **options)
    found = examine(fleet.url)
    assert found[Code.WORKER_WITHOUT_AGENT].subject == "plain"
    assert found[Code.OTHER_QUEUES].message.startswith("reads only celery, none of the queues of this fleet")
    assert {Code.ACKS_EARLY, Code.DROPS_LOST_TASKS, Code.TAKES_AHEAD} <= found.keys()
    assert "shorter than an ETA of" in found[Code.VISIBILITY_TIMEOUT].message
    assert found[Code.VISIBILITY_TIMEOUT].severity is Severity.ERROR
    assert found[Code.MESSAGES_STRANDED].subject == "cpu_standard", "level 4 is none of kombu's own steps"
