"""A forked program behaves like one that was started by exec, seen from outside and inside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from morag_queue.errors import MoragQueueError
from morag_queue.local import reaper
from morag_queue.local.fork_server import ForkServer, Process, shared
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.waiting import until

REPORT = """
import json, os, sys, tempfile
print(json.dumps({
    "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "session": os.getsid(0), "group": os.getpgrp(),
    "pid": os.getpid(), "name": __name__, "tmp": tempfile.gettempdir(), "stdin": sys.stdin.read(), "first": sys.path[0],
    "threads": len(os.listdir("/proc/self/task")), "fds": [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)],
    "sockets": sum(os.path.realpath(f"/proc/self/fd/{fd}").find("socket:") >= 0 for fd in os.listdir("/proc/self/fd")),
}))
print("trouble", file=sys.stderr)
sys.exit(7)
"""
SLEEP = "import time\nprint('waits', flush=True)\ntime.sleep(600)"

Fork = Callable[..., Process]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as one:
        yield one


@pytest.fixture
def fork(sandbox: Sandbox) -> Fork:
    """Return a function that writes its text to `program.py` in the sandbox and forks it."""

    def start(text: str, *args: str, **env: str) -> Process:
        (sandbox.dir / "program.py").write_text(text)
        return sandbox.fork("program", "program", args, {"PATH": os.environ["PATH"], **env})

    return start


def fork_sleeper(fork: Fork, sandbox: Sandbox) -> Process:
    process = fork(SLEEP)
    until(lambda: "waits" in sandbox.last_lines("program"), 20, lambda: sandbox.last_lines("program"))
    return process


def test_a_forked_program_has_its_own_arguments_environment_directory_session_and_log(
    fork: Fork, sandbox: Sandbox
) -> None:
    process = fork(REPORT, "one", "two", COLOUR="blue")
    assert process.wait(20) == 7
    out, err = sandbox.log("program").read_text().splitlines()
    report = json.loads(out)
    assert report["argv"] == ["one", "two"]
    assert report["env"].items() >= {"COLOUR": "blue", reaper.TOKEN: sandbox.token, "TMPDIR": str(sandbox.dir)}.items()
    assert "HOME" not in report["env"], "the environment of the test must not be inherited"
    assert report["cwd"] == report["tmp"] == report["first"] == str(sandbox.dir)
    assert report["pid"] == report["session"] == report["group"] == process.pid
    assert (report["name"], report["stdin"], err) == ("__main__", "", "trouble")
    assert report["fds"] == ["/dev/null", str(sandbox.log("program")), str(sandbox.log("program"))]
    assert (report["threads"], report["sockets"]) == (1, 0)


def test_a_forked_program_finds_modules_of_its_pythonpath(fork: Fork, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "found_there.py").write_text("print('found')")
    assert fork("import found_there", PYTHONPATH=str(tmp_path)).wait(20) == 0
    assert sandbox.last_lines("program") == "found"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 0, ""),
        ("raise SystemExit('no')", 1, "no"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import atexit\natexit.register(print, 'at exit')", 0, "at exit"),
    ],
)
def test_a_forked_program_exits_like_any_other(text: str, code: int, said: str, fork: Fork, sandbox: Sandbox) -> None:
    assert fork(text).wait(20) == code
    assert sandbox.last_lines("program", 1) == said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_a_forked_program_and_leaves_no_zombie(
    number: signal.Signals, fork: Fork, sandbox: Sandbox
) -> None:
    process = fork_sleeper(fork, sandbox)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(20) == -number
    assert not psutil.pid_exists(process.pid)
    process.kill()


def test_a_forked_program_can_be_stopped_and_continued(fork: Fork, sandbox: Sandbox) -> None:
    process = fork_sleeper(fork, sandbox)
    process.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 20, "it was not stopped")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGCONT)
    until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED, 20, "it was not continued")


def test_the_reaper_finds_a_forked_program_by_the_token_of_its_sandbox(fork: Fork, sandbox: Sandbox) -> None:
    process = fork_sleeper(fork, sandbox)
    with Sandbox() as other:
        (other.dir / "program.py").write_text(SLEEP)
        neighbour = other.fork("program", "program", (), {})
        assert process.pid in {one.pid for one in reaper.processes(sandbox.token)}
        assert neighbour.pid not in {one.pid for one in reaper.processes(sandbox.token)}
    assert not psutil.pid_exists(neighbour.pid)
    assert process.poll() is None


def test_a_program_that_cannot_start_is_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(MoragQueueError, match=r"cannot start program: .*no/where"):
        shared().start("program", (), env={}, cwd=tmp_path / "no" / "where", stdout=log, stderr=log)
    assert shared().start("no.such.module", (), env={}, cwd=tmp_path, stdout=log, stderr=log).wait(20) == 1
    assert "No module named" in log.read_text()


def test_closing_the_fork_server_leaves_its_children_running(tmp_path: Path) -> None:
    fork_server, log = ForkServer(), tmp_path / "log"
    (tmp_path / "program.py").write_text(SLEEP)
    process = fork_server.start("program", (), env={}, cwd=tmp_path, stdout=log, stderr=log)
    try:
        fork_server.close()
        fork_server.close()
        assert psutil.pid_exists(process.pid)
        with pytest.raises(MoragQueueError, match="has ended"):
            process.poll()
    finally:
        os.kill(process.pid, signal.SIGKILL)


def test_the_fork_server_exits_when_its_owner_is_killed(tmp_path: Path) -> None:
    code = """if True:
        from morag_queue.local.fork_server import ForkServer
        server = ForkServer()
        print(server._server.pid, flush=True)
        input()
    """
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        parent.kill()
    until(
        lambda: not psutil.pid_exists(server) or psutil.Process(server).status() == "zombie",
        20,
        "the fork server is still running",
    )
