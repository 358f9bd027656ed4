"""Findings about the server, most of them caused on a real one."""

import shutil

import pytest

from morag_queue.core.doctor import Code, FleetFacts, Severity, diagnose
from morag_queue.core.doctor.facts import Server
from morag_queue.core.snapshot import Snapshot
from morag_queue.local.waiting import until


@pytest.fixture
def configure(client):
    """Change the server's configuration for one test."""
    before = {}

    def change(**options):
        for name, value in options.items():
            key = name.replace("_", "-")
            before.setdefault(key, client.config_get(key)[key])
            client.config_set(key, value)

    yield change
    for key, value in before.items():
        client.config_set(key, value)


def findings_for(**server):
    facts = FleetFacts(Snapshot(taken_at=1.0), server=Server(**{"version": "7.2", **server}))
    absent = (Code.QUEUE_WITHOUT_WORKER, Code.LEADER_MISSING)  # there are no workers and no watch
    return {finding.code: finding for finding in diagnose(facts) if finding.code not in absent}


def test_a_server_without_an_append_only_file_is_a_warning(examine, configure):
    found = examine()
    assert found[Code.NO_APPEND_ONLY_FILE].severity is Severity.WARNING
    assert (
        "when it stops, everything is lost, since it takes no snapshots either"
        in found[Code.NO_APPEND_ONLY_FILE].message
    )
    configure(save="3600 1")
    assert "all changes since its last snapshot are lost" in examine()[Code.NO_APPEND_ONLY_FILE].message
    configure(appendonly="yes")
    assert examine() == {}


def test_an_eviction_policy_for_all_keys_is_an_error_once_memory_is_limited(examine, configure):
    configure(maxmemory_policy="allkeys-lru")
    found = examine()[Code.KEYS_CAN_BE_EVICTED]
    assert (found.severity, found.remedy.split(",")[0]) == (
        Severity.WARNING,
        "CONFIG SET maxmemory-policy noeviction",
    )
    configure(maxmemory="1gb")
    found = examine()[Code.KEYS_CAN_BE_EVICTED]
    assert found.severity is Severity.ERROR
    assert "the server deletes queued tasks" in found.message
    configure(maxmemory_policy="volatile-ttl")
    assert examine()[Code.KEYS_CAN_BE_EVICTED].severity is Severity.WARNING


def test_nearly_exhausted_memory_is_a_warning_and_then_an_error(examine, configure, client):
    assert Code.MEMORY_LOW not in examine()
    client.setrange("ballast", 40_000_000, "x")  # a SET would leave a buffer as large, to be freed some time later
    used = client.info("memory")["used_memory"]
    configure(maxmemory=used * 10 // 9)
    assert examine()[Code.MEMORY_LOW].severity is Severity.WARNING
    configure(maxmemory=used * 100 // 98)
    found = examine()[Code.MEMORY_LOW]
    assert found.severity is Severity.ERROR
    assert "no task can be queued or finished" in found.message


def test_a_server_that_cannot_write_its_snapshot_is_an_error(make_fleet, examine):
    fleet = make_fleet(config={"save": "3600 1"})
    shutil.rmtree(fleet.dir / "valkey")
    fleet.redis.bgsave()
    until(lambda: not fleet.redis.info("persistence")["rdb_bgsave_in_progress"], 10, "the snapshot does not end")
    assert "last snapshot could not be written" in examine(fleet.url)[Code.SAVING_FAILS].message


def test_a_replica_is_an_error_with_the_primary_as_the_remedy(examine, client, valkey):
    client.replicaof("127.0.0.1", 1)
    try:
        found = examine()[Code.READ_ONLY_REPLICA]
    finally:
        client.replicaof("NO", "ONE")
    assert found.message == "the server is a replica: it refuses writes, so nothing can be submitted or claimed"
    assert "use the URL of the primary" in found.remedy


def test_cluster_mode_is_an_error(make_fleet, examine):
    fleet = make_fleet(config={"cluster-enabled": "yes"})
    found = examine(fleet.url)
    assert found[Code.CLUSTER_MODE].severity is Severity.ERROR


def test_missing_rights_are_named_with_the_command_that_grants_them(examine, client, valkey):
    client.acl_setuser(
        "clerk", enabled=True, passwords=["+hunter2"], keys=["mq:*", "?pu_*"], channels=["*"],
        commands=["+@all", "-lrange", "-client|list"],
    )  # fmt: skip
    try:
        found = [
            finding
            for finding in diagnose(_facts(valkey.replace("redis://", "redis://clerk:hunter2@")))
            if finding.code is Code.RIGHTS_MISSING
        ]
    finally:
        client.acl_deluser("clerk")
    assert [finding.message for finding in found] == [
        "the login clerk may not use CLIENT LIST, LRANGE",
        "the login clerk may not touch the keys unacked*, unacked_index*",
    ]
    assert found[0].remedy == "ACL SETUSER clerk +client|list +lrange"
    assert not any("hunter2" in finding.message + finding.remedy for finding in found)


def test_a_part_that_may_not_be_read_is_reported_and_the_rest_is_checked(examine, client, valkey):
    client.acl_setuser("clerk", enabled=True, passwords=["+p"], keys=["*"], channels=["*"], commands=["+@all", "-info"])
    try:
        found = examine(valkey.replace("redis://", "redis://clerk:p@"))
    finally:
        client.acl_deluser("clerk")
    assert "INFO could not be read" in found[Code.NOT_CHECKED].message
    assert Code.RIGHTS_MISSING in found


def test_the_check_of_rights_changes_no_key(client, examine):
    examine()
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("server", "code"),
    [
        ({"kind": "redis", "version": "6.0.16"}, Code.SERVER_TOO_OLD),
        ({"kind": "valkey", "version": "7.0.1"}, Code.SERVER_TOO_OLD),
        ({"kind": "dragonfly", "version": "1.9"}, Code.SERVER_UNTESTED),
        ({"kind": "redis", "version": "6.2.0"}, None),
        ({"kind": "redis", "version": "10.0.1"}, None),
        ({"kind": "valkey", "version": "7.2.5"}, None),
    ],
)
def test_an_old_or_unknown_server_is_found_by_kind_and_version(server, code):
    assert list(findings_for(**server)) == ([] if code is None else [code])


def test_the_version_of_a_real_server_is_read(valkey, client):
    server = _facts(valkey).server
    assert server is not None
    assert (server.kind, server.mode, server.role) == ("valkey", "standalone", "master")
    assert server.version == client.info("server")["valkey_version"]


def _facts(url):
    from morag_queue.broker.inspection import inspect
    from morag_queue.broker.redis import RedisBroker
    from morag_queue.settings import Settings

    return inspect(RedisBroker(Settings(redis_url=url)), "0")
