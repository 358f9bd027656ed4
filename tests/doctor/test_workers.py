"""Findings about workers, from realistic registry records and from real workers."""

import pytest
import redis

from morag_queue.broker.keys import Keys
from morag_queue.broker.leader import Leases
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Code, FleetFacts, Severity, diagnose
from morag_queue.core.model import Capability, QueueType
from morag_queue.core.policy import Policy
from morag_queue.local.waiting import until
from morag_queue.operations.rebalance import run_once
from morag_queue.settings import Settings
from tests.core.fleets import fleet, worker
from tests.support.simulated_fleet import SimulatedFleet

PREFETCHES = "prefetches tasks (worker_prefetch_multiplier is not 1): no other worker can take or reorder them"


def test_a_healthy_worker_has_no_finding(examine, register):
    register(capability=Capability.HYBRID, queues=tuple(QueueType))
    assert set(examine()) == {Code.NO_APPEND_ONLY_FILE}


def test_a_real_worker_with_the_agent_has_no_finding(make_fleet, examine):
    fleet = make_fleet(persist=True)
    fleet.start_worker("worker-hybrid-1", "hybrid")
    assert examine(fleet.url) == {}


def test_empty_queues_without_a_worker_are_an_information(examine, register):
    register()
    found = examine()[Code.QUEUE_WITHOUT_WORKER]
    assert (found.severity, found.subject) == (Severity.INFO, "gpu_fallback, gpu_priority")
    assert found.message == "no worker reads it: tasks sent to gpu_fallback, gpu_priority will wait"


def test_agents_of_another_fleet_are_named_with_their_database(examine, register, valkey):
    register()
    name = "mq.worker-9.host.7.run"
    with redis.Redis.from_url(valkey.replace("/0", "/3"), client_name=name) as other:
        other.ping()
        found = examine()[Code.WORKERS_ELSEWHERE]
    assert (found.subject, found.message) == (
        "worker-9",
        "connected to this server (database 3), but not registered in this fleet",
    )


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (
            {"acks_late": False},
            Code.ACKS_EARLY,
            "acknowledges a task before running it (task_acks_late is off): if the worker is killed, the task is lost",
        ),
        (
            {"reject_on_worker_lost": False},
            Code.DROPS_LOST_TASKS,
            "drops a task whose process was killed (task_reject_on_worker_lost is off)",
        ),
        (
            {"cancel_on_connection_loss": False},
            Code.RUNS_ON_WITHOUT_CONNECTION,
            "keeps running a task after its connection is lost, while another worker starts the same task",
        ),
        ({"prefetch_multiplier": 4}, Code.TAKES_AHEAD, PREFETCHES),
        ({"prefetch_multiplier": 0}, Code.TAKES_AHEAD, PREFETCHES),
        (
            {"visibility_timeout": 20},
            Code.VISIBILITY_TIMEOUT,
            "has a visibility timeout of 20 s: after a connection loss of that length its tasks run elsewhere too, "
            "although it counts as offline only after 60 s",
        ),
    ],
)
def test_an_unreliable_setting_is_a_warning_with_the_line_that_corrects_it(examine, register, settings, code, message):
    register(settings=settings)
    found = examine()[code]
    assert (found.severity, found.subject, found.message) == (Severity.WARNING, "worker-1", message)
    assert found.remedy.startswith("app.conf.")


def test_a_prefetch_multiplier_is_no_finding_if_prefetch_is_disabled(examine, register):
    register(settings={"prefetch_multiplier": 4, "disable_prefetch": True})
    assert Code.TAKES_AHEAD not in examine()


def test_many_workers_with_one_problem_are_one_finding(examine, register):
    for n in range(5):
        register(f"worker-{n}", settings={"acks_late": False})
    assert examine()[Code.ACKS_EARLY].subject == "worker-0, worker-1, worker-2 and 2 more"


def test_a_worker_of_another_version_and_one_without_the_claim_are_named(examine, register):
    register("old", version="0.0.1")
    register("without-claim", claims=False)
    found = examine()
    assert "runs the agent 0.0.1, this command is" in found[Code.VERSION_DIFFERS].message
    assert found[Code.NO_CLAIM].subject == "without-claim"
    assert found[Code.NO_CLAIM].message == (
        "takes messages with kombu's two steps instead of the atomic claim: a kill between them loses one"
    )


def test_an_offline_worker_that_holds_tasks_is_an_error(examine, register, queue, claim):
    task = queue()
    register("worker-2", beat={"stopped": True})
    claim(task, "worker-2")
    found = examine()[Code.WORKER_GONE_WITH_TASKS]
    assert (found.message, found.remedy) == (
        "worker-2 is gone (shut down 0 s ago): its 1 task waits for recovery",
        "morag-queue failover worker-2",
    )


def test_a_worker_that_sends_heartbeats_but_claims_nothing_is_stalled(examine, register, queue):
    register()
    queue(age_s=5)
    assert Code.WORKER_STALLED not in examine()
    queue(level=5, age_s=30)
    found = examine()[Code.WORKER_STALLED]
    assert found.message.startswith("worker-1 sends heartbeats but claims nothing, while work for it has waited 30 s")


def test_a_connection_of_another_process_with_a_workers_name_is_a_duplicate(examine, register, valkey):
    register("worker.one", client_name="mq.worker.one.host.1.run")
    mine = redis.Redis.from_url(valkey, client_name="mq.worker.one.host.1.run")
    other = redis.Redis.from_url(valkey, client_name="mq.worker.one.elsewhere.7.run")
    with mine, other:
        mine.ping()
        assert Code.DUPLICATE_WORKER not in examine()
        other.ping()
        assert examine()[Code.DUPLICATE_WORKER].subject == "worker.one"


def test_clocks_that_differ_are_named_with_the_difference(examine, register, client, monkeypatch):
    seconds, _ = client.time()
    register("slow", beat={"clock": seconds - 180})
    assert examine()[Code.CLOCK_SKEW].message.startswith("the clock of slow is 3 min behind the server's")
    client.delete("mq:beats")
    monkeypatch.setattr("morag_queue.broker.inspection.time.time", lambda: seconds + 5.0)
    found = examine()[Code.CLOCK_SKEW]
    assert (found.subject, found.severity) == ("this machine", Severity.WARNING)
    assert "ahead of the server's" in found.message


def test_a_missing_leader_is_found_if_the_fleet_had_one(examine, client):
    assert Code.LEADER_MISSING not in examine()
    client.set("mq:watched", "root@host", ex=86_400 - 7300)
    missing = examine()[Code.LEADER_MISSING]
    assert (missing.severity, missing.message, missing.remedy) == (
        Severity.WARNING,
        "no watch leads, the last one led 2 h ago: the fleet is neither balanced nor failed over automatically",
        "restart it: morag-queue watch",
    )
    Leases(client, Keys()).take("me", "root@host", "watch", 15)
    assert Code.LEADER_MISSING not in examine()


def test_agentless_workers_are_checked_by_their_queues_and_settings(make_fleet, examine, register, valkey):
    fleet = make_fleet(agent=False)
    options = {"queue": "cpu_standard", "priority": 4, "ignore_result": True}
    for name, queues in (("agentless", "cpu_standard"), ("other-app", "celery")):
        fleet.start_worker(name, options=("-Q", queues), wait=False)
    until(
        lambda: all(
            f"{name}@" in fleet.log(name) and "ready." in fleet.log(name) for name in ("agentless", "other-app")
        ),
        30,
        "the workers are not ready",
    )
    fleet.producer.send_task("unknown.task", countdown=7200, **options)
    found = examine(fleet.url)
    assert found[Code.WORKER_WITHOUT_AGENT].subject == "agentless"
    assert found[Code.WORKER_WITHOUT_AGENT].message == (
        "runs without the agent: a kill may lose a message, and no record says which tasks it holds"
    )
    assert found[Code.OTHER_QUEUES].message.startswith("reads only celery, no queue of this fleet")
    assert {Code.ACKS_EARLY, Code.DROPS_LOST_TASKS, Code.TAKES_AHEAD} <= found.keys()
    assert "shorter than an ETA of" in found[Code.VISIBILITY_TIMEOUT].message
    assert found[Code.VISIBILITY_TIMEOUT].severity is Severity.ERROR
    assert found[Code.MESSAGES_STRANDED].subject == "cpu_standard", "level 4 is not one of kombu's default steps"
    assert found[Code.MESSAGES_STRANDED].remedy == "move them to levels that all workers poll: morag-queue rebalance"
    forced = examine(fleet.url, priority_steps=tuple(range(10)))
    assert forced[Code.MESSAGES_STRANDED].remedy.startswith(
        'set broker.priority_steps of morag-queue.toml to "auto" or [0, 3, 6, 9], then move them'
    )
    run_once(RedisBroker(Settings(redis_url=fleet.url)), Settings(redis_url=fleet.url), who="ann")
    assert Code.MESSAGES_STRANDED not in examine(fleet.url)


def test_the_default_visibility_timeout_is_too_short_for_a_worker_that_counts_as_online_for_longer():
    policy = Policy(offline_after_seconds=7200)
    for settings in ({}, {"visibility_timeout": None}):
        found = diagnose(FleetFacts(fleet(worker("worker-1", settings=settings)), policy))
        finding = next(finding for finding in found if finding.code is Code.VISIBILITY_TIMEOUT)
        assert finding.message == (
            "has a visibility timeout of 60 min: after a connection loss of that length its tasks run elsewhere too, "
            "although it counts as offline only after 2 h"
        )
        assert finding.remedy == "app.conf.broker_transport_options['visibility_timeout'] = 14400"


def test_a_worker_without_a_gpu_in_a_queue_of_gpu_work_is_a_warning_until_such_work_waits(examine, register, valkey):
    sim_fleet = SimulatedFleet(valkey)
    register("gpu-1", capability=Capability.GPU, queues=("gpu_priority", "gpu_fallback"))
    sim_fleet.submit("film", requires="gpu")
    register("cpu-1", queues=("gpu_priority", "cpu_standard"))
    found = examine()[Code.GPU_QUEUE_READ_BY_CPU]
    assert (found.severity, found.subject) == (Severity.ERROR, "gpu_priority")
    assert found.message == (
        "gpu_priority is read by cpu-1, without a GPU: it may take the tasks waiting there that require one, "
        "so such tasks go to another queue, or are refused"
    )
    assert found.remedy == "start the worker without gpu_priority in -Q, or with MORAG_WORKER_TYPE=gpu if it has a GPU"
    assert sim_fleet.claim("gpu-1") == "film"
    found = examine()[Code.GPU_QUEUE_READ_BY_CPU]
    assert (found.severity, found.message.split(": ")[1]) == (
        Severity.WARNING, "it would take tasks that require one, so such tasks go to another queue, or are refused",
    )  # fmt: skip
