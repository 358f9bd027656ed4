"""`acl` prints the rights of a role; each role can do its work with exactly these, and no more."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import pools

from morag_queue.broker.scripts import load_missing
from tests.support.simulated_fleet import SimulatedFleet

Login = Callable[..., dict[str, str]]


@pytest.fixture
def login(mq: Any, valkey: str, client: redis.Redis) -> Iterator[Login]:
    """Create the login of a role by the printed command; return the environment of its commands."""
    created = []
    load_missing(client)

    def create(role: str, *options: str) -> dict[str, str]:
        line = mq("acl", role, "--user", f"a-{role}", *options, env={"REDIS_URL": valkey}).out.strip()
        client.execute_command(*line.replace(" on ", " on >secret ", 1).split(" "))
        created.append(f"a-{role}")
        return {"REDIS_URL": valkey.replace("redis://", f"redis://a-{role}:secret@"), "USER": "ann"}

    yield create
    for user in created:
        client.acl_deluser(user)
    pools.reset()  # kombu keeps connections, which the server has closed with their login


@pytest.fixture
def busy(fleet: Any, sim_fleet: SimulatedFleet, join: Any, fail: Any) -> SimulatedFleet:
    """Two workers, tasks in every state, and a change in the journal."""
    join("cpu-1", alive=True)
    join("cpu-2", alive=True, slots=2)
    fail("failed")
    fail("failed-2")
    sim_fleet.submit("completed", "running")
    for _ in range(2):
        sim_fleet.claim("cpu-1")
    sim_fleet.end("completed")
    fleet("pause", "cpu_batch")
    sim_fleet.submit("waiting", "waiting-2", "waiting-3", "waiting-4")
    return sim_fleet


def contents(client: redis.Redis) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.scan_iter()}


READING = (
    "stats", "stats --window 5m", "stats --live --count 1", "tasks", "tasks --state completed", "tasks --state failed",
    "task show waiting", "task show comple", "task show running", "task show failed", "task show completed",
    "task why waiting", "task why running", "task why failed", "journal ls", "dead ls", "dead show failed",
    "classify https://example.org/a.html", "submit https://example.org/a.html --dry-run", "rebalance --dry-run",
    "failover --dead --dry-run", "watch --once --dry-run", "task cancel waiting --dry-run",
)  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--no-eval",)])
def test_a_viewer_runs_what_only_reads(
    options: tuple[str, ...], mq: Any, busy: SimulatedFleet, client: redis.Redis, login: Login
) -> None:
    env = login("viewer", *options)
    before = contents(client)
    for line in READING:
        mq(*line.split(), env=env)
    change = mq("journal", "ls", "--json", env=env).json["entries"][0]["entry_id"]
    mq("journal", "show", change, env=env)
    assert contents(client) == before


CHANGING = (
    "submit https://example.org/a.html", "task cancel waiting", "task prio waiting HIGH", "task retry failed",
    "task move waiting --to-worker cpu-2", "pause cpu_standard", "cordon cpu-1", "drain cpu-1 --deadline 1s --force",
    "dead requeue failed", "dead drop --all --yes", "failover cpu-1 --force", "watch --once",
)  # fmt: skip


@pytest.mark.parametrize("line", CHANGING)
def test_a_viewer_is_told_which_right_it_lacks_and_who_has_it(
    line: str, mq: Any, busy: SimulatedFleet, client: redis.Redis, login: Login
) -> None:
    env, before = login("viewer"), contents(client)
    result = mq(*line.split(), env=env, status=1)
    assert re.search("no permissions to (run the '[a-z|]+' command|access a key)", result.err, re.IGNORECASE)
    assert "the login of the URL lacks this right: `morag-queue acl operator` prints those" in result.err
    assert "secret" not in result.err
    assert contents(client) == before


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "mq:lease", "x"),
        ("DEL", "unacked"),
        ("LPUSH", "cpu_standard", "x"),
        ("GET", "private"),
        ("CONFIG", "GET", "requirepass"),
        ("FLUSHALL",),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "mq:lease"),
        ("EVAL", "return redis.call('LPUSH', 'cpu_standard', 'x')", 0),
        ("PUBLISH", "/0.celery.pidbox", "x"),
    ],
)
def test_a_viewer_can_write_no_key(command: tuple[Any, ...], client: redis.Redis, login: Login) -> None:
    url = login("viewer")["REDIS_URL"]
    with redis.Redis.from_url(url) as viewer, pytest.raises(redis.ResponseError) as refusal:
        viewer.execute_command(*command)
    assert "permissions" in str(refusal.value)
    assert client.dbsize() == 0


OPERATING = (
    "submit https://example.org/a.html --id s1", "submit https://example.org/a.html --id s2 --worker cpu-2",
    "task move waiting --to-worker cpu-2", "task prio waiting-2 HIGH", "task prio --queue cpu_standard LOW --yes",
    "task cancel s1", "task cancel running --terminate", "task retry s1", "pause cpu_standard", "resume cpu_standard",
    "cordon cpu-2", "uncordon cpu-2", "dead requeue failed", "dead drop --all --yes", "rebalance",
    "task move --queue cpu_standard --to-queue cpu_batch --yes", "failover cpu-1 --force", "failover --dead",
    "drain cpu-2 --deadline 1s --force", "uncordon cpu-2", "task prio --queue cpu_batch HIGH --yes",
)  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--no-eval",)])
def test_an_operator_runs_every_command(options: tuple[str, ...], mq: Any, busy: SimulatedFleet, login: Login) -> None:
    env = login("operator", *options)
    for line in (*READING[:-1], *OPERATING):
        result = mq(*line.split(), env=env)
        assert "permissions" not in result.err
    change = mq("journal", "ls", "--json", env=env).json["entries"][0]["entry_id"]
    mq("journal", "undo", change, "--yes", env=env)


def test_a_producer_submits_and_does_nothing_else(
    mq: Any, busy: SimulatedFleet, client: redis.Redis, login: Login
) -> None:
    env = login("producer")
    mq("submit", "https://example.org/b.html", "https://example.org/c.html", env=env)
    before = contents(client)
    for line in ("task cancel waiting", "pause cpu_standard", "cordon cpu-1", "dead drop --all --yes"):
        assert "lacks this right" in mq(*line.split(), env=env, status=1).err
    assert contents(client) == before


@pytest.mark.parametrize(
    "command", ["SET mq:lease x", "SADD mq:paused cpu_batch", "CONFIG GET *", "FLUSHALL", "KEYS *"]
)
def test_a_worker_is_refused_what_it_does_not_need(command: str, client: redis.Redis, login: Login) -> None:
    with redis.Redis.from_url(login("worker")["REDIS_URL"]) as worker, pytest.raises(redis.ResponseError):
        worker.execute_command(*command.split())
    assert client.dbsize() == 0


@pytest.mark.parametrize("role", ["viewer", "operator", "watch"])
def test_doctor_misses_no_right_of_the_role(role: str, mq: Any, busy: SimulatedFleet, login: Login) -> None:
    found = mq("doctor", "--json", env=login(role)).json["findings"]
    missing = [(one["severity"], one["message"]) for one in found if one["code"] == "RIGHTS_MISSING"]
    only_reads = ("info", "the login a-viewer may only read: with it, no command can change the fleet")
    assert missing == [only_reads] * (role == "viewer")


def test_watch_makes_turns(mq: Any, busy: SimulatedFleet, login: Login) -> None:
    env = login("watch")
    for _ in range(2):
        assert "permissions" not in mq("watch", "--once", env=env).out


NOT_LOADED = (
    "has no permissions to run the 'script|load' command; the server has lost our scripts, or never had them: start "
    "`morag-queue watch`, which loads them, or give the login the rights of `morag-queue acl ROLE` without --no-eval"
)


@pytest.mark.parametrize("line", ["stats", "task why waiting", "task cancel waiting"])
def test_a_missing_script_is_loaded_by_watch_alone(
    line: str, mq: Any, busy: SimulatedFleet, client: redis.Redis, login: Login
) -> None:
    env = login("operator", "--no-eval")
    client.script_flush()
    assert NOT_LOADED in mq(*line.split(), env=env, status=1).err
    assert '"event": "scripts_loaded"' in mq("watch", "--once", env=login("watch")).out
    mq(*line.split(), env=env)
    client.script_flush()
    mq(*line.split(), env=login("operator"))


@pytest.mark.parametrize("role", ["viewer", "operator", "producer", "worker"])
def test_only_watch_may_send_the_text_of_a_script(role: str, mq: Any) -> None:
    texts = {"+eval", "+script|load"}
    assert texts < {*mq("acl", role).out.replace("(", "").split()}
    assert texts.isdisjoint(mq("acl", role, "--no-eval").out.replace("(", "").split())
    assert texts < {*mq("acl", "watch", "--no-eval").out.split()}


def test_the_rules_name_the_keys_of_the_fleet(mq: Any, tmp_path: Any) -> None:
    (tmp_path / "morag-queue.toml").write_text(
        'namespace = "blue"\nredis_url = "redis://db/3"\n[broker]\nglobal_keyprefix = "p*:"\n'
    )
    answer = mq("acl", "producer", "--user", "app", "--json").json
    assert {"p\\*:blue:task:*", "p\\*:cpu_standard", "p\\*:cpu_standard.*"} <= set(answer["writes"])
    assert "p\\*:blue:workers" in answer["reads"]
    assert not any("mq:" in key for key in (*answer["reads"], *answer["writes"]))
    assert answer["command"] == f"ACL SETUSER app on {' '.join(answer['rules'])}"
    assert "&p\\*:/3.celery.pidbox" in mq("acl", "worker").out.split()


def test_the_login_gets_a_name_and_a_hint_about_its_password(mq: Any) -> None:
    result = mq("acl", "viewer", "--user", "eve")
    assert result.out.startswith("ACL SETUSER eve on resetkeys ")
    assert result.err == (
        "the login has no password yet: add `>password` after `on`, and send the line with valkey-cli\n"
    )
    assert mq("acl", "viewer", "--json").json["command"] is None
    refusal = mq("acl", "viewer", "--user", "eve nopass", status=2).err
    assert "'eve nopass' cannot be the name of a login: it has a blank; choose another --user" in refusal
    assert (
        "'admin' is not one of 'viewer', 'operator', 'producer', 'worker', 'watch'" in mq("acl", "admin", status=2).err
    )
