"""The levels of a fleet, by its setting and by the connections on a real server."""

import json

import pytest
import redis

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.levels import DEFAULT_STEPS, LEVELS
from morag_queue.settings import BrokerSettings, Settings
from tests.support import records

MAILBOXES = "_kombu.binding.celery.pidbox"


@pytest.fixture
def steps(valkey):
    """Return the levels that a new command uses; keywords are settings of the broker."""

    def of(**broker):
        return RedisBroker(Settings(redis_url=valkey, broker=BrokerSettings(**broker))).observe()[0].steps

    return of


@pytest.fixture
def listener(client):
    """A connection that listens to remote control, as every Celery worker has one."""
    with client.pubsub() as pubsub:
        pubsub.psubscribe("/0.celery.pidbox")
        pubsub.get_message(timeout=5)
        yield pubsub


def mailbox(client: redis.Redis, node: str) -> None:
    client.sadd(MAILBOXES, f"\x06\x16\x06\x16{node}.celery.pidbox")


def test_a_fleet_without_plain_workers_uses_all_levels(steps, client, listener):
    records.register(client, node="worker-1@host")
    mailbox(client, "worker-1@host")
    assert steps() == LEVELS


def test_a_connected_plain_worker_limits_the_fleet_to_the_default_steps(steps, client, listener):
    mailbox(client, "plain@host")
    assert steps() == DEFAULT_STEPS
    assert steps(priority_steps=LEVELS) == LEVELS, "the setting is stronger"
    assert steps(priority_steps=(0, 5)) == (0, 5)


@pytest.mark.parametrize("beat", [{"stopped": True}, {"at": 1.0}], ids=["stopped", "killed long ago"])
def test_a_plain_worker_under_the_name_of_a_former_agent_counts(beat, steps, client, listener):
    records.register(client, node="worker-1@host")
    client.hset("mq:beats", "worker-1", json.dumps({"at": client.time()[0], **beat}))
    mailbox(client, "worker-1@host")
    assert steps() == DEFAULT_STEPS


def test_the_mailbox_of_a_worker_that_was_killed_limits_nothing(steps, client):
    mailbox(client, "killed@host")
    assert steps() == LEVELS


def test_a_login_that_may_not_list_clients_keeps_to_the_default_steps(client, valkey):
    mailbox(client, "plain@host")
    rules = {"enabled": True, "passwords": ["+hunter2"], "keys": ["*"], "channels": ["*"]}
    client.acl_setuser("clerk", **rules, commands=["+@all", "-client|list"])
    client.acl_setuser("blind", **{**rules, "keys": ["mq:*", "?pu_*"]}, commands=["+@all"])
    try:
        url = valkey.replace("redis://", "redis://{}:hunter2@")
        assert RedisBroker(Settings(redis_url=url.format("clerk"))).observe()[0].steps == DEFAULT_STEPS
        assert RedisBroker(Settings(redis_url=url.format("blind"))).observe()[0].steps == LEVELS, "it sees no mailbox"
    finally:
        client.acl_deluser("clerk", "blind")
