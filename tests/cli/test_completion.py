"""Completion of verbs, options and names on the broker: what is offered, and what each shell makes of it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from morag_queue.cli.completion import answer, bash_word, split_line
from morag_queue.cli.completion_scripts import SCRIPTS
from morag_queue.cli.context import Environment
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server, _binary, _free_port
from morag_queue.local.waiting import until
from morag_queue.settings import BrokerSettings
from tests.support import completion_table
from tests.support.simulated_fleet import SimulatedFleet
from tests.support.terminal import Terminal

ROOT = Path(__file__).parents[2]
QUEUES = ["gpu_priority", "gpu_fallback", "cpu_standard", "cpu_batch"]
BREAKS = " \t\n\"'><=;|&(:"
NOTHING = ["words"]


@pytest.fixture
def ask(valkey, tmp_path):
    """Return what is offered for the words, with descriptions if `described`."""

    def offers(*words, env=None, described=False):
        variables = {"HOME": str(tmp_path), "REDIS_URL": valkey} | (env or {})
        rows = answer("zsh", words, Environment(sys.stdin, sys.stdout, sys.stderr, variables, tmp_path))
        if rows[0] == "files":
            return "files"
        return [row if described else row.partition("\t")[0] for row in rows[1:]]

    return offers


def test_the_table_of_words_is_up_to_date():
    expected = completion_table.text()
    assert completion_table.PATH.read_text("utf-8") == expected, "run: python -m tests.support.completion_table"


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["dra"], ["drain"]),
        (["journal", ""], ["ls", "show", "undo"]),
        (["task", "ca"], ["cancel"]),
        (["nonsense", ""], []),
        (["drain", "w", "--allow"], ["--allow-last", "--allow-pinned"]),
        (["drain", "--allow-last", "--allow"], ["--allow-pinned"]),
        (["drain", "--", "--allow"], []),
        (["doctor", "--str"], ["--strict"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["submit", "--type", "v"], ["video"]),
        (["submit", "--type=v"], ["--type=video"]),
        (["tasks", "--priority", "hi"], ["HIGH"]),
        (["dead", "ls", "--state", ""], ["failed", "quarantined"]),
        (["drain", "--reason", ""], []),
        (["drain", "--nonsense", ""], []),
        (["submit", ""], "files"),
        (["tasks", "--config", ""], "files"),
        (["tasks", "--config=c"], "files"),
    ],
)
def test_verbs_options_and_fixed_values(ask, words, offers):
    assert ask(*words) == offers


def test_options_are_offered_where_no_argument_can_follow(ask):
    assert ask("stats", "")[:2] == ["--live", "--interval"]
    assert "--deadline" in ask("drain", "w", "")


def test_workers_have_a_description(ask, sim_fleet, fleet):
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.join("cpu-1")
    fleet("cordon", "cpu-1")
    assert ask("drain", "", described=True) == ["cpu-1\tcpu, cordoned", "gpu-1\tgpu"]
    assert ask("tasks", "--worker", "gpu") == ["gpu-1"]
    assert ask("failover", "cpu-1", "") == ["gpu-1"]
    assert ask("uncordon", "") == ["cpu-1"]


def test_nodes_without_the_agent_are_workers_too(ask, sim_fleet):
    sim_fleet.join("cpu-1", node="cpu-1@host")
    bindings = [f"\x06\x16\x06\x16{node}.celery.pidbox" for node in ("cpu-1@host", "plain@host")]
    sim_fleet.client.sadd("_kombu.binding.celery.pidbox", *bindings)
    assert ask("drain", "", described=True) == ["cpu-1\tcpu", "plain@host\twithout the agent"]


def test_queues_have_their_length(ask, sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b")
    fleet("pause", "cpu_batch")
    assert ask("pause", "", described=True) == [
        "gpu_priority\t0 waiting", "gpu_fallback\t0 waiting", "cpu_standard\t2 waiting", "cpu_batch\t0 waiting, paused",
    ]  # fmt: skip
    assert ask("resume", "") == ["cpu_batch"]
    assert ask("tasks", "--lane", "gpu") == ["gpu_priority", "gpu_fallback"]


def test_tasks_are_offered_by_the_beginning_of_their_ids(ask, sim_fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("one", "oak", "two", worker="cpu-1")
    sim_fleet.send("oar")
    assert sim_fleet.claim("cpu-1") == "one"
    source = "https://example.org/report.html"
    assert ask("task", "show", "o", described=True) == [
        f"one\theld by cpu-1 {source}", "oar\topen", f"oak\tqueued in cpu_standard.cpu-1 {source}",
    ]  # fmt: skip
    assert ask("task", "cancel", "tw") == ["two"]
    assert ask("task", "prio", "one", "")[:5] == ["URGENT", "HIGH", "NORMAL", "LOW", "BATCH"]
    assert "one" not in ask("task", "move", "one", "")


def test_failed_tasks_are_offered_where_they_can_be_used(ask, fail, sim_fleet):
    fail("broken", "ValueError: no")
    sim_fleet.submit("waiting")
    assert ask("dead", "requeue", "", described=True) == ["broken\tfailed: ValueError: no"]
    assert ask("task", "retry", "") == ["broken"]
    assert ask("task", "cancel", "") == ["waiting"]


def test_journal_entries_are_offered_newest_first(ask, sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    fleet("pause", "cpu_batch")
    fleet("cordon", "cpu-1")
    newest, oldest = ask("journal", "undo", "", described=True)
    assert "\tcordon cpu-1 by ann@" in newest
    assert "\tpause cpu_batch by ann@" in oldest
    assert ask("journal", "show", newest.partition("\t")[0]) == [newest.partition("\t")[0]]
    assert ask("journal", "ls", "--verb", "") == ["cordon", "pause"]


def test_names_that_cannot_be_typed_are_left_out(ask, sim_fleet):
    sim_fleet.join("line\nbreak")
    sim_fleet.join("cpu-1")
    assert ask("drain", "") == ["cpu-1"]


def test_a_foreign_type_of_key_offers_nothing(ask, client):
    for key in ("workers", "held", "dead", "journal"):
        client.set(f"mq:{key}", "text")
    assert ask("drain", "") == []
    assert ask("task", "show", "") == []
    assert ask("dead", "show", "") == []
    assert ask("journal", "show", "") == []


def test_the_fleet_is_chosen_as_by_the_command_itself(ask, valkey, tmp_path):
    other = SimulatedFleet(
        f"{valkey.rpartition('/')[0]}/7", namespace="other", broker=BrokerSettings(global_keyprefix="k-")
    )
    other.join("theirs")
    file = tmp_path / "theirs.toml"
    file.write_text(f'redis_url = "{other.url}"\nnamespace = "other"\n[broker]\nglobal_keyprefix = "k-"\n')
    unset = {"REDIS_URL": ""}
    named = {"MORAG_QUEUE_NAMESPACE": "other", "MORAG_QUEUE_BROKER__GLOBAL_KEYPREFIX": "k-"}
    assert ask("drain", "") == []
    assert ask("drain", "--config", "theirs.toml", "", env=unset) == ["theirs"]
    assert ask("drain", f"--config={file}", "", env=unset) == ["theirs"]
    assert ask("drain", f"--redis-url={other.url}", "", env=named) == ["theirs"]
    assert ask("drain", "--redis-url", other.url, "", env=named) == ["theirs"]
    assert ask("drain", "", env=named | {"MORAG_QUEUE_REDIS_URL": other.url}) == ["theirs"]
    profile = file.read_text().replace("[broker]", "[profiles.theirs.broker]")
    (tmp_path / "two.toml").write_text("[profiles.theirs]\n" + profile)
    assert ask("drain", "--config", "two.toml", "--profile", "theirs", "") == ["theirs"]
    assert ask("drain", "--config", "two.toml", "", env={"MORAG_QUEUE_PROFILE": "theirs"}) == ["theirs"]
    assert ask("drain", "--config", "two.toml", "--profile", "none", "") == []
    file.rename(tmp_path / "morag-queue.toml")
    assert ask("drain", "", env=unset) == ["theirs"]
    assert ask("drain", "--config", "missing.toml", "") == []


@pytest.fixture
def read_only() -> Iterator[tuple[Sandbox, int, str]]:
    """A server with a worker, and a user who may only read: its sandbox, port and Unix socket."""
    with Sandbox() as sandbox, tempfile.TemporaryDirectory() as short:
        path = str(Path(short, "s"))
        server = Server(sandbox, config={"unixsocket": path})
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "ann", "on", ">p@ss", "~*", "+@read", "+select")
        fleet = SimulatedFleet(server.url)
        fleet.join("cpu-1")
        fleet.client.close()
        yield sandbox, server.port, path
        server.stop()


def test_a_user_who_may_only_read_gets_offers_through_tcp_a_unix_socket_and_a_sentinel(ask, read_only):
    sandbox, port, path = read_only
    assert ask("drain", "--redis-url", f"redis://ann:p%40ss@127.0.0.1:{port}/0", "") == ["cpu-1"]
    assert ask("drain", "--redis-url", f"unix://ann:p%40ss@{path}?db=0", "") == ["cpu-1"]
    assert ask("drain", "--redis-url", f"redis://ann:wrong@127.0.0.1:{port}/0", "") == []
    sentinel = _free_port()
    conf = sandbox.dir / "sentinel.conf"
    conf.write_text(f"port {sentinel}\nbind 127.0.0.1\nset-proc-title no\nsentinel monitor first 127.0.0.1 {port} 1\n")
    sandbox.spawn("sentinel", [str(_binary()), str(conf), "--sentinel"])
    until(lambda: _accepts(sentinel), 10, "the sentinel does not listen")
    url, env = f"sentinel://ann:p%40ss@127.0.0.1:{sentinel}/0", {"MORAG_QUEUE_BROKER__MASTER_NAME": "first"}
    assert ask("drain", "--redis-url", url, "", env=env) == ["cpu-1"]


def _accepts(port):
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _command(*words, url):
    env = os.environ | {"_MORAG_QUEUE_COMPLETE": "zsh", "REDIS_URL": url}
    argv = [sys.executable, "-m", "morag_queue", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return [row.partition("\t")[0] for row in done.stdout.splitlines()]


def test_a_broker_that_is_away_or_silent_costs_only_its_names():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert _command("drain", "", url=url) == NOTHING
        assert _command("pause", "", url=url) == [*NOTHING, *QUEUES]
    assert _command("drain", "", url=url) == NOTHING
    assert _command("pause", "", url="nonsense") == [*NOTHING, *QUEUES]
    assert _command("drain", "--allow-l", url=url) == [*NOTHING, "--allow-last"]


def test_a_completion_imports_nothing_that_is_slow(valkey):
    code = """
import sys
from morag_queue.cli.completion import answer
from morag_queue.cli.context import Environment
print(answer("zsh", ["drain", ""], Environment.of_process()), sys.modules.keys() & set(sys.argv[1:]))
"""
    slow = ["celery", "kombu", "redis", "typer", "click", "pydantic", "rich", "asyncio"]
    argv, env = [sys.executable, "-c", code, *slow], os.environ | {"REDIS_URL": valkey}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "['words'] set()\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("morag-queue drain ", ["morag-queue", "drain", ""]),
        ("morag-queue dr", ["morag-queue", "dr"]),
        ("morag-queue drain 'a b", ["morag-queue", "drain", "a b"]),
        ('morag-queue drain "a b" c\\ d', ["morag-queue", "drain", "a b", "c d"]),
        ("morag-queue drain a\\", ["morag-queue", "drain", "a"]),
    ],
)
def test_a_line_is_split_as_the_shell_splits_it(line, words):
    assert split_line(line) == words


@pytest.mark.parametrize(
    ("name", "unfinished", "line", "inserted"),
    [
        ("a:b", "a", "x a", "a:b"),
        ("a:b", "a:", "x a:", "b"),
        ("--queue=cpu", "--queue=", "x --queue=", "cpu"),
        ("a b", "a", "x a", "a\\ b"),
        ("a b", "a", "x 'a", "a b"),
        ("$(reboot)", "", "x ", "\\$\\(reboot\\)"),
        ("HIGH", "hi", "x hi", "HIGH"),
    ],
)
def test_bash_replaces_only_the_end_of_a_word_and_needs_quotes(name, unfinished, line, inserted):
    assert bash_word(name, unfinished, line, BREAKS) == inserted


# -- real shells


@pytest.fixture
def shell_env(valkey, sim_fleet, tmp_path):
    """An environment in which `morag-queue` completes, and otherwise prints its arguments as <…>."""
    for worker in ("cpu:1", "has space", "gpu-1", "gpu-2"):
        sim_fleet.join(worker)
    (tmp_path / "report.txt").touch()
    command = tmp_path / "bin" / "morag-queue"
    command.parent.mkdir()
    complete = f'[ -n "$_MORAG_QUEUE_COMPLETE" ] && exec {sys.executable} -m morag_queue "$@"'
    command.write_text(f"#!/bin/sh\n{complete}\nprintf '<%s>' \"$@\"\necho END\n")
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return {"PATH": path, "REDIS_URL": valkey, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PS1": "READY> "}


def _interactive(shell, env, *setup):
    terminal = Terminal([shutil.which(shell), *setup[:-1]], env, (160, 40))
    terminal.until("READY> ")
    terminal.type(f"cd ~; {setup[-1]}\r")
    terminal.until("READY> ")
    return terminal


def _zsh_setup(env):
    script = Path(env["HOME"], "_morag-queue")
    script.write_text(SCRIPTS["zsh"])
    return ["-f", "-i", f"autoload -U compinit; compinit -u -D; source {script}"]


LINES = [
    ("morag-queue dra\t", "<drain>"),
    ("morag-queue drain cpu\t", "<drain><cpu:1>"),
    ("morag-queue drain cpu:\t", "<drain><cpu:1>"),
    ("morag-queue drain ha\t", "<drain><has space>"),
    ("morag-queue drain 'has s\t", "<drain><has space>"),
    ("morag-queue tasks --queue=cpu_s\t", "<tasks><--queue=cpu_standard>"),
    ("morag-queue classify rep\t", "<classify><report.txt>"),
]


def _check_lines(terminal):
    try:
        for line, arguments in LINES:
            terminal.type(f"{line}\r")
            assert f"{arguments}END" in terminal.until("READY> ")
        terminal.type("morag-queue drain gpu-\t\t")
        terminal.until("gpu-2")
    finally:
        terminal.close()


def test_bash(shell_env):
    script = Path(shell_env["HOME"], "morag-queue.bash")
    script.write_text(SCRIPTS["bash"])
    _check_lines(_interactive("bash", shell_env, "--norc", "--noprofile", "-i", f"source {script}"))


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(shell_env):
    _check_lines(_interactive("zsh", shell_env, *_zsh_setup(shell_env)))


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("dra", ["drain\tEmpty a worker and take it out of service"]),
        ("drain ", ["cpu:1\tcpu", "gpu-1\tcpu", "gpu-2\tcpu", "has space\tcpu"]),
        ("drain cpu:", ["cpu:1\tcpu"]),
        ("drain 'has", ["has space\tcpu"]),
        ("tasks --queue=cpu_s", ["--queue=cpu_standard\t0 waiting"]),
        ("classify rep", ["report.txt"]),
    ],
)
def test_fish(shell_env, line, offers):
    script = Path(shell_env["HOME"], "morag-queue.fish")
    script.write_text(SCRIPTS["fish"])
    code = f"source {script}; complete -C {json.dumps(f'morag-queue {line}')}"
    argv, home = ["fish", "--no-config", "-c", code], shell_env["HOME"]
    done = subprocess.run(argv, env=shell_env, cwd=home, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.splitlines(), done.stderr) == (offers, "")
