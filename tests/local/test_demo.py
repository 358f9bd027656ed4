"""`demo` loses a worker and no task."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_queue.local.account import account
from morag_queue.local.demo import DemoResult
from morag_queue.local.formats import write_avi, write_png, write_wav
from morag_queue.local.waiting import until

DEMO = [sys.executable, "-m", "morag_queue", "demo"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files for every kind of worker, enough to keep the worker busy that will be killed."""
    directory = tmp_path / "input"
    directory.mkdir()
    for number in range(8):
        write_png(directory / f"{number}.png", 640, 480, number)
        (directory / f"{number}.txt").write_text("word " * 900 * (number + 1))
    write_wav(directory / "tone.wav", 3, 440)
    write_avi(directory / "film.avi", 12, 0)
    return directory


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The directory for temporary files of the demo, which must be empty at the end."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    yield directory
    until(lambda: not list(directory.iterdir()), 10, lambda: f"left behind: {list(directory.rglob('*'))}")


def environment(temporary: Path, **more: str) -> dict[str, str]:
    """Return an environment with user settings that the demo must ignore."""
    return {**os.environ, "TMPDIR": str(temporary), "MORAG_QUEUE_REDIS_URL": "redis://127.0.0.1:1/0", **more}


@pytest.mark.slow
def test_demo_kills_a_worker_and_loses_no_task(files: Path, temporary: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--json", "--input", str(files), "--work", "4s"],
        env=environment(temporary), capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    account = answer["account"]
    assert {word: account[word] for word in ("attempted", "executed", "lost", "stuck")} == {
        "attempted": 18, "executed": 18, "lost": 0, "stuck": 0,
    }  # fmt: skip
    assert answer["killed_worker"] == "worker-gpu-1"
    assert set(answer["duplicated_tasks"]) <= set(answer["interrupted_tasks"])
    assert account["duplicated"] == len(answer["duplicated_tasks"]) <= 1
    assert account["urgent_wait_seconds"] < account["batch_wait_seconds"]
    assert "simulated" in done.stderr
    assert "Killed worker-gpu-1 (SIGKILL); it held" in done.stderr


@pytest.mark.slow
def test_demo_keep_prints_how_to_connect_and_ctrl_c_exits_with_130(files: Path, temporary: Path) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--keep", "--input", str(files), "--work", "2s"],
        env=environment(temporary), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert demo.stderr is not None
    said = ""
    while "Ctrl-C" not in said:
        line = demo.stderr.readline()
        assert line, f"the demo ended early: {said}"
        said += line
    (url,) = re.findall(r"export REDIS_URL=(\S+)", said)
    stats = subprocess.run(
        [sys.executable, "-m", "morag_queue", "stats", "--json", "--redis-url", url],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=30)

    assert "unset MORAG_QUEUE_REDIS_URL" in said
    assert {one["worker"] for one in json.loads(stats.stdout)["workers"]} == {
        "worker-gpu-1", "worker-gpu-2", "worker-hybrid-1", "worker-cpu-1",
    }  # fmt: skip
    assert re.search(r"lost +0", out)
    assert demo.returncode == 130


def test_ctrl_c_during_the_start_of_the_demo_leaves_nothing_behind(files: Path, temporary: Path) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--json", "--input", str(files)],
        env=environment(temporary), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert demo.stderr is not None
    until(lambda: "starting 4" in demo.stderr.readline(), 30, "the demo did not start")  # type: ignore[union-attr]
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=30)

    assert demo.returncode == 130
    assert json.loads(out) == {"error": "interrupted", "exit": 130}


@pytest.mark.parametrize(("make", "message"), [(False, "no such directory"), (True, "no file in")])
def test_demo_reports_a_directory_without_files(make: bool, message: str, tmp_path: Path, temporary: Path) -> None:
    directory = tmp_path / "nothing"
    if make:
        directory.mkdir()

    done = subprocess.run(
        [*DEMO, "--input", str(directory)], env=environment(temporary), capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, message in done.stderr) == (1 if make else 2, True), done.stderr


def result(ended: list[str], *, stuck: tuple[str, ...] = (), interrupted: tuple[str, ...] = ()) -> DemoResult:
    counted = account(["a", "b"], ["a", "b"], ended, stuck)
    return DemoResult(counted, {"URGENT": 1.0}, "worker-gpu-1", interrupted, (), 1.0)


@pytest.mark.parametrize(
    ("result", "is_good"),
    [
        (result(["a", "b"]), True),
        (result(["a"]), False),
        (result(["a", "b"], stuck=("tag",)), False),
        (result(["a", "b", "b"]), False),
        (result(["a", "b", "b"], interrupted=("b",)), True),
        (result(["a", "b", "c"]), False),
    ],
    ids=["all once", "one lost", "one stuck", "one twice", "one twice that was interrupted", "one unexpected"],
)
def test_a_demo_result_is_good_if_the_kill_explains_every_deviation(result: DemoResult, is_good: bool) -> None:
    assert result.is_good is is_good
