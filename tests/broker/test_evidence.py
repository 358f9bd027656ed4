"""Connections, processes and fences of workers."""

import socket
import subprocess
import sys

import pytest
import redis

from morag_queue.broker.workers import ClientConnections, Registry
from morag_queue.core.model import Capability, WorkerInfo
from tests.broker.conftest import ScriptRunner


@pytest.fixture
def evidence(runner: ScriptRunner) -> ClientConnections:
    return ClientConnections(runner.client, runner.keys)


def info(run: int) -> WorkerInfo:
    return WorkerInfo(
        worker="w.1*", incarnation=f"run-{run}", host="h", pid=1, capability=Capability.CPU, queues=(), slots=1
    )


def test_connections_are_counted_and_killed_by_name(runner: ScriptRunner, evidence: ClientConnections):
    named = [redis.Redis.from_url(runner.client_url, client_name="mq.w.1%2A.h.1") for _ in range(2)]
    other = redis.Redis.from_url(runner.client_url, client_name="mq.w.11")
    for one in (*named, other):
        one.ping()
    assert evidence.connected().names["mq.w.1%2A.h.1"] == 2
    assert evidence.kill("mq.w.1%2A.h.1") == 2
    assert evidence.connected().names["mq.w.1%2A.h.1"] == 0
    assert evidence.connected().names["mq.w.11"] == 1
    assert evidence.kill("mq.w.1%2A.h.1") == 0
    for one in (*named, other):
        one.close()


def test_a_subscriber_without_our_name_counts_as_agentless(runner: ScriptRunner, evidence: ClientConnections):
    assert evidence.connected().agentless_workers == 0
    with redis.Redis.from_url(runner.client_url) as listener, listener.pubsub() as pubsub:
        pubsub.subscribe("celery.pidbox")
        pubsub.get_message(timeout=1)
        assert evidence.connected().agentless_workers == 1
    with redis.Redis.from_url(runner.client_url, client_name="mq.w") as ours, ours.pubsub() as pubsub:
        pubsub.subscribe("celery.pidbox")
        pubsub.get_message(timeout=1)
        assert evidence.connected().agentless_workers == 0


def test_a_fenced_name_is_refused_to_the_old_incarnation_only(runner: ScriptRunner, evidence: ClientConnections):
    registry = Registry(runner.client, runner.keys, 60)
    registry.register(info(1))
    assert evidence.fence("w.1*", "run-1") == ""
    assert registry.beat("w.1*", "run-1", {}, []) == "fenced"
    runner.send()
    with pytest.raises(redis.ResponseError, match="FENCED"):
        runner.claim(worker="w.1*", incarnation="run-1")
    assert registry.register(info(2), replaces="fenced") == ""
    assert registry.beat("w.1*", "run-2", {}, []) == "ok"


def test_a_worker_that_registered_again_is_not_fenced(runner: ScriptRunner, evidence: ClientConnections):
    registry = Registry(runner.client, runner.keys, 60)
    registry.register(info(1))
    registry.register(info(2), replaces="run-1")
    assert evidence.fence("w.1*", "run-1") == "run-2"
    assert registry.beat("w.1*", "run-2", {}, []) == "ok"


def test_a_superseded_leader_fences_no_worker(runner: ScriptRunner, evidence: ClientConnections):
    Registry(runner.client, runner.keys, 60).register(info(1))
    with pytest.raises(redis.ResponseError, match="STALE"):
        evidence.fence("w.1*", "run-1", term="1")


def test_only_a_process_of_this_machine_is_reported_gone(evidence: ClientConnections):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert evidence.process_is_gone(socket.gethostname(), process.pid)
    assert not evidence.process_is_gone("another-host", process.pid)
    assert not evidence.process_is_gone(socket.gethostname(), 1)
    assert not evidence.process_is_gone(socket.gethostname(), 0)
