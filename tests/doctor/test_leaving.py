"""What `doctor --leaving` says, each on a real server; `tests.e2e.test_mixed_fleet` carries the remedies out."""

import json

import pytest

from morag_queue.broker.keys import Keys
from morag_queue.broker.leader import Leases
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Code, Severity
from morag_queue.core.model import Pause
from morag_queue.operations.cordon import cordon
from morag_queue.operations.doctor import leaving
from morag_queue.settings import Settings
from tests.support.broker_drivers import RedisDriver


@pytest.fixture
def left(valkey):
    """Return the findings by code, in their order, without the keys that every fleet leaves."""

    def find(*, keys=False):
        found = leaving(RedisBroker(Settings(redis_url=valkey))).findings
        return {item.code: item for item in reversed(found) if keys or item.code is not Code.KEYS_REMAIN}

    return find


@pytest.fixture
def connected(client):
    """Give the connection of the test the name of a worker's agent."""
    client.client_setname("mq.worker-1.host.1.run")
    yield
    client.client_setname("")


def test_an_empty_server_has_nothing_to_leave(left):
    assert left(keys=True) == {}


def test_a_leading_watch_is_stopped_first(left, client):
    Leases(client, Keys()).take("me", "root@host", "watch", 15)
    found = left()[Code.WATCH_RUNS]
    assert (found.subject, found.message) == ("watch", "watch of root@host leads the fleet and moves its work")
    assert found.remedy == "stop it, and its cron jobs: systemctl stop morag-queue"


def test_a_worker_with_the_agent_is_drained_and_started_without_it(left, register, queue, connected):
    register(client_name="mq.worker-1.host.1.run")
    queue("cpu_standard.worker-1")
    assert set(left()) == {Code.AGENT_RUNS, Code.QUEUES_IN_USE}, "its drain moves what waits in its lanes"
    found = left()[Code.AGENT_RUNS]
    assert found.message == "worker-1 runs with the agent: it alone reads its own lanes, and all ten levels"
    assert found.remedy == (
        "morag-queue drain worker-1 --shutdown --allow-last --allow-pinned, then start it without install(app): "
        "celery -A APP worker -n worker-1@%h -Q cpu_standard,cpu_batch"
    )


def test_a_killed_worker_runs_no_agent_and_its_work_is_failed_over(left, register, queue, claim):
    register()
    claim(queue(), "worker-1")
    queue("cpu_batch.worker-1", level=9)
    queue("cpu_batch.worker-1", level=3)
    found = left()
    assert found[Code.WORKER_LANE_IN_USE].severity is Severity.ERROR
    assert found[Code.WORKER_LANE_IN_USE].message == (
        "2 tasks wait in the lanes of worker-1, which no plain worker reads"
    )
    assert found[Code.WORKER_LANE_IN_USE].remedy == "move them to the shared lanes: morag-queue failover worker-1"
    assert found[Code.TASKS_HELD].message == (
        "worker-1 is gone and holds 1 task: plain workers find them only after the visibility timeout, those of its "
        "own lanes never"
    )
    assert found[Code.TASKS_HELD].remedy == "queue them again: morag-queue failover worker-1"


def test_the_lane_of_a_worker_that_never_registered_needs_force(left, queue):
    queue("cpu_batch.ghost")
    assert left()[Code.WORKER_LANE_IN_USE].remedy == (
        "move them to the shared lanes: morag-queue failover ghost --force --yes"
    )


def test_a_message_without_an_owner_is_found(left, queue, claim):
    claim(queue(), "")
    found = left()[Code.TASKS_HELD]
    assert (found.subject, found.message) == ("unacked", "1 message without a known owner is in unacked")
    assert found.remedy == "queue them again: morag-queue failover --dead"


def test_work_in_the_shared_lanes_needs_a_reader_and_default_levels(left, queue):
    for level in (0, 1, 3, 4):
        queue("cpu_standard", level=level)
    queue("gpu_priority", level=8)
    found = left()
    assert list(found)[::-1] == [Code.LEVELS_IN_USE, Code.QUEUE_WITHOUT_WORKER]
    assert found[Code.LEVELS_IN_USE].subject == "cpu_standard, gpu_priority"
    assert found[Code.LEVELS_IN_USE].message == (
        "3 tasks are at levels other than 0, 3, 6, 9, which plain workers do not poll"
    )
    assert found[Code.LEVELS_IN_USE].remedy == "MORAG_QUEUE_BROKER__PRIORITY_STEPS=0,3,6,9 morag-queue rebalance"
    assert found[Code.QUEUE_WITHOUT_WORKER].message == "5 tasks wait where no worker without the agent reads"
    assert found[Code.QUEUE_WITHOUT_WORKER].remedy == "start one: celery -A APP worker -Q gpu_priority,cpu_standard"


def test_dead_letters_and_pauses_are_named(left, client, valkey):
    client.hset("mq:dead", "task-1", json.dumps({"state": "failed", "lane": "cpu_batch", "level": 0, "at": 1}))
    RedisBroker(Settings(redis_url=valkey)).pauses.put("cpu_batch", Pause())
    found = left()
    assert found[Code.DEAD_LETTERS_KEPT].message == (
        "1 failed or quarantined task is kept in dead: no other tool finds them"
    )
    assert found[Code.DEAD_LETTERS_KEPT].remedy == (
        "morag-queue dead requeue --all --yes runs them again; or drop them: morag-queue dead drop --all --yes"
    )
    assert found[Code.PAUSE_IGNORED].message == (
        "cpu_batch is paused, which plain workers ignore: they run what waits there"
    )
    assert found[Code.PAUSE_IGNORED].remedy == (
        "leave cpu_batch out of their -Q if it must wait, and lift the pause: morag-queue resume cpu_batch"
    )


def test_the_cordon_of_a_worker_that_is_gone_holds_nothing_up(left, register, client, valkey):
    register()
    cordon(RedisBroker(Settings(redis_url=valkey)), "worker-1", who="ann")
    assert left() == {}


def test_queues_to_which_producers_have_sent_lately_are_named(left, valkey):
    driver = RedisDriver(valkey)
    driver.submit("a", lane="cpu_batch")
    driver.sim_fleet.client.delete(driver.sim_fleet.keys.list("cpu_batch", 4))
    found = left()[Code.QUEUES_IN_USE]
    assert (found.subject, found.severity) == ("cpu_batch", Severity.INFO)
    assert found.message == "tasks arrived there within the last hour, and no worker without the agent reads it"
    assert found.remedy == (
        "remove morag_queue.route_task from task_routes and stop `submit`; or start a plain worker with -Q cpu_batch"
    )


def test_a_listener_that_does_not_answer_is_named(left, client):
    with client.pubsub() as pubsub:
        pubsub.psubscribe("/0.celery.pidbox")
        pubsub.get_message(timeout=5)
        found = left()[Code.NOT_CHECKED]
    assert found.message == (
        "1 listener on the control channel did not answer: busy workers, whose queues are not known, or monitors such "
        "as Flower"
    )
    assert found.remedy == "try again later"


def test_the_keys_that_remain_are_deleted_last(left, register, client):
    register()
    client.set("unacked_by_others", 1)
    found = left(keys=True)
    assert list(found) == [Code.KEYS_REMAIN]
    assert found[Code.KEYS_REMAIN].subject == "mq:*"
    assert found[Code.KEYS_REMAIN].message == (
        "3 keys with the journal, counters and records of tasks, which plain workers do not need"
    )
    assert found[Code.KEYS_REMAIN].remedy.startswith("delete them last: python -c ")
